// Eight halves, as a thread reads and writes them.
#pragma once
#include "cuda_ops/device.cuh"

namespace hyperlane::cuda_ops {

__device__ inline void widen(const uint4& word, float (&values)[8]) {
  const uint32_t four[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = __half22float2(pair_of(four[i]));
    values[2 * i] = two.x, values[2 * i + 1] = two.y;
  }
}
__device__ inline void widen_at(const half* eight, float (&values)[8]) {
  widen(*reinterpret_cast<const uint4*>(eight), values);
}
__device__ inline uint4 narrow(const float (&values)[8]) {
  uint4 word;
  word.x = bits(__floats2half2_rn(values[0], values[1]));
  word.y = bits(__floats2half2_rn(values[2], values[3]));
  word.z = bits(__floats2half2_rn(values[4], values[5]));
  word.w = bits(__floats2half2_rn(values[6], values[7]));
  return word;
}

// 8 elements from `at` on of a head, turned: pairs are half a head apart.
template <int kHead>
__device__ inline void turned(const half* head, const half* cos, const half* sin, int at,
                              float (&values)[8]) {
  float own[8], other[8], c[8], s[8];
  const bool low = at < kHead / 2;
  widen_at(head + at, own);
  widen_at(head + (at ^ (kHead / 2)), other);
  widen_at(cos + (at & (kHead / 2 - 1)), c);
  widen_at(sin + (at & (kHead / 2 - 1)), s);
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = own[i] * c[i] + (low ? -other[i] : other[i]) * s[i];
}

}  // namespace hyperlane::cuda_ops
