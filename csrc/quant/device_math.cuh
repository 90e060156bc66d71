// Conversions and reductions that the kernels share. Everything is rounded as the references round it; the
// files are compiled without fused multiply-add, and say __fmaf_rn where fusing changes no bit.
#pragma once
#include <cuda_fp16.h>

#include <cstdint>

namespace hyperlane {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr float kLargestHalf = 65504.0f;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ void narrow(float value, float* out) { *out = value; }
__device__ __forceinline__ void narrow(float value, __half* out) { *out = __float2half_rn(value); }

// FP16's bits in the low half. Packed, since nvcc 13.0 turns a byte store of one converted half into a
// conversion.
__device__ __forceinline__ unsigned half_bits(float value) {
  const __half2 both = __floats2half2_rn(value, 0.0f);
  return *reinterpret_cast<const unsigned*>(&both);
}

// sum + value * value. Two halves multiply exactly, so that fusing rounds once as the sum alone would.
__device__ __forceinline__ float add_square(float sum, float value, float) {
  return __fadd_rn(sum, __fmul_rn(value, value));
}
__device__ __forceinline__ float add_square(float sum, float value, __half) {
  return __fmaf_rn(value, value, sum);
}

// Four neighbours of a row that starts on four elements' alignment.
__device__ __forceinline__ void load4(const __half* from, __half* to) {
  const uint2 bits = __ldcs(reinterpret_cast<const uint2*>(from));
  memcpy(to, &bits, 8);
}
__device__ __forceinline__ void load4(const float* from, float* to) {
  const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(from));
  memcpy(to, &bits, 16);
}

__device__ __forceinline__ unsigned mux(unsigned which, unsigned yes, unsigned no) {
  return no ^ ((yes ^ no) & which);
}

// A number that all lanes hold, so that the compiler knows it: what branches on it then stays one block of
// code.
__device__ __forceinline__ unsigned uniform(unsigned value) { return __reduce_max_sync(kAllLanes, value); }

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// By all threads of a thread block.
__device__ __forceinline__ void copy_table(uint4* to, const void* from, unsigned bytes) {
#pragma unroll 4
  for (unsigned i = threadIdx.x; i < bytes / 16; i += blockDim.x) to[i] = static_cast<const uint4*>(from)[i];
}

}  // namespace
}  // namespace hyperlane
