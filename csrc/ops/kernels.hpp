// Products of FP32 rows with weights in blocks of 4 or 8 bits. hyperlane/quantization/reference.py is the
// specification: every instruction set gives its bits, and a row's result does not depend on the rows beside
// it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/isa.hpp"

namespace hyperlane::ops {

constexpr int64_t kBlock = 32;  // values along K that share a scale
constexpr int64_t kTile = 16;   // rows of the weight (outputs) that are stored interleaved

// A weight [N, K]: value = scale * code + minimum; without minima, scale * (code - 2^(bits - 1)).
struct Weights {
  int bits;
  int64_t tiles, blocks;   // of N and of K
  const uint8_t* codes;    // [tiles, blocks, 4 * bits / 4 ... groups of 64 bytes], see the reference
  const uint16_t* scales;  // FP16 [tiles, blocks, 16]
  const uint16_t* minima;  // FP16 [tiles, blocks, 16], or null
  int64_t tile_bytes() const { return blocks * kTile * kBlock * bits / 8; }
};

// Rows in blocks of 32 signed bytes, in the order in which the weight's codes meet them.
struct Rows {
  int64_t count, blocks;
  const int8_t* codes;    // [count, blocks, 32]
  const float* scales;    // [count, blocks]
  const int32_t* totals;  // [count, blocks]: sum of a block's codes
  const float* sums;      // [count, blocks]: scale * total
};

// One instruction set's routines.
struct Kernels {
  // out[k] = (x[k] * (1 / sqrt(mean(x^2) + epsilon))) * weight[k]
  void (*norm)(const float* x, const float* weight, float epsilon, int64_t width, float* out);
  // One row, whose width is padded with zeros to whole blocks. `interleaved`: for 4-bit weights.
  void (*quantize)(const float* x, int64_t width, bool interleaved, int8_t* codes, float* scales,
                   int32_t* totals, float* sums);
  // out[r * kTile + n] for one tile of the weight and rows first to first + count
  void (*tile)(const Weights& weights, int64_t tile, const Rows& rows, int64_t first, int64_t count,
               float* out);
  // out[i] = silu(gate[i]) * up[i] for 16 values
  void (*gate)(const float* gate, const float* up, float* out);
  // The largest of `count` values; a NaN is none.
  float (*largest)(const float* x, int64_t count);
  // Sum of e^(x[i] - offset), in 16 lanes that are then halved.
  float (*exponential_sum)(const float* x, int64_t count, float offset);
};

const Kernels& kernels(Isa isa);  // scalar where an instruction set has none of its own
Isa best_ops_isa();               // AVX-512 counts with VNNI only

extern const Kernels kScalar;
#ifdef HYPERLANE_X86
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

}  // namespace hyperlane::ops
