// Few rows by FP16 weights [K, N], with what stands around it in a layer: norm before, gate or residual behind.
#pragma once
#include <cuda.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>

namespace hyperlane::cuda_ops {

constexpr int kDepth = 64;  // of K in a tile
constexpr int kBox = 64;    // columns that the copy engine takes at once

// The product that follows: its first tiles are brought to the cache while this one ends.
struct Next {
  int K, N, gated, shares;
  int ahead;  // tiles of each block
  int boxes;  // in all; 0 where nothing follows
};

struct Product {
  const half* x;         // [M, K]
  const half* weight;    // [K, N]
  const half* up;        // [K, N], where out is silu(x weight) * (x up)
  const half* norm;      // [K] or null: x is RMS-normed first, by these weights
  const half* residual;  // [M, N] or null: added
  half* out;             // [M, N]
  int M, K, N;
  float epsilon;
  int ahead;  // tiles of its own that are brought to the cache before the ring has room for them
  Next next;
};

struct Maps {  // of the matrices, for the copy engine
  CUtensorMap weight, up, x, next, next_up;
};

}  // namespace hyperlane::cuda_ops
