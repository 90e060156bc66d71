// The receiving end of data links: one thread accepts, reads and checks; whole frames wait in a bounded
// queue.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "transport/blocks.hpp"
#include "transport/connection.hpp"
#include "transport/link.hpp"
#include "transport/wake.hpp"

namespace hyperlane {

class Receiver {
 public:
  // Takes the listening socket; `greeting` is the whole frame that each connection is greeted with.
  Receiver(int fd, std::string greeting, std::size_t queue_depth, std::size_t max_frame_bytes);
  ~Receiver();

  // The next whole, checked frame of any connection. Throws TimedOut, and LinkBroken once closed.
  std::unique_ptr<FrameBlock> recv(double timeout_s);

  void close();

  std::vector<std::string> rejected() const;  // why connections were cut, the latest last
  std::vector<std::string> departed() const;  // connections that had delivered frames and are gone
  std::size_t peers() const;
  std::uint64_t frames() const;
  std::uint64_t wire_bytes() const;

 private:
  void run();
  void wait_for_input();
  void accept_one();
  void serve(Connection& connection, bool readable);
  void deliver_read(Connection& connection);
  void end(const Connection& connection);
  bool has_room() const;
  void deliver(std::unique_ptr<FrameBlock> block);

  const int fd_;
  const std::string greeting_;
  const std::size_t queue_depth_;
  const Connection::Limits limits_;
  Wake wake_;
  std::vector<std::unique_ptr<Connection>> connections_;  // of the thread

  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::unique_ptr<FrameBlock>> queue_;
  std::deque<std::string> rejected_, departed_;
  std::size_t peers_ = 0;
  std::uint64_t frames_ = 0, wire_bytes_ = 0;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace hyperlane
