// The rotated codecs on the GPU. Pointers are device memory; the work is queued on `stream`.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "quant/rotated_plan.hpp"

namespace hyperlane {

// Device memory that both calls work in, beside rows and payload.
inline std::size_t rotated_scratch_bytes(std::size_t row_count, std::size_t row_bytes) {
  return row_count * (row_bytes + 1) + 8 * (row_count + 1) + 16;
}

// `plan` is a RotatedPlan on the device, of these row_bytes. Writes the payload, and its length to
// `payload_bytes` (u64 on the device).
cudaError_t rotated_encode(const void* plan, std::size_t row_bytes, const void* rows, bool half,
                           std::size_t row_count, const void* positions, void* scratch, void* payload,
                           void* payload_bytes, cudaStream_t stream);
// The caller has checked the payload's length against its states.
cudaError_t rotated_decode(const void* plan, std::size_t width, std::size_t row_bytes, const void* payload,
                           std::size_t row_count, void* scratch, void* rows, bool half, cudaStream_t stream);

}  // namespace hyperlane
