// The few functions of cuBLAS that prompts need, from the library that ONNX Runtime has loaded: nothing is
// linked.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

namespace hyperlane::cuda_ops {

// x [rows, K] by a weight [K, N] to out [rows, N], or added to what is there.
// std::runtime_error where there is no cuBLAS, or it fails.
void multiply_many(const half* x, const half* weight, half* out, int rows, int K, int N, bool add,
                   cudaStream_t stream);

}  // namespace hyperlane::cuda_ops
