// codec=int4_plain on the GPU. Pointers are device memory; the work is queued on `stream`.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

namespace hyperlane {

cudaError_t int4_plain_encode(const void* rows, bool half, std::size_t row_count, std::size_t width,
                              void* payload, cudaStream_t stream);
cudaError_t int4_plain_decode(const void* payload, std::size_t row_count, std::size_t width, void* rows,
                              bool half, cudaStream_t stream);

}  // namespace hyperlane
