// The rotated codecs (h4, int4, h8); hyperlane/transport/codec/rotated.py is the specification, which this matches
// bit for bit: FP32, every operation rounded, none fused, sums in the butterfly's order.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "quant/isa.hpp"

namespace hyperlane {

constexpr std::size_t kBlock = 64;
constexpr int kMaxBits = 6;

enum class Quantizer { nf4, gauss, bytes };  // h4, int4, h8

// A codebook for a search that takes one bit a step, the most significant first. Bit `l` of an index is the code's
// l-th bit from above, so that a step only sets a bit.
struct Codebook {
  alignas(64) float thresholds[kMaxBits][32];  // of step l, by the l bits that are known
  alignas(64) float levels[64];
};

struct Block {
  std::size_t start;
  std::size_t size;  // a power of two, at most 64
  int bits;          // 0 sends nothing
  std::size_t code_bytes;
};

// One boundary's tables, made ready. Arrays are padded with 64 zeros.
struct Rotated {
  Quantizer quantizer;
  std::size_t width;
  std::size_t row_bytes;  // of a coded row
  std::size_t scale_count;
  float limit;                       // rows of a larger RMS are sent as they are
  std::array<std::uint8_t, 8> id;    // of the tables
  std::vector<float> trials;         // 16 times each factor of the scale search
  std::vector<float> mean, forward, backward;
  std::vector<std::uint32_t> order, place;  // sorted channel -> channel, and back; empty: unsorted
  std::vector<Block> blocks;
  std::array<Codebook, kMaxBits + 1> books;  // by bits
};

// What differs between instruction sets. Blocks of less than 64 always take the scalar form.
struct RotatedKernels {
  // Converts `width` values (padding `row` with zeros) and returns the sum of their squares.
  float (*load_row)(const void* values, bool half, std::size_t width, float* row);
  void (*store_row)(const float* row, std::size_t width, void* values, bool half);
  // row / rms -> scale bytes and codes; false where a scale cannot hold its block.
  bool (*encode_row)(const Rotated& codec, const float* row, float inverse_rms, float* scratch, std::uint8_t* scales,
                     std::uint8_t* codes);
  void (*decode_row)(const Rotated& codec, const std::uint8_t* scales, const std::uint8_t* codes, float rms,
                     float* scratch, float* row);
};

RotatedKernels scalar_rotated_kernels();
#ifdef HYPERLANE_X86
RotatedKernels avx2_rotated_kernels();
RotatedKernels avx512_rotated_kernels();
#endif

}  // namespace hyperlane
