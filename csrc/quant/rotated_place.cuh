// Where rows go in a payload of the rotated codecs, when one launch codes them all: a row starts where the
// rows before it end, and how long those are is known only once they are coded. Rows are taken by tickets, so
// that whoever waits for a row's length waits for a warp that runs.
#pragma once
#include "quant/device_math.cuh"
#include "quant/rotated_launch.cuh"
#include "quant/rotated_tables.cuh"

namespace hyperlane {
namespace {

enum RowState : unsigned { kCoded, kHalf, kSingle, kZero };

constexpr float kSmallestRms = 0x1p-14f;
constexpr unsigned kIdBytes = 8;
constexpr unsigned kPlaceRows = 64;  // rows whose lengths are summed in one word
constexpr unsigned kCountShift = 48;

__host__ __device__ inline std::size_t head_bytes(std::size_t rows) { return kIdBytes + (rows + 3) / 4; }

__device__ __forceinline__ unsigned state_bytes(unsigned state, const RotatedView& view) {
  return state == kCoded    ? view.row_bytes
         : state == kHalf   ? 2 * view.width
         : state == kSingle ? 4 * view.width
                            : 0;
}

// The next `count` rows for this warp.
__device__ __forceinline__ std::size_t take_rows(const PlaceScratch& scratch, unsigned count, unsigned lane) {
  unsigned ticket = 0;
  if (lane == 0) ticket = atomicAdd(scratch.ticket, 1u);
  return static_cast<std::size_t>(uniform(ticket)) * count;
}

// By one thread.
__device__ __forceinline__ void publish(const PlaceScratch& scratch, std::size_t row, unsigned state,
                                        const RotatedView& view) {
  *const_cast<volatile unsigned char*>(scratch.states + row) = static_cast<unsigned char>(1 + state);
  atomicAdd(scratch.groups + row / kPlaceRows, (1ull << kCountShift) | state_bytes(state, view));
}

// Where a row starts in the payload, once all rows before it are published; for the whole warp.
__device__ __forceinline__ std::size_t row_start(const EncodeJob& job, std::size_t row,
                                                 const RotatedView& view, unsigned lane) {
  const PlaceScratch& scratch = job.scratch;
  unsigned long long sum = 0;
  for (std::size_t group = lane; group < row / kPlaceRows; group += 32) {
    unsigned long long found;
    while ((found = *const_cast<volatile unsigned long long*>(scratch.groups + group)) >> kCountShift !=
           kPlaceRows)
      __nanosleep(100);
    sum += found & ((1ull << kCountShift) - 1);
  }
  for (std::size_t before = row / kPlaceRows * kPlaceRows + lane; before < row; before += 32) {
    unsigned found;
    while ((found = *const_cast<volatile unsigned char*>(scratch.states + before)) == 0) __nanosleep(100);
    sum += state_bytes(found - 1, view);
  }
  return head_bytes(job.row_count) + warp_sum(sum);
}

// When a worker (a warp or a thread block, of `workers`) finds no more rows: the last one writes the
// payload's head, and clears what the next launch uses.
__device__ inline void finish(const EncodeJob& job, const RotatedView& view, unsigned lane,
                              unsigned workers) {
  __syncwarp();
  unsigned before = 0;
  if (lane == 0) {
    __threadfence_system();  // the payload may be the host's memory
    before = workers > 1 ? atomicAdd(job.scratch.done, 1u) : 0;
    __threadfence();
  }
  if (__shfl_sync(kAllLanes, before, 0) + 1 != workers) return;
  for (std::size_t byte = lane; byte < (job.row_count + 3) / 4; byte += 32) {
    unsigned packed = 0;
    for (unsigned i = 0; i < 4 && 4 * byte + i < job.row_count; ++i) {
      volatile unsigned char* state = job.scratch.states + 4 * byte + i;
      packed |= (*state - 1u) << (2 * i);
      *state = 0;
    }
    job.payload[kIdBytes + byte] = static_cast<unsigned char>(packed);
  }
  if (lane < kIdBytes) job.payload[lane] = view.id[lane];
  for (std::size_t group = lane; group <= job.row_count / kPlaceRows; group += 32)
    job.scratch.groups[group] = 0;
  __syncwarp();
  if (lane == 0) {
    *job.scratch.ticket = 0, *job.scratch.done = 0;
    __threadfence_system();  // whoever sees the length sees the payload
    *const_cast<volatile unsigned long long*>(job.payload_bytes) =
        *const_cast<volatile unsigned long long*>(job.scratch.end);
  }
}

// `bytes` bytes of shared memory to anywhere, by `threads` threads of which this is number `id`. Reads the
// whole words of four bytes that they touch.
__device__ __forceinline__ void copy_out(unsigned char* to, const unsigned char* from, unsigned bytes,
                                         unsigned id, unsigned threads = 32) {
  const unsigned lead = min(static_cast<unsigned>(-reinterpret_cast<std::uintptr_t>(to) & 3), bytes);
  const unsigned words = (bytes - lead) / 4, rest = lead + 4 * words;
  const unsigned shift = reinterpret_cast<std::uintptr_t>(from + lead) & 3;
  const auto* source = reinterpret_cast<const unsigned*>(from + lead - shift);
  auto* out = reinterpret_cast<unsigned*>(to + lead);
  if (id < lead) to[id] = from[id];
  if (shift)
    for (unsigned i = id; i < words; i += threads)
      out[i] = __funnelshift_r(source[i], source[i + 1], 8 * shift);
  else
    for (unsigned i = id; i < words; i += threads) out[i] = source[i];
  if (rest + id < bytes) to[rest + id] = from[rest + id];
}

// How a row goes that is not coded; `row` lies in global memory. For the whole warp.
template <class T>
__device__ inline unsigned raw_state(const T* row, unsigned width, float rms, unsigned lane) {
  bool zero = true, holds = rms >= kSmallestRms;
  for (unsigned i = lane; i < width; i += 32) {
    const float value = widen(row[i]);
    zero = zero && value == 0;
    holds = holds && fabsf(value) <= kLargestHalf;
  }
  zero = __all_sync(kAllLanes, zero), holds = __all_sync(kAllLanes, holds);
  return zero ? kZero : sizeof(T) == 2 || holds ? kHalf : kSingle;
}

template <class T>
__device__ inline void write_raw(const T* row, unsigned width, unsigned state, unsigned char* to,
                                 unsigned lane) {
  if (state == kZero) return;
  for (unsigned i = lane; i < width; i += 32) {
    const float value = widen(row[i]);
    if (state == kHalf) {
      const unsigned bits =
          sizeof(T) == 2 ? *reinterpret_cast<const unsigned short*>(row + i) : half_bits(value);
      for (unsigned byte = 0; byte < 2; ++byte)
        to[2 * i + byte] = static_cast<unsigned char>(bits >> (8 * byte));
    } else {
      const unsigned bits = __float_as_uint(value);
      for (unsigned byte = 0; byte < 4; ++byte)
        to[4 * i + byte] = static_cast<unsigned char>(bits >> (8 * byte));
    }
  }
}

}  // namespace
}  // namespace hyperlane
