// The first pass of `int4`'s encoding, a warp a row: scales, symbols, head and patches of each row that can
// be coded.
#pragma once
#include "quant/entropy_window.cuh"
#include "quant/rotated_device.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kLargestR = 247, kPatched = 128;
constexpr unsigned kPatchBytes = 3;
constexpr unsigned kPairs = 4;  // of channels that a lane loads together

// FP16's bits to exponent and three bits of mantissa, ties to even, and what that stands for.
__device__ __forceinline__ unsigned r_byte(unsigned rms_bits) {
  return (rms_bits + 0x3F + (rms_bits >> 7 & 1)) >> 7;
}
__device__ __forceinline__ float r_value(unsigned byte) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(byte << 7)));
}

// By its place: the channel is one of the same 256.
struct Patch {
  unsigned short place;
  unsigned char channel;  // its lowest byte
  signed char rest;
};

// Of a warp, in shared memory.
struct RowRoom {
  unsigned char* symbols;
  unsigned char* low;  // bits that go as they are, the lowest of a byte each
  Patch* patches;
};

__host__ __device__ inline unsigned low_room_bytes(const EntropyView& view) {
  return (view.low_count + 31) / 32 * 32;
}
__host__ __device__ inline unsigned row_room_bytes(const EntropyView& view) {
  return view.symbol_bytes + low_room_bytes(view) +
         (static_cast<unsigned>(sizeof(Patch)) * view.most_patches + 15) / 16 * 16;
}

__device__ __forceinline__ RowRoom row_room(const EntropyView& view, unsigned char* at) {
  unsigned char* low = at + view.symbol_bytes;
  return {at, low, reinterpret_cast<Patch*>(low + low_room_bytes(view))};
}

__device__ __forceinline__ void load_pair(const __half* from, __half* pair) {
  const unsigned bits = __ldg(reinterpret_cast<const unsigned*>(from));
  memcpy(pair, &bits, 4);
}
__device__ __forceinline__ void load_pair(const float* from, float* pair) {
  const float2 both = __ldg(reinterpret_cast<const float2*>(from));
  memcpy(pair, &both, 8);
}

// 64 running sums, two a lane, to the row's.
__device__ __forceinline__ float halved(float even, float odd) {
#pragma unroll
  for (int step = 16; step; step /= 2) {
    even = __fadd_rn(even, __shfl_xor_sync(kAllLanes, even, step));
    odd = __fadd_rn(odd, __shfl_xor_sync(kAllLanes, odd, step));
  }
  return __fadd_rn(even, odd);
}

__device__ __forceinline__ float by_step(float value, float inverse_r, float2 mean_inverse) {
  return __fmul_rn(__fadd_rn(__fmul_rn(value, inverse_r), -mean_inverse.x), mean_inverse.y);
}

// kWhole: the width is a multiple of 256, and rows start on pairs.
template <class T, bool kWhole>
struct RowOf {
  const EntropyView& view;
  const T* row;
  unsigned lane;

  __device__ __forceinline__ bool has(unsigned channel) const { return kWhole || channel < view.width; }

  // Two neighbours; zeros beyond the row.
  __device__ __forceinline__ void load(unsigned at, float* values) const {
    T pair[2] = {T(0.0f), T(0.0f)};
    if constexpr (kWhole) {
      load_pair(row + at, pair);
    } else {
      if (at < view.width) pair[0] = row[at];
      if (at + 1 < view.width) pair[1] = row[at + 1];
    }
    values[0] = widen(pair[0]), values[1] = widen(pair[1]);
  }

  __device__ __forceinline__ float squares() const {
    float even = 0, odd = 0;
    for (unsigned first = 0; first < view.width; first += 64 * kPairs) {
      float pairs[2 * kPairs];
#pragma unroll
      for (unsigned i = 0; i < kPairs; ++i) load(first + 64 * i + 2 * lane, pairs + 2 * i);
#pragma unroll
      for (unsigned i = 0; i < kPairs; ++i) {
        even = add_square(even, pairs[2 * i], T());
        odd = add_square(odd, pairs[2 * i + 1], T());
      }
    }
    return halved(even, odd);
  }

  __device__ __forceinline__ void steps(unsigned at, float inverse_r, float* y) const {
    float pair[2];
    load(at, pair);
    const float4 both = __ldg(reinterpret_cast<const float4*>(view.mean_inverse + (has(at) ? at : 0)));
    y[0] = by_step(pair[0], inverse_r, {both.x, both.y});
    y[1] = by_step(pair[1], inverse_r, {both.z, both.w});
  }

  __device__ __forceinline__ float loudness(float inverse_r) const {
    float even = 0, odd = 0;
    for (unsigned first = 0; first < view.width; first += 64 * kPairs) {
      float y[2 * kPairs];
#pragma unroll
      for (unsigned i = 0; i < kPairs; ++i) steps(first + 64 * i + 2 * lane, inverse_r, y + 2 * i);
#pragma unroll
      for (unsigned i = 0; i < kPairs; ++i) {
        const unsigned at = first + 64 * i + 2 * lane;
        even = __fadd_rn(even, has(at) ? fabsf(y[2 * i]) : 0.0f);
        odd = __fadd_rn(odd, has(at + 1) ? fabsf(y[2 * i + 1]) : 0.0f);
      }
    }
    return halved(even, odd);
  }
};

struct Multiple {
  int k, rest, symbol;
  bool patched;
};

__device__ __forceinline__ unsigned shift_of(const uint2 info) { return info.x >> kShiftBit; }
__device__ __forceinline__ unsigned symbol_at(const uint2 info) { return info.x & 0xFFFF; }

// Values beyond an integer saturate, and then no i8 holds what is left of them.
__device__ __forceinline__ Multiple multiple_of(float y, float inverse_g, const uint2 info) {
  Multiple found;
  found.k = __float2int_rn(__fmul_rn(y, inverse_g));
  found.rest = found.k >> shift_of(info);
  const int symbol = found.rest + static_cast<int>(kMiddle);
  found.symbol = min(max(symbol, static_cast<int>(info.x >> 16 & 31)), static_cast<int>(info.x >> 21 & 31));
  found.patched = found.symbol != symbol;
  return found;
}

__device__ __forceinline__ unsigned place_of(unsigned symbol_at) {
  return 32 * (4 * (symbol_at >> 7) + (symbol_at & 3)) + (symbol_at >> 2 & 31);
}

// Bits 0 and 1.
__device__ __forceinline__ void put_low_bits(int k, const uint2 info, unsigned char* low) {
  const unsigned shift = shift_of(info), at = info.y & ((1u << kLowBits) - 1);
  if (shift > 0) low[at] = static_cast<unsigned char>(k);
  if (shift > 1) low[at + (info.y >> kLowBits)] = static_cast<unsigned char>(k >> 1);
}

// The others, which few channels have.
__device__ __noinline__ void put_more_bits(const unsigned* low_at, unsigned pitch, int k, unsigned shift,
                                           unsigned char* low) {
#pragma unroll 1
  for (unsigned bit = 2; bit < shift; ++bit)
    low[__ldg(low_at + bit * pitch)] = static_cast<unsigned char>(k >> bit);
}

// Patches of some pairs into the warp's room: two channels a lane from `first` on, 64 further each time.
__device__ __forceinline__ bool put_patches(const EntropyView& view, const Multiple* each, const uint2* info,
                                            unsigned count, unsigned first, unsigned lane, Patch* patches,
                                            unsigned& patch_count) {
  bool holds = true;
#pragma unroll
  for (unsigned i = 0; i < count; ++i) {
    const unsigned patched = __ballot_sync(kAllLanes, each[i].patched);
    const unsigned index = patch_count + __popc(patched & ((1u << lane) - 1));
    patch_count += __popc(patched);
    if (!each[i].patched) continue;
    holds = holds && each[i].rest >= -128 && each[i].rest < 128;
    const unsigned channel = first + 64 * (i / 2) + 2 * lane + i % 2;
    if (index < view.most_patches)
      patches[index] = {static_cast<unsigned short>(place_of(symbol_at(info[i]))),
                        static_cast<unsigned char>(channel), static_cast<signed char>(each[i].rest)};
  }
  return holds;
}

// Symbols, low bits and patches into the warp's room. The number of patches; more than `most_patches` where
// the format cannot hold the row.
template <class T, bool kWhole>
__device__ __forceinline__ unsigned find_symbols(const RowOf<T, kWhole>& of, float inverse_r, float inverse_g,
                                                 const RowRoom& room) {
  const EntropyView& view = of.view;
  unsigned patch_count = 0;
  bool holds = true;
  for (unsigned first = 0; first < view.width; first += 64 * kPairs) {
    float y[2 * kPairs];
    uint2 info[2 * kPairs];
#pragma unroll
    for (unsigned i = 0; i < kPairs; ++i) {
      const unsigned at = first + 64 * i + 2 * of.lane;
      of.steps(at, inverse_r, y + 2 * i);
      const uint4 both = __ldg(reinterpret_cast<const uint4*>(view.info + (of.has(at) ? at : 0)));
      info[2 * i] = {both.x, both.y}, info[2 * i + 1] = {both.z, both.w};
    }
    Multiple each[2 * kPairs];
    bool patched = false;
    unsigned most = 0;
#pragma unroll
    for (unsigned i = 0; i < 2 * kPairs; ++i) {
      each[i] = multiple_of(y[i], inverse_g, info[i]);
      if (of.has(first + 64 * (i / 2) + 2 * of.lane + i % 2)) {
        room.symbols[symbol_at(info[i])] = static_cast<unsigned char>(each[i].symbol);
        put_low_bits(each[i].k, info[i], room.low);
        patched = patched || each[i].patched;
        most = max(most, info[i].x);
      } else {
        each[i].patched = false;
        info[i].x = 0;
      }
    }
    if (most >> kShiftBit > 2) {
#pragma unroll
      for (unsigned i = 0; i < 2 * kPairs; ++i)
        if (shift_of(info[i]) > 2)
          put_more_bits(view.low_at + first + 64 * (i / 2) + 2 * of.lane + i % 2, (view.width + 1) / 2 * 2,
                        each[i].k, shift_of(info[i]), room.low);
    }
    if (__any_sync(kAllLanes, patched))
      holds = put_patches(view, each, info, 2 * kPairs, first, of.lane, room.patches, patch_count) && holds;
  }
  return __all_sync(kAllLanes, holds) ? patch_count : view.most_patches + 1;
}

// The lowest bits of four bytes, the first byte's lowest.
__device__ __forceinline__ unsigned four_bits(unsigned bytes) {
  return ((bytes & 0x01010101u) * 0x10204080u) >> 28;
}

// A byte each lane.
__device__ __forceinline__ void write_low_bits(const EntropyView& view, const unsigned char* low,
                                               unsigned char* to, unsigned lane) {
  const auto* pairs = reinterpret_cast<const uint2*>(low);
  for (unsigned i = lane; i + 2 < view.head_bytes; i += 32) {
    const uint2 eight = pairs[i];
    to[i] = static_cast<unsigned char>(four_bits(eight.x) | four_bits(eight.y) << 4);
  }
}

// In the order of their places.
__device__ __forceinline__ void write_patches(const Patch* patches, unsigned count, unsigned char* to,
                                              unsigned lane) {
  for (unsigned i = lane; i < count; i += 32) {
    const Patch mine = patches[i];
    unsigned before = 0;
    for (unsigned other = 0; other < count; ++other) before += patches[other].place < mine.place;
    to[kPatchBytes * before] = static_cast<unsigned char>(mine.channel);
    to[kPatchBytes * before + 1] = static_cast<unsigned char>(mine.place >> 8);
    to[kPatchBytes * before + 2] = static_cast<unsigned char>(mine.rest);
  }
}

template <class T, bool kWhole>
__device__ __forceinline__ void quantize_row(const EntropyView& view, const EntropyJob& job, const T* rows,
                                             std::size_t index, const RowRoom& room, unsigned lane) {
  const T* row = rows + index * view.width;
  const RowOf<T, kWhole> of{view, row, lane};
  const float squares = of.squares();
  const unsigned rms_bits =
      half_bits(__fsqrt_rn(__fdiv_rn(squares, static_cast<float>(view.width)))) & 0xFFFF;
  const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits)));
  unsigned patch_count = 0;
  bool coded = job.positions[index] != 0 && rms <= view.limit && rms >= kSmallestRms;
  if (coded) {
    const unsigned r = r_byte(rms_bits);
    const float inverse_r = __fdiv_rn(1.0f, r_value(r));
    const float sixteenfold = __fmul_rn(of.loudness(inverse_r), view.sixteenfold);
    const unsigned g = e4m3_nearest(sixteenfold);
    coded = sixteenfold <= kLargestScale && r <= kLargestR;
    if (coded) {
      patch_count = find_symbols(of, inverse_r, inverse(e4m3_step(g)), room);
      coded = patch_count <= view.most_patches;
      __syncwarp();
    }
    if (coded) {
      unsigned char* head = job.scratch.heads + index * job.scratch.head_pitch;
      if (lane == 0) {
        head[0] = static_cast<unsigned char>(r);
        head[1] = static_cast<unsigned char>(g | (patch_count ? kPatched : 0));
      }
      write_low_bits(view, room.low, head + 2, lane);
      const auto* symbols = reinterpret_cast<const uint4*>(room.symbols);
      auto* to = reinterpret_cast<uint4*>(job.scratch.symbols + index * view.symbol_bytes);
#pragma unroll 4
      for (unsigned i = lane; i < view.symbol_bytes / 16; i += 32) to[i] = symbols[i];
      if (patch_count)
        write_patches(room.patches, patch_count,
                      job.scratch.patches + index * kPatchBytes * view.most_patches, lane);
    }
  }
  const unsigned state = coded ? kCoded : raw_state(row, view.width, rms, lane);
  if (lane == 0) {
    job.scratch.states[index] = static_cast<unsigned char>(state);
    job.scratch.counts[index] = static_cast<unsigned char>(coded ? patch_count : 0);
  }
  __syncwarp();
}

}  // namespace
}  // namespace hyperlane
