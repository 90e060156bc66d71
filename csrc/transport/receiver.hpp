// The receiving end of data links. Whole, checked frames wait in a bounded queue. The sockets are read by
// whoever is free: a caller that waits in `recv`, so that a frame comes without waking a second thread, or
// else a thread of our own.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "transport/blocks.hpp"
#include "transport/connection.hpp"
#include "transport/link.hpp"
#include "transport/wake.hpp"

namespace hyperlane {

class Receiver {
 public:
  // Takes the listening socket; `greeting` is the whole frame that each connection is greeted with. A caller
  // waits busily for up to `spin_us` where frames have come about as fast, and otherwise sleeps at once.
  Receiver(int fd, std::string greeting, std::size_t queue_depth, std::size_t max_frame_bytes, long spin_us);
  ~Receiver();

  // The next whole, checked frame of any connection. Throws TimedOut, and LinkBroken once closed.
  std::unique_ptr<FrameBlock> recv(double timeout_s);

  // Whether `recv` has a frame without waiting.
  bool ready();

  void close();

  std::vector<std::string> rejected() const;  // why connections were cut, the latest last
  std::vector<std::string> departed() const;  // connections that had delivered frames and are gone
  std::size_t peers() const;
  std::uint64_t frames() const;
  std::uint64_t wire_bytes() const;

 private:
  enum class Reader { none, caller, thread };
  class Visit;

  void run();
  void wait_for_turn(std::unique_lock<std::mutex>& lock);
  void read_as(Reader reader, Clock::time_point deadline, std::unique_lock<std::mutex>& lock);
  void read_sockets(Clock::time_point deadline);
  std::unique_ptr<FrameBlock> take_first();
  void accept_one();
  void make_place();
  void wait_for_input(Clock::time_point deadline);
  bool wait_busily(Clock::time_point since);
  void poll_once(Clock::time_point deadline);
  bool deliver_read(Connection& connection);
  void end(const Connection& connection);
  bool has_room() const;
  void deliver(std::unique_ptr<FrameBlock> block);

  const int fd_;
  const std::string greeting_;
  const std::size_t queue_depth_;
  const Connection::Limits limits_;
  const std::chrono::microseconds spin_;
  std::vector<std::unique_ptr<Connection>> connections_;  // of the reader, as are these two
  std::vector<pollfd> entries_;
  bool woken_ = false;
  int pace_ = 0;  // above 0: frames come fast enough to wait for them busily
  Wake wake_;
  Timer idle_;  // due when callers may have stayed away
  bool idle_is_set_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<FrameBlock>> queue_;
  std::deque<std::string> rejected_, departed_;
  std::size_t peers_ = 0;
  std::uint64_t frames_ = 0, wire_bytes_ = 0;
  Reader reader_ = Reader::none;
  std::size_t callers_ = 0;
  Clock::time_point left_at_{};  // when the last caller did
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace hyperlane
