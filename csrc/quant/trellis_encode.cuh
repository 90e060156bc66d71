// int4's encoding on the GPU. A warp takes two rows, 16 lanes each, and needs no other warp: it sorts a row's
// values into shared memory, then for each block rotates it and takes the search's four steps, with the
// states' costs in registers. Which way each path came is a ballot: 32 bits a state and step, for both rows,
// so that the way back is bitwise, and 32 stretches of it go in parallel. A block's values are dead once its
// steps are taken, and their place takes what the steps leave: 64 bytes of words, 64 bytes of ballots.
#pragma once
#include <type_traits>

#include "quant/rotated_device.cuh"
#include "quant/rotated_place.cuh"

namespace hyperlane {
namespace {

constexpr int kStates = 4;               // 2 p1 + p2
constexpr float kFar = 1e30f;            // of states that no path has reached
constexpr float kSixteenfold = 15.375f;  // 0.96 times 16
constexpr float kLoudest = 10.0f;        // a value by the RMS of its row
constexpr unsigned kWordBytes = 64;      // of a block: a word a lane

// What a lane knows of its place.
struct Lane {
  unsigned lane, row, at;  // in the warp; which of the two rows; in the row
  float signs[4];          // of the transform's stages 8, 4, 2, 1

  __device__ explicit Lane(unsigned id) : lane(id), row(id / kTrellisLanes), at(id % kTrellisLanes) {
#pragma unroll
    for (int stage = 0; stage < 4; ++stage) signs[stage] = id & (8 >> stage) ? -1.0f : 1.0f;
  }
};

template <class T>
__device__ __forceinline__ T row_sum(T value) {  // over the 16 lanes of a row, distant ones first
#pragma unroll
  for (int step = 8; step; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// Sorts a row, which starts on the alignment of four values, into its slots; returns the sum of its squares
// as the reference sums.
template <class T>
__device__ __forceinline__ float load_row(const RotatedView& view, const T* row, T* slots, const Lane& me) {
  float squares[4] = {};
  const unsigned first = 4 * me.at, whole = view.width / kBlockSize;
#pragma unroll 16
  for (unsigned block = 0; block < whole; ++block) {
    const unsigned channel = block * kBlockSize + first;
    T values[4];
    load4(row + channel, values);
    const uint4 slot = __ldg(reinterpret_cast<const uint4*>(view.slot + channel));
    const unsigned places[4] = {slot.x, slot.y, slot.z, slot.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      squares[i] = add_square(squares[i], widen(values[i]), T());
      slots[places[i]] = values[i];
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const unsigned channel = whole * kBlockSize + first + i;
    if (channel >= view.width) continue;
    squares[i] = add_square(squares[i], widen(row[channel]), T());
    slots[view.slot[channel]] = row[channel];
  }
#pragma unroll
  for (float& each : squares) each = row_sum(each);
  return (squares[0] + squares[2]) + (squares[1] + squares[3]);
}

// The tables by lane, where a kernel has them: in its shared memory, or in the device's.
struct LaneTables {
  const float4 *mean, *forward;
};

__device__ __forceinline__ void read_slots(const __half* from, float* values) {
  __half halves[4];
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  memcpy(halves, &bits, 8);
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = __half2float(halves[i]);
}
__device__ __forceinline__ void read_slots(const float* from, float* values) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
}

// A lane's four values of a block and its part of the tables.
struct Taken {
  float v[4];
  float4 mean, forward;
};

template <class T>
__device__ __forceinline__ Taken take(const LaneTables& tables, const T* slots, unsigned block,
                                      const Lane& me) {
  Taken taken;
  read_slots(slots + block * kBlockSize + 4 * me.at, taken.v);
  taken.mean = tables.mean[block * kTrellisLanes + me.at];
  taken.forward = tables.forward[block * kTrellisLanes + me.at];
  return taken;
}

// The values, rotated. `kWhole`: the block has 64 values.
template <bool kWhole>
__device__ __forceinline__ void rotate(const Taken& taken, unsigned size, float inverse_rms, const Lane& me,
                                       float* v) {
  v[0] = (taken.v[0] * inverse_rms - taken.mean.x) * taken.forward.x;
  v[1] = (taken.v[1] * inverse_rms - taken.mean.y) * taken.forward.y;
  v[2] = (taken.v[2] * inverse_rms - taken.mean.z) * taken.forward.z;
  v[3] = (taken.v[3] * inverse_rms - taken.mean.w) * taken.forward.w;
  if (!kWhole) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = kTrellisLanes * i + me.at < size ? v[i] : 0.0f;
  }
  if (kWhole || size == kBlockSize) {
    const float a = v[0] + v[2], b = v[1] + v[3], c = v[0] - v[2], d = v[1] - v[3];
    v[0] = a, v[1] = b, v[2] = c, v[3] = d;
  }
  if (kWhole || size >= 32) {
    const float a = v[0] + v[1], b = v[0] - v[1], c = v[2] + v[3], d = v[2] - v[3];
    v[0] = a, v[1] = b, v[2] = c, v[3] = d;
  }
#pragma unroll
  for (int stage = 0; stage < 4; ++stage) {
    const int half = 8 >> stage;
    if (!kWhole && size < 2u * half) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // other + own, or other - own: exact signs
      const float other = __shfl_xor_sync(kAllLanes, v[i], half);
      v[i] = __fmaf_rn(v[i], me.signs[stage], other);
    }
  }
}

// ---- the scale of a row

struct RowScale {
  unsigned code;
  bool sure, fits;
};

// The transform keeps a block's sum of squares: up to rounding it is that of the values before it, by the
// block's size.
template <class T>
__device__ __forceinline__ RowScale guess_scale(const RotatedView& view, const LaneTables& tables,
                                                const T* slots, float inverse_rms, const Lane& me) {
  float sum = 0;
  const auto add = [&](unsigned block, unsigned size) {
    float v[4], squares = 0;
    read_slots(slots + block * kBlockSize + 4 * me.at, v);
    const float4 mean = tables.mean[block * kTrellisLanes + me.at];
    const float4 forward = tables.forward[block * kTrellisLanes + me.at];
    const float means[4] = {mean.x, mean.y, mean.z, mean.w};
    const float factors[4] = {forward.x, forward.y, forward.z, forward.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float value = __fmaf_rn(v[i], inverse_rms, -means[i]) * factors[i];
      if (kTrellisLanes * i + me.at < size) squares = __fmaf_rn(value, value, squares);
    }
    sum = __fmaf_rn(squares, static_cast<float>(size), sum);
  };
  for (unsigned i = 0; i < view.run_count; ++i) {
    const BlockRun run = view.runs[i];
#pragma unroll 4
    for (unsigned block = run.first; block < run.first + run.count; ++block) add(block, kBlockSize);
  }
  for (unsigned b = view.whole_count; b < view.block_count; ++b)
    if (view.blocks[b].bits) add(b, view.blocks[b].size);
  const float count = static_cast<float>(max(view.coded_values, 1u));
  const float rms = sqrtf(row_sum(sum) / count), wrong = 2e-5f;
  const float low = rms * (1 - wrong), high = rms * (1 + wrong);
  const unsigned code = e4m3_nearest(high * kSixteenfold);
  const bool sure =
      high * kSixteenfold <= kLargestScale && low > 0 && e4m3_nearest(low * kSixteenfold) == code;
  return {code, sure, true};
}

// As the reference finds it, by rotating the row.
template <class T>
__device__ __noinline__ RowScale exact_scale(const RotatedView& view, LaneTables tables, const T* slots,
                                             float inverse_rms, Lane me) {
  float squares[4] = {}, most = 0;
  for (unsigned b = 0; b < view.block_count; ++b) {
    const DeviceBlock block = view.blocks[b];
    if (!block.bits) continue;
    float v[4];
    rotate<false>(take(tables, slots, b, me), block.size, inverse_rms, me, v);
#pragma unroll
    for (int i = 0; i < 4; ++i) most = fmaxf(most, fabsf(v[i]));
    // A value's sum is the one of its place modulo 64.
    const unsigned offset = block.start % kBlockSize;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float square = v[i] * v[i];
      const float moved =
          __shfl_sync(kAllLanes, square, me.row * kTrellisLanes + (me.at - offset) % kTrellisLanes);
#pragma unroll
      for (int sum = 0; sum < 4; ++sum) {
        const unsigned place = kTrellisLanes * sum + me.at;
        if (place >= offset + kTrellisLanes * i && place < offset + min(block.size, kTrellisLanes * (i + 1)))
          squares[sum] += moved;
      }
    }
  }
  float sum = row_sum((squares[0] + squares[2]) + (squares[1] + squares[3]));
#pragma unroll
  for (int step = 8; step; step /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, step));
  const float count = static_cast<float>(max(view.coded_values, 1u));
  const float rms = __fsqrt_rn(sum * __fdiv_rn(1.0f, count)), sixteenfold = rms * kSixteenfold;
  return {e4m3_nearest(sixteenfold), true, sixteenfold <= kLargestScale && most <= kLoudest * rms};
}

// ---- the search

// The squared errors of the nearest level of each subset, and a byte at kByte of the result that tells how
// many thresholds lie below (plus a constant of the number of bits).
template <int kBits>
__device__ __forceinline__ unsigned nearest(const unsigned char* image, float value, const Lane& me,
                                            float* error) {
  unsigned at;
  float4 level;
  if constexpr (kBits == 1) {
    at = nearest_start(1) + 16 * (me.lane % 8);
    level = *reinterpret_cast<const float4*>(image + at);
  } else {
    const float part = __saturatef(__fmaf_rn(value, search_spread(kBits), 0.5f));
    const unsigned bucket =
        __float_as_uint(__fmaf_rn(part, static_cast<float>(search_buckets(kBits) - 1), kIntegerAbove));
    constexpr unsigned kStride = search_stride(kBits), kBias = 0x4B000000u * kStride;
    const unsigned copy = kBits <= static_cast<int>(kCopiedBits) ? 8 * me.at : 0;
    const float2 entry =
        *reinterpret_cast<const float2*>(image + search_start(kBits) + (bucket * kStride + (copy - kBias)));
    at = __float_as_uint(entry.y);
    constexpr unsigned kStep = kBits <= static_cast<int>(kCopiedBits) ? nearest_stride(kBits) : 1;
    if (value > entry.x) at += kStep;
    if constexpr (kBits <= static_cast<int>(kCopiedBits))
      level = *reinterpret_cast<const float4*>(image + at);
    else
      level = *reinterpret_cast<const float4*>(image + nearest_start(kBits) + 16 * at);
  }
  const float wrong[4] = {value - level.x, value - level.y, value - level.z, value - level.w};
#pragma unroll
  for (int subset = 0; subset < 4; ++subset) error[subset] = wrong[subset] * wrong[subset];
  return at;
}

// What `nearest` has in its byte beside the count.
__device__ __forceinline__ unsigned byte_bias(unsigned bits) {
  return bits > kCopiedBits ? 0 : kNearestStart / 256 + (bits == 2 ? 1 : bits == 3 ? 6 : 0);
}

// New costs, and for each new state the lanes whose better path came over p2 = 1.
__device__ __forceinline__ uint4 advance(const float* error, float* cost) {
  unsigned over[kStates];
  float next[kStates];
#pragma unroll
  for (int state = 0; state < kStates; ++state) {
    const int p = state >> 1, p1 = state & 1;
    const float without = cost[2 * p1] + error[2 * p + p1];
    const float with = cost[2 * p1 + 1] + error[2 * (1 - p) + p1];
    bool kept;  // costs are not negative: their bits compare as they do
    next[state] = __uint_as_float(__vibmin_u32(__float_as_uint(without), __float_as_uint(with), &kept));
    over[state] = __ballot_sync(kAllLanes, !kept);
  }
#pragma unroll
  for (int state = 0; state < kStates; ++state) cost[state] = next[state];
  return make_uint4(over[0], over[1], over[2], over[3]);
}

// A row's and a warp's shared memory.
template <class T>
struct Room {
  T *slots, *first_slots;  // of this row; of the warp's first row, where both rows' ballots are
  static constexpr unsigned kRegion = kBlockSize * sizeof(T);

  __device__ unsigned* words(unsigned block) const {
    return reinterpret_cast<unsigned*>(reinterpret_cast<unsigned char*>(slots) + block * kRegion);
  }
  __device__ uint4* ballots(unsigned block) const {
    return reinterpret_cast<uint4*>(reinterpret_cast<unsigned char*>(first_slots) + block * kRegion +
                                    kWordBytes);
  }
  __device__ uint4* ballots_of(StepPlace place) const { return ballots(place / 4) + place % 4; }
};

struct Search {
  float cost[kStates];
  float inverse_rms, inverse_step;
};

template <int kBits, class T>
__device__ __forceinline__ void take_block(const unsigned char* image, unsigned block, const float* v,
                                           const Room<T>& room, const Lane& me, Search& search) {
  unsigned at[4];
  float error[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    at[step] = nearest<kBits>(image, v[step] * search.inverse_step, me, error[step]);
  }
  constexpr unsigned kPair =
      kBits <= static_cast<int>(kCopiedBits) ? 0x0051 : 0x0040;  // second or first bytes
  room.words(block)[me.at] =
      __byte_perm(__byte_perm(at[0], at[1], kPair), __byte_perm(at[2], at[3], kPair), 0x5410);
  uint4* ballots = room.ballots(block);
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const uint4 over = advance(error[step], search.cost);
    if (me.lane == 0) ballots[step] = over;
  }
}

// The blocks of a run. `next` is the first of them, rotated, and becomes block `after`.
template <int kBits, class T>
__device__ __forceinline__ void take_run(const LaneTables& tables, const unsigned char* image,
                                         const BlockRun& run, unsigned after, const Room<T>& room,
                                         const Lane& me, float* next, Search& search) {
#pragma unroll 2
  for (unsigned i = 0; i < run.count; ++i) {
    const float v[4] = {next[0], next[1], next[2], next[3]};
    const unsigned block = run.first + i;
    const Taken taken = take(tables, room.slots, i + 1 < run.count ? block + 1 : after, me);
    __syncwarp();
    rotate<true>(taken, kBlockSize, search.inverse_rms, me, next);
    take_block<kBits>(image, block, v, room, me, search);
  }
}

template <int kBits, class T>
__device__ __forceinline__ void take_short(const unsigned char* image, unsigned block, unsigned size,
                                           const float* v, const Room<T>& room, const Lane& me,
                                           Search& search) {
  unsigned word = 0;
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    if (kTrellisLanes * step >= size) break;
    const bool taken = kTrellisLanes * step + me.at < size;
    float error[4];
    const unsigned at = nearest<kBits>(image, v[step] * search.inverse_step, me, error);
    word |= (at >> (kBits <= static_cast<int>(kCopiedBits) ? 8 : 0) & 0xFF) << (8 * step);
#pragma unroll
    for (float& each : error) each = taken ? each : 0.0f;
    const uint4 over = advance(error, search.cost);
    if (me.lane == 0) room.ballots(block)[step] = over;
  }
  room.words(block)[me.at] = word;
}

template <class With>
__device__ __forceinline__ void with_bits(unsigned bits, With with) {
  switch (bits) {
    case 1:
      return with(std::integral_constant<int, 1>());
    case 2:
      return with(std::integral_constant<int, 2>());
    case 3:
      return with(std::integral_constant<int, 3>());
    case 4:
      return with(std::integral_constant<int, 4>());
    case 5:
      return with(std::integral_constant<int, 5>());
    case 6:
      return with(std::integral_constant<int, 6>());
    default:
      return;
  }
}

template <class T>
__device__ __forceinline__ void search_rows(const RotatedView& view, const LaneTables& tables,
                                            const unsigned char* image, const Room<T>& room, const Lane& me,
                                            Search& search) {
#pragma unroll
  for (int state = 0; state < kStates; ++state) search.cost[state] = state ? kFar : 0.0f;
  float next[4] = {};
  if (view.coded_count)
    rotate<true>(take(tables, room.slots, view.coded[0], me), kBlockSize, search.inverse_rms, me, next);
  for (unsigned i = 0; i < view.run_count; ++i) {
    const BlockRun found = view.runs[i];
    const BlockRun run{uniform(found.bits), uniform(found.first), uniform(found.count)};
    const unsigned after = view.runs[min(i + 1, view.run_count - 1)].first;  // at the end any block will do
    with_bits(run.bits, [&](auto bits) {
      take_run<decltype(bits)::value>(tables, image, run, after, room, me, next, search);
    });
  }
  for (unsigned b = view.whole_count; b < view.block_count; ++b) {
    const DeviceBlock block = view.blocks[b];
    if (!block.bits) continue;
    float v[4];
    rotate<false>(take(tables, room.slots, b, me), block.size, search.inverse_rms, me, v);
    __syncwarp();
    with_bits(block.bits, [&](auto bits) {
      take_short<decltype(bits)::value>(image, b, block.size, v, room, me, search);
    });
  }
}

// ---- the way back

struct Path {
  unsigned p, p1;  // a state of each of 32 lanes
};

__device__ __forceinline__ Path before(Path end, uint4 over) {
  return {end.p1, mux(end.p1, mux(end.p, over.w, over.y), mux(end.p, over.z, over.x))};
}

// Where paths come from that end in each of the four states.
struct Stretch {
  Path from[kStates];

  __device__ __forceinline__ Path of(Path end) const {
    return {mux(end.p, mux(end.p1, from[3].p, from[2].p), mux(end.p1, from[1].p, from[0].p)),
            mux(end.p, mux(end.p1, from[3].p1, from[2].p1), mux(end.p1, from[1].p1, from[0].p1))};
  }
};

__device__ __forceinline__ float least_cost(const float* cost) {
  return fminf(fminf(cost[0], cost[1]), fminf(cost[2], cost[3]));
}

__device__ __forceinline__ Path end_of(const float* cost) {
  unsigned best = 0;
  float least = cost[0];
#pragma unroll
  for (unsigned state = 1; state < kStates; ++state) {
    if (cost[state] < least) best = state, least = cost[state];
  }
  return {__ballot_sync(kAllLanes, best >> 1), __ballot_sync(kAllLanes, best & 1)};
}

// Replaces each step's ballots by the path's bits, and the two bits of its subsets.
// `ballots(step)` points at a step's.
template <class Ballots>
__device__ __forceinline__ void trace_back(const RotatedView& view, Ballots ballots, Path end,
                                           unsigned lane) {
  const unsigned each = (view.step_count + 31) / 32;
  const unsigned start = min(lane * each, view.step_count), stop = min(start + each, view.step_count);
  Stretch stretch;
#pragma unroll
  for (unsigned state = 0; state < kStates; ++state)
    stretch.from[state] = {state & 2 ? kAllLanes : 0u, state & 1 ? kAllLanes : 0u};
#pragma unroll 4
  for (unsigned step = stop; step-- > start;) {
    const uint4 over = *ballots(step);
#pragma unroll
    for (Path& path : stretch.from) path = before(path, over);
  }
#pragma unroll
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    Stretch later, both;
#pragma unroll
    for (int state = 0; state < kStates; ++state) {
      later.from[state].p = __shfl_down_sync(kAllLanes, stretch.from[state].p, distance);
      later.from[state].p1 = __shfl_down_sync(kAllLanes, stretch.from[state].p1, distance);
      both.from[state] = stretch.of(later.from[state]);
    }
    if (lane + distance < 32) stretch = both;
  }
  const Path start_state = stretch.of(end);
  Path state{__shfl_down_sync(kAllLanes, start_state.p, 1), __shfl_down_sync(kAllLanes, start_state.p1, 1)};
  if (lane == 31) state = end;
#pragma unroll 4
  for (unsigned step = stop; step-- > start;) {
    uint4* of_step = ballots(step);
    const Path past = before(state, *of_step);
    *of_step = make_uint4(state.p, state.p ^ past.p1, state.p1, 0);
    state = past;
  }
}

// ---- the codes

// Four bits to the lowest bits of four bytes.
__device__ __forceinline__ unsigned spread_bits(unsigned bits) {
  return (bits & 15) * 0x00204081u & 0x01010101u;
}

// Bit `bit` of four bytes of `low` and four of `high`, as a byte.
__device__ __forceinline__ unsigned gather_bits(unsigned low, unsigned high, unsigned bit) {
  const unsigned both = (low >> bit & 0x01010101u) | (high >> bit << 4 & 0x10101010u);
  return both * 0x01020408u >> 24;
}

__device__ __forceinline__ unsigned four_indices(unsigned counts, unsigned subset_high, unsigned subset_low,
                                                 unsigned bias) {
  return (counts + 0x01010101u * (3 - bias) - 2 * spread_bits(subset_high) - spread_bits(subset_low)) >> 2 &
         0x3F3F3F3Fu;
}

// Whole blocks' codes into the record at `record`, which is the start of this row's slots: by then what stood
// there was read. A lane takes half a block: 8 of its lanes, in four steps.
template <class T>
__device__ __forceinline__ void write_whole(const RotatedView& view, const Room<T>& room, const Lane& me,
                                            unsigned char* record) {
  for (unsigned first = 0; first < view.coded_count; first += kTrellisLanes / 2) {
    const unsigned item = first + me.at / 2, half = me.at % 2;
    const bool taken = item < view.coded_count;
    const unsigned b = view.coded[taken ? item : 0];
    const uint4* words = reinterpret_cast<const uint4*>(room.words(b)) + 2 * half;
    uint4 path[4], of_lanes[2] = {words[0], words[1]};
#pragma unroll
    for (int step = 0; step < 4; ++step) path[step] = room.ballots(b)[step];
    const DeviceBlock block = view.blocks[b];
    __syncwarp();
    if (taken) {
      unsigned counts[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint4 w = of_lanes[i];
        const unsigned a = __byte_perm(w.x, w.y, 0x5140), c = __byte_perm(w.z, w.w, 0x5140);
        const unsigned d = __byte_perm(w.x, w.y, 0x7362), e = __byte_perm(w.z, w.w, 0x7362);
        counts[i][0] = __byte_perm(a, c, 0x5410), counts[i][1] = __byte_perm(a, c, 0x7632);
        counts[i][2] = __byte_perm(d, e, 0x5410), counts[i][3] = __byte_perm(d, e, 0x7632);
      }
      const unsigned bias = byte_bias(block.bits), shift = 16 * me.row + 8 * half;
      unsigned char* codes = record + block.code_at + half;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        const unsigned high = path[step].y >> shift, low = path[step].z >> shift;
        const unsigned lows = four_indices(counts[0][step], high, low, bias);
        const unsigned highs = four_indices(counts[1][step], high >> 4, low >> 4, bias);
        codes[2 * step] = static_cast<unsigned char>(path[step].x >> shift);
        for (unsigned plane = 1; plane < block.bits; ++plane)
          codes[8 * plane + 2 * step] =
              static_cast<unsigned char>(gather_bits(lows, highs, block.bits - 1 - plane));
      }
    }
    __syncwarp();
  }
}

// A value's code, by its step's traced path and how many thresholds lie below it.
__device__ __forceinline__ unsigned code_of(uint4 path, unsigned lane, unsigned below, unsigned bits) {
  const unsigned index = (below + 3 - 2 * (path.y >> lane & 1) - (path.z >> lane & 1)) >> 2;
  return (path.x >> lane & 1) << (bits - 1) | index;
}

// A block of less than 64, by one lane of the row.
template <class T>
__device__ __noinline__ void write_short(const RotatedView& view, Room<T> room, Lane me, unsigned b,
                                         unsigned char* record) {
  const DeviceBlock block = view.blocks[b];
  unsigned char codes[32 * 6 / 8] = {};  // what it reads may lie where they go
  for (unsigned i = 0; i < block.size; ++i) {
    const unsigned step = i / kTrellisLanes, lane = i % kTrellisLanes, bit = kTrellisLanes * me.row + lane;
    const unsigned below = (room.words(b)[lane] >> (8 * step) & 0xFF) - byte_bias(block.bits);
    const unsigned code = code_of(room.ballots(b)[step], bit, below, block.bits);
    for (unsigned plane = 0; plane < block.bits; ++plane) {
      const unsigned at = plane * block.size + i;
      codes[at / 8] |= static_cast<unsigned char>((code >> (block.bits - 1 - plane) & 1) << (at % 8));
    }
  }
  for (unsigned i = 0; i < block.code_bytes; ++i) record[block.code_at + i] = codes[i];
}

template <class T>
__device__ __forceinline__ void write_record(const RotatedView& view, const Room<T>& room, const Lane& me,
                                             unsigned rms_bits, unsigned scale) {
  auto* record = reinterpret_cast<unsigned char*>(room.slots);
  write_whole(view, room, me, record);
  for (unsigned b = view.whole_count; b < view.block_count; ++b) {
    if (me.at == 0 && view.blocks[b].bits) write_short(view, room, me, b, record);
    __syncwarp();
  }
  if (me.at == 0) {
    record[0] = static_cast<unsigned char>(rms_bits), record[1] = static_cast<unsigned char>(rms_bits >> 8);
    record[2] = static_cast<unsigned char>(scale);
  }
  __syncwarp();
}

// ---- two rows

template <class T>
__device__ __forceinline__ void encode_pair(const RotatedView& view, const LaneTables& tables,
                                            const EncodeJob& job, const T* rows, std::size_t first,
                                            const unsigned char* image, T* slots, const Lane& me) {
  const bool valid = first + me.row < job.row_count;
  const std::size_t index = valid ? first + me.row : first;
  const T* row = rows + index * view.width;
  const unsigned slot_count = view.block_count * kBlockSize;
  const Room<T> room{slots + me.row * slot_count, slots};
  unsigned rms_bits = 0;
  float rms = 0;
  RowScale scale{};
  bool sane = false;
  for (bool exact = false;;) {
    const float squares = load_row<T>(view, row, room.slots, me);
    __syncwarp();
    rms_bits = half_bits(__fsqrt_rn(__fdiv_rn(squares, static_cast<float>(view.width))));
    rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits)));
    sane = job.positions[index] != 0 && rms <= view.limit && rms >= kSmallestRms;
    if (!__any_sync(kAllLanes, sane)) break;
    Search search;
    search.inverse_rms = sane ? __fdiv_rn(1.0f, rms) : 0.0f;
    scale = guess_scale(view, tables, room.slots, search.inverse_rms, me);
    exact = __any_sync(kAllLanes, sane && (exact || !scale.sure || !view.guessable));
    if (exact) scale = exact_scale(view, tables, room.slots, search.inverse_rms, me);
    search.inverse_step = scale.code ? __fdiv_rn(1.0f, e4m3_step(scale.code)) : 0.0f;
    search_rows(view, tables, image, room, me, search);
    const bool loud = least_cost(search.cost) >= kLoudError;
    if (!exact && __any_sync(kAllLanes, sane && loud)) {  // rare: once more, and count its RMS exactly
      exact = true;
      __syncwarp();
      continue;
    }
    const Path end = end_of(search.cost);
    __syncwarp();
    trace_back(view, [&](unsigned step) { return room.ballots_of(view.steps[step]); }, end, me.lane);
    __syncwarp();
    break;
  }
  const bool coded = sane && scale.fits;
  unsigned state[2];
#pragma unroll
  for (unsigned i = 0; i < 2; ++i) {
    const bool this_coded = __shfl_sync(kAllLanes, coded, kTrellisLanes * i);
    const float this_rms = __shfl_sync(kAllLanes, rms, kTrellisLanes * i);
    if (first + i >= job.row_count) continue;
    state[i] =
        this_coded ? kCoded : raw_state(rows + (first + i) * view.width, view.width, this_rms, me.lane);
    if (me.lane == 0) publish(job.scratch, first + i, state[i], view);
  }
  if (__any_sync(kAllLanes, coded)) write_record(view, room, me, rms_bits, scale.code);
  std::size_t at = row_start(job, first, view, me.lane);
#pragma unroll
  for (unsigned i = 0; i < 2; ++i) {
    if (first + i >= job.row_count) continue;
    if (state[i] == kCoded)
      copy_out(job.payload + at, reinterpret_cast<const unsigned char*>(slots + i * slot_count),
               view.row_bytes, me.lane);
    else
      write_raw(rows + (first + i) * view.width, view.width, state[i], job.payload + at, me.lane);
    at += state_bytes(state[i], view);
  }
  if (first + 2 >= job.row_count && me.lane == 0) *job.scratch.end = at;
  __syncwarp();
}

template <class T>
unsigned trellis_warp_bytes(const RotatedView& view) {
  return 2 * view.block_count * kBlockSize * static_cast<unsigned>(sizeof(T));
}

constexpr unsigned kTrellisWarps = 12;

__host__ __device__ inline unsigned lane_table_bytes(const RotatedView& view) {  // of each of the two
  return view.block_count * kBlockSize * 4;
}

template <class T>
__global__ void __launch_bounds__(32 * kTrellisWarps, 1)
    encode_trellis(const __grid_constant__ RotatedView view, const __grid_constant__ EncodeJob job,
                   const T* rows) {
  extern __shared__ uint4 shared[];
  auto* image = reinterpret_cast<unsigned char*>(shared);
  const unsigned table_bytes = lane_table_bytes(view);
  auto* mean = reinterpret_cast<uint4*>(image + kSearchBytes);
  auto* forward = reinterpret_cast<uint4*>(image + kSearchBytes + table_bytes);
  copy_table(shared, view.search, kSearchBytes);
  copy_table(mean, view.mean_by_lane, table_bytes);
  copy_table(forward, view.forward_by_lane, table_bytes);
  const LaneTables tables{reinterpret_cast<const float4*>(mean), reinterpret_cast<const float4*>(forward)};
  __syncthreads();
  const Lane me(threadIdx.x % 32);
  T* slots = reinterpret_cast<T*>(image + kSearchBytes + 2 * table_bytes) +
             threadIdx.x / 32 * 2 * view.block_count * kBlockSize;
  for (;;) {
    const std::size_t first = take_rows(job.scratch, 2, me.lane);
    if (__all_sync(kAllLanes, first >= job.row_count)) break;
    encode_pair(view, tables, job, rows, first, image, slots, me);
  }
  finish(job, view, me.lane, gridDim.x * (blockDim.x / 32));
}

}  // namespace
}  // namespace hyperlane
