// Which rows of a payload of `int4` are coded, and where the others stand: a scan over all rows' states, by
// every thread block for itself, that keeps what lies in the block's window.
#pragma once
#include "quant/entropy_launch.cuh"
#include "quant/rotated_place.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kScanRows = 16;  // of a thread at a time

// In shared memory, of a thread block.
struct Window {
  unsigned coded;              // in all
  unsigned long long raw;      // bytes of all rows that are not coded
  unsigned long long sums[4];  // for `add_to`
  uint2 warp_sums[32];
  unsigned row[kWindowRows];               // of coded row `first_coded` + i
  unsigned long long raw_at[kWindowRows];  // of row `first_row` + i, from the first raw row
};

struct WindowRange {
  std::size_t first, count;  // of coded rows, and of rows
};

// Twice the width.
__device__ __forceinline__ unsigned raw_units(unsigned state) {
  return state == kHalf ? 1 : state == kSingle ? 2 : 0;
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

// By all threads of the block, which has whole warps. `states_at(row)` are 16 rows' states, two bits each,
// the first row's lowest.
template <class StatesAt>
__device__ __forceinline__ void find_rows(StatesAt states_at, std::size_t row_count, unsigned width,
                                          WindowRange range, Window& window) {
  constexpr unsigned kOnes = 0x55555555u;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  unsigned coded_before = 0, units_before = 0;
  for (std::size_t base = 0; base < row_count; base += kScanRows * blockDim.x) {
    const std::size_t first = base + kScanRows * threadIdx.x;
    unsigned states = 0xFFFFFFFFu;  // rows that are not there are like zeros
    if (first < row_count) states = states_at(first);
    if (first + kScanRows > row_count && first < row_count) states |= 0xFFFFFFFFu << 2 * (row_count - first);
    const unsigned low = states & kOnes, high = states >> 1 & kOnes;
    const unsigned coded = kScanRows - __popc(low | high);
    const unsigned units = __popc(low & ~high) + 2 * __popc(high & ~low);
    const unsigned coded_through = inclusive_sum(coded, lane), units_through = inclusive_sum(units, lane);
    if (lane == 31) window.warp_sums[warp] = make_uint2(coded_through, units_through);
    __syncthreads();
    std::size_t at = coded_before + coded_through - coded;
    unsigned units_at = units_before + units_through - units;
    for (unsigned i = 0; i < warps; ++i) {
      const uint2 sums = window.warp_sums[i];
      if (i < warp) at += sums.x, units_at += sums.y;
      coded_before += sums.x, units_before += sums.y;
    }
    const bool has_rows = first < range.first + range.count && first + kScanRows > range.first;
    const bool has_coded = at < range.first + range.count && at + coded > range.first;
    if (has_rows || has_coded) {
#pragma unroll 1
      for (unsigned i = 0; i < kScanRows && first + i < row_count; ++i) {
        const unsigned state = states >> (2 * i) & 3;
        if (first + i - range.first < range.count)
          window.raw_at[first + i - range.first] = 2ull * width * units_at;
        if (state == kCoded) {
          if (at - range.first < range.count) window.row[at - range.first] = static_cast<unsigned>(first + i);
          ++at;
        }
        units_at += raw_units(state);
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) window.coded = coded_before, window.raw = 2ull * width * units_before;
  __syncthreads();
}

// Sixteen rows' states of those that the first pass left, a byte each.
__device__ __forceinline__ unsigned packed_states(const unsigned char* states, std::size_t row) {
  const uint4 bytes = *reinterpret_cast<const uint4*>(states + row);
  const auto pack = [](unsigned word) {
    return (word & 3) | (word >> 6 & 0xC) | (word >> 12 & 0x30) | (word >> 18 & 0xC0);
  };
  return pack(bytes.x) | pack(bytes.y) << 8 | pack(bytes.z) << 16 | pack(bytes.w) << 24;
}

// Adds what the threads of some whole warps have to a sum in shared memory that is 0 before.
__device__ __forceinline__ void add_to(unsigned long long* sum, unsigned long long value) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0 && value) atomicAdd(sum, value);
}

}  // namespace
}  // namespace hyperlane
