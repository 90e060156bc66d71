// Few rows by a weight [K, N]: the weight is read once, at the memory's speed, and tensor cores take it as it lies.
//
// A block of 8 warps makes `kColumns` columns of all rows: out^T = W^T x^T, so that the weight's columns are the
// long side of the fragments. Tiles of 64 of K and their part of x go through a ring in shared memory; four groups
// of warps take 16 of the 64 each, and their sums are put together at the end, as are those of the blocks of a
// cluster, which share out K between them. The first tiles are fetched before the kernels before have ended.
#pragma once
#include <cooperative_groups.h>

#include "cuda_ops/device.cuh"

namespace hyperlane::cuda_ops {

struct Product {
  const half* x;         // [M, K]
  const half* weight;    // [K, N]
  const half* up;        // [K, N], where out is silu(x weight) * (x up)
  const half* norm;      // [K] or null: x is RMS-normed first, by these weights
  const half* residual;  // [M, N] or null: added
  half* out;             // [M, N]
  int M, K, N;
  float epsilon;
};

constexpr int kProductThreads = 256;
constexpr int kDepth = 64;  // of K in a tile
constexpr int kSlices = 4;  // groups of warps along a tile's depth
constexpr int kPassTiles = 4;  // row tiles whose sums fit the ring at once

template <int kRowTiles, int kColumns>
__host__ __device__ constexpr int stage_bytes() {
  return kDepth * kColumns * 2 + (8 * kRowTiles + 1) * kDepth * 2;  // the weight, x, and the norm's weights
}
template <int kRowTiles, int kColumns>
__host__ __device__ constexpr int sum_bytes() {
  return kSlices * 8 * (kRowTiles < kPassTiles ? kRowTiles : kPassTiles) * (kColumns + 4) * 4;
}
template <int kRowTiles, int kColumns, int kStages>
__host__ __device__ constexpr int product_bytes() {
  return kStages * stage_bytes<kRowTiles, kColumns>() > sum_bytes<kRowTiles, kColumns>()
             ? kStages * stage_bytes<kRowTiles, kColumns>()
             : sum_bytes<kRowTiles, kColumns>();
}

// 1 / sqrt(mean(x^2) + epsilon) of up to 8 rows, by all warps of a block.
__device__ inline void norm_scales(const Product& p, float* scales /* [8], shared */, float* parts /* [8] */) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int rows = p.M <= 1 ? 1 : p.M <= 2 ? 2 : p.M <= 4 ? 4 : 8, shares = 8 / rows;
  const int row = warp % rows, share = warp / rows, words = p.K / 8;
  float sum = 0;
  if (row < p.M) {
    const uint4* x = reinterpret_cast<const uint4*>(p.x + static_cast<size_t>(row) * p.K);
#pragma unroll 4
    for (int i = share * 32 + lane; i < words; i += shares * 32) {
      const uint4 word = x[i];
      const uint32_t four[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 value = __half22float2(pair_of(four[j]));
        sum += value.x * value.x + value.y * value.y;
      }
    }
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (lane == 0) parts[warp] = sum;
  __syncthreads();
  if (threadIdx.x < 8) {
    float whole = 0;
    for (int i = threadIdx.x; i < 8; i += rows) whole += parts[i];
    scales[threadIdx.x] =
        static_cast<int>(threadIdx.x) < p.M ? rsqrtf(whole / static_cast<float>(p.K) + p.epsilon) : 0.f;
  }
  __syncthreads();
}

template <int kRowTiles, int kColumns, int kStages, bool kGated, bool kNorm>
__global__ void __launch_bounds__(kProductThreads, kRowTiles <= 4 ? 2 : 1) product(const Product p) {
  static_assert(!kNorm || kRowTiles == 1, "rows are normed here where there are few");
  constexpr int kChunks = kColumns / 8;          // 16 bytes each, in a row of the weight's tile
  constexpr int kRowsAtOnce = kProductThreads / kChunks;
  constexpr int kTiles = kColumns / 2 / 16;      // of 16 columns, a warp
  constexpr int kStage = stage_bytes<kRowTiles, kColumns>();
  constexpr int kOwn = kGated ? kColumns / 2 : kColumns;  // columns of the output
  extern __shared__ __align__(128) unsigned char ring[];
  __shared__ float scales[8], parts[8];
  namespace cg = cooperative_groups;
  cg::cluster_group cluster = cg::this_cluster();
  const int shares = static_cast<int>(cluster.num_blocks()), share = static_cast<int>(cluster.block_rank());
  const int tile = static_cast<int>(blockIdx.x) / shares;
  const int column0 = tile * kOwn;
  const int depths = (p.K + kDepth - 1) / kDepth;
  const int first = depths * share / shares, count = depths * (share + 1) / shares - first;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const uint32_t base = shared_address(ring);

  // --- fetching ---
  const int chunk = thread % kChunks, row0 = thread / kChunks;
  const bool second = kGated && chunk >= kChunks / 2;
  const int column = column0 + (second ? chunk - kChunks / 2 : chunk) * 8;
  const half* weight = (second ? p.up : p.weight) + column;
  const bool inside = column < p.N;
  const auto fetch_weight = [&](int i) {
    const uint32_t stage = base + (i % kStages) * kStage;
#pragma unroll
    for (int r = row0; r < kDepth; r += kRowsAtOnce) {
      const int k = (first + i) * kDepth + r;
      const bool there = inside && k < p.K;
      copy16(stage + r * kColumns * 2 + ((chunk ^ (r & 7)) * 16), there ? weight + static_cast<size_t>(k) * p.N : p.weight,
             there);
    }
  };
  const auto fetch_rows = [&](int i) {
    const uint32_t stage = base + (i % kStages) * kStage + kDepth * kColumns * 2;
#pragma unroll
    for (int c = thread; c < 8 * kRowTiles * 8; c += kProductThreads) {
      const int row = c / 8, k = (first + i) * kDepth + c % 8 * 8;
      const bool there = row < p.M && k < p.K;
      copy16(stage + row * kDepth * 2 + ((c % 8 ^ (row & 7)) * 16),
             there ? p.x + static_cast<size_t>(row) * p.K + k : p.x, there);
    }
    if (kNorm && thread >= 128 && thread < 136) {
      const int k = (first + i) * kDepth + (thread - 128) * 8;
      copy16(stage + 8 * kRowTiles * kDepth * 2 + (thread - 128) * 16, k < p.K ? p.norm + k : p.norm, k < p.K);
    }
  };

  let_next_start();
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i)
    if (i < count) fetch_weight(i);
  await_previous();
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < count) fetch_rows(i);
    close_copies();
  }
  if (kNorm) norm_scales(p, scales, parts);
  const float scale = kNorm ? scales[lane / 4] : 1.f;

  // --- products ---
  const int slice = warp % kSlices, side = warp / kSlices;
  float sums[kTiles][kRowTiles][4] = {};
  const int matrix = lane / 8, within = lane % 8;
  for (int i = 0; i < count; ++i) {
    wait_copies<kStages - 2>();
    __syncthreads();
    if (i + kStages - 1 < count) {
      fetch_weight(i + kStages - 1);
      fetch_rows(i + kStages - 1);
    }
    close_copies();
    const uint32_t stage = base + (i % kStages) * kStage, rows = stage + kDepth * kColumns * 2;
    uint32_t b[kRowTiles][2];
    if constexpr (kRowTiles == 1) {
      const int k = slice * 2 + (matrix & 1);
      load_matrices(b[0], rows + within * kDepth * 2 + ((k ^ within) * 16));
      if constexpr (kNorm) {
        const half2* norm = reinterpret_cast<const half2*>(ring + (i % kStages) * kStage + kDepth * kColumns * 2 +
                                                           8 * kRowTiles * kDepth * 2);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float2 weights = __half22float2(norm[slice * 8 + j * 4 + lane % 4]);
          const float2 value = __half22float2(pair_of(b[0][j]));
          b[0][j] = bits(__floats2half2_rn(value.x * scale * weights.x, value.y * scale * weights.y));
        }
      }
    } else {
#pragma unroll
      for (int t = 0; t < kRowTiles; t += 2) {
        const int row = (t + matrix / 2) * 8 + within, k = slice * 2 + (matrix & 1);
        uint32_t four[4];
        load_matrices(four, rows + row * kDepth * 2 + ((k ^ within) * 16));
        b[t][0] = four[0], b[t][1] = four[1], b[t + 1][0] = four[2], b[t + 1][1] = four[3];
      }
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int k = slice * 16 + (matrix / 2) * 8 + within, c = side * (kChunks / 2) + n * 2 + (matrix & 1);
      uint32_t a[4];
      load_transposed(a, stage + k * kColumns * 2 + ((c ^ within) * 16));
#pragma unroll
      for (int t = 0; t < kRowTiles; ++t) multiply(sums[n][t], a, b[t][0], b[t][1]);
    }
  }
  wait_copies<0>();

  // --- sums of all slices, of all blocks of the cluster ---
  constexpr int kPitch = kColumns + 4;
  constexpr int kPass = kRowTiles < kPassTiles ? kRowTiles : kPassTiles;
  float* held = reinterpret_cast<float*>(ring);  // [slices][8 * kPass][kPitch]
#pragma unroll
  for (int pass = 0; pass < kRowTiles; pass += kPass) {
    __syncthreads();
    if (pass > 0) cluster.sync();
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int t = 0; t < kPass; ++t)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = t * 8 + lane % 4 * 2 + (e & 1);
          const int at = side * (kColumns / 2) + n * 16 + lane / 4 + (e / 2) * 8;
          held[(slice * 8 * kPass + row) * kPitch + at] = sums[n][pass + t][e];
        }
    if (shares > 1)
      cluster.sync();
    else
      __syncthreads();
    const int rows = min(p.M - pass * 8, 8 * kPass), pairs = rows * (kOwn / 2);
    for (int i = share * kProductThreads + thread; i < pairs; i += shares * kProductThreads) {
      const int row = i / (kOwn / 2), at = i % (kOwn / 2) * 2;
      if (column0 + at >= p.N) continue;
      float2 sum = make_float2(0, 0), gate = make_float2(0, 0);
      for (int other = 0; other < shares; ++other) {
        const float* theirs = shares > 1 ? cluster.map_shared_rank(held, other) : held;
#pragma unroll
        for (int s = 0; s < kSlices; ++s) {
          const float* line = theirs + (s * 8 * kPass + row) * kPitch;
          const float2 part = *reinterpret_cast<const float2*>(line + at + (kGated ? kColumns / 2 : 0));
          sum.x += part.x, sum.y += part.y;
          if (kGated) {
            const float2 other_part = *reinterpret_cast<const float2*>(line + at);
            gate.x += other_part.x, gate.y += other_part.y;
          }
        }
      }
      if (kGated) {
        sum.x *= gate.x / (1.f + __expf(-gate.x));
        sum.y *= gate.y / (1.f + __expf(-gate.y));
      }
      const size_t place = static_cast<size_t>(pass * 8 + row) * p.N + column0 + at;
      if (p.residual != nullptr) {
        const float2 more = __half22float2(*reinterpret_cast<const half2*>(p.residual + place));
        sum.x += more.x, sum.y += more.y;
      }
      *reinterpret_cast<half2*>(p.out + place) = __floats2half2_rn(sum.x, sum.y);
    }
  }
  if (shares > 1) cluster.sync();  // until nobody reads this block's memory any more
}

template <int kRowTiles, int kColumns, int kStages, bool kGated, bool kNorm>
cudaError_t run_product(const Product& p, int shares, cudaStream_t stream) {
  constexpr int kOwn = kGated ? kColumns / 2 : kColumns;
  const unsigned tiles = static_cast<unsigned>((p.N + kOwn - 1) / kOwn);
  return launch(product<kRowTiles, kColumns, kStages, kGated, kNorm>,
                {dim3(tiles * shares), kProductThreads, product_bytes<kRowTiles, kColumns, kStages>(),
                 static_cast<unsigned>(shares), stream},
                p);
}

}  // namespace hyperlane::cuda_ops
