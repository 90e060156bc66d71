// codec=int4_plain on the GPU: the bits of int4_plain.cpp. A warp takes a group; lane i has its values i and
// 32 + i.
#include <cuda_fp16.h>

#include "quant/int4_plain.cuh"

namespace hyperlane {
namespace {

constexpr int kGroup = 64;
constexpr int kHalfGroup = kGroup / 2;
constexpr int kBias = 8;
constexpr float kLevels = 7.0f;
constexpr float kHalfMax = 65504.0f;
constexpr int kWarpsPerBlock = 8;

__device__ float widen(float value) { return value; }
__device__ float widen(__half value) { return __half2float(value); }
__device__ void narrow(float value, float* out) { *out = value; }
__device__ void narrow(float value, __half* out) {
  // A NaN fails both comparisons and passes.
  *out = __float2half_rn(value > kHalfMax ? kHalfMax : value < -kHalfMax ? -kHalfMax : value);
}

struct Group {
  size_t row, index;  // index within the row
  int count, half;    // values; bytes
};

__device__ Group group_of_warp(size_t width, size_t groups) {
  const size_t warp = static_cast<size_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32;
  const size_t row = warp / groups, index = warp % groups;
  const size_t left = width - index * kGroup;
  const int count = left < kGroup ? static_cast<int>(left) : kGroup;
  return {row, index, count, (count + 1) / 2};
}

__device__ size_t row_bytes(size_t width) { return width / kGroup * kHalfGroup + (width % kGroup + 1) / 2; }

__device__ unsigned warp_max(unsigned value) {
  for (int step = 16; step; step /= 2) value = max(value, __shfl_xor_sync(0xFFFFFFFFu, value, step));
  return value;
}

__device__ int code(float value, float inverse) {
  return __float2int_rn(fminf(fmaxf(__fmul_rn(value, inverse), -kLevels), kLevels));
}

template <class T>
__global__ void encode(const T* rows, size_t row_count, size_t width, unsigned char* payload) {
  const size_t groups = (width + kGroup - 1) / kGroup;
  const Group group = group_of_warp(width, groups);
  const int lane = threadIdx.x % 32;
  if (group.row >= row_count) return;  // whole warps leave together
  const T* values = rows + group.row * width + group.index * kGroup;
  const bool has_low = lane < group.half, has_high = group.half + lane < group.count;
  const float low = has_low ? widen(values[lane]) : 0.0f;
  const float high = has_high ? widen(values[group.half + lane]) : 0.0f;

  const unsigned bits = warp_max(max(__float_as_uint(fabsf(low)), __float_as_uint(fabsf(high))));
  const bool finite = bits < 0x7F800000u;
  const __half scale = __float2half_rn(fminf(__fdiv_rn(__uint_as_float(bits), kLevels), kHalfMax));
  const float wide = __half2float(scale);
  const float inverse = finite && wide > 0 ? __fdiv_rn(1.0f, wide) : 0.0f;

  unsigned short* scales = reinterpret_cast<unsigned short*>(payload);
  unsigned char* codes =
      payload + 2 * groups * row_count + group.row * row_bytes(width) + group.index * kHalfGroup;
  if (lane == 0) scales[group.row * groups + group.index] = finite ? __half_as_ushort(scale) : 0x7E00;
  if (has_low) {
    const int pair = finite ? code(low, inverse) + 16 * code(high, inverse) : 0;
    codes[lane] = static_cast<unsigned char>(pair + kBias + 16 * kBias);
  }
}

template <class T>
__global__ void decode(const unsigned char* payload, size_t row_count, size_t width, T* rows) {
  const size_t groups = (width + kGroup - 1) / kGroup;
  const Group group = group_of_warp(width, groups);
  const int lane = threadIdx.x % 32;
  if (group.row >= row_count || lane >= group.half) return;
  const unsigned short* scales = reinterpret_cast<const unsigned short*>(payload);
  const float scale = __half2float(__ushort_as_half(scales[group.row * groups + group.index]));
  const int byte =
      payload[2 * groups * row_count + group.row * row_bytes(width) + group.index * kHalfGroup + lane];
  T* out = rows + group.row * width + group.index * kGroup;
  narrow(__fmul_rn(static_cast<float>((byte & 15) - kBias), scale), out + lane);
  if (group.half + lane < group.count)
    narrow(__fmul_rn(static_cast<float>((byte >> 4) - kBias), scale), out + group.half + lane);
}

unsigned blocks_for(size_t rows, size_t width) {
  const size_t warps = rows * ((width + kGroup - 1) / kGroup);
  return static_cast<unsigned>((warps + kWarpsPerBlock - 1) / kWarpsPerBlock);
}

}  // namespace

cudaError_t int4_plain_encode(const void* rows, bool half, size_t row_count, size_t width, void* payload,
                              cudaStream_t stream) {
  if (row_count == 0 || width == 0) return cudaSuccess;
  const unsigned blocks = blocks_for(row_count, width), threads = 32 * kWarpsPerBlock;
  auto* out = static_cast<unsigned char*>(payload);
  if (half)
    encode<<<blocks, threads, 0, stream>>>(static_cast<const __half*>(rows), row_count, width, out);
  else
    encode<<<blocks, threads, 0, stream>>>(static_cast<const float*>(rows), row_count, width, out);
  return cudaGetLastError();
}

cudaError_t int4_plain_decode(const void* payload, size_t row_count, size_t width, void* rows, bool half,
                              cudaStream_t stream) {
  if (row_count == 0 || width == 0) return cudaSuccess;
  const unsigned blocks = blocks_for(row_count, width), threads = 32 * kWarpsPerBlock;
  const auto* in = static_cast<const unsigned char*>(payload);
  if (half)
    decode<<<blocks, threads, 0, stream>>>(in, row_count, width, static_cast<__half*>(rows));
  else
    decode<<<blocks, threads, 0, stream>>>(in, row_count, width, static_cast<float*>(rows));
  return cudaGetLastError();
}

}  // namespace hyperlane
