// Symbols to values, by channel: a lane takes eight neighbours, a warp 256.
#pragma once
#include "quant/entropy_rows.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kBlockChannels = 256, kLaneChannels = 8;

// Where a bit stands in a row's head, and no mask where there is none.
struct LowBit {
  unsigned byte, mask;

  __device__ __forceinline__ LowBit() {}
  __device__ __forceinline__ LowBit(unsigned at, bool there)
      : byte(there ? at / 8 : 0), mask(there ? 1u << (at % 8) : 0) {}
};

// What eight channels of a lane have in all rows.
struct EightChannels {
  float step[kLaneChannels], mean[kLaneChannels];
  LowBit low[2][kLaneChannels];  // bits 0 and 1
  int factor[kLaneChannels];     // 1 << shift
  unsigned shifts;               // four bits each
  unsigned most_shift;           // of the warp
  unsigned second;               // which of the eight have a bit 1 in any lane
  unsigned count;                // of those that are there

  __device__ __forceinline__ EightChannels(const EntropyView& view, unsigned first) {
    count = first < view.width ? min(view.width - first, kLaneChannels) : 0;
    shifts = 0, second = 0;
    unsigned most = 0;
    const unsigned from = count ? first : 0;
#pragma unroll
    for (unsigned i = 0; i < kLaneChannels; i += 2) {
      const float4 both = __ldg(reinterpret_cast<const float4*>(view.step_mean + from + i));
      const uint4 info = __ldg(reinterpret_cast<const uint4*>(view.info + from + i));
      step[i] = both.x, mean[i] = both.y, step[i + 1] = both.z, mean[i + 1] = both.w;
      const unsigned shift[2] = {i < count ? info.x >> kShiftBit : 0,
                                 i + 1 < count ? info.z >> kShiftBit : 0};
#pragma unroll
      for (unsigned j = 0; j < 2; ++j) {
        const unsigned places = j ? info.w : info.y, at = places & ((1u << kLowBits) - 1);
        low[0][i + j] = LowBit(at, shift[j] > 0);
        low[1][i + j] = LowBit(at + (places >> kLowBits), shift[j] > 1);
        factor[i + j] = 1 << shift[j];
        shifts |= shift[j] << (4 * (i + j));
        second |= shift[j] > 1 ? 1u << (i + j) : 0;
        most = max(most, shift[j]);
      }
    }
    most_shift = __reduce_max_sync(kAllLanes, most);
    second = __reduce_or_sync(kAllLanes, second);
  }
};

// A row's two scales, and where its low bits stand.
struct RowScales {
  float r, g;
  const unsigned char* low;
};

__device__ __forceinline__ RowScales scales_of(const unsigned char* head) {
  return {r_value(head[0]), e4m3_step(head[1]), head + 2};
}

__device__ __forceinline__ unsigned low_bit(const unsigned char* low, unsigned at) {
  return low[at / 8] >> (at % 8) & 1;
}

__device__ __forceinline__ float value_of(int k, const RowScales& scales, float step, float mean) {
  const float multiple = static_cast<float>(k);
  return __fmul_rn(__fadd_rn(__fmul_rn(__fmul_rn(multiple, scales.g), step), mean), scales.r);
}

__device__ __forceinline__ void store_eight(const float* values, __half* to) {
  __half2 halves[4];
#pragma unroll
  for (unsigned i = 0; i < 4; ++i) halves[i] = __floats2half2_rn(values[2 * i], values[2 * i + 1]);
  __stcs(reinterpret_cast<uint4*>(to), *reinterpret_cast<uint4*>(halves));
}
__device__ __forceinline__ void store_eight(const float* values, float* to) {
#pragma unroll
  for (unsigned i = 0; i < 2; ++i)
    __stcs(reinterpret_cast<float4*>(to) + i,
           make_float4(values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]));
}

// `symbols`: of the eight channels, in their order, less 16. `first` is the lane's first channel, `to` its
// place.
template <class T>
__device__ __forceinline__ void write_eight(const EntropyView& view, const EightChannels& of, unsigned first,
                                            uint2 symbols, const RowScales& scales, T* to, bool aligned) {
  int k[kLaneChannels];
#pragma unroll
  for (unsigned i = 0; i < kLaneChannels; ++i)
    k[i] = static_cast<signed char>((i < 4 ? symbols.x : symbols.y) >> (8 * (i % 4)));
  if (of.most_shift) {
    unsigned bytes[kLaneChannels];
#pragma unroll
    for (unsigned i = 0; i < kLaneChannels; ++i) bytes[i] = scales.low[of.low[0][i].byte];
#pragma unroll
    for (unsigned i = 0; i < kLaneChannels; ++i)
      k[i] = k[i] * of.factor[i] + static_cast<int>(min(bytes[i] & of.low[0][i].mask, 1u));
  }
#pragma unroll
  for (unsigned i = 0; i < kLaneChannels; ++i)
    if (of.second >> i & 1)  // the same for all lanes
      k[i] += static_cast<int>(2 * min(scales.low[of.low[1][i].byte] & of.low[1][i].mask, 1u));
  if (of.most_shift > 2) {
    const unsigned pitch = (view.width + 1) / 2 * 2;
#pragma unroll 1
    for (unsigned i = 0; i < of.count; ++i)
#pragma unroll 1
      for (unsigned bit = 2; bit < (of.shifts >> (4 * i) & 7); ++bit) {
        const unsigned found = low_bit(scales.low, __ldg(view.low_at + bit * pitch + first + i)) << bit;
#pragma unroll
        for (unsigned j = 0; j < kLaneChannels; ++j)
          if (j == i) k[j] |= static_cast<int>(found);
      }
  }
  float values[kLaneChannels];
#pragma unroll
  for (unsigned i = 0; i < kLaneChannels; ++i) values[i] = value_of(k[i], scales, of.step[i], of.mean[i]);
  if (aligned && of.count == kLaneChannels) {
    store_eight(values, to);
  } else {
#pragma unroll
    for (unsigned i = 0; i < kLaneChannels; ++i)
      if (i < of.count) narrow(values[i], to + i);
  }
}

}  // namespace
}  // namespace hyperlane
