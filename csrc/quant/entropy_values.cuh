// Symbols to values, by channel: a lane takes eight neighbours, a warp 256.
#pragma once
#include "quant/entropy_rows.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kBlockChannels = 256, kLaneChannels = 8;

// What eight channels of a lane have in all rows.
struct EightChannels {
  float step[kLaneChannels], mean[kLaneChannels];
  unsigned low_at[kLaneChannels];  // of bit 0
  unsigned shifts;                 // four bits each
  unsigned most_shift;             // of the warp
  unsigned count;                  // of those that are there

  __device__ __forceinline__ EightChannels(const EntropyView& view, unsigned first) {
    count = first < view.width ? min(view.width - first, kLaneChannels) : 0;
    shifts = 0;
    unsigned most = 0;
#pragma unroll
    for (unsigned i = 0; i < kLaneChannels; ++i) {
      const unsigned channel = i < count ? first + i : 0;
      const float2 both = __ldg(view.step_mean + channel);
      step[i] = both.x, mean[i] = both.y;
      const unsigned shift = i < count ? __ldg(view.info + channel) >> 16 & 7 : 0;
      low_at[i] = __ldg(view.low_at + channel);
      shifts |= shift << (4 * i);
      most = max(most, shift);
    }
    most_shift = __reduce_max_sync(kAllLanes, most);
  }
};

// A row's two scales, and where its low bits stand.
struct RowScales {
  float r, g;
  const unsigned char* low;
};

__device__ __forceinline__ float r_of(unsigned byte) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(byte << 7)));
}

__device__ __forceinline__ RowScales scales_of(const unsigned char* head) {
  return {r_of(head[0]), e4m3_step(head[1]), head + 2};
}

__device__ __forceinline__ unsigned low_bit(const unsigned char* low, unsigned at) {
  return low[at / 8] >> (at % 8) & 1;
}

__device__ __forceinline__ float value_of(int k, const RowScales& scales, float step, float mean) {
  const float multiple = __fadd_rn(__int_as_float(k + __float_as_int(kIntegers)), -kIntegers);
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

// `symbols`: of the eight channels, in their order, less 16. `first` is the lane's first channel, `to` its place.
template <class T>
__device__ __forceinline__ void write_eight(const EntropyView& view, const EightChannels& of, unsigned first,
                                            uint2 symbols, const RowScales& scales, T* to, bool aligned) {
  int k[kLaneChannels];
#pragma unroll
  for (unsigned i = 0; i < kLaneChannels; ++i)
    k[i] = static_cast<signed char>((i < 4 ? symbols.x : symbols.y) >> (8 * (i % 4)));
  if (of.most_shift) {
    const unsigned pitch = (view.width + 1) / 2 * 2;
#pragma unroll
    for (unsigned i = 0; i < kLaneChannels; ++i) {
      const unsigned shift = of.shifts >> (4 * i) & 7;
      if (!shift) continue;
      k[i] = static_cast<int>(static_cast<unsigned>(k[i]) << shift | low_bit(scales.low, of.low_at[i]));
      for (unsigned bit = 1; bit < shift; ++bit)
        k[i] |= static_cast<int>(low_bit(scales.low, __ldg(view.low_at + bit * pitch + first + i)) << bit);
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
