// Attention of several new rows of a slot: keys and values are appended first, then tiles of 64 queries go
// over tiles of 64 positions, on tensor cores, with a softmax as they go.
#pragma once
#include "cuda_ops/attention.hpp"
#include "cuda_ops/vectors.cuh"

namespace hyperlane::cuda_ops {

constexpr int kPromptThreads = 128;
constexpr int kPromptTile = 64;  // queries, and positions at a time

template <int kHead>
__host__ __device__ constexpr int prompt_bytes() {
  return 5 * kPromptTile * kHead * 2;  // queries, and two tiles each of keys and values
}

// Turned keys, and values, to the cache: a thread 8 elements.
template <int kHead>
__global__ void append(const Attention p) {
  constexpr int kParts = kHead / 8;
  const int items = p.slots * p.rows * p.kv_heads * kParts;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < items; i += gridDim.x * blockDim.x) {
    const int at = i % kParts * 8, head = i / kParts % p.kv_heads, row = i / kParts / p.kv_heads;
    const int slot = row / p.rows, position = static_cast<int>(p.positions[row]);
    const half* packed = p.packed + static_cast<size_t>(row) * (p.heads + 2 * p.kv_heads) * kHead;
    const size_t place = ((static_cast<size_t>(slot) * p.kv_heads + head) * p.length + position) * kHead + at;
    float key[8];
    turned<kHead>(packed + (p.heads + head) * kHead, p.cos + static_cast<size_t>(position) * (kHead / 2),
                  p.sin + static_cast<size_t>(position) * (kHead / 2), at, key);
    *reinterpret_cast<uint4*>(p.keys + place) = narrow(key);
    *reinterpret_cast<uint4*>(p.values + place) =
        *reinterpret_cast<const uint4*>(packed + (p.heads + p.kv_heads + head) * kHead + at);
  }
}

template <int kHead>
__global__ void __launch_bounds__(kPromptThreads) prompt_attention(const Attention p) {
  constexpr int kParts = kHead / 8, kTileBytes = kPromptTile * kHead * 2;
  constexpr float kNone = -1e30f;
  extern __shared__ __align__(128) unsigned char memory[];
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int row0 = blockIdx.x * kPromptTile, head = blockIdx.y, slot = blockIdx.z;
  const int kv_head = head / (p.heads / p.kv_heads);
  const int base = static_cast<int>(p.positions[static_cast<size_t>(slot) * p.rows]);
  const int whole = base + p.rows;  // positions that are there
  const half* keys = p.keys + (static_cast<size_t>(slot) * p.kv_heads + kv_head) * p.length * kHead;
  const half* values = p.values + (static_cast<size_t>(slot) * p.kv_heads + kv_head) * p.length * kHead;
  const uint32_t queries = shared_address(memory);
  const auto place = [](int row, int part) {
    return row * kHead * 2 + ((part & ~7) + ((part ^ row) & 7)) * 16;
  };

  const auto fetch = [&](int tile) {
    const uint32_t to = queries + kTileBytes * (1 + 2 * (tile & 1));
#pragma unroll
    for (int i = thread; i < kPromptTile * kParts; i += kPromptThreads) {
      const int row = i / kParts, part = i % kParts, position = tile * kPromptTile + row;
      const bool there = position < whole;
      const size_t from = there ? static_cast<size_t>(position) * kHead + part * 8 : 0;
      copy16(to + place(row, part), keys + from, there);
      copy16(to + kTileBytes + place(row, part), values + from, there);
    }
    close_copies();
  };
  const int last_row = min(row0 + kPromptTile, p.rows) - 1;
  const int tiles = (base + last_row) / kPromptTile + 1;
  fetch(0);
  for (int i = thread; i < kPromptTile * kParts; i += kPromptThreads) {
    const int row = i / kParts, part = i % kParts;
    uint4 word = make_uint4(0, 0, 0, 0);
    if (row0 + row < p.rows) {
      const int position = base + row0 + row;
      const size_t line = static_cast<size_t>(slot) * p.rows + row0 + row;
      float query[8];
      turned<kHead>(p.packed + line * (p.heads + 2 * p.kv_heads) * kHead + head * kHead,
                    p.cos + static_cast<size_t>(position) * (kHead / 2),
                    p.sin + static_cast<size_t>(position) * (kHead / 2), part * 8, query);
      word = narrow(query);
    }
    *reinterpret_cast<uint4*>(memory + place(row, part)) = word;
  }
  __syncthreads();
  const int matrix = lane / 8, within = lane % 8;
  uint32_t q[kHead / 16][4];
#pragma unroll
  for (int k = 0; k < kHead / 16; ++k)
    load_matrices(q[k], queries + place(warp * 16 + (matrix & 1) * 8 + within, k * 2 + matrix / 2));

  float out[kHead / 8][4] = {}, most[2] = {kNone, kNone}, total[2] = {};
  const float scale = p.scale * 1.4426950408889634f;
  const int position0 = base + row0 + warp * 16 + lane / 4;  // and the one 8 behind
  for (int tile = 0; tile < tiles; ++tile) {
    if (tile + 1 < tiles) fetch(tile + 1);
    if (tile + 1 < tiles)
      wait_copies<1>();
    else
      wait_copies<0>();
    __syncthreads();
    const uint32_t key_tile = queries + kTileBytes * (1 + 2 * (tile & 1)), value_tile = key_tile + kTileBytes;
    float s[kPromptTile / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kHead / 16; ++k)
#pragma unroll
      for (int n = 0; n < kPromptTile / 8; n += 2) {
        uint32_t b[4];
        load_matrices(b, key_tile + place((n + matrix / 2) * 8 + within, k * 2 + (matrix & 1)));
        multiply(s[n], q[k], b[0], b[1]);
        multiply(s[n + 1], q[k], b[2], b[3]);
      }
#pragma unroll
    for (int half_row = 0; half_row < 2; ++half_row) {
      float found = most[half_row];
#pragma unroll
      for (int n = 0; n < kPromptTile / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int position = tile * kPromptTile + n * 8 + lane % 4 * 2 + e;
          float& one = s[n][2 * half_row + e];
          one = position <= position0 + 8 * half_row ? one * scale : kNone;
          found = fmaxf(found, one);
        }
      found = fmaxf(found, __shfl_xor_sync(0xffffffffu, found, 1));
      found = fmaxf(found, __shfl_xor_sync(0xffffffffu, found, 2));
      const float shrink = exp2f(most[half_row] - found);
      most[half_row] = found, total[half_row] *= shrink;
#pragma unroll
      for (int d = 0; d < kHead / 8; ++d) out[d][2 * half_row] *= shrink, out[d][2 * half_row + 1] *= shrink;
#pragma unroll
      for (int n = 0; n < kPromptTile / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& one = s[n][2 * half_row + e];
          one = exp2f(one - found);
          total[half_row] += one;
        }
    }
#pragma unroll
    for (int n = 0; n < kPromptTile / 8; n += 2) {
      const uint32_t a[4] = {bits(__floats2half2_rn(s[n][0], s[n][1])),
                             bits(__floats2half2_rn(s[n][2], s[n][3])),
                             bits(__floats2half2_rn(s[n + 1][0], s[n + 1][1])),
                             bits(__floats2half2_rn(s[n + 1][2], s[n + 1][3]))};
#pragma unroll
      for (int d = 0; d < kHead / 8; d += 2) {
        uint32_t b[4];
        load_transposed(b, value_tile + place(n * 8 + (matrix & 1) * 8 + within, d + matrix / 2));
        multiply(out[d], a, b[0], b[1]);
        multiply(out[d + 1], a, b[2], b[3]);
      }
    }
    __syncthreads();  // before this tile's place is filled again
  }
#pragma unroll
  for (int half_row = 0; half_row < 2; ++half_row) {
    float sum = total[half_row];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const int row = row0 + warp * 16 + lane / 4 + 8 * half_row;
    if (row >= p.rows) continue;
    half* line = p.out + ((static_cast<size_t>(slot) * p.rows + row) * p.heads + head) * kHead;
#pragma unroll
    for (int d = 0; d < kHead / 8; ++d)
      *reinterpret_cast<half2*>(line + d * 8 + lane % 4 * 2) =
          __floats2half2_rn(out[d][2 * half_row] / sum, out[d][2 * half_row + 1] / sum);
  }
}

}  // namespace hyperlane::cuda_ops
