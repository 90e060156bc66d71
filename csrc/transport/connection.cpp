#include "transport/connection.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "transport/crc32c.hpp"
#include "transport/link.hpp"

namespace hyperlane {
namespace {

constexpr std::size_t kStagingBytes = 16 << 10;

Header header_at(const std::uint8_t* bytes) {
  Header header;
  std::memcpy(&header, bytes, sizeof header);
  return header;
}

}  // namespace

Connection::Connection(int fd, std::string peer, Limits limits)
    : fd_(fd), peer_(std::move(peer)), limits_(std::move(limits)), staging_(kStagingBytes) {}

Connection::~Connection() { close(fd_); }

void Connection::read() {
  if (!block_) {
    read_staging();
    if (!start_frame()) return;
    move_staged();
  }
  while (filled_ < block_->bytes() && read_block()) sum();
}

std::unique_ptr<FrameBlock> Connection::next_frame() {
  if (!block_ && !start_frame()) return nullptr;
  move_staged();
  if (filled_ < block_->bytes()) return nullptr;
  return finish_frame();
}

void Connection::read_staging() {
  std::memmove(staging_.data(), staging_.data() + staged_start_, staged());
  staged_stop_ = staged();
  staged_start_ = 0;
  const long got = recv(fd_, staging_.data() + staged_stop_, staging_.size() - staged_stop_, MSG_DONTWAIT);
  if (accept_bytes(got)) staged_stop_ += static_cast<std::size_t>(got);
}

bool Connection::read_block() {
  const std::size_t wanted = std::min(kChunkBytes, block_->bytes() - filled_);
  const long got = recv(fd_, block_->data() + filled_, wanted, MSG_DONTWAIT);
  if (!accept_bytes(got)) return false;
  filled_ += static_cast<std::size_t>(got);
  return true;
}

bool Connection::accept_bytes(long got) {
  if (got > 0) return true;
  if (got < 0 && errno != EAGAIN && errno != EINTR) fault_ = error_text(errno);
  if (got == 0 && (block_ || staged())) fault_ = "it ended in the middle of a frame";
  if (got == 0 && !block_ && !staged()) at_end_ = true;
  return false;
}

// The header is checked before anything is allocated by it.
bool Connection::start_frame() {
  if (staged() < kHeaderBytes || !fault_.empty()) return false;
  const Header header = header_at(staging_.data() + staged_start_);
  fault_ = header_fault(header, limits_.max_frame_bytes);
  if (!fault_.empty()) return false;
  block_ = limits_.pool->take(header.frame_bytes(), header.prefix_bytes());
  filled_ = summed_ = 0;
  crc_ = 0;
  return true;
}

void Connection::move_staged() {
  const std::size_t bytes = std::min(staged(), block_->bytes() - filled_);
  std::memcpy(block_->data() + filled_, staging_.data() + staged_start_, bytes);
  staged_start_ += bytes;
  filled_ += bytes;
  sum();
}

// Called while the bytes are in the cache.
void Connection::sum() {
  const std::size_t sum_stop = std::min(filled_, block_->bytes() - kCrcBytes);
  crc_ = crc32c(block_->data() + summed_, sum_stop - summed_, crc_);
  summed_ = sum_stop;
}

std::unique_ptr<FrameBlock> Connection::finish_frame() {
  std::uint32_t stated;
  std::memcpy(&stated, block_->data() + summed_, sizeof stated);
  const Header header = header_at(block_->data());
  if (stated != crc_)
    fault_ = "the checksum of step " + std::to_string(header.step) + " does not match its bytes";
  else
    fault_ = runs_fault(header, block_->data() + kHeaderBytes);
  if (fault_.empty() && header.kind == 0) fault_ = "it sent a greeting, which only a receiver does";
  if (!fault_.empty()) return nullptr;
  ++frames_;
  block_->payload_start = header.prefix_bytes();
  block_->payload_bytes = header.payload_bytes;
  block_->arrived_ns = std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
  return std::move(block_);
}

}  // namespace hyperlane
