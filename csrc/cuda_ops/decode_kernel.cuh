// Attention of one new token a slot: turns queries and keys, appends to the cache, and reads the slot's keys
// and values once, at the memory's speed.
//
// A block takes one head of the cache for kGroup heads of queries. Groups of lanes, 8 elements of a head
// each, are streams of their own: positions in turn, softmax as it goes, one merge at the end. Where slots
// and heads are few the blocks of a cluster share out the positions. The first keys are fetched before the
// kernels before have ended.
#pragma once
#include <cooperative_groups.h>

#include "cuda_ops/attention.hpp"
#include "cuda_ops/vectors.cuh"

namespace hyperlane::cuda_ops {

constexpr int kDecodeThreads = 128;

template <int kGroup>
struct Softmax {  // of some positions, 8 elements of the head
  float most[kGroup], sum[kGroup], value[kGroup][8];
};

template <int kHead, int kGroup, int kAtOnce>
__global__ void __launch_bounds__(kDecodeThreads) decode_attention(const Attention p) {
  constexpr int kLanes = kHead / 8, kStreams = kDecodeThreads / kLanes;
  constexpr float kNone = -1e30f;
  namespace cg = cooperative_groups;
  cg::cluster_group cluster = cg::this_cluster();
  const int shares = static_cast<int>(cluster.num_blocks()), share = static_cast<int>(cluster.block_rank());
  const int group = blockIdx.y, slot = blockIdx.z;  // of query heads
  const int head0 = group * kGroup, kv_head = head0 / (p.heads / p.kv_heads);
  const int stream = threadIdx.x / kLanes, lane = threadIdx.x % kLanes, at = lane * 8;
  const int position = static_cast<int>(p.positions[slot]);
  half* keys = p.keys + (static_cast<size_t>(slot) * p.kv_heads + kv_head) * p.length * kHead;
  half* values = p.values + (static_cast<size_t>(slot) * p.kv_heads + kv_head) * p.length * kHead;
  __shared__ float merged[kGroup][kStreams][kHead + 4];
  __shared__ float mosts[kGroup][kStreams], totals[kGroup][kStreams];

  let_next_start();
  uint4 k[kAtOnce], v[kAtOnce];
  const auto fetch = [&](int begin) {
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int row = begin + i * kStreams + stream;
      if (row < position)
        k[i] = *reinterpret_cast<const uint4*>(keys + static_cast<size_t>(row) * kHead + at);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int row = begin + i * kStreams + stream;
      v[i] = row < position ? *reinterpret_cast<const uint4*>(values + static_cast<size_t>(row) * kHead + at)
                            : make_uint4(0, 0, 0, 0);
    }
  };
  constexpr int kChunk = kAtOnce * kStreams;
  int begin = share * kChunk;
  if (begin < position) fetch(begin);
  await_previous();

  const int row_width = (p.heads + 2 * p.kv_heads) * kHead;
  const half* row = p.packed + static_cast<size_t>(slot) * row_width;
  const half* cos = p.cos + static_cast<size_t>(position) * (kHead / 2);
  const half* sin = p.sin + static_cast<size_t>(position) * (kHead / 2);
  float q[kGroup][8];
  Softmax<kGroup> own;
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    turned<kHead>(row + (head0 + g) * kHead, cos, sin, at, q[g]);
    own.most[g] = kNone, own.sum[g] = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) q[g][i] *= p.scale * 1.4426950408889634f, own.value[g][i] = 0;
  }
  const auto score = [&](const float (&key)[8], int g) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += q[g][i] * key[i];
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    return sum;
  };

  // The new position: the first stream of the first block; the others' lanes compute along, for the shuffles.
  {
    float key[8], value[8];
    turned<kHead>(row + (p.heads + kv_head) * kHead, cos, sin, at, key);
    const uint4 key_word = narrow(key);
    const uint4 value_word =
        *reinterpret_cast<const uint4*>(row + (p.heads + p.kv_heads + kv_head) * kHead + at);
    widen(key_word, key);
    widen(value_word, value);
    const bool here = share == 0 && stream == 0;
    if (here && head0 % (p.heads / p.kv_heads) == 0) {
      *reinterpret_cast<uint4*>(keys + static_cast<size_t>(position) * kHead + at) = key_word;
      *reinterpret_cast<uint4*>(values + static_cast<size_t>(position) * kHead + at) = value_word;
    }
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const float s = score(key, g);
      if (here) {
        own.most[g] = s, own.sum[g] = 1;
#pragma unroll
        for (int i = 0; i < 8; ++i) own.value[g][i] = value[i];
      }
    }
  }

  for (; begin < position; begin += shares * kChunk) {  // the same for all threads of the block
    float s[kGroup][kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      float key[8];
      widen(k[i], key);
      const bool inside = begin + i * kStreams + stream < position;
#pragma unroll
      for (int g = 0; g < kGroup; ++g) {
        const float found = score(key, g);
        s[g][i] = inside ? found : kNone;
      }
    }
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      float most = own.most[g];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) most = fmaxf(most, s[g][i]);
      const float shrink = exp2f(own.most[g] - most);
      own.most[g] = most, own.sum[g] *= shrink;
#pragma unroll
      for (int e = 0; e < 8; ++e) own.value[g][e] *= shrink;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        s[g][i] = s[g][i] <= kNone ? 0.f : exp2f(s[g][i] - most);
        own.sum[g] += s[g][i];
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      float value[8];
      widen(v[i], value);
#pragma unroll
      for (int g = 0; g < kGroup; ++g)
#pragma unroll
        for (int e = 0; e < 8; ++e) own.value[g][e] += s[g][i] * value[e];
    }
    if (begin + shares * kChunk < position) fetch(begin + shares * kChunk);
  }

  // --- merge: the streams of a block, then the blocks ---
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
#pragma unroll
    for (int e = 0; e < 8; e += 4)
      *reinterpret_cast<float4*>(&merged[g][stream][at + e]) =
          make_float4(own.value[g][e], own.value[g][e + 1], own.value[g][e + 2], own.value[g][e + 3]);
    if (lane == 0) mosts[g][stream] = own.most[g], totals[g][stream] = own.sum[g];
  }
  if (shares > 1)
    cluster.sync();
  else
    __syncthreads();
  constexpr int kItems = kGroup * kHead;
  for (int i = share * kDecodeThreads + threadIdx.x; i < kItems; i += shares * kDecodeThreads) {
    const int g = i / kHead, element = i % kHead;
    float most = kNone;
    for (int other = 0; other < shares; ++other) {
      const float* theirs = shares > 1 ? cluster.map_shared_rank(&mosts[g][0], other) : &mosts[g][0];
      for (int s = 0; s < kStreams; ++s) most = fmaxf(most, theirs[s]);
    }
    float sum = 0, value = 0;
    for (int other = 0; other < shares; ++other) {
      const float* their_most = shares > 1 ? cluster.map_shared_rank(&mosts[g][0], other) : &mosts[g][0];
      const float* their_total = shares > 1 ? cluster.map_shared_rank(&totals[g][0], other) : &totals[g][0];
      const float* their_value =
          shares > 1 ? cluster.map_shared_rank(&merged[g][0][0], other) : &merged[g][0][0];
      for (int s = 0; s < kStreams; ++s) {
        const float part = exp2f(their_most[s] - most);
        sum += part * their_total[s];
        value += part * their_value[s * (kHead + 4) + element];
      }
    }
    p.out[(static_cast<size_t>(slot) * p.heads + head0) * kHead + i] = __float2half_rn(value / sum);
  }
  if (shares > 1) cluster.sync();
}

}  // namespace hyperlane::cuda_ops
