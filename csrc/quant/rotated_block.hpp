// One block in plain C++: the scalar path, and the short blocks at a row's end on every path.
#pragma once
#include <algorithm>
#include <cmath>

#include "quant/e4m3.hpp"
#include "quant/half.hpp"
#include "quant/raw_rows.hpp"
#include "quant/rotated.hpp"

namespace hyperlane {
namespace {

// The scale byte of a block, and what its values are multiplied with to be rounded.
struct Scale {
  std::uint32_t byte;
  float factor;
};

// Of a block whose largest magnitude, times 16, is `sixteenfold` (never -0) and that of a negative value or
// not.
inline Scale level_scale(float sixteenfold, bool is_negative) {
  const std::uint32_t code = e4m3_nearest(sixteenfold), negative = is_negative;
  const float factor = e4m3_inverse(code) * 128.0f;
  return {code | negative * kNegative, bits_to_float(float_to_bits(factor) ^ negative << 31)};
}

// The least that clips nothing.
inline Scale byte_scale(float sixteenfold, bool) {
  std::uint32_t code = e4m3_nearest(sixteenfold);
  const bool larger = static_cast<std::int32_t>(code) < 126;
  code += pick(e4m3_step(code) * 16.0f < sixteenfold, larger, 0);
  return {code, e4m3_inverse(code) * 127.0f};
}

inline void hadamard(float* values, std::size_t size) {
  for (std::size_t half = size / 2; half; half /= 2)
    for (std::size_t base = 0; base < size; base += 2 * half)
      for (std::size_t i = base; i < base + half; ++i) {
        const float first = values[i], second = values[i + half];
        values[i] = first + second;
        values[i + half] = first - second;
      }
}

inline std::uint8_t byte_of(float value, float least) {
  return static_cast<std::uint8_t>(
      static_cast<std::int8_t>(std::min(std::max(std::nearbyint(value), least), 127.0f)));
}

inline void write_levels(const Levels& levels, const Block& block, const float* values, float factor,
                         std::uint8_t* codes) {
  std::fill(codes, codes + block.code_bytes, std::uint8_t{0});
  for (std::size_t i = 0; i < block.size; ++i) {
    const unsigned code = levels.code[byte_of(values[i] * factor, -128.0f)];
    for (unsigned plane = 0; plane < 4; ++plane) {
      const std::size_t at = plane * block.size + i;
      codes[at / 8] = static_cast<std::uint8_t>(codes[at / 8] | (code >> (3 - plane) & 1) << (at % 8));
    }
  }
}

// Rotated values of one block -> its scale byte and codes; false where the scale cannot hold them.
inline bool encode_block(const Rotated& codec, const Block& block, const float* values, std::uint8_t* scale,
                         std::uint8_t* codes) {
  float high = 0, low = 0;  // the largest value, and the largest of the negatives
  for (std::size_t i = 0; i < block.size; ++i) {
    high = std::max(high, values[i]);
    low = std::max(low, -values[i]);
  }
  const bool bytes = codec.quantizer == Quantizer::bytes;
  const float sixteenfold = std::max(high, low) * 16.0f;
  const Scale chosen = bytes ? byte_scale(sixteenfold, false) : level_scale(sixteenfold, low > high);
  *scale = static_cast<std::uint8_t>(chosen.byte);
  if (bytes)
    for (std::size_t i = 0; i < block.size; ++i) codes[i] = byte_of(values[i] * chosen.factor, -127.0f);
  else
    write_levels(codec.levels, block, values, chosen.factor, codes);
  return sixteenfold <= kLargestScale;
}

// The whole numbers of one block.
inline void read_block(const Rotated& codec, const Block& block, const std::uint8_t* codes, float* numbers) {
  for (std::size_t i = 0; i < block.size; ++i) {
    if (codec.quantizer == Quantizer::bytes) {
      numbers[i] = static_cast<std::int8_t>(codes[i]);
      continue;
    }
    unsigned code = 0;
    for (unsigned plane = 0; plane < 4; ++plane) {
      const std::size_t at = plane * block.size + i;
      code = 2 * code + (codes[at / 8] >> (at % 8) & 1);
    }
    numbers[i] = codec.levels.level[code];
  }
}

// A block of a row, whatever its size.
inline bool encode_any(const Rotated& codec, const Block& block, const SourceRow& row, bool half,
                       std::uint8_t* scale, std::uint8_t* codes) {
  float values[kBlock] = {};
  for (std::size_t i = 0; i < block.size; ++i) {
    const std::size_t at = block.start + i;
    const float unit = value_at(row.values, half, at) * row.inverse_rms;
    values[i] = (unit - codec.mean[at]) * codec.forward[at];
  }
  hadamard(values, block.size);
  return encode_block(codec, block, values, scale, codes);
}

inline void decode_any(const Rotated& codec, const Block& block, const RecordRow& row, bool half,
                       std::uint8_t scale, const std::uint8_t* codes) {
  float values[kBlock] = {};
  const float step = codec.step[scale];
  read_block(codec, block, codes, values);
  hadamard(values, block.size);
  for (std::size_t i = 0; i < block.size; ++i) {
    const std::size_t at = block.start + i;
    const float value = (values[i] * step * codec.backward[at] + codec.mean[at]) * row.rms;
    if (half)
      static_cast<half_bits*>(row.values)[at] = float_to_half(value);
    else
      static_cast<float*>(row.values)[at] = value;
  }
}

// The blocks of a row from `first` on.
inline bool encode_from(const Rotated& codec, std::size_t first, const SourceRow& row, bool half) {
  bool fits = true;
  std::uint8_t* codes = row.codes + first * codec.blocks[0].code_bytes;  // those before are whole
  for (std::size_t b = first; b < codec.blocks.size(); ++b) {
    fits &= encode_any(codec, codec.blocks[b], row, half, row.scales + b, codes);
    codes += codec.blocks[b].code_bytes;
  }
  return fits;
}

inline void decode_from(const Rotated& codec, std::size_t first, const RecordRow& row, bool half) {
  const std::uint8_t* codes = row.codes + first * codec.blocks[0].code_bytes;
  for (std::size_t b = first; b < codec.blocks.size(); ++b) {
    decode_any(codec, codec.blocks[b], row, half, row.scales[b], codes);
    codes += codec.blocks[b].code_bytes;
  }
}

}  // namespace
}  // namespace hyperlane
