// The rotated codecs for few rows, where only the time of one row counts: a thread block takes a row, its
// warps the row's blocks. int4's search keeps the errors of all levels at hand, so that the one warp which
// must take step after step does nothing else.
#pragma once
#include "quant/rotated_decode.cuh"
#include "quant/trellis_encode.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kSmallThreads = 1024;

// Offsets in shared memory of what an encoding works in.
struct SmallRoom {
  unsigned values, rotated, errors, counts, ballots, search, record, bytes;

  __host__ __device__ explicit SmallRoom(const RotatedView& view) {
    const bool trellis = view.quantizer == DeviceQuantizer::trellis;
    const unsigned row = (4 * view.width + 15) / 16 * 16, steps = trellis ? view.step_count : 0;
    values = 0;
    rotated = values + row;
    errors = rotated + (trellis ? row : 0);
    counts = errors + steps * kTrellisLanes * 16;
    ballots = counts + steps * kTrellisLanes;
    search = ballots + steps * 16;
    record = search + (trellis ? kSearchBytes : 0);
    bytes = record + record_bytes(view.row_bytes, view.scale_count);
  }
};

// The sum of squares as the reference sums, and the largest magnitude; by a warp.
__device__ __forceinline__ float2 squares_of(const float* values, unsigned width, unsigned lane) {
  float first = 0, second = 0, most = 0;
#pragma unroll 8
  for (unsigned at = 2 * lane; at < width; at += kBlockSize) {
    const float a = values[at], b = at + 1 < width ? values[at + 1] : 0.0f;
    first += a * a;
    second += b * b;
    most = fmaxf(most, fmaxf(fabsf(a), fabsf(b)));
  }
#pragma unroll
  for (int step = 16; step; step /= 2) {
    first += __shfl_xor_sync(kAllLanes, first, step);
    second += __shfl_xor_sync(kAllLanes, second, step);
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, step));
  }
  return {first + second, most};
}

// A lane's two places of a block and what the tables hold there, `factor` forward or backward; read ahead,
// for as many blocks as a warp takes at a time.
constexpr unsigned kAhead = 2;

struct Places {
  DeviceBlock block;
  unsigned before;  // int4: where the path bits of the last block before it are
  unsigned order[2];
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
    const bool trellis = view.quantizer == DeviceQuantizer::trellis;
    places[i].before = trellis && b < view.whole_count ? view.block_before[b] : 0;
    places[i].block = view.blocks[b];
    // Whole blocks come first, so that no place hangs on what was just read of one.
    const unsigned start = b < view.whole_count ? b * kBlockSize : places[i].block.start;
#pragma unroll
    for (unsigned high = 0; high < 2; ++high) {
      const unsigned place = min(start + 32 * high + lane, view.width - 1);
      places[i].order[high] = view.order[place];
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
    return (values[places.order[high]] * inverse_rms - places.mean[high]) * places.factor[high];
  };
  const int at = static_cast<int>(lane);
  Pair v{0, 0};
  if (has_low(block, at)) v.low = of(0);
  if (has_high(block)) v.high = of(1);
  v = hadamard(v, block.size, at);
  if (!has_low(block, at)) v.low = 0;
  return v;
}

// ---- int4

__device__ __forceinline__ RowScale scale_of(const RotatedView& view, const float* rotated, unsigned lane) {
  const float2 found = squares_of(rotated, view.width, lane);
  const float count = static_cast<float>(max(view.coded_values, 1u));
  const float rms = __fsqrt_rn(found.x * __fdiv_rn(1.0f, count)), sixteenfold = rms * kSixteenfold;
  return {e4m3_nearest(sixteenfold), true, sixteenfold <= kLargestScale && found.y <= kLoudest * rms};
}

// Of all values, by all threads: the errors of their nearest levels, and how many thresholds lie below.
__device__ __forceinline__ void find_errors(const RotatedView& view, const unsigned char* image,
                                            const float* rotated, float inverse_step, float4* errors,
                                            unsigned char* counts) {
  const Lane me(threadIdx.x % 32);
  const unsigned items = view.step_count * kTrellisLanes;
  constexpr unsigned kItems = 4;
  for (unsigned first = threadIdx.x; first < items; first += kItems * blockDim.x) {
    StepInfo infos[kItems];
#pragma unroll
    for (unsigned i = 0; i < kItems; ++i) {
      const unsigned item = first + i * blockDim.x;
      infos[i] = view.step_infos[min(item, items - 1) / kTrellisLanes];
    }
#pragma unroll
    for (unsigned i = 0; i < kItems; ++i) {
      const unsigned item = first + i * blockDim.x;
      if (item >= items) break;
      float error[4] = {};
      unsigned below = 0;
      if (me.at < infos[i].count) {
        const float value = rotated[infos[i].start + me.at] * inverse_step;
        with_bits(infos[i].bits, [&](auto bits) {
          constexpr int kBits = decltype(bits)::value;
          below = nearest<kBits>(image, value, me, error);
          below = (kBits <= static_cast<int>(kCopiedBits) ? below >> 8 & 0xFF : below) - byte_bias(kBits);
        });
      }
      errors[item] = make_float4(error[0], error[1], error[2], error[3]);
      counts[item] = static_cast<unsigned char>(below);
    }
  }
}

// All steps of a row, by a warp whose upper half does what the lower does; leaves the traced path in
// `ballots`.
__device__ __forceinline__ void find_path(const RotatedView& view, const float4* errors, uint4* ballots,
                                          unsigned lane) {
  float cost[kStates] = {0.0f, kFar, kFar, kFar};
  const float4* own = errors + lane % kTrellisLanes;
  const unsigned last = view.step_count ? view.step_count - 1 : 0;
  constexpr unsigned kTurn = 4;  // steps whose errors are read ahead of the turn before them
  float4 ahead[kTurn];
#pragma unroll
  for (unsigned i = 0; i < kTurn; ++i) ahead[i] = own[min(i, last) * kTrellisLanes];
  for (unsigned first = 0; first < view.step_count; first += kTurn) {
    float4 now[kTurn];
#pragma unroll
    for (unsigned i = 0; i < kTurn; ++i) now[i] = ahead[i];
#pragma unroll
    for (unsigned i = 0; i < kTurn; ++i) ahead[i] = own[min(first + kTurn + i, last) * kTrellisLanes];
#pragma unroll
    for (unsigned i = 0; i < kTurn; ++i) {
      if (first + i >= view.step_count) break;
      const float error[4] = {now[i].x, now[i].y, now[i].z, now[i].w};
      const uint4 over = advance(error, cost);
      if (lane == 0) ballots[first + i] = over;
    }
  }
  const Path end = end_of(cost);
  __syncwarp();
  trace_back(view, [&](unsigned step) { return ballots + step; }, end, lane);
}

// The codes' bytes, by all threads.
__device__ __forceinline__ void write_codes(const RotatedView& view, const uint4* ballots,
                                            const unsigned char* counts, unsigned char* record) {
  const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
  for (unsigned b = warp; b < view.block_count; b += warps) {
    const DeviceBlock block = view.blocks[b];
    if (!block.bits) continue;
    const unsigned first_step = view.first_step[b], shift = __ffs(static_cast<int>(block.size)) - 1;
    for (unsigned byte = lane; byte < block.code_bytes; byte += 32) {
      unsigned packed = 0;
#pragma unroll
      for (unsigned bit = 0; bit < 8; ++bit) {
        const unsigned at = 8 * byte + bit, plane = at >> shift, i = at & (block.size - 1);
        if (plane >= block.bits) continue;
        const unsigned step = first_step + i / kTrellisLanes, of_lane = i % kTrellisLanes;
        const unsigned code =
            code_of(ballots[step], of_lane, counts[step * kTrellisLanes + of_lane], block.bits);
        packed |= (code >> (block.bits - 1 - plane) & 1) << bit;
      }
      record[block.code_at + byte] = static_cast<unsigned char>(packed);
    }
  }
}

// ---- rows

template <DeviceQuantizer kQuantizer, class T>
__global__ void __launch_bounds__(kSmallThreads, 1)
    encode_small(const __grid_constant__ RotatedView view, const __grid_constant__ EncodeJob job,
                 const T* rows) {
  constexpr bool kTrellis = kQuantizer == DeviceQuantizer::trellis;
  extern __shared__ uint4 shared[];
  __shared__ unsigned ticket, fits, rms_shared, scale_shared;
  __shared__ unsigned long long start_shared;
  __shared__ float levels[16], midpoints[16];
  auto* base = reinterpret_cast<unsigned char*>(shared);
  const SmallRoom room(view);
  auto* values = reinterpret_cast<float*>(base + room.values);
  unsigned char* record = base + room.record + record_pad(view.scale_count);
  const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) ticket = atomicAdd(job.scratch.ticket, 1u), fits = 1;
  Places places[kAhead];
  read_places(view, view.forward, warp, warps, view.block_count, lane, places);
  if constexpr (kTrellis) copy_table(reinterpret_cast<uint4*>(base + room.search), view.search, kSearchBytes);
  if (threadIdx.x < 16)
    levels[threadIdx.x] = view.nf4[threadIdx.x], midpoints[threadIdx.x] = view.nf4_midpoints[threadIdx.x];
  __syncthreads();
  const std::size_t index = ticket;
  const T* row = rows + index * view.width;
  const unsigned position = job.positions[index];
#pragma unroll 4
  for (unsigned i = threadIdx.x; i < view.width; i += blockDim.x) values[i] = widen(row[i]);
  __syncthreads();
  if (warp == 0) {
    const float squares = squares_of(values, view.width, lane).x;
    if (lane == 0) rms_shared = half_bits(__fsqrt_rn(__fdiv_rn(squares, static_cast<float>(view.width))));
  }
  __syncthreads();
  const unsigned rms_bits = rms_shared;
  const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits)));
  const bool sane = position != 0 && rms <= view.limit && rms >= kSmallestRms;
  if (sane) {
    const float inverse_rms = __fdiv_rn(1.0f, rms);
    auto* rotated = reinterpret_cast<float*>(base + room.rotated);
    const int at = static_cast<int>(lane);
    for (unsigned first = warp; first < view.block_count; first += kAhead * warps) {
      if (first != warp) read_places(view, view.forward, first, warps, view.block_count, lane, places);
#pragma unroll
      for (unsigned i = 0; i < kAhead; ++i) {
        const DeviceBlock& block = places[i].block;
        if (!block.size) continue;
        const Pair v = rotated_pair(places[i], values, inverse_rms, lane);
        if constexpr (kTrellis) {
          if (has_low(block, at)) rotated[block.start + lane] = block.bits ? v.low : 0.0f;
          if (has_high(block)) rotated[block.start + 32 + lane] = block.bits ? v.high : 0.0f;
        } else {
          const bool held = kQuantizer == DeviceQuantizer::bytes
                                ? encode_bytes(block, v, at, record)
                                : encode_levels(view, {levels, midpoints}, block, v, at, record);
          if (!held && lane == 0) fits = 0;
        }
      }
    }
    __syncthreads();
    if constexpr (kTrellis) {
      auto* errors = reinterpret_cast<float4*>(base + room.errors);
      unsigned char* counts = base + room.counts;
      auto* ballots = reinterpret_cast<uint4*>(base + room.ballots);
      if (warp == 0) {
        const RowScale scale = scale_of(view, rotated, lane);
        if (lane == 0) scale_shared = scale.code, fits = scale.fits;
      }
      __syncthreads();
      const unsigned scale = scale_shared;
      find_errors(view, base + room.search, rotated, scale ? __fdiv_rn(1.0f, e4m3_step(scale)) : 0.0f, errors,
                  counts);
      __syncthreads();
      if (warp == 0) find_path(view, errors, ballots, lane);
      __syncthreads();
      write_codes(view, ballots, counts, record);
      if (threadIdx.x == 0) record[2] = static_cast<unsigned char>(scale);
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

// Values i and 32 + i of a whole block of int4.
__device__ __forceinline__ Pair trellis_pair(const RotatedView& view, const DeviceBlock& block,
                                             unsigned before, const unsigned char* record, unsigned lane) {
  if (!block.bits) return {0, 0};
  const unsigned char* codes = record + block.code_at;
  const uint2 path = *reinterpret_cast<const uint2*>(codes);
  const uint2 past = before ? *reinterpret_cast<const uint2*>(record + before) : uint2{0, 0};
  const float step = e4m3_step(record[2]);
  const auto level = [&](unsigned i, unsigned p1, unsigned p2) {
    const unsigned code = read_code(block, codes, i), p = code >> (block.bits - 1);
    const unsigned index = code & ((1u << (block.bits - 1)) - 1);
    return view.levels[((2u << block.bits) + 4 * index + 2 * (p ^ (p2 & 1)) + (p1 & 1)) * 32] * step;
  };
  // One step before is 16 values before: planes of 32 of them.
  const unsigned low_p1 = path.x << 16 | past.y >> 16, high_p1 = path.y << 16 | path.x >> 16;
  return {level(lane, low_p1 >> lane, past.y >> lane), level(32 + lane, high_p1 >> lane, path.x >> lane)};
}

template <DeviceQuantizer kQuantizer, class T>
__global__ void __launch_bounds__(kSmallThreads, 1)
    decode_small(const __grid_constant__ RotatedView view, const __grid_constant__ DecodeJob job, T* rows,
                 bool aligned) {
  constexpr bool kTrellis = kQuantizer == DeviceQuantizer::trellis;
  extern __shared__ uint4 shared[];
  __shared__ float levels[16];
  auto* stage = reinterpret_cast<unsigned char*>(shared);
  unsigned char* record = stage + staged_bytes<T>(view.width) + record_pad(view.scale_count);
  const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
  const std::size_t index = blockIdx.x;
  Places places[kAhead];
  read_places(view, view.backward, warp, warps, view.whole_count, lane, places);
  if (threadIdx.x < 16) levels[threadIdx.x] = view.nf4[threadIdx.x];
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
      Pair v;
      if constexpr (kTrellis)
        v = trellis_pair(view, block, places[i].before, record, lane);
      else
        v = decode_block(view, levels, block, at, record);
      v = hadamard(v, block.size, at);
      const auto put = [&](unsigned high, float value) {
        T* to = kTrellis ? reinterpret_cast<T*>(stage) + places[i].order[high]
                         : reinterpret_cast<T*>(stage + block.start / kBlockSize * kBlockStride<T>) +
                               32 * high + lane;
        narrow((value * places[i].factor[high] + places[i].mean[high]) * rms, to);
      };
      put(0, v.low);
      put(1, v.high);
    }
  }
  if (warp == 0 && view.whole_count < view.block_count)
    decode_tail<kQuantizer, T>(view, record, rms, lane, stage);
  __syncthreads();
  unstage<kTrellis>(view, stage, row, aligned, threadIdx.x, blockDim.x);
}

}  // namespace
}  // namespace hyperlane
