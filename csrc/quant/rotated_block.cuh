// A whole block of 64 in one thread's registers: h4 and h8 encode so, and all decode so. No thread waits for
// another; what a block reads of the tables lies so that neighbouring threads read neighbouring memory.
#pragma once
#include "quant/rotated_device.cuh"
#include "quant/rotated_place.cuh"

namespace hyperlane {
namespace {

// The transform's stages, distant values first.
__device__ __forceinline__ void hadamard64(float* v) {
#pragma unroll
  for (int half = 32; half; half /= 2) {
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      if (i & half) continue;
      const float first = v[i], second = v[i + half];
      v[i] = first + second;
      v[i + half] = first - second;
    }
  }
}

// Value I's part of a sum that takes the upper half onto the lower one again and again: what `of` gives for
// I, I + 32, I + 16, ...
template <int kLevel, int I, class Of>
__device__ __forceinline__ float halving(Of of) {
  if constexpr (kLevel == 0)
    return of(I);
  else
    return halving<kLevel - 1, I>(of) + halving<kLevel - 1, I + (64 >> kLevel)>(of);
}

// Eight 32-bit planes (bit k of a value in plane k) to bytes: register r has the values r + 8 i in its bytes
// i.
__device__ __forceinline__ void planes_to_bytes(unsigned* p) {
  constexpr unsigned kMasks[3] = {0x55555555u, 0x33333333u, 0x0F0F0F0Fu};
  // Stage s pairs planes 2^s apart, and its outputs' bit s of the register is bit s of the value.
#pragma unroll
  for (int stage = 0; stage < 3; ++stage) {
    const int apart = 1 << stage;
    const unsigned mask = kMasks[stage];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i & apart) continue;
      const unsigned a = p[i], b = p[i + apart];
      p[i] = (a & mask) | (b << apart & ~mask);
      p[i + apart] = (a >> apart & mask) | (b & ~mask);
    }
  }
}

// Four planes to nibbles: register r has the values r + 4 i in its nibbles i.
__device__ __forceinline__ void planes_to_nibbles(unsigned* p) {
  constexpr unsigned kMasks[2] = {0x55555555u, 0x33333333u};
#pragma unroll
  for (int stage = 0; stage < 2; ++stage) {
    const int apart = 1 << stage;
    const unsigned mask = kMasks[stage];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & apart) continue;
      const unsigned a = p[i], b = p[i + apart];
      p[i] = (a & mask) | (b << apart & ~mask);
      p[i + apart] = (a >> apart & mask) | (b & ~mask);
    }
  }
}

// Rows in shared memory: whole blocks apart from each other by 16 bytes, so that threads that read theirs
// don't meet in a bank; what is left of the row comes behind them.
template <class T>
constexpr unsigned kBlockStride = kBlockSize * sizeof(T) + 16;

template <class T>
__host__ __device__ inline unsigned staged_bytes(unsigned width) {
  return (width / kBlockSize * kBlockStride<T> + width % kBlockSize * static_cast<unsigned>(sizeof(T)) + 15) /
         16 * 16;
}

template <class T>
__device__ __forceinline__ unsigned char* staged_chunk(unsigned char* stage, unsigned chunk) {  // of 16 bytes
  constexpr unsigned kChunks = kBlockSize * sizeof(T) / 16;
  return stage + chunk / kChunks * kBlockStride<T> + chunk % kChunks * 16;
}

template <class T>
__device__ __forceinline__ T* staged_tail(unsigned char* stage, unsigned whole_count) {
  return reinterpret_cast<T*>(stage + whole_count * kBlockStride<T>);
}

// A record in shared memory starts so that its codes stand on 16 bytes.
__host__ __device__ inline unsigned record_pad(unsigned scale_count) {
  return (16 - (2 + scale_count) % 16) % 16;
}
__host__ __device__ inline unsigned record_bytes(unsigned row_bytes, unsigned scale_count) {
  return (record_pad(scale_count) + row_bytes + 8 + 15) / 16 * 16;
}

__device__ __forceinline__ void load_levels16(const uint4 bits, __half, float* v) {
  __half halves[8];
  memcpy(halves, &bits, 16);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = __half2float(halves[i]);
}

// ---- the values of a staged block, rotated

__device__ __forceinline__ void read_block(const unsigned char* block, __half, float* v) {
#pragma unroll
  for (int chunk = 0; chunk < 8; ++chunk)
    load_levels16(reinterpret_cast<const uint4*>(block)[chunk], __half(), v + 8 * chunk);
}
__device__ __forceinline__ void read_block(const unsigned char* block, float, float* v) {
#pragma unroll
  for (int chunk = 0; chunk < 16; ++chunk)
    reinterpret_cast<float4*>(v)[chunk] = reinterpret_cast<const float4*>(block)[chunk];
}

// The tables by block, where a kernel has them: in its shared memory, or in the device's.
struct BlockTables {
  const float4 *mean, *factor;  // forward or backward
};

// Bytes of mean or factor.
__host__ __device__ inline unsigned block_table_bytes(const RotatedView& view) {
  return view.whole_count * kBlockSize * 4;
}

template <class T>
__device__ __forceinline__ void rotate_block(const BlockTables& tables, unsigned whole_count,
                                             const unsigned char* stage, unsigned block, float inverse_rms,
                                             float* v) {
  read_block(stage + block * kBlockStride<T>, T(), v);
#pragma unroll
  for (int part = 0; part < 16; ++part) {
    const float4 mean = tables.mean[part * whole_count + block];
    const float4 forward = tables.factor[part * whole_count + block];
    float* four = v + 4 * part;
    four[0] = (four[0] * inverse_rms - mean.x) * forward.x;
    four[1] = (four[1] * inverse_rms - mean.y) * forward.y;
    four[2] = (four[2] * inverse_rms - mean.z) * forward.z;
    four[3] = (four[3] * inverse_rms - mean.w) * forward.w;
  }
  hadamard64(v);
}

}  // namespace
}  // namespace hyperlane
