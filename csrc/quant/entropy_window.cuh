// Which rows of a payload of `int4` are coded, and where the others stand: a scan over all rows' states, by every
// thread block for itself, that keeps what lies in the block's window.
#pragma once
#include "quant/entropy_launch.cuh"
#include "quant/rotated_place.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kScanRows = 16;  // of a thread at a time

// In shared memory, of a thread block.
struct Window {
  unsigned coded;             // in all
  unsigned long long raw;     // bytes of all rows that are not coded
  unsigned long long sums[4];  // for `block_sum`
  unsigned warp_coded[32];
  unsigned long long warp_raw[32];
  unsigned row[kWindowRows];                // of coded row `first_coded` + i
  unsigned long long raw_at[kWindowRows];  // of row `first_row` + i, from the first raw row
};

struct WindowRange {
  std::size_t first, count;  // of coded rows, and of rows
};

__device__ __forceinline__ unsigned raw_bytes(unsigned state, unsigned width) {
  return state == kHalf ? 2 * width : state == kSingle ? 4 * width : 0;
}

template <class T>
__device__ __forceinline__ T inclusive_sum(T value, unsigned lane) {
#pragma unroll
  for (unsigned step = 1; step < 32; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, value, step);
    if (lane >= step) value += before;
  }
  return value;
}

// By all threads of the block, which has whole warps. `state_of(row)` is the row's state.
template <class StateOf>
__device__ __forceinline__ void find_rows(StateOf state_of, std::size_t row_count, unsigned width, WindowRange range,
                                          Window& window) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  std::size_t coded_before = 0;
  unsigned long long raw_before = 0;
  for (std::size_t base = 0; base < row_count; base += kScanRows * blockDim.x) {
    const std::size_t first = base + kScanRows * threadIdx.x;
    unsigned states = 0, coded = 0;
    unsigned long long raw = 0;
#pragma unroll
    for (unsigned i = 0; i < kScanRows; ++i) {
      const unsigned state = first + i < row_count ? state_of(first + i) : kZero;
      states |= state << (2 * i);
      coded += state == kCoded;
      raw += raw_bytes(state, width);
    }
    const unsigned coded_through = inclusive_sum(coded, lane);
    const unsigned long long raw_through = inclusive_sum(raw, lane);
    if (lane == 31) window.warp_coded[warp] = coded_through, window.warp_raw[warp] = raw_through;
    __syncthreads();
    std::size_t at = coded_before + coded_through - coded;
    unsigned long long raw_at = raw_before + raw_through - raw;
    for (unsigned i = 0; i < warps; ++i) {
      if (i < warp) at += window.warp_coded[i], raw_at += window.warp_raw[i];
      coded_before += window.warp_coded[i], raw_before += window.warp_raw[i];
    }
    for (unsigned i = 0; i < kScanRows && first + i < row_count; ++i) {
      const unsigned state = states >> (2 * i) & 3;
      if (first + i - range.first < range.count) window.raw_at[first + i - range.first] = raw_at;
      if (state == kCoded) {
        if (at - range.first < range.count) window.row[at - range.first] = static_cast<unsigned>(first + i);
        ++at;
      }
      raw_at += raw_bytes(state, width);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) window.coded = static_cast<unsigned>(coded_before), window.raw = raw_before;
  __syncthreads();
}

// Adds what the threads of some whole warps have to a sum in shared memory that is 0 before.
__device__ __forceinline__ void add_to(unsigned long long* sum, unsigned long long value) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0 && value) atomicAdd(sum, value);
}

}  // namespace
}  // namespace hyperlane
