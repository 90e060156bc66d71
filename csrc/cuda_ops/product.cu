#include <stdexcept>
#include <string>

#include "cuda/counters.hpp"
#include "cuda_ops/blas.hpp"
#include "cuda_ops/product.hpp"
#include "cuda_ops/product_kernel.cuh"
#include "cuda_ops/rows.hpp"

namespace hyperlane::cuda_ops {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                            CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// A matrix [rows, columns] for the copy engine, which takes boxes of `box_rows` rows and 64 columns.
CUtensorMap map_of(const half* matrix, int rows, int columns, int box_rows) {
  static const auto encode = driver_function<Encode>("cuTensorMapEncodeTiled");
  CUtensorMap map;
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t pitch[] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[] = {kBox, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  const CUresult state = encode(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<half*>(matrix), sizes,
                                pitch, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (state != CUDA_SUCCESS) throw std::runtime_error("the copy engine takes no such matrix");
  return map;
}

template <int kRowTiles, int kStages>
cudaError_t run(const Product& p, int shares, cudaStream_t stream) {
  constexpr bool kNormed = kRowTiles == 1;
  constexpr int kColumns = 2 * kBox;
  const Maps maps{map_of(p.weight, p.K, p.N, kDepth),
                  map_of(p.up != nullptr ? p.up : p.weight, p.K, p.N, kDepth),
                  map_of(p.x, p.M, p.K, 8 * kRowTiles)};
  if (kNormed && p.norm != nullptr)
    return p.up != nullptr
               ? run_product<kRowTiles, kColumns, kStages, true, kNormed>(p, maps, shares, stream)
               : run_product<kRowTiles, kColumns, kStages, false, kNormed>(p, maps, shares, stream);
  return p.up != nullptr ? run_product<kRowTiles, kColumns, kStages, true, false>(p, maps, shares, stream)
                         : run_product<kRowTiles, kColumns, kStages, false, false>(p, maps, shares, stream);
}

// How many blocks share out K for the same columns; measured (docs/gpu.md).
int shares_of(int tiles, int rows) {
  if (tiles >= 150) return 1;
  if (tiles >= 64) return rows > 32 ? 1 : 2;
  return tiles < 24 || (rows > 8 && rows <= 32) ? 4 : 2;
}

cudaError_t few(const Product& p, cudaStream_t stream) {
  const int columns = p.up != nullptr ? kBox : 2 * kBox;  // of the output, a block
  const int shares = shares_of((p.N + columns - 1) / columns, p.M);
  if (p.M <= 8) return run<1, 6>(p, shares, stream);
  if (p.M <= 32) return run<4, 3>(p, shares, stream);
  return run<8, 4>(p, shares, stream);
}

void many(const Product& p, half* both, cudaStream_t stream) {
  if (p.up != nullptr) {
    half* second = both + static_cast<std::size_t>(p.M) * p.N;
    multiply_many(p.x, p.weight, both, p.M, p.K, p.N, false, stream);
    multiply_many(p.x, p.up, second, p.M, p.K, p.N, false, stream);
    return check_cuda(gate_rows(both, second, p.out, static_cast<std::size_t>(p.M) * p.N, stream));
  }
  if (p.residual != nullptr && p.residual != p.out)
    check_cuda(
        cudaMemcpyAsync(p.out, p.residual, sizeof(half) * p.M * p.N, cudaMemcpyDeviceToDevice, stream));
  multiply_many(p.x, p.weight, p.out, p.M, p.K, p.N, p.residual != nullptr, stream);
}

}  // namespace

void multiply_rows(const Product& product, half* scratch, cudaStream_t stream) {
  Product p = product;
  if (p.norm != nullptr && p.M > 8) {
    check_cuda(norm_rows(p.x, p.norm, scratch, p.M, p.K, p.epsilon, stream));
    p.x = scratch, p.norm = nullptr;
    scratch += static_cast<std::size_t>(p.M) * p.K;
  }
  if (p.M <= kFewRows)
    check_cuda(few(p, stream));
  else
    many(p, scratch, stream);
}

}  // namespace hyperlane::cuda_ops
