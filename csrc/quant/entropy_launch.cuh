// What entropy.cu starts; each kernel is compiled in a file of its own.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "quant/entropy_tables.cuh"

namespace hyperlane {

// What one kernel leaves for the next one, by row or by string.
struct EntropyScratch {
  unsigned char *symbols, *heads, *states, *counts, *patches;  // counts: patches of a row
  unsigned* sizes;                                             // of strings
  unsigned char* strings;  // each ends where the next one's room begins
  unsigned* done;          // 0 between launches
  unsigned head_pitch;
  std::size_t string_pitch;
};

struct EntropyJob {
  std::size_t row_count;
  const unsigned* positions;
  unsigned char* payload;
  unsigned long long* payload_bytes;
  EntropyScratch scratch;
};

struct EntropyDecodeJob {
  std::size_t row_count;
  const unsigned char* payload;
};

constexpr unsigned kWindowRows = 2048;  // that a thread block keeps the places of

cudaError_t launch_entropy_encode(const EntropyView& view, const EntropyJob& job, const void* rows, bool half,
                                  int shared_bytes, bool few, cudaStream_t stream);
cudaError_t launch_entropy_decode(const EntropyView& view, const EntropyDecodeJob& job, void* rows, bool half,
                                  int processors, int shared_bytes, cudaStream_t stream);

}  // namespace hyperlane
