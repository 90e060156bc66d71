// The rotated codecs (h4, int4, h8); hyperlane/transport/codec/rotated.py is the specification, which this
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
constexpr int kMaxBits = 6;

enum class Quantizer { nf4, trellis, bytes };  // h4, int4, h8

// A codebook and two exact ways to search it; a code is how many midpoints lie below the value.
struct Codebook {
  alignas(64) float levels[64];
  // One bit a step, the most significant first: the midpoint to compare with in step l, by the l bits that
  // are known.
  alignas(64) float steps[kMaxBits + 1][64];
  // By bucket = round(value * spread), of -15 to 15 and kept modulo 32: the code of the lowest value there,
  // and the midpoint that lies inside, or infinity. Where two lie inside (5 bits), `midpoints` by code leads
  // on.
  float spread;
  alignas(64) std::int32_t bucket_codes[32];
  alignas(64) float bucket_midpoints[32];
  alignas(64) float midpoints[32];
};

constexpr float kLastBucket = 15.49f;

// int4's trellis code for one number of bits. Where w midpoints of `below` lie below a value (they lie
// between levels 4 apart), the levels nearest to it are w to w + 3, and level i belongs to subset i % 4.
struct Trellis {
  Codebook below;
  alignas(64) float levels[128];
  alignas(64) float subsets[4][32];  // by index: level 4 index + subset
  alignas(64) float nearest[4][32];  // by w, up to 4 bits: the subset's level of w to w + 3
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
  float limit;                     // rows of a larger RMS are sent as they are
  std::array<std::uint8_t, 8> id;  // of the tables
  std::vector<float> trials;       // 16 times each factor of the scale search
  std::vector<float> mean, forward, backward;
  std::vector<std::uint32_t> order, place;  // sorted channel -> channel, and back; empty: unsorted
  std::vector<Block> blocks;
  std::size_t coded;  // values in blocks that have bits
  Codebook nf4;
  std::array<Trellis, kMaxBits + 1> trellises;  // by bits
};

// Floats that the kernels work in, for each row.
inline std::size_t room_size(const Rotated& codec) {
  return 3 * codec.mean.size() + (21 + kBlock) * codec.blocks.size() + 36;
}

// What differs between instruction sets. Blocks of less than 64 always take the scalar form.
struct RotatedKernels {
  // Converts `width` values (padding `row` with zeros) and returns the sum of their squares.
  float (*load_row)(const void* values, bool half, std::size_t width, float* row);
  void (*store_row)(const float* row, std::size_t width, void* values, bool half);
  // row / rms -> scale bytes and codes; false where a scale cannot hold its block. Where `in_order`, the
  // channels of `row` are sorted already.
  bool (*encode_row)(const Rotated& codec, const float* row, bool in_order, float inverse_rms, float* room,
                     std::uint8_t* scales, std::uint8_t* codes);
  // Where `in_order`, the channels of `row` stay sorted, and `halves`, if it is not null, takes them instead.
  void (*decode_row)(const Rotated& codec, const std::uint8_t* scales, const std::uint8_t* codes, float rms,
                     bool in_order, float* room, float* row, half_bits* halves);
  // Sorts the channels of 16 rows at a time, or puts them back, faster than row by row; see permute_rows.hpp.
  // Null where there is no such way.
  void (*permute_rows)(const half_bits* rows, std::size_t stride, std::size_t width,
                       const std::uint32_t* from, half_bits* columns, half_bits* out);
};

RotatedKernels scalar_rotated_kernels();
#ifdef HYPERLANE_X86
RotatedKernels avx2_rotated_kernels();
RotatedKernels avx512_rotated_kernels();
#endif

}  // namespace hyperlane
