// The sending end of a data link: a bounded queue and the thread that empties it.
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

#include "transport/link.hpp"
#include "transport/wake.hpp"

namespace hyperlane {

// One frame without its checksum. `keep` keeps the payload's memory valid and is dropped by the caller's
// thread only.
struct Message {
  std::string prefix;
  const std::uint8_t* payload;
  std::size_t payload_bytes;
  std::shared_ptr<void> keep;

  std::size_t sent = 0, ready = 0;  // ready: how far the checksum has come, and then it too
  std::uint32_t crc = 0;
  std::size_t frame_bytes() const { return prefix.size() + payload_bytes + sizeof crc; }
};

class Sender {
 public:
  Sender(int fd, std::size_t queue_depth);  // takes the connected socket
  ~Sender();

  // A handle for `wait`. Waits while the queue is full. Throws TimedOut, LinkBroken.
  std::uint64_t submit(Message message, double timeout_s);

  // Until the frame of that handle, and with it every earlier one, is in the kernel's hands. Throws as
  // `submit`.
  void wait(std::uint64_t handle, double timeout_s);

  void close();  // what is queued is dropped

  // Frames whose payload is no longer needed.
  std::vector<Message> take_spent();

  std::uint64_t submitted() const;
  std::uint64_t frames() const;
  std::uint64_t wire_bytes() const;

 private:
  enum class Progress { done, blocked, broken };

  void run();
  void watch_peer(std::unique_lock<std::mutex>& lock);
  void send_front(std::unique_lock<std::mutex>& lock);
  void poll_unlocked(std::unique_lock<std::mutex>& lock, short events);
  Progress advance(Message& message, std::string& failure);
  void finish(Message message);
  void fail(std::string failure);
  void require_unbroken() const;

  int fd_;
  const std::size_t queue_depth_;
  Wake wake_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Message> queue_;
  std::vector<Message> spent_;
  std::uint64_t submitted_ = 0, completed_ = 0, wire_bytes_ = 0;
  std::string failure_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace hyperlane
