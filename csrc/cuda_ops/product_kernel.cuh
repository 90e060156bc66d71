// Few rows by a weight: the weight is read once, at the memory's speed, and tensor cores take it as it lies.
//
// A block of 8 warps makes `kColumns` columns of all rows: out^T = W^T x^T, so that the weight's columns are
// the long side of the fragments. One more warp keeps a ring of tiles of 64 of K filled, which it begins
// before the kernels before have ended. Four groups of warps take 16 of the 64 each; their sums are put
// together at the end, as are those of the blocks of a cluster, which share out K between them.
#pragma once
#include <cooperative_groups.h>

#include "cuda_ops/device_async.cuh"
#include "cuda_ops/product.hpp"

namespace hyperlane::cuda_ops {

constexpr int kWorkers = 256;                   // threads that multiply
constexpr int kProductThreads = kWorkers + 32;  // and a warp that fetches
constexpr int kSlices = 4;                      // groups of warps along a tile's depth
constexpr int kPassTiles = 4;                   // row tiles whose sums fit the ring at once

template <int kRowTiles, int kColumns>
__host__ __device__ constexpr int stage_bytes() {  // the weight, x, and the norm's weights; whole KiB
  return kDepth * kColumns * 2 + (kRowTiles + 1) * 1024;
}
template <int kRowTiles, int kColumns>
__host__ __device__ constexpr int sum_bytes() {
  return kSlices * 8 * (kRowTiles < kPassTiles ? kRowTiles : kPassTiles) * (kColumns + 4) * 4;
}
template <int kRowTiles, int kColumns, int kStages>
__host__ __device__ constexpr int product_bytes() {
  constexpr int ring = kStages * stage_bytes<kRowTiles, kColumns>(), sums = sum_bytes<kRowTiles, kColumns>();
  return (ring > sums ? ring : sums) + 1024;  // boxes stand at whole KiB
}

// 1 / sqrt(mean(x^2) + epsilon) of up to 8 rows, by all workers of a block.
__device__ inline void norm_scales(const Product& p, float* scales /* [8], shared */,
                                   float* parts /* [8] */) {
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
  asm volatile("bar.sync 1, %0;" ::"n"(kWorkers) : "memory");
  if (threadIdx.x < 8) {
    float whole = 0;
    for (int i = threadIdx.x % rows; i < 8; i += rows) whole += parts[i];
    scales[threadIdx.x] =
        static_cast<int>(threadIdx.x) < p.M ? rsqrtf(whole / static_cast<float>(p.K) + p.epsilon) : 0.f;
  }
  asm volatile("bar.sync 1, %0;" ::"n"(kWorkers) : "memory");
}

template <int kRowTiles, int kColumns, int kStages, bool kGated, bool kNorm>
__global__ void __launch_bounds__(kProductThreads, kRowTiles <= 4 ? 2 : 1)
    product(const Product p, const __grid_constant__ Maps maps) {
  static_assert(!kNorm || kRowTiles == 1, "rows are normed here where there are few");
  static_assert(!kGated || kColumns == 2 * kBox, "a box of each weight");
  constexpr int kBoxes = kColumns / kBox;
  constexpr int kTiles = kColumns / 2 / 16;  // of 16 columns, a warp
  constexpr int kStage = stage_bytes<kRowTiles, kColumns>();
  constexpr int kOwn = kGated ? kColumns / 2 : kColumns;  // columns of the output
  constexpr int kWeightBytes = kDepth * kColumns * 2, kRowBytes = kRowTiles * 1024, kNormBytes = kDepth * 2;
  extern __shared__ unsigned char unaligned[];
  __shared__ float scales[8], parts[8];
  __shared__ __align__(8) unsigned long long full_barriers[kStages], free_barriers[kStages];
  namespace cg = cooperative_groups;
  cg::cluster_group cluster = cg::this_cluster();
  const int shares = static_cast<int>(cluster.num_blocks()), share = static_cast<int>(cluster.block_rank());
  const int column0 = static_cast<int>(blockIdx.x) / shares * kOwn;
  const int depths = p.K / kDepth;
  const int first = depths * share / shares, count = depths * (share + 1) / shares - first;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  unsigned char* ring = unaligned + (-shared_address(unaligned) & 1023u);
  const uint32_t base = shared_address(ring);
  const uint32_t full = shared_address(full_barriers), free = shared_address(free_barriers);

  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(full + 8 * i, 1);
      barrier_init(free + 8 * i, kWorkers / 32);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  let_next_start();

  float sums[kTiles][kRowTiles][4] = {};
  if (warp == kWorkers / 32) {
    if (lane == 0) {
      const auto fetch_weight = [&](int i) {
        const int s = i % kStages, k = (first + i) * kDepth;
        barrier_expect(full + 8 * s, kWeightBytes + kRowBytes + (kNorm ? kNormBytes : 0));
#pragma unroll
        for (int b = 0; b < kBoxes; ++b)
          copy_box(base + s * kStage + b * kDepth * kBox * 2, kGated && b ? &maps.up : &maps.weight,
                   column0 + (kGated ? 0 : b * kBox), k, full + 8 * s);
      };
      const auto fetch_rows = [&](int i) {
        const int s = i % kStages, k = (first + i) * kDepth;
        copy_box(base + s * kStage + kWeightBytes, &maps.x, k, 0, full + 8 * s);
        if (kNorm)
          copy_bytes(base + s * kStage + kWeightBytes + kRowBytes, p.norm + k, kNormBytes, full + 8 * s);
      };
      for (int i = 0; i < kStages && i < count; ++i) fetch_weight(i);
      await_previous();
      for (int i = 0; i < kStages && i < count; ++i) fetch_rows(i);
      for (int i = kStages; i < count; ++i) {
        barrier_wait(free + 8 * (i % kStages), (i / kStages - 1) & 1);
        fetch_weight(i);
        fetch_rows(i);
      }
    }
    __syncwarp();
  } else {
    const int slice = warp % kSlices, side = warp / kSlices;
    const int matrix = lane / 8, within = lane % 8;
    float scale = 1;
    if (kNorm) {
      await_previous();
      norm_scales(p, scales, parts);
      scale = scales[lane / 4];
    }
    for (int i = 0; i < count; ++i) {
      const int s = i % kStages;
      barrier_wait(full + 8 * s, i / kStages & 1);
      // The tile before is free only now: products are issued when their fragments have come, not when those
      // were asked for, and behind the branch of this wait.
      if (i > 0 && lane == 0) barrier_arrive(free + 8 * ((i - 1) % kStages));
      const uint32_t stage = base + s * kStage, rows = stage + kWeightBytes;
      uint32_t b[kRowTiles][2];
      if constexpr (kRowTiles == 1) {
        const int k = slice * 2 + (matrix & 1);
        load_matrices(b[0], rows + within * kDepth * 2 + ((k ^ within) * 16));
        if constexpr (kNorm) {
          const half2* norm = reinterpret_cast<const half2*>(ring + s * kStage + kWeightBytes + kRowBytes);
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
      const int k = slice * 16 + (matrix / 2) * 8 + within;
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const int c = side * (kColumns / 16) + n * 2 + (matrix & 1);  // 16 bytes of a row, over all boxes
        uint32_t a[4];
        load_transposed(a, stage + c / 8 * (kDepth * kBox * 2) + k * kBox * 2 + ((c % 8 ^ within) * 16));
#pragma unroll
        for (int t = 0; t < kRowTiles; ++t) multiply(sums[n][t], a, b[t][0], b[t][1]);
      }
    }
  }
  await_previous();  // whoever reads the residual, and writes

  // --- sums of all slices, of all blocks of the cluster ---
  constexpr int kPitch = kColumns + 4;
  constexpr int kPass = kRowTiles < kPassTiles ? kRowTiles : kPassTiles;
  float* held = reinterpret_cast<float*>(ring);  // [slices][8 * kPass][kPitch]
#pragma unroll
  for (int pass = 0; pass < kRowTiles; pass += kPass) {
    __syncthreads();
    if (pass > 0) cluster.sync();
    if (warp < kWorkers / 32) {
      const int slice = warp % kSlices, side = warp / kSlices;
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
cudaError_t run_product(const Product& p, const Maps& maps, int shares, cudaStream_t stream) {
  constexpr int kOwn = kGated ? kColumns / 2 : kColumns;
  const unsigned tiles = static_cast<unsigned>((p.N + kOwn - 1) / kOwn);
  return launch(product<kRowTiles, kColumns, kStages, kGated, kNorm>,
                {dim3(tiles * shares), kProductThreads, product_bytes<kRowTiles, kColumns, kStages>(),
                 static_cast<unsigned>(shares), stream},
                p, maps);
}

}  // namespace hyperlane::cuda_ops
