// The rotated codecs in plain C++.
#include "quant/rotated_block.hpp"

namespace hyperlane {
namespace {

float load_row(const void* values, bool half, std::size_t width, float* row) {
  float sums[kBlock] = {};
  for (std::size_t i = 0; i < width; ++i) {
    row[i] =
        half ? half_to_float(static_cast<const half_bits*>(values)[i]) : static_cast<const float*>(values)[i];
    sums[i % kBlock] += row[i] * row[i];
  }
  return halving_sum(sums, kBlock);
}

void store_row(const float* row, std::size_t width, void* values, bool half) {
  for (std::size_t i = 0; i < width; ++i) {
    if (half)
      static_cast<half_bits*>(values)[i] = float_to_half(row[i]);
    else
      static_cast<float*>(values)[i] = row[i];
  }
}

bool encode_row(const Rotated& codec, const float* row, float inverse_rms, float* room, std::uint8_t* scales,
                std::uint8_t* codes) {
  bool fits = true;
  for (const Block& block : codec.blocks) {
    for (std::size_t i = block.start; i < block.start + block.size; ++i)
      room[i] = (row[i] * inverse_rms - codec.mean[i]) * codec.forward[i];
    hadamard(room + block.start, block.size);
    fits &= encode_block(codec, block, room + block.start, scales++, codes);
    codes += block.code_bytes;
  }
  return fits;
}

void decode_row(const Rotated& codec, const std::uint8_t* scales, const std::uint8_t* codes, float rms,
                float* row, half_bits* halves) {
  for (const Block& block : codec.blocks) {
    decode_block(codec, block, *scales++, codes, row + block.start);
    codes += block.code_bytes;
    hadamard(row + block.start, block.size);
    for (std::size_t i = block.start; i < block.start + block.size; ++i)
      row[i] = (row[i] * codec.backward[i] + codec.mean[i]) * rms;
  }
  if (halves) store_row(row, codec.width, halves, true);
}

}  // namespace

RotatedKernels scalar_rotated_kernels() { return {load_row, store_row, encode_row, decode_row}; }

}  // namespace hyperlane
