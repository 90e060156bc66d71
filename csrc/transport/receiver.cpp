#include "transport/receiver.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>

namespace hyperlane {
namespace {

constexpr std::size_t kMaxConnections = 64;
constexpr std::size_t kKeptReasons = 64;
// A caller that stays away for so long is busy, and the thread reads. Until then the kernel's buffers do.
constexpr long kIdleNs = 5000000;

// Of Receiver::pace_: after a busy wait in vain, so many frames must come fast before the next one.
constexpr int kSlow = -64, kFast = 8;

std::string address_text(const sockaddr_storage& address) {
  char host[INET6_ADDRSTRLEN] = "?";
  if (address.ss_family == AF_INET6) {
    const auto& six = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &six.sin6_addr, host, sizeof host);
    return "[" + std::string(host) + "]:" + std::to_string(ntohs(six.sin6_port));
  }
  const auto& four = reinterpret_cast<const sockaddr_in&>(address);
  inet_ntop(AF_INET, &four.sin_addr, host, sizeof host);
  return std::string(host) + ":" + std::to_string(ntohs(four.sin_port));
}

void poll_until(std::vector<pollfd>& entries, Clock::time_point deadline) {
  if (deadline == Clock::time_point::max()) {
    poll(entries.data(), entries.size(), -1);
    return;
  }
  const auto now = Clock::now();
  const auto left = deadline > now ? deadline - now : Clock::duration::zero();
  const auto left_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(left).count();
  const timespec wait{static_cast<time_t>(left_ns / 1000000000), static_cast<long>(left_ns % 1000000000)};
  ppoll(entries.data(), entries.size(), &wait, nullptr);
}

void note(std::deque<std::string>& reasons, std::string reason) {
  reasons.push_back(std::move(reason));
  if (reasons.size() > kKeptReasons) reasons.pop_front();
}

}  // namespace

Receiver::Receiver(int fd, std::string greeting, std::size_t queue_depth, std::size_t max_frame_bytes,
                   long spin_us)
    : fd_(fd),
      greeting_(std::move(greeting)),
      queue_depth_(queue_depth),
      limits_{std::make_shared<FramePool>(queue_depth + 2), max_frame_bytes},
      spin_(spin_us) {
  thread_ = std::thread([this] { run(); });
}

Receiver::~Receiver() { close(); }

// A caller's stay in `recv`, with the lock held at both ends.
class Receiver::Visit {
 public:
  explicit Visit(Receiver& receiver) : receiver_(receiver) { ++receiver_.callers_; }
  ~Visit() {
    --receiver_.callers_;
    receiver_.left_at_ = Clock::now();
    if (!std::exchange(receiver_.idle_is_set_, true)) receiver_.idle_.set(kIdleNs);
    if (receiver_.closing_) receiver_.changed_.notify_all();
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

 private:
  Receiver& receiver_;
};

std::unique_ptr<FrameBlock> Receiver::recv(double timeout_s) {
  const auto deadline = deadline_after(timeout_s);
  std::unique_lock<std::mutex> lock(mutex_);
  const Visit visit(*this);
  while (true) {
    if (closing_) throw LinkBroken("the receiver is closed");
    if (!queue_.empty()) return take_first();
    if (Clock::now() >= deadline) throw TimedOut("no frame came");
    if (reader_ == Reader::none) {
      read_as(Reader::caller, deadline, lock);
    } else {
      if (reader_ == Reader::thread) wake_.signal();  // it makes way
      changed_.wait_until(lock, deadline);
    }
  }
}

bool Receiver::ready() {
  std::unique_lock<std::mutex> lock(mutex_);
  const Visit visit(*this);
  if (queue_.empty() && !closing_ && reader_ == Reader::none)
    read_as(Reader::caller, Clock::time_point::min(), lock);
  return !queue_.empty();
}

std::unique_ptr<FrameBlock> Receiver::take_first() {
  auto block = std::move(queue_.front());
  queue_.pop_front();
  if (queue_.size() + 1 == queue_depth_) wake_.signal();  // there is room again
  return block;
}

void Receiver::close() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) return;
    closing_ = true;
  }
  changed_.notify_all();
  wake_.signal();
  thread_.join();
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return callers_ == 0; });
  connections_.clear();
  ::close(fd_);
}

void Receiver::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!closing_) {
    if (callers_ == 0 && Clock::now() - left_at_ >= std::chrono::nanoseconds(kIdleNs))
      read_as(Reader::thread, Clock::time_point::max(), lock);
    else
      wait_for_turn(lock);
  }
}

// Setting a timer costs more than receiving a small frame: it is set once for all the callers of its time,
// and again where one of them left since. While one is in `recv` it stays unset.
void Receiver::wait_for_turn(std::unique_lock<std::mutex>& lock) {
  pollfd entries[] = {wake_.entry(), idle_.entry()};
  lock.unlock();
  poll(entries, 2, -1);
  lock.lock();
  if (entries[0].revents && !closing_) wake_.clear();
  if (!entries[1].revents || !idle_.clear()) return;
  idle_is_set_ = callers_ == 0 && Clock::now() - left_at_ < std::chrono::nanoseconds(kIdleNs);
  if (idle_is_set_) idle_.set(kIdleNs);
}

void Receiver::read_as(Reader reader, Clock::time_point deadline, std::unique_lock<std::mutex>& lock) {
  reader_ = reader;
  lock.unlock();
  if (reader == Reader::thread) pace_ = std::min(pace_, 0);
  read_sockets(deadline);
  lock.lock();
  if (std::exchange(woken_, false) && !closing_) wake_.clear();
  reader_ = Reader::none;
  changed_.notify_all();
}

// A full queue leaves its senders' bytes in the kernel: TCP then slows them down. What was read before the
// queue was full goes first.
void Receiver::read_sockets(Clock::time_point deadline) {
  bool delivered = false;
  for (const auto& connection : connections_) delivered |= deliver_read(*connection);
  if (!delivered) wait_for_input(deadline);
  const auto is_over = [](const auto& connection) {
    return connection->at_end() || !connection->fault().empty();
  };
  for (const auto& connection : connections_)
    if (is_over(connection)) end(*connection);
  connections_.erase(std::remove_if(connections_.begin(), connections_.end(), is_over), connections_.end());
}

void Receiver::wait_for_input(Clock::time_point deadline) {
  if (deadline == Clock::time_point::min()) return poll_once(deadline);
  const auto since = Clock::now();
  if (pace_ > 0) {
    if (wait_busily(since)) return;
    pace_ = kSlow;
  }
  poll_once(deadline);
  if (Clock::now() - since > spin_)
    pace_ = std::min(pace_, 0);
  else
    pace_ = std::min(pace_ + 1, kFast);
}

// Whether a frame came.
bool Receiver::wait_busily(Clock::time_point since) {
  while (Clock::now() - since < spin_) {
    bool delivered = false;
    for (const auto& connection : connections_) {
      if (!has_room()) return false;
      connection->read();
      delivered |= deliver_read(*connection);
    }
    if (delivered) return true;
  }
  return false;
}

void Receiver::poll_once(Clock::time_point deadline) {
  const bool room = has_room();
  entries_.assign({wake_.entry(), {fd_, POLLIN, 0}});
  for (const auto& connection : connections_) entries_.push_back({room ? connection->fd() : -1, POLLIN, 0});
  poll_until(entries_, deadline);
  woken_ = entries_[0].revents != 0;
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    if (!entries_[i + 2].revents || !has_room()) continue;
    connections_[i]->read();
    deliver_read(*connections_[i]);
  }
  if (entries_[1].revents) accept_one();
}

void Receiver::accept_one() {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  const int fd = accept4(fd_, reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  const int on = 1, off = 0;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // Nothing but the greeting goes back, so that no acknowledgement can ride on an answer: each frame would
  // have one sent at once, which costs the reader more than the frame itself.
  setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &off, sizeof off);
  auto connection = std::make_unique<Connection>(fd, address_text(address), limits_);
  const auto greeted = send(fd, greeting_.data(), greeting_.size(), MSG_NOSIGNAL);
  if (greeted != static_cast<ssize_t>(greeting_.size())) return;
  make_place();
  connections_.push_back(std::move(connection));
  const std::lock_guard<std::mutex> lock(mutex_);
  ++peers_;
}

// Connections that never sent a frame do not shut out those that will.
void Receiver::make_place() {
  if (connections_.size() < kMaxConnections) return;
  const auto is_idle = [](const auto& connection) {
    return connection->frames() == 0 && connection->fault().empty();
  };
  const auto oldest = std::find_if(connections_.begin(), connections_.end(), is_idle);
  if (oldest != connections_.end()) (*oldest)->cut("it sent nothing, and its place was needed");
}

// Whether there was a whole frame.
bool Receiver::deliver_read(Connection& connection) {
  bool delivered = false;
  while (has_room()) {
    auto block = connection.next_frame();
    if (!block) break;
    deliver(std::move(block));
    delivered = true;
  }
  return delivered;
}

void Receiver::end(const Connection& connection) {
  const std::lock_guard<std::mutex> lock(mutex_);
  --peers_;
  const std::string& fault = connection.fault();
  const std::string who = "connection from " + connection.peer();
  const std::string after = " after " + std::to_string(connection.frames()) + " frames";
  if (!fault.empty()) note(rejected_, who + after + ": " + fault);
  if (connection.frames())
    note(departed_, who + after + ": " + (fault.empty() ? "the sender closed it" : fault));
}

bool Receiver::has_room() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return queue_.size() < queue_depth_;
}

void Receiver::deliver(std::unique_ptr<FrameBlock> block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++frames_;
  wire_bytes_ += block->bytes();
  queue_.push_back(std::move(block));
  changed_.notify_all();
}

std::vector<std::string> Receiver::rejected() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {rejected_.begin(), rejected_.end()};
}

std::vector<std::string> Receiver::departed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {departed_.begin(), departed_.end()};
}

std::size_t Receiver::peers() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return peers_;
}

std::uint64_t Receiver::frames() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return frames_;
}

std::uint64_t Receiver::wire_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return wire_bytes_;
}

}  // namespace hyperlane
