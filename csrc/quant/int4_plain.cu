// codec=int4_plain on the GPU: the bits of int4_plain.cpp. Whole groups of 64 are a flat array: four threads
// take a group, 16 values each, and a warp takes 32 groups at once to have loads in flight. Rows that end in
// a short group go a warp a group.
#include <cuda_fp16.h>

#include "quant/device_math.cuh"
#include "quant/int4_plain.cuh"

namespace hyperlane {
namespace {

constexpr int kGroup = 64;
constexpr int kHalfGroup = kGroup / 2;
constexpr int kBias = 8;
constexpr float kLevels = 7.0f;
constexpr int kWarpsPerBlock = 8;
constexpr int kTurns = 4;                   // of a thread, over groups 8 apart
constexpr int kGroupsPerWarp = 8 * kTurns;  // 8 groups at a time, 4 threads each
constexpr float kRounder = 12582912.0f;     // 1.5 * 2^23: adding it rounds to an integer
constexpr float kNoClip = 65504.0f / 8;     // scales below give no FP16 overflow

__device__ __forceinline__ void narrow_clipped(float value, float* out) { *out = value; }
__device__ __forceinline__ void narrow_clipped(float value, __half* out) {
  // A NaN fails both comparisons and passes.
  *out = __float2half_rn(value > kLargestHalf ? kLargestHalf : value < -kLargestHalf ? -kLargestHalf : value);
}

struct Scale {
  unsigned short bits;
  float inverse;
};

// From the bits of the largest magnitude, as FP32.
__device__ __forceinline__ Scale group_scale(unsigned bits) {
  const bool finite = bits < 0x7F800000u;
  const __half scale = __float2half_rn(fminf(__fdiv_rn(__uint_as_float(bits), kLevels), kLargestHalf));
  const float wide = __half2float(scale);
  const float inverse = finite && wide > 0 ? __fdiv_rn(1.0f, wide) : 0.0f;
  return {finite ? __half_as_ushort(scale) : static_cast<unsigned short>(0x7E00), finite ? inverse : 0.0f};
}

// The code plus kRounder; a NaN becomes a code too, where its group's inverse is 0.
__device__ __forceinline__ float rounded(float value, float inverse) {
  return fminf(fmaxf(__fmul_rn(value, inverse), -kLevels), kLevels) + kRounder;
}

__device__ __forceinline__ unsigned pair_byte(float low, float high, float inverse) {
  return __float_as_uint(rounded(low, inverse)) + 16 * __float_as_uint(rounded(high, inverse)) + kBias +
         16 * kBias;
}

// ---- whole groups

template <class T>
struct Eight {  // values of one thread, as loaded
  T of[8];
};

__device__ __forceinline__ Eight<__half> load8(const __half* from) {
  Eight<__half> values;
  const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(from));
  memcpy(&values, &bits, 16);
  return values;
}
__device__ __forceinline__ Eight<float> load8(const float* from) {
  Eight<float> values;
  const uint4 bits[2] = {__ldcs(reinterpret_cast<const uint4*>(from)),
                         __ldcs(reinterpret_cast<const uint4*>(from) + 1)};
  memcpy(&values, bits, 32);
  return values;
}

// The bits of the largest magnitude as FP32; those of infinity or more where one is not finite.
__device__ __forceinline__ unsigned largest(const Eight<__half>& low, const Eight<__half>& high) {
  unsigned words[8], most = 0;
  memcpy(words, &low, 16);
  memcpy(words + 4, &high, 16);
#pragma unroll
  for (unsigned word : words) most = __vmaxu2(most, word & 0x7FFF7FFFu);
  return max(most & 0xFFFF, most >> 16);
}
__device__ __forceinline__ unsigned largest(const Eight<float>& low, const Eight<float>& high) {
  unsigned most = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i)
    most =
        max(most, max(__float_as_uint(low.of[i]) & 0x7FFFFFFFu, __float_as_uint(high.of[i]) & 0x7FFFFFFFu));
  return most;
}
__device__ __forceinline__ unsigned as_single(unsigned bits, __half) {
  return __float_as_uint(__half2float(__ushort_as_half(static_cast<unsigned short>(bits))));
}
__device__ __forceinline__ unsigned as_single(unsigned bits, float) { return bits; }

template <bool kAligned>
__device__ __forceinline__ void store_codes(unsigned char* to, uint2 codes) {
  if constexpr (kAligned) {
    *reinterpret_cast<uint2*>(to) = codes;
  } else {  // two-byte alignment is sure
    auto* halves = reinterpret_cast<unsigned short*>(to);
    halves[0] = static_cast<unsigned short>(codes.x), halves[1] = static_cast<unsigned short>(codes.x >> 16);
    halves[2] = static_cast<unsigned short>(codes.y), halves[3] = static_cast<unsigned short>(codes.y >> 16);
  }
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(32 * kWarpsPerBlock)
    encode_groups(const T* __restrict__ rows, size_t groups, unsigned short* __restrict__ scales,
                  unsigned char* __restrict__ codes) {
  const size_t warp = static_cast<size_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32;
  const unsigned lane = threadIdx.x % 32, quarter = lane % 4;
  const size_t first = warp * kGroupsPerWarp + lane / 4;
  Eight<T> low[kTurns], high[kTurns];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const size_t group = min(first + 8 * turn, groups - 1);
    low[turn] = load8(rows + group * kGroup + 8 * quarter);
    high[turn] = load8(rows + group * kGroup + kHalfGroup + 8 * quarter);
  }
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    unsigned most = largest(low[turn], high[turn]);
    most = max(most, __shfl_xor_sync(kAllLanes, most, 1));
    most = max(most, __shfl_xor_sync(kAllLanes, most, 2));
    const Scale scale = group_scale(as_single(most, T()));
    unsigned bytes[8];
#pragma unroll
    for (int i = 0; i < 8; ++i)
      bytes[i] = pair_byte(widen(low[turn].of[i]), widen(high[turn].of[i]), scale.inverse);
    uint2 packed;
    packed.x =
        __byte_perm(__byte_perm(bytes[0], bytes[1], 0x0040), __byte_perm(bytes[2], bytes[3], 0x0040), 0x5410);
    packed.y =
        __byte_perm(__byte_perm(bytes[4], bytes[5], 0x0040), __byte_perm(bytes[6], bytes[7], 0x0040), 0x5410);
    const size_t group = first + 8 * turn;
    if (group >= groups) continue;
    if (scale.bits == 0x7E00) packed.x = packed.y = 0x01010101u * (kBias + 16 * kBias);
    store_codes<kAligned>(codes + group * kHalfGroup + 8 * quarter, packed);
    if (quarter == 0) scales[group] = scale.bits;
  }
}

// Code - 8 times the scale, of two values. Halves are exact: a code has 4 bits, a scale 11, and what is
// rounded once is what FP32 would round.
__device__ __forceinline__ __half2 scaled(__half2 codes, __half2 scale, bool clip) {
  __half2 values = __hmul2_rn(codes, scale);
  if (clip) {
    const __half2 most = __float2half2_rn(kLargestHalf);
    values = __hmax2_nan(__hmin2_nan(values, most), __hneg2(most));
  }
  return values;
}

__device__ __forceinline__ __half2 as_half2(unsigned bits) { return *reinterpret_cast<__half2*>(&bits); }

__device__ __forceinline__ void decode16(uint2 codes, float scale, __half* low, __half* high) {
  const __half2 factor = __float2half2_rn(scale);
  const bool clip = !(scale < kNoClip);
  const __half2 low_bias = __float2half2_rn(1024.0f + kBias), high_bias = __float2half2_rn(64.0f + kBias);
  const __half2 sixteenth = __float2half2_rn(1.0f / 16);
  __half2 lows[4], highs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const unsigned word = i < 2 ? codes.x : codes.y;
    const unsigned bytes = __byte_perm(word, 0, i % 2 ? 0x4342 : 0x4140);  // two bytes, in 16 bits each
    const __half2 of_low = __hsub2(as_half2((bytes & 0x000F000Fu) | 0x64006400u), low_bias);  // 1024 + nibble
    const __half2 of_high =
        __hsub2(__hmul2(as_half2((bytes & 0x00F000F0u) | 0x64006400u), sixteenth), high_bias);
    lows[i] = scaled(of_low, factor, clip);
    highs[i] = scaled(of_high, factor, clip);
  }
  __stcs(reinterpret_cast<uint4*>(low), *reinterpret_cast<uint4*>(lows));
  __stcs(reinterpret_cast<uint4*>(high), *reinterpret_cast<uint4*>(highs));
}

__device__ __forceinline__ void decode16(uint2 codes, float scale, float* low, float* high) {
  float lows[8], highs[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const unsigned byte = (i < 4 ? codes.x : codes.y) >> (8 * (i % 4));
    lows[i] = __fmul_rn(static_cast<float>(static_cast<int>(byte & 15) - kBias), scale);
    highs[i] = __fmul_rn(static_cast<float>(static_cast<int>(byte >> 4 & 15) - kBias), scale);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    __stcs(reinterpret_cast<uint4*>(low) + i, reinterpret_cast<uint4*>(lows)[i]);
    __stcs(reinterpret_cast<uint4*>(high) + i, reinterpret_cast<uint4*>(highs)[i]);
  }
}

template <bool kAligned>
__device__ __forceinline__ uint2 load_codes(const unsigned char* from) {
  if constexpr (kAligned) {
    return __ldcs(reinterpret_cast<const uint2*>(from));
  } else {
    const auto* halves = reinterpret_cast<const unsigned short*>(from);
    return {halves[0] | static_cast<unsigned>(halves[1]) << 16, halves[2] | static_cast<unsigned>(halves[3])
                                                                                << 16};
  }
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(32 * kWarpsPerBlock)
    decode_groups(const unsigned short* __restrict__ scales, const unsigned char* __restrict__ codes,
                  size_t groups, T* __restrict__ rows) {
  const size_t warp = static_cast<size_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32;
  const unsigned lane = threadIdx.x % 32, quarter = lane % 4;
  const size_t first = warp * kGroupsPerWarp + lane / 4;
  uint2 packed[kTurns];
  unsigned short scale[kTurns];
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const size_t group = min(first + 8 * turn, groups - 1);
    packed[turn] = load_codes<kAligned>(codes + group * kHalfGroup + 8 * quarter);
    scale[turn] = scales[group];
  }
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const size_t group = first + 8 * turn;
    if (group >= groups) continue;
    T* out = rows + group * kGroup + 8 * quarter;
    decode16(packed[turn], __half2float(__ushort_as_half(scale[turn])), out, out + kHalfGroup);
  }
}

// ---- rows that end in a short group: a warp a group, lane i has values i and `half` + i

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

template <class T>
__global__ void encode_ragged(const T* rows, size_t row_count, size_t width, unsigned char* payload) {
  const size_t groups = (width + kGroup - 1) / kGroup;
  const Group group = group_of_warp(width, groups);
  const int lane = threadIdx.x % 32;
  if (group.row >= row_count) return;  // whole warps leave together
  const T* values = rows + group.row * width + group.index * kGroup;
  const bool has_low = lane < group.half, has_high = group.half + lane < group.count;
  const float low = has_low ? widen(values[lane]) : 0.0f;
  const float high = has_high ? widen(values[group.half + lane]) : 0.0f;
  const unsigned most = max(__float_as_uint(fabsf(low)), __float_as_uint(fabsf(high)));
  const Scale scale = group_scale(__reduce_max_sync(kAllLanes, most));
  auto* scales = reinterpret_cast<unsigned short*>(payload);
  unsigned char* codes =
      payload + 2 * groups * row_count + group.row * row_bytes(width) + group.index * kHalfGroup;
  if (lane == 0) scales[group.row * groups + group.index] = scale.bits;
  if (!has_low) return;
  const bool finite = scale.bits != 0x7E00;
  codes[lane] = static_cast<unsigned char>(finite ? pair_byte(low, high, scale.inverse) : kBias + 16 * kBias);
}

template <class T>
__global__ void decode_ragged(const unsigned char* payload, size_t row_count, size_t width, T* rows) {
  const size_t groups = (width + kGroup - 1) / kGroup;
  const Group group = group_of_warp(width, groups);
  const int lane = threadIdx.x % 32;
  if (group.row >= row_count || lane >= group.half) return;
  const auto* scales = reinterpret_cast<const unsigned short*>(payload);
  const float scale = __half2float(__ushort_as_half(scales[group.row * groups + group.index]));
  const int byte =
      payload[2 * groups * row_count + group.row * row_bytes(width) + group.index * kHalfGroup + lane];
  T* out = rows + group.row * width + group.index * kGroup;
  narrow_clipped(__fmul_rn(static_cast<float>((byte & 15) - kBias), scale), out + lane);
  if (group.half + lane < group.count)
    narrow_clipped(__fmul_rn(static_cast<float>((byte >> 4) - kBias), scale), out + group.half + lane);
}

// ---- launches

constexpr unsigned kThreads = 32 * kWarpsPerBlock;

unsigned blocks_for(size_t warps) {
  return static_cast<unsigned>((warps + kWarpsPerBlock - 1) / kWarpsPerBlock);
}

bool aligned(const void* address, size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

template <class T>
void queue_encode(const T* rows, size_t row_count, size_t width, unsigned char* payload,
                  cudaStream_t stream) {
  const size_t groups = row_count * ((width + kGroup - 1) / kGroup);
  if (width % kGroup || !aligned(rows, 16)) {
    encode_ragged<<<blocks_for(groups), kThreads, 0, stream>>>(rows, row_count, width, payload);
    return;
  }
  auto* scales = reinterpret_cast<unsigned short*>(payload);
  unsigned char* codes = payload + 2 * groups;
  const unsigned grid = blocks_for((groups + kGroupsPerWarp - 1) / kGroupsPerWarp);
  if (aligned(codes, 8))
    encode_groups<T, true><<<grid, kThreads, 0, stream>>>(rows, groups, scales, codes);
  else
    encode_groups<T, false><<<grid, kThreads, 0, stream>>>(rows, groups, scales, codes);
}

template <class T>
void queue_decode(const unsigned char* payload, size_t row_count, size_t width, T* rows,
                  cudaStream_t stream) {
  const size_t groups = row_count * ((width + kGroup - 1) / kGroup);
  if (width % kGroup || !aligned(rows, 16)) {
    decode_ragged<<<blocks_for(groups), kThreads, 0, stream>>>(payload, row_count, width, rows);
    return;
  }
  const auto* scales = reinterpret_cast<const unsigned short*>(payload);
  const unsigned char* codes = payload + 2 * groups;
  const unsigned grid = blocks_for((groups + kGroupsPerWarp - 1) / kGroupsPerWarp);
  if (aligned(codes, 8))
    decode_groups<T, true><<<grid, kThreads, 0, stream>>>(scales, codes, groups, rows);
  else
    decode_groups<T, false><<<grid, kThreads, 0, stream>>>(scales, codes, groups, rows);
}

}  // namespace

cudaError_t int4_plain_encode(const void* rows, bool half, size_t row_count, size_t width, void* payload,
                              cudaStream_t stream) {
  if (row_count == 0 || width == 0) return cudaSuccess;
  auto* out = static_cast<unsigned char*>(payload);
  if (half)
    queue_encode(static_cast<const __half*>(rows), row_count, width, out, stream);
  else
    queue_encode(static_cast<const float*>(rows), row_count, width, out, stream);
  return cudaGetLastError();
}

cudaError_t int4_plain_decode(const void* payload, size_t row_count, size_t width, void* rows, bool half,
                              cudaStream_t stream) {
  if (row_count == 0 || width == 0) return cudaSuccess;
  const auto* in = static_cast<const unsigned char*>(payload);
  if (half)
    queue_decode(in, row_count, width, static_cast<__half*>(rows), stream);
  else
    queue_decode(in, row_count, width, static_cast<float*>(rows), stream);
  return cudaGetLastError();
}

}  // namespace hyperlane
