// The rotated codecs (h4, h8); hyperlane/transport/codec/rotated.py is the specification, which this
// matches bit for bit: FP32, every operation rounded, none fused, sums in the butterfly's order.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "quant/half.hpp"
#include "quant/isa.hpp"

namespace hyperlane {

constexpr std::size_t kBlock = 64;
enum class Quantizer { nf4 = 0, bytes = 2 };  // h4, h8

// 16 levels and two exact ways to search them; a code is how many midpoints lie below the value.
struct Codebook {
  alignas(64) float levels[16];
  // One bit a step, the most significant first: the midpoint to compare with in step l, by the l bits that
  // are known.
  alignas(64) float steps[4][16];
  // By bucket = round(value * spread), of -15 to 15 and kept modulo 32: the code of the lowest value there,
  // and the one midpoint that lies inside, or infinity.
  float spread;
  alignas(64) std::int32_t bucket_codes[32];
  alignas(64) float bucket_midpoints[32];
};

constexpr float kLastBucket = 15.49f;

struct Block {
  std::size_t start;
  std::size_t size;  // a power of two, at most 64
  int bits;
  std::size_t code_bytes;
};

// One boundary's tables, made ready. Arrays are padded with 64 zeros.
struct Rotated {
  Quantizer quantizer;
  std::size_t width;
  std::size_t row_bytes;  // of a coded row
  std::size_t scale_count;
  float limit;                     // rows of a larger RMS are sent as they are
  std::array<std::uint8_t, 8> id;  // of the tables
  std::vector<float> trials;       // 16 times each factor of the scale search
  std::vector<float> mean, forward, backward;
  std::vector<Block> blocks;
  Codebook nf4;
};

// Floats that the kernels work in, for each row.
inline std::size_t room_size(const Rotated& codec) {
  return codec.mean.size() + (21 + kBlock) * codec.blocks.size() + 36;
}

// What differs between instruction sets. Blocks of less than 64 always take the scalar form.
struct RotatedKernels {
  // Converts `width` values (padding `row` with zeros) and returns the sum of their squares.
  float (*load_row)(const void* values, bool half, std::size_t width, float* row);
  void (*store_row)(const float* row, std::size_t width, void* values, bool half);
  // row / rms -> scale bytes and codes; false where a scale cannot hold its block.
  bool (*encode_row)(const Rotated& codec, const float* row, float inverse_rms, float* room,
                     std::uint8_t* scales, std::uint8_t* codes);
  // `halves`, if it is not null, takes the row instead of `row`.
  void (*decode_row)(const Rotated& codec, const std::uint8_t* scales, const std::uint8_t* codes, float rms,
                     float* row, half_bits* halves);
};

RotatedKernels scalar_rotated_kernels();
#ifdef HYPERLANE_X86
RotatedKernels avx2_rotated_kernels();
RotatedKernels avx512_rotated_kernels();
#endif

}  // namespace hyperlane
