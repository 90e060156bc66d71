// Bits behind bits; all is internal.
#pragma once
#include <cstdint>
#include <cstring>

namespace hyperlane {
namespace {

// Appends bits to bytes.
class BitWriter {
 public:
  explicit BitWriter(std::uint8_t* out = nullptr) : out_(out) {}

  // Up to 32 bits; 8 bytes from the current one are overwritten.
  void append(std::uint64_t bits, unsigned count) {
    waiting_ |= bits << filled_;
    filled_ += count;
    std::memcpy(out_, &waiting_, sizeof waiting_);
    out_ += filled_ / 8;
    waiting_ >>= filled_ & ~7u;
    filled_ %= 8;
  }

 private:
  std::uint8_t* out_;
  std::uint64_t waiting_ = 0;
  unsigned filled_ = 0;
};

}  // namespace
}  // namespace hyperlane
