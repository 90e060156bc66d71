#include "transport/sender.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "transport/crc32c.hpp"

namespace hyperlane {
namespace {

// A small frame goes out from the caller's thread where nothing waits before it: no hand-over, lower latency.
constexpr std::size_t kDirectBytes = 256 << 10;

void make_ready(Message& message) {
  const std::size_t payload_stop = message.prefix.size() + message.payload_bytes;
  if (message.ready == 0) {
    message.crc = crc32c(message.prefix.data(), message.prefix.size());
    message.ready = message.prefix.size();
  }
  const std::size_t bytes = std::min(kChunkBytes, payload_stop - message.ready);
  message.crc = crc32c(message.payload + (message.ready - message.prefix.size()), bytes, message.crc);
  message.ready += bytes;
  if (message.ready == payload_stop) message.ready += sizeof message.crc;
}

// What is ready and not yet sent.
struct Pieces {
  iovec parts[3];
  int count = 0;
  std::size_t skip;

  void add(const void* data, std::size_t bytes) {
    const std::size_t skipped = std::min(skip, bytes);
    skip -= skipped;
    if (bytes > skipped)
      parts[count++] = {const_cast<char*>(static_cast<const char*>(data)) + skipped, bytes - skipped};
  }
};

Pieces ready_pieces(const Message& message) {
  Pieces pieces{};
  pieces.skip = message.sent;
  pieces.add(message.prefix.data(), message.prefix.size());
  pieces.add(message.payload, std::min(message.ready - message.prefix.size(), message.payload_bytes));
  if (message.ready == message.frame_bytes()) pieces.add(&message.crc, sizeof message.crc);
  return pieces;
}

}  // namespace

Sender::Sender(int fd, std::size_t queue_depth) : fd_(fd), queue_depth_(queue_depth) {
  thread_ = std::thread([this] { run(); });
}

Sender::~Sender() { close(); }

std::uint64_t Sender::submit(Message message, double timeout_s) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto deadline = deadline_after(timeout_s);
  const auto may_go = [this] { return queue_.size() < queue_depth_ || !failure_.empty(); };
  if (!changed_.wait_until(lock, deadline, may_go)) throw TimedOut("the send queue stayed full");
  require_unbroken();
  const std::uint64_t handle = ++submitted_;
  if (queue_.empty() && message.frame_bytes() <= kDirectBytes) {
    std::string failure;
    const Progress progress = advance(message, failure);
    if (progress == Progress::broken) fail(failure);
    require_unbroken();
    if (progress == Progress::done) {
      finish(std::move(message));
      return handle;
    }
  }
  queue_.push_back(std::move(message));
  wake_.signal();
  return handle;
}

void Sender::wait(std::uint64_t handle, double timeout_s) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto is_over = [&] { return completed_ >= handle || !failure_.empty(); };
  if (!changed_.wait_until(lock, deadline_after(timeout_s), is_over))
    throw TimedOut("the frame is not sent yet");
  if (completed_ < handle) require_unbroken();
}

void Sender::close() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) return;
    closing_ = true;
    fail("the link is closed");
  }
  wake_.signal();
  thread_.join();
  ::close(fd_);
  for (Message& message : queue_) spent_.push_back(std::move(message));
  queue_.clear();
}

std::vector<Message> Sender::take_spent() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(spent_, {});
}

std::uint64_t Sender::submitted() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return submitted_;
}

std::uint64_t Sender::frames() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return completed_;
}

std::uint64_t Sender::wire_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return wire_bytes_;
}

void Sender::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!closing_) {
    if (!failure_.empty())
      poll_unlocked(lock, 0);
    else if (queue_.empty())
      watch_peer(lock);
    else
      send_front(lock);
  }
}

// The other end never speaks after its greeting: whatever can be read is its end.
void Sender::watch_peer(std::unique_lock<std::mutex>& lock) {
  poll_unlocked(lock, POLLIN);
  char byte;
  const ssize_t got = recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got == 0) fail("the receiver closed the link");
  if (got > 0) fail("the receiver sent bytes, which it never does after its greeting");
  if (got < 0 && errno != EAGAIN && errno != EINTR) fail(error_text(errno));
}

void Sender::send_front(std::unique_lock<std::mutex>& lock) {
  Message& message = queue_.front();  // submit only appends, which moves nothing in a deque
  std::string failure;
  lock.unlock();
  const Progress progress = advance(message, failure);
  lock.lock();
  if (progress == Progress::broken) return fail(failure);
  if (progress == Progress::blocked) return poll_unlocked(lock, POLLOUT);
  finish(std::move(message));
  queue_.pop_front();
}

void Sender::poll_unlocked(std::unique_lock<std::mutex>& lock, short events) {
  pollfd entries[] = {wake_.entry(), {events ? fd_ : -1, events, 0}};
  lock.unlock();
  poll(entries, 2, -1);
  wake_.clear();
  lock.lock();
}

Sender::Progress Sender::advance(Message& message, std::string& failure) {
  while (message.sent < message.frame_bytes()) {
    if (message.sent == message.ready) make_ready(message);
    Pieces pieces = ready_pieces(message);
    msghdr header{};
    header.msg_iov = pieces.parts;
    header.msg_iovlen = static_cast<std::size_t>(pieces.count);
    const ssize_t sent = sendmsg(fd_, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      message.sent += static_cast<std::size_t>(sent);
    } else if (errno == EAGAIN) {
      return Progress::blocked;
    } else if (errno != EINTR) {
      failure = error_text(errno);
      return Progress::broken;
    }
  }
  return Progress::done;
}

void Sender::finish(Message message) {
  ++completed_;
  wire_bytes_ += message.frame_bytes();
  spent_.push_back(std::move(message));
  changed_.notify_all();
}

void Sender::fail(std::string failure) {
  if (failure_.empty()) failure_ = std::move(failure);
  changed_.notify_all();
}

void Sender::require_unbroken() const {
  if (!failure_.empty()) throw LinkBroken(failure_);
}

}  // namespace hyperlane
