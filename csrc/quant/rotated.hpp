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
enum class Quantizer { levels = 0, bytes = 2 };  // h4, h8
constexpr std::size_t kTogether = 8;             // rows, at most, that a kernel takes at once
constexpr std::uint8_t kNegative = 128;          // in a scale byte of h4

// The 16 levels of h4, whole numbers of 128ths, and which is nearest to another such number k.
struct Levels {
  alignas(16) std::int8_t level[16];
  std::uint8_t code[256];  // by the byte of k
  // By the upper four bits of k: the code of the lowest k there, and the largest k that has this code and the
  // next one.
  alignas(16) std::int8_t lowest[16], first[16], second[16];
};

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
  std::vector<float> mean, forward, backward;
  std::vector<Block> blocks;
  Levels levels;
  float step[256];  // what a whole number stands for, by its block's scale byte
};

// A row on its way to a record.
struct SourceRow {
  const void* values;
  float inverse_rms;
  std::uint8_t *scales, *codes;
};

// A record on its way to a row.
struct RecordRow {
  const std::uint8_t *scales, *codes;
  float rms;
  void* values;
};

// What differs between instruction sets. Blocks of less than 64 always take the scalar form.
struct RotatedKernels {
  // The sum of the squares of a row.
  float (*squares)(const void* values, bool half, std::size_t width);
  // One to kTogether rows; false where a scale cannot hold a block of one of them.
  bool (*encode)(const Rotated& codec, bool half, std::size_t count, const SourceRow* rows);
  void (*decode)(const Rotated& codec, bool half, std::size_t count, const RecordRow* rows);
};

RotatedKernels scalar_rotated_kernels();
#ifdef HYPERLANE_X86
RotatedKernels avx2_rotated_kernels();
RotatedKernels avx512_rotated_kernels();
#endif

}  // namespace hyperlane
