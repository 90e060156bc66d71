// Attention over a cache of keys and values, for rows of any slots at any positions.
// hyperlane/model/attention.py is the specification: every instruction set gives its bits, and a row's result
// does not depend on the rows beside it.
#pragma once
#include <cstdint>

#include "ops/linear.hpp"

namespace hyperlane::ops {

// How a cache holds numbers: 16 positions of a head of a slot form a tile, keys by element and then position,
// values by position and then element. In 8 bits a tile begins with its positions' scales (FP32).
enum class CacheKind : int { float32 = 32, float16 = 16, int8 = 8 };

constexpr int64_t kPositions = 16;  // of a tile

inline int64_t position_bytes(CacheKind kind, int64_t head_dim) {
  return kind == CacheKind::int8 ? head_dim + 4 : head_dim * static_cast<int64_t>(kind) / 8;
}

struct Attention {
  int64_t heads, kv_heads, head_dim;
  int64_t slots, length;  // of the cache; `length` positions a slot, whole tiles
  CacheKind kind;
  float scale;                 // of the products of queries and keys
  int64_t window;              // how many positions a row looks back on, its own included; 0: all
  float softcap;               // 0: none
  int64_t rotary = 0;          // how many of a head's first elements are rotated, in halves
  const float* cos = nullptr;  // [.., rotary / 2]
  const float* sin = nullptr;
  const int64_t* rotary_rows = nullptr;  // [rows]: of `cos` and `sin`

  // q [rows, heads * head_dim], k and v [rows, kv_heads * head_dim] -> out, as q.
  // Keys and values of all rows are stored first. Throws std::invalid_argument for a place outside the cache.
  void run(const float* q, const float* k, const float* v, const int64_t* row_slots, const int64_t* positions,
           int64_t rows, uint8_t* keys, uint8_t* values, float* out, Isa isa, const Parallel& parallel) const;
};

// Rows that one piece of work takes: of one slot, at consecutive positions.
struct RowBlock {
  int64_t first, count;
};

struct AttentionKernels {
  int64_t most_queries;  // heads of a group times rows that one pass over the cache serves
  // The rows of a block, the first at `position`, for one head of keys and values, whose tiles are given.
  void (*attend)(const Attention& attention, const float* q, const uint8_t* keys, const uint8_t* values,
                 RowBlock block, int64_t position, int64_t kv_head, float* out);
};

// A head as the rotary embedding turns it, in halves: element i with element i + rotary / 2; the rest as it
// is.
void rotate(const Attention& attention, const float* head, int64_t row, float* out);

extern const AttentionKernels kAttentionScalar;
#ifdef HYPERLANE_X86
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
#endif

}  // namespace hyperlane::ops
