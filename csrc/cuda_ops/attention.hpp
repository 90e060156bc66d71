// Attention with its rotary embedding and its cache, in FP16. Heads of 64 or 128 elements.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace hyperlane::cuda_ops {

struct Attention {
  const half* packed;  // [slots, S, (heads + 2 kv_heads) * head]: queries, keys, values, not turned yet
  half* keys;          // [slots, kv_heads, length, head], written at the positions of the rows
  half* values;
  const int64_t* positions;  // [slots, S], one behind another
  const half* cos;           // [length, head / 2]
  const half* sin;
  half* out;  // [slots, S, heads * head]
  int slots, rows, heads, kv_heads, head, length;
  float scale;
};

// Whether there are kernels for heads of this size, so many of queries for one of the cache.
bool attention_fits(int head, int heads, int kv_heads);

// Queue the attention of one new row a slot, or of `rows` rows.
cudaError_t attend_one(const Attention& attention, cudaStream_t stream);
cudaError_t attend_many(const Attention& attention, cudaStream_t stream);

}  // namespace hyperlane::cuda_ops
