#include "ops/attention.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops/numbers.hpp"

namespace hyperlane::ops {
namespace {

const AttentionKernels& kernels_of(Isa isa) {
#ifdef HYPERLANE_X86
  if (isa == Isa::avx512) return kAttentionAvx512;
  if (isa == Isa::avx2 && __builtin_cpu_supports("fma")) return kAttentionAvx2;
#endif
  (void)isa;
  return kAttentionScalar;
}

void check(const Attention& attention, const int64_t* slots, const int64_t* positions, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    if (slots[r] < 0 || slots[r] >= attention.slots || positions[r] < 0 || positions[r] >= attention.length)
      throw std::invalid_argument("position " + std::to_string(positions[r]) + " of slot " +
                                  std::to_string(slots[r]) + " is outside the cache of " +
                                  std::to_string(attention.slots) + " slots of " +
                                  std::to_string(attention.length) + " positions");
  }
}

std::vector<RowBlock> blocks_of(const int64_t* slots, const int64_t* positions, int64_t rows, int64_t most) {
  std::vector<RowBlock> blocks;
  for (int64_t r = 0; r < rows; ++r) {
    const bool follows = r > 0 && slots[r] == slots[r - 1] && positions[r] == positions[r - 1] + 1;
    if (follows && blocks.back().count < most)
      ++blocks.back().count;
    else
      blocks.push_back({r, 1});
  }
  return blocks;
}

// A head's numbers at a position: `stride` numbers apart, from number `first` of the position's tile on.
void store(CacheKind kind, const float* head, int64_t head_dim, uint8_t* tile, int64_t position,
           int64_t first, int64_t stride) {
  if (kind == CacheKind::float32) {
    float* to = reinterpret_cast<float*>(tile) + first;
    for (int64_t d = 0; d < head_dim; ++d) to[d * stride] = head[d];
  } else if (kind == CacheKind::float16) {
    half_bits* to = reinterpret_cast<half_bits*>(tile) + first;
    for (int64_t d = 0; d < head_dim; ++d) to[d * stride] = float_to_half(head[d]);
  } else {
    uint32_t largest = 0;
    for (int64_t d = 0; d < head_dim; ++d) largest = std::max(largest, float_to_bits(head[d]) & 0x7fffffffu);
    const BlockScale scale = block_scale(largest);
    reinterpret_cast<float*>(tile)[position] = scale.scale;
    int8_t* to = reinterpret_cast<int8_t*>(tile + kPositions * sizeof(float)) + first;
    for (int64_t d = 0; d < head_dim; ++d)
      to[d * stride] = scale.usable ? static_cast<int8_t>(round_even(head[d] * scale.inverse)) : 0;
  }
}

}  // namespace

void rotate(const Attention& attention, const float* head, int64_t row, float* out) {
  const int64_t half = attention.rotary / 2;
  const float* cos = attention.cos + (half ? attention.rotary_rows[row] * half : 0);
  const float* sin = attention.sin + (half ? attention.rotary_rows[row] * half : 0);
  for (int64_t i = 0; i < half; ++i) {
    out[i] = head[i] * cos[i] - head[i + half] * sin[i];
    out[i + half] = head[i + half] * cos[i] + head[i] * sin[i];
  }
  std::copy(head + attention.rotary, head + attention.head_dim, out + attention.rotary);
}

void Attention::run(const float* q, const float* k, const float* v, const int64_t* row_slots,
                    const int64_t* positions, int64_t rows, uint8_t* keys, uint8_t* values, float* out,
                    Isa isa, const Parallel& parallel) const {
  check(*this, row_slots, positions, rows);
  const int64_t tile_bytes = kPositions * position_bytes(kind, head_dim);
  const int64_t head_bytes = length / kPositions * tile_bytes, slot_bytes = kv_heads * head_bytes;
  std::vector<float> rotated(head_dim);
  for (int64_t i = 0; i < rows * kv_heads; ++i) {
    const int64_t row = i / kv_heads, position = positions[row], within = position % kPositions;
    const int64_t tile =
        row_slots[row] * slot_bytes + i % kv_heads * head_bytes + position / kPositions * tile_bytes;
    rotate(*this, k + i * head_dim, row, rotated.data());
    store(kind, rotated.data(), head_dim, keys + tile, within, within, kPositions);
    store(kind, v + i * head_dim, head_dim, values + tile, within, within * head_dim, 1);
  }
  const AttentionKernels& kernels = kernels_of(isa);
  const std::vector<RowBlock> blocks =
      blocks_of(row_slots, positions, rows, std::max<int64_t>(1, kernels.most_queries / (heads / kv_heads)));
  parallel(static_cast<int64_t>(blocks.size()) * kv_heads, [&](int64_t i) {
    const RowBlock block = blocks[i / kv_heads];
    const int64_t at = row_slots[block.first] * slot_bytes + i % kv_heads * head_bytes;
    kernels.attend(*this, q, keys + at, values + at, block, positions[block.first], i % kv_heads, out);
  });
}

}  // namespace hyperlane::ops
