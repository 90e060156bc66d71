// Few rows by FP16 weights, with what stands around it in a layer: norm before, gate or residual behind.
#pragma once
#include <cuda.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>

namespace hyperlane::cuda_ops {

constexpr int kDepth = 64;  // of K in a tile
constexpr int kBox = 64;    // columns that the copy engine takes at once

struct Product {
  const half* x;         // [M, K]
  const half* weight;    // [K, N]
  const half* up;        // [K, N] or null: out is silu(x weight) * (x up)
  const half* norm;      // [K] or null: x is RMS-normed first, by these weights
  const half* residual;  // [M, N] or null: added
  half* out;             // [M, N]
  int M, K, N;
  float epsilon;
};

// Up to so many rows go by the kernels for few; more by cuBLAS.
constexpr int kFewRows = 64;

// Whether a weight of these sizes can be taken.
inline bool product_fits(long long K, long long N) {
  return K > 0 && K % kDepth == 0 && N > 0 && N % kBox == 0;
}

// How many halves of scratch memory a product takes: normed rows, and both sides of a gate where cuBLAS makes
// them.
inline std::size_t scratch_halves(const Product& product) {
  const std::size_t rows = static_cast<std::size_t>(product.M);
  const std::size_t normed = product.norm != nullptr && product.M > 8 ? rows * product.K : 0;
  return normed + (product.up != nullptr && product.M > kFewRows ? 2 * rows * product.N : 0);
}

// Queue it.
void multiply_rows(const Product& product, half* scratch, cudaStream_t stream);

struct Maps {  // of the matrices, for the copy engine
  CUtensorMap weight, up, x;
};

}  // namespace hyperlane::cuda_ops
