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

void note(std::deque<std::string>& reasons, std::string reason) {
  reasons.push_back(std::move(reason));
  if (reasons.size() > kKeptReasons) reasons.pop_front();
}

}  // namespace

Receiver::Receiver(int fd, std::string greeting, std::size_t queue_depth, std::size_t max_frame_bytes)
    : fd_(fd),
      greeting_(std::move(greeting)),
      queue_depth_(queue_depth),
      limits_{std::make_shared<FramePool>(queue_depth + 2), max_frame_bytes} {
  thread_ = std::thread([this] { run(); });
}

Receiver::~Receiver() { close(); }

std::unique_ptr<FrameBlock> Receiver::recv(double timeout_s) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto ready = [this] { return !queue_.empty() || closing_; };
  if (!arrived_.wait_until(lock, deadline_after(timeout_s), ready)) throw TimedOut("no frame came");
  if (closing_) throw LinkBroken("the receiver is closed");
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
  arrived_.notify_all();
  wake_.signal();
  thread_.join();
  connections_.clear();
  ::close(fd_);
}

void Receiver::run() {
  while (true) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (closing_) return;
    }
    wait_for_input();
  }
}

// A full queue leaves its senders' bytes in the kernel: TCP then slows them down.
void Receiver::wait_for_input() {
  const bool room = has_room();
  std::vector<pollfd> entries{wake_.entry(), {fd_, POLLIN, 0}};
  for (const auto& connection : connections_) entries.push_back({room ? connection->fd() : -1, POLLIN, 0});
  poll(entries.data(), entries.size(), -1);
  if (entries[0].revents) wake_.clear();
  const std::size_t known = connections_.size();
  if (entries[1].revents) accept_one();
  for (std::size_t i = 0; i < known; ++i) serve(*connections_[i], entries[i + 2].revents != 0);
  const auto is_over = [](const auto& connection) {
    return connection->at_end() || !connection->fault().empty();
  };
  connections_.erase(std::remove_if(connections_.begin(), connections_.end(), is_over), connections_.end());
}

void Receiver::accept_one() {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  const int fd = accept4(fd_, reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  auto connection = std::make_unique<Connection>(fd, address_text(address), limits_);
  const auto greeted = send(fd, greeting_.data(), greeting_.size(), MSG_NOSIGNAL);
  if (greeted != static_cast<ssize_t>(greeting_.size())) return;
  connections_.push_back(std::move(connection));
  const std::lock_guard<std::mutex> lock(mutex_);
  ++peers_;
}

// What a full queue left behind goes first; only then is there a place to read into.
void Receiver::serve(Connection& connection, bool readable) {
  deliver_read(connection);
  if (readable && has_room()) {
    connection.read();
    deliver_read(connection);
  }
  if (connection.at_end() || !connection.fault().empty()) end(connection);
}

void Receiver::deliver_read(Connection& connection) {
  while (has_room()) {
    auto block = connection.next_frame();
    if (!block) return;
    deliver(std::move(block));
  }
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
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++frames_;
    wire_bytes_ += block->bytes();
    queue_.push_back(std::move(block));
  }
  arrived_.notify_one();
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
