// The first pass of `int4`'s encoding, a warp a row: scales, symbols, head and patches of each row that can be
// coded.
#pragma once
#include "quant/entropy_window.cuh"
#include "quant/rotated_device.cuh"

namespace hyperlane {
namespace {

constexpr float kIntegers = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
constexpr float kLargestMultiple = 32767.0f;
constexpr unsigned kLargestR = 247, kPatched = 128;
constexpr unsigned kPatchBytes = 3;

struct Patch {
  unsigned place;
  unsigned short channel;
  signed char rest;
};

// Of a warp, in shared memory.
struct RowRoom {
  unsigned char* symbols;
  unsigned* low;
  Patch* patches;
};

__host__ __device__ inline unsigned row_room_bytes(const EntropyView& view) {
  return view.symbol_bytes + (4 * view.low_words + 15) / 16 * 16 +
         (static_cast<unsigned>(sizeof(Patch)) * view.most_patches + 15) / 16 * 16;
}

__device__ __forceinline__ RowRoom row_room(const EntropyView& view, unsigned char* at) {
  unsigned char* low = at + view.symbol_bytes;
  return {at, reinterpret_cast<unsigned*>(low),
          reinterpret_cast<Patch*>(low + (4 * view.low_words + 15) / 16 * 16)};
}

// Two neighbours; a row may start anywhere and end odd, so that pairs are loaded whole only where `paired`.
template <class T>
__device__ __forceinline__ void load_pair(const T* row, unsigned at, unsigned width, bool paired, T* pair) {
  if (paired) {
    if constexpr (sizeof(T) == 2) {
      const unsigned bits = *reinterpret_cast<const unsigned*>(row + at);
      memcpy(pair, &bits, 4);
    } else {
      const float2 both = *reinterpret_cast<const float2*>(row + at);
      memcpy(pair, &both, 8);
    }
  } else {
    pair[0] = row[at];
    pair[1] = at + 1 < width ? row[at + 1] : T(0.0f);
  }
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

template <class T>
struct RowOf {
  const EntropyView& view;
  const T* row;
  bool paired;
  unsigned lane;

  __device__ __forceinline__ float squares() const {
    float even = 0, odd = 0;
#pragma unroll 8
    for (unsigned at = 2 * lane; at < view.width; at += 64) {
      T pair[2];
      load_pair(row, at, view.width, paired, pair);
      even = add_square(even, widen(pair[0]), T());
      odd = add_square(odd, widen(pair[1]), T());
    }
    return halved(even, odd);
  }

  __device__ __forceinline__ void steps(unsigned at, float inverse_r, float* y) const {
    T pair[2];
    load_pair(row, at, view.width, paired, pair);
    const float4 both = __ldg(reinterpret_cast<const float4*>(view.mean_inverse + at));
    y[0] = by_step(widen(pair[0]), inverse_r, {both.x, both.y});
    y[1] = by_step(widen(pair[1]), inverse_r, {both.z, both.w});
  }

  __device__ __forceinline__ float loudness(float inverse_r) const {
    float even = 0, odd = 0;
#pragma unroll 4
    for (unsigned at = 2 * lane; at < view.width; at += 64) {
      float y[2];
      steps(at, inverse_r, y);
      even = __fadd_rn(even, fabsf(y[0]));
      if (at + 1 < view.width) odd = __fadd_rn(odd, fabsf(y[1]));
    }
    return halved(even, odd);
  }
};

struct Multiple {
  int k, rest;
  unsigned symbol, at;
  bool patched;
};

__device__ __forceinline__ Multiple multiple_of(float y, float inverse_g, unsigned info) {
  const float scaled = fminf(fmaxf(__fmul_rn(y, inverse_g), -kLargestMultiple), kLargestMultiple);
  Multiple found;
  found.k = __float_as_int(__fadd_rn(scaled, kIntegers)) - __float_as_int(kIntegers);
  found.rest = found.k >> (info >> 16 & 7);
  const int symbol = found.rest + static_cast<int>(kMiddle);
  const int coded = min(max(symbol, static_cast<int>(info >> 19 & 31)), static_cast<int>(info >> 24));
  found.symbol = static_cast<unsigned>(coded);
  found.patched = coded != symbol;
  found.at = info & 0xFFFF;
  return found;
}

__device__ __forceinline__ unsigned place_of(unsigned symbol_at) {
  return 32 * (4 * (symbol_at >> 7) + (symbol_at & 3)) + (symbol_at >> 2 & 31);
}

__device__ __forceinline__ void add_low_bits(const EntropyView& view, int k, unsigned shift, unsigned channel,
                                             unsigned* low) {
  const unsigned pitch = (view.width + 1) / 2 * 2;
  for (unsigned bit = 0; bit < shift; ++bit) {
    const unsigned at = __ldg(view.low_at + bit * pitch + channel);
    if (k >> bit & 1) atomicOr(low + at / 32, 1u << (at % 32));
  }
}

// Symbols, low bits and patches into the warp's room. The number of patches; more than `most_patches` where the
// format cannot hold the row.
template <class T>
__device__ __forceinline__ unsigned find_symbols(const RowOf<T>& of, float inverse_r, float inverse_g,
                                                 const RowRoom& room) {
  const EntropyView& view = of.view;
  const unsigned below = (1u << of.lane) - 1;
  unsigned patch_count = 0;
  bool holds = true;
#pragma unroll 2
  for (unsigned first = 0; first < view.width; first += 64) {
    const unsigned at = first + 2 * of.lane;
    Multiple each[2] = {};
    unsigned shift[2] = {};
    if (at < view.width) {
      float y[2];
      of.steps(at, inverse_r, y);
      const uint2 info = __ldg(reinterpret_cast<const uint2*>(view.info + at));
      each[0] = multiple_of(y[0], inverse_g, info.x);
      each[1] = multiple_of(y[1], inverse_g, info.y);
      shift[0] = info.x >> 16 & 7, shift[1] = info.y >> 16 & 7;
      room.symbols[each[0].at] = static_cast<unsigned char>(each[0].symbol);
      if (at + 1 < view.width)
        room.symbols[each[1].at] = static_cast<unsigned char>(each[1].symbol);
      else
        each[1].patched = false, shift[1] = 0;
    }
    if (shift[0]) add_low_bits(view, each[0].k, shift[0], at, room.low);
    if (shift[1]) add_low_bits(view, each[1].k, shift[1], at + 1, room.low);
    if (!__any_sync(kAllLanes, each[0].patched || each[1].patched)) continue;
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned patched = __ballot_sync(kAllLanes, each[i].patched);
      const unsigned index = patch_count + __popc(patched & below);
      holds = holds && (!each[i].patched || (each[i].rest >= -128 && each[i].rest < 128));
      if (each[i].patched && index < view.most_patches)
        room.patches[index] = {place_of(each[i].at), static_cast<unsigned short>(at + i),
                               static_cast<signed char>(each[i].rest)};
      patch_count += __popc(patched);
    }
  }
  return __all_sync(kAllLanes, holds) ? patch_count : view.most_patches + 1;
}

// In the order of their places.
__device__ __forceinline__ void write_patches(const RowRoom& room, unsigned count, unsigned char* to,
                                              unsigned lane) {
  for (unsigned i = lane; i < count; i += 32) {
    const Patch mine = room.patches[i];
    unsigned before = 0;
    for (unsigned other = 0; other < count; ++other) before += room.patches[other].place < mine.place;
    to[kPatchBytes * before] = static_cast<unsigned char>(mine.channel);
    to[kPatchBytes * before + 1] = static_cast<unsigned char>(mine.channel >> 8);
    to[kPatchBytes * before + 2] = static_cast<unsigned char>(mine.rest);
  }
}

template <class T>
__device__ __forceinline__ void quantize_row(const EntropyView& view, const EntropyJob& job, const T* rows,
                                             std::size_t index, const RowRoom& room, unsigned lane) {
  const T* row = rows + index * view.width;
  const bool paired =
      view.width % 2 == 0 && reinterpret_cast<std::uintptr_t>(rows) % (2 * sizeof(T)) == 0;
  const RowOf<T> of{view, row, paired, lane};
  const float squares = of.squares();
  const unsigned rms_bits = half_bits(__fsqrt_rn(__fdiv_rn(squares, static_cast<float>(view.width)))) & 0xFFFF;
  const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits)));
  unsigned patch_count = 0;
  bool coded = job.positions[index] != 0 && rms <= view.limit && rms >= kSmallestRms;
  if (coded) {
    const unsigned r = (rms_bits + 0x3F + (rms_bits >> 7 & 1)) >> 7;
    const float r_value = __half2float(__ushort_as_half(static_cast<unsigned short>(r << 7)));
    const float inverse_r = __fdiv_rn(1.0f, r_value);
    const float sixteenfold = __fmul_rn(of.loudness(inverse_r), view.sixteenfold);
    const unsigned g = e4m3_nearest(sixteenfold);
    coded = sixteenfold <= kLargestScale && r <= kLargestR;
    if (coded) {
      for (unsigned i = lane; i < view.low_words; i += 32) room.low[i] = 0;
      __syncwarp();
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
      const auto* low = reinterpret_cast<const unsigned char*>(room.low);
      for (unsigned i = lane; i + 2 < view.head_bytes; i += 32) head[2 + i] = low[i];
      const auto* symbols = reinterpret_cast<const uint4*>(room.symbols);
      auto* to = reinterpret_cast<uint4*>(job.scratch.symbols + index * view.symbol_bytes);
#pragma unroll 4
      for (unsigned i = lane; i < view.symbol_bytes / 16; i += 32) to[i] = symbols[i];
      if (patch_count)
        write_patches(room, patch_count, job.scratch.patches + index * kPatchBytes * view.most_patches, lane);
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
