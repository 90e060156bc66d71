// A string of rANS as a warp of a decoder reads it: a ring in shared memory, filled ahead of what is read.
#pragma once
#include "quant/device_math.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kFillBytes = 128;    // by a warp at a time, of four bytes a lane
constexpr unsigned kFillsInFlight = 2;  // refills of twice as much that go on while symbols are decoded
constexpr unsigned kLeastRing = 2048;

__device__ __forceinline__ void copy_async(unsigned to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ __forceinline__ unsigned shared_address(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}
// By addresses in shared memory, which take an instruction less than pointers.
__device__ __forceinline__ unsigned load_word(unsigned address) {
  unsigned word;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
  return word;
}
__device__ __forceinline__ unsigned load_byte(unsigned address) {
  unsigned byte;
  asm volatile("ld.shared.u8 %0, [%1];" : "=r"(byte) : "r"(address) : "memory");
  return byte;
}
template <int kLeft>
__device__ __forceinline__ void wait_async() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Positions count from the word of four bytes in which the string begins. What is read beyond its end is some
// bytes of the ring.
class Feed {
 public:
  // `ring_bytes`, a power of two, from kLeastRing on, which `ring` is a multiple of. The string is `bytes`
  // bytes from `string` on.
  __device__ __forceinline__ Feed(unsigned ring, unsigned ring_bytes, const unsigned char* string,
                                  unsigned bytes, unsigned lane)
      : ring_(ring), mask_(ring_bytes - 1), lane_(lane) {
    lead_ = reinterpret_cast<std::uintptr_t>(string) & 3;
    source_ = string - lead_;
    words_end_ = (lead_ + bytes + 3) / 4 * 4;
    const unsigned first = min(ring_bytes - 2 * kFillBytes, words_end_);
    while (filled_ < first) fill();
    commit_async();  // what is not committed is not waited for
    wait_async<0>();
    __syncwarp();
  }

  __device__ __forceinline__ unsigned lead() const { return lead_; }
  __device__ __forceinline__ unsigned byte(unsigned position) const {
    return load_byte((position & mask_) | ring_);
  }

  // After at most 256 bytes; `position` is where the string goes on.
  __device__ __forceinline__ void refill(unsigned position) {
    if (filled_ < words_end_ && filled_ - position <= mask_ - 4 * kFillBytes) fill(), fill();
    commit_async();
    wait_async<kFillsInFlight>();
    __syncwarp();
  }

 private:
  __device__ __forceinline__ void fill() {
    const unsigned at = filled_ + 4 * lane_;
    if (at < words_end_) copy_async((at & mask_) | ring_, source_ + at);
    filled_ += kFillBytes;
  }

  unsigned ring_, mask_, lane_, lead_, words_end_, filled_ = 0;
  const unsigned char* source_;
};

}  // namespace
}  // namespace hyperlane
