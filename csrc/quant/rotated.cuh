// The rotated codecs (h4, h8) on a GPU. Pointers are device memory, or pinned host memory, which the
// kernels then read and write across the bus; work is queued on a stream, one launch a call.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "quant/rotated_tables.cuh"

namespace hyperlane {

struct LaunchShape;

class DeviceCodec {
 public:
  static constexpr std::size_t kTwiceTheProcessors = ~std::size_t{0};

  // For at most `max_rows` rows a call, on the current device; up to `few_rows` take a thread block each.
  // Throws std::runtime_error where CUDA fails, std::invalid_argument where the parts don't fit together or
  // rows are too wide for the GPU's shared memory.
  DeviceCodec(const RotatedParts& parts, std::size_t max_rows, std::size_t few_rows = kTwiceTheProcessors);
  ~DeviceCodec();
  DeviceCodec(const DeviceCodec&) = delete;
  DeviceCodec& operator=(const DeviceCodec&) = delete;

  // Writes the payload, and its length to `payload_bytes` (u64). Calls share scratch memory, so that those on
  // different streams must not overlap.
  void encode(const void* rows, bool half, std::size_t row_count, const unsigned* positions, void* payload,
              void* payload_bytes, cudaStream_t stream);
  // The caller has checked the payload's length against its states. Reads whole words of 4 bytes.
  void decode(const void* payload, std::size_t row_count, void* rows, bool half, cudaStream_t stream) const;

  std::size_t row_bytes() const { return tables_.view().row_bytes; }
  std::size_t max_bytes(std::size_t rows) const;

 private:
  void check_width(const LaunchShape& shape) const;

  RotatedTables tables_;
  std::size_t max_rows_, few_rows_;
  int processors_ = 0, shared_bytes_ = 0;  // of the device; a thread block's most
  void* scratch_ = nullptr;
};

}  // namespace hyperlane
