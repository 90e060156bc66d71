// What stands between products where those do not do it themselves.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

namespace hyperlane::cuda_ops {

// out[row] = x[row] / sqrt(mean(x[row]^2) + epsilon) * weight; K in whole eights.
cudaError_t norm_rows(const half* x, const half* weight, half* out, int rows, int K, float epsilon,
                      cudaStream_t stream);
// Panels [rows, N / 64, 128] of 64 columns of a gate and of what it gates -> silu(gate) * the other [rows, N].
cudaError_t gate_rows(const half* panels, half* out, int rows, int N, cudaStream_t stream);

}  // namespace hyperlane::cuda_ops
