// The few functions of cuBLAS that prompts need, from the library that ONNX Runtime has loaded: nothing is linked.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

namespace hyperlane::cuda_ops {

// x [rows, K] by a weight in panels [panels, K, 128], onto out [rows, panels * 128], or added to what is there.
// std::runtime_error where there is no cuBLAS, or it fails.
void multiply_panels(const half* x, const half* weight, half* out, int rows, int K, int panels, bool add,
                     cudaStream_t stream);

}  // namespace hyperlane::cuda_ops
