// What stands between products where those do not do it themselves.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>

namespace hyperlane::cuda_ops {

// out[row] = x[row] / sqrt(mean(x[row]^2) + epsilon) * weight; K in whole eights.
cudaError_t norm_rows(const half* x, const half* weight, half* out, int rows, int K, float epsilon,
                      cudaStream_t stream);
// out = silu(gate) * up, `count` of each, in whole eights.
cudaError_t gate_rows(const half* gate, const half* up, half* out, std::size_t count, cudaStream_t stream);

}  // namespace hyperlane::cuda_ops
