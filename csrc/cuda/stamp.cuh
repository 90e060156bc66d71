// The GPU's clock, written where the host reads it.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace hyperlane {

// Queue: nanoseconds of the GPU's own clock to `place`, in pinned memory.
cudaError_t stamp(std::uint64_t* place, cudaStream_t stream);

}  // namespace hyperlane
