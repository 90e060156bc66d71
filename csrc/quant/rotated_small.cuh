// The rotated codecs for few rows, where only the time of one row counts: a thread block takes a row, its
// warps the row's blocks.
#pragma once
#include "quant/rotated_decode.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kSmallThreads = 1024;

// Offsets in shared memory of what an encoding works in.
struct SmallRoom {
  unsigned values, record, bytes;

  __host__ __device__ explicit SmallRoom(const RotatedView& view) {
    values = 0;
    record = values + (4 * view.width + 15) / 16 * 16;
    bytes = record + record_bytes(view.row_bytes, view.scale_count);
  }
};

// The sum of squares as the reference sums; by a warp.
__device__ __forceinline__ float squares_of(const float* values, unsigned width, unsigned lane) {
  float first = 0, second = 0;
#pragma unroll 8
  for (unsigned at = 2 * lane; at < width; at += kBlockSize) {
    const float a = values[at], b = at + 1 < width ? values[at + 1] : 0.0f;
    first += a * a;
    second += b * b;
  }
#pragma unroll
  for (int step = 16; step; step /= 2) {
    first += __shfl_xor_sync(kAllLanes, first, step);
    second += __shfl_xor_sync(kAllLanes, second, step);
  }
  return first + second;
}

// A lane's two places of a block and what the tables hold there, `factor` forward or backward; read ahead,
// for as many blocks as a warp takes at a time.
constexpr unsigned kAhead = 2;

struct Places {
  DeviceBlock block;
  unsigned place[2];
  float mean[2], factor[2];
};

// Blocks first, first + warps, ... of a thread block; those that are not there have size 0.
__device__ __forceinline__ void read_places(const RotatedView& view, const float* factors, unsigned first,
                                            unsigned warps, unsigned count, unsigned lane, Places* places) {
#pragma unroll
  for (unsigned i = 0; i < kAhead; ++i) {
    const unsigned b = first + i * warps;
    places[i].block.size = 0;
    if (b >= count) continue;
    places[i].block = view.blocks[b];
    // Whole blocks come first, so that no place hangs on what was just read of one.
    const unsigned start = b < view.whole_count ? b * kBlockSize : places[i].block.start;
#pragma unroll
    for (unsigned high = 0; high < 2; ++high) {
      const unsigned place = min(start + 32 * high + lane, view.width - 1);
      places[i].place[high] = place;
      places[i].mean[high] = view.mean[place];
      places[i].factor[high] = factors[place];
    }
  }
}

// Values i and 32 + i of a block, rotated; zeros beyond a short one.
__device__ __forceinline__ Pair rotated_pair(const Places& places, const float* values, float inverse_rms,
                                             unsigned lane) {
  const DeviceBlock& block = places.block;
  const auto of = [&](unsigned high) {
    return (values[places.place[high]] * inverse_rms - places.mean[high]) * places.factor[high];
  };
  const int at = static_cast<int>(lane);
  Pair v{0, 0};
  if (has_low(block, at)) v.low = of(0);
  if (has_high(block)) v.high = of(1);
  v = hadamard(v, block.size, at);
  if (!has_low(block, at)) v.low = 0;
  return v;
}

// ---- rows

template <DeviceQuantizer kQuantizer, class T>
__global__ void __launch_bounds__(kSmallThreads, 1)
    encode_small(const __grid_constant__ RotatedView view, const __grid_constant__ EncodeJob job,
                 const T* rows) {
  extern __shared__ uint4 shared[];
  __shared__ unsigned ticket, fits, rms_shared;
  __shared__ unsigned long long start_shared;
  __shared__ float midpoints[16];
  auto* base = reinterpret_cast<unsigned char*>(shared);
  const SmallRoom room(view);
  auto* values = reinterpret_cast<float*>(base + room.values);
  unsigned char* record = base + room.record + record_pad(view.scale_count);
  const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) ticket = atomicAdd(job.scratch.ticket, 1u), fits = 1;
  Places places[kAhead];
  read_places(view, view.forward, warp, warps, view.block_count, lane, places);
  if (threadIdx.x < 16) midpoints[threadIdx.x] = view.midpoints[threadIdx.x];
  __syncthreads();
  const std::size_t index = ticket;
  const T* row = rows + index * view.width;
  const unsigned position = job.positions[index];
#pragma unroll 4
  for (unsigned i = threadIdx.x; i < view.width; i += blockDim.x) values[i] = widen(row[i]);
  __syncthreads();
  if (warp == 0) {
    const float squares = squares_of(values, view.width, lane);
    if (lane == 0) rms_shared = half_bits(__fsqrt_rn(__fdiv_rn(squares, static_cast<float>(view.width))));
  }
  __syncthreads();
  const unsigned rms_bits = rms_shared;
  const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits)));
  const bool sane = position != 0 && rms <= view.limit && rms >= kSmallestRms;
  if (sane) {
    const float inverse_rms = __fdiv_rn(1.0f, rms);
    const int at = static_cast<int>(lane);
    for (unsigned first = warp; first < view.block_count; first += kAhead * warps) {
      if (first != warp) read_places(view, view.forward, first, warps, view.block_count, lane, places);
#pragma unroll
      for (unsigned i = 0; i < kAhead; ++i) {
        const DeviceBlock& block = places[i].block;
        if (!block.size) continue;
        const Pair v = rotated_pair(places[i], values, inverse_rms, lane);
        const bool held = kQuantizer == DeviceQuantizer::bytes
                              ? encode_bytes(block, v, at, record)
                              : encode_levels(midpoints, block, v, at, record);
        if (!held && lane == 0) fits = 0;
      }
    }
  }
  if (threadIdx.x < 2) record[threadIdx.x] = static_cast<unsigned char>(rms_bits >> (8 * threadIdx.x));
  __syncthreads();
  const bool coded = sane && fits;
  if (warp == 0) {
    const unsigned state = coded ? kCoded : raw_state(row, view.width, rms, lane);
    if (lane == 0) publish(job.scratch, index, state, view);
    const std::size_t at = row_start(job, index, view, lane);
    if (!coded) write_raw(row, view.width, state, job.payload + at, lane);
    if (lane == 0) {
      start_shared = at;
      if (index + 1 == job.row_count) *job.scratch.end = at + state_bytes(state, view);
    }
  }
  __syncthreads();
  if (coded) copy_out(job.payload + start_shared, record, view.row_bytes, threadIdx.x, blockDim.x);
  __syncthreads();
  if (warp == 0) finish(job, view, lane, gridDim.x);
}

template <DeviceQuantizer kQuantizer, class T>
__global__ void __launch_bounds__(kSmallThreads, 1)
    decode_small(const __grid_constant__ RotatedView view, const __grid_constant__ DecodeJob job, T* rows,
                 bool aligned) {
  extern __shared__ uint4 shared[];
  __shared__ float levels[16];
  auto* stage = reinterpret_cast<unsigned char*>(shared);
  unsigned char* record = stage + staged_bytes<T>(view.width) + record_pad(view.scale_count);
  const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
  const std::size_t index = blockIdx.x;
  Places places[kAhead];
  read_places(view, view.backward, warp, warps, view.whole_count, lane, places);
  if (threadIdx.x < 16) levels[threadIdx.x] = view.levels[threadIdx.x];
  const unsigned state = packed_state(job.payload, index);
  const unsigned char* from =
      job.payload + head_bytes(job.row_count) + coded_bytes(job, 0, index, view, lane);
  T* row = rows + index * view.width;
  if (state != kCoded) {
    if (warp == 0) read_raw(from, state, view.width, row, lane);
    return;
  }
  copy_in(record, from, view.row_bytes, threadIdx.x, blockDim.x);
  __syncthreads();
  const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(record[0] | record[1] << 8)));
  const int at = static_cast<int>(lane);
  for (unsigned first = warp; first < view.whole_count; first += kAhead * warps) {
    if (first != warp) read_places(view, view.backward, first, warps, view.whole_count, lane, places);
#pragma unroll
    for (unsigned i = 0; i < kAhead; ++i) {
      const DeviceBlock& block = places[i].block;
      if (!block.size) continue;
      const Pair v = decode_block(view, levels, block, at, record);
      const auto put = [&](unsigned high, float value) {
        T* to = reinterpret_cast<T*>(stage + block.start / kBlockSize * kBlockStride<T>) + 32 * high + lane;
        narrow((value * places[i].factor[high] + places[i].mean[high]) * rms, to);
      };
      put(0, v.low);
      put(1, v.high);
    }
  }
  if (warp == 0 && view.whole_count < view.block_count) decode_tail<T>(view, record, rms, lane, stage);
  __syncthreads();
  unstage(view, stage, row, aligned, threadIdx.x, blockDim.x);
}

}  // namespace
}  // namespace hyperlane
