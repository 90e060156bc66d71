// A string of rANS as a warp of a decoder reads it: a ring in shared memory, filled ahead of what is read.
#pragma once
#include "quant/device_math.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kFillBytes = 128;    // by a warp at a time, of four bytes a lane
constexpr unsigned kFillsInFlight = 4;  // of those that go on while symbols are decoded
constexpr unsigned kLeastRing = 2048;

__device__ __forceinline__ void copy_async(unsigned to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kLeft>
__device__ __forceinline__ void wait_async() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Positions count from the word of four bytes in which the string begins. What is read beyond its end is some
// bytes of the ring.
class Feed {
 public:
  // `ring_bytes`, a power of two, from kLeastRing on. The string is `bytes` bytes from `string` on.
  __device__ __forceinline__ Feed(unsigned char* ring, unsigned ring_bytes, const unsigned char* string,
                                  unsigned bytes, unsigned lane)
      : ring_(ring), mask_(ring_bytes - 1), lane_(lane) {
    lead_ = reinterpret_cast<std::uintptr_t>(string) & 3;
    source_ = string - lead_;
    words_end_ = (lead_ + bytes + 3) / 4 * 4;
    const unsigned first = min(ring_bytes - 2 * kFillBytes, words_end_);
    while (filled_ < first) fill();
    wait_async<0>();
    __syncwarp();
  }

  __device__ __forceinline__ unsigned lead() const { return lead_; }
  __device__ __forceinline__ unsigned byte(unsigned position) const { return ring_[position & mask_]; }

  // After at most 128 bytes; `position` is where the string goes on.
  __device__ __forceinline__ void refill(unsigned position) {
    if (filled_ < words_end_ && filled_ - position <= mask_ - 2 * kFillBytes) fill();
    commit_async();
    wait_async<kFillsInFlight>();
    __syncwarp();
  }

 private:
  __device__ __forceinline__ void fill() {
    const unsigned at = filled_ + 4 * lane_;
    if (at < words_end_)
      copy_async(static_cast<unsigned>(__cvta_generic_to_shared(ring_ + (at & mask_))), source_ + at);
    filled_ += kFillBytes;
  }

  unsigned char* ring_;
  unsigned mask_, lane_, lead_, words_end_, filled_ = 0;
  const unsigned char* source_;
};

}  // namespace
}  // namespace hyperlane
