// What rotated.cu starts; each kernel is compiled in a file of its own.
#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include "quant/rotated_tables.cuh"

namespace hyperlane {

// All zero between launches: whoever finishes last in a launch leaves it so.
struct PlaceScratch {
  unsigned *ticket, *done;
  unsigned long long* end;     // of the payload
  unsigned long long* groups;  // number of rows with a length, and the sum of those lengths
  unsigned char* states;       // 1 + RowState, or 0 where it is not known yet
};

struct EncodeJob {
  std::size_t row_count;
  const unsigned* positions;
  unsigned char* payload;
  unsigned long long* payload_bytes;
  PlaceScratch scratch;
};

struct DecodeJob {
  std::size_t row_count;
  const unsigned char* payload;
};

struct Device {
  int processors, shared_bytes;
};

struct LaunchShape {
  unsigned blocks, threads, shared_bytes;
};

cudaError_t launch_blockwise_encode(const RotatedView& view, const EncodeJob& job, const void* rows,
                                    bool half, const Device& device, cudaStream_t stream);
cudaError_t launch_decode(const RotatedView& view, const DecodeJob& job, void* rows, bool half,
                          const Device& device, cudaStream_t stream);

// A thread block a row, for few rows, and for rows that the kernels above cannot take. No threads where they
// are too wide.
LaunchShape small_encode_shape(const RotatedView& view, std::size_t rows, const Device& device);
LaunchShape small_decode_shape(const RotatedView& view, std::size_t rows, bool half, const Device& device);
cudaError_t launch_small_encode(const RotatedView& view, const EncodeJob& job, const void* rows, bool half,
                                const LaunchShape& shape, cudaStream_t stream);
cudaError_t launch_small_decode(const RotatedView& view, const DecodeJob& job, void* rows, bool half,
                                const LaunchShape& shape, cudaStream_t stream);

// Of a kernel whose warps take units of work: one thread block a processor, of as many warps as shared memory
// holds. No threads where not even one warp fits.
inline LaunchShape launch_shape(std::size_t units, unsigned image_bytes, unsigned warp_bytes,
                                unsigned most_warps, const Device& device) {
  const auto room = static_cast<unsigned>(device.shared_bytes);
  if (image_bytes + warp_bytes > room) return {0, 0, 0};
  const unsigned warps = std::min((room - image_bytes) / warp_bytes, most_warps);
  const std::size_t blocks = std::min(units, static_cast<std::size_t>(device.processors));
  return {static_cast<unsigned>(blocks), 32 * warps, image_bytes + warps * warp_bytes};
}

// Lets a kernel have as much shared memory on the current device; remembers what it was told.
cudaError_t allow_shared_bytes(const void* kernel, unsigned bytes);

template <class Kernel, class... Arguments>
cudaError_t launch(Kernel* kernel, const LaunchShape& shape, cudaStream_t stream,
                   const Arguments&... arguments) {
  if (shape.threads == 0) return cudaErrorInvalidConfiguration;
  const cudaError_t allowed = allow_shared_bytes(reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  if (allowed != cudaSuccess) return allowed;
  kernel<<<shape.blocks, shape.threads, shape.shared_bytes, stream>>>(arguments...);
  return cudaGetLastError();
}

inline bool on_bytes(const void* address, std::size_t row_bytes, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(address) % bytes == 0 && row_bytes % bytes == 0;
}

}  // namespace hyperlane
