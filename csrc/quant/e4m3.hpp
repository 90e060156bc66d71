// E4M3, the float of the scale bytes; hyperlane/transport/codec/e4m3.py is the specification.
#pragma once
#include <algorithm>
#include <cstdint>

#include "quant/half.hpp"

namespace hyperlane {

constexpr float kLargestScale = 448;

// `yes` or `no` without a branch, so that loops over scales vectorise.
inline std::uint32_t pick(bool which, std::uint32_t yes, std::uint32_t no) {
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(which);
  return (yes & mask) | (no & ~mask);
}

// E4M3 codes of 0 <= value; above 448 saturates.
inline std::uint32_t e4m3_nearest(float value) {
  const std::uint32_t bits = std::min(float_to_bits(value), float_to_bits(kLargestScale));
  const std::uint32_t normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3);
  const float shifted = bits_to_float(bits) + 16384.0f;  // rounds at 2^-9
  const std::uint32_t subnormal = float_to_bits(shifted) - float_to_bits(16384.0f);
  return pick(bits < float_to_bits(0x1p-6f), subnormal, normal);
}

// A sixteenth of what the low seven bits of an E4M3 code stand for.
inline float e4m3_step(std::uint32_t code) {
  const std::uint32_t low = code & 127;
  const float normal = bits_to_float((low + ((120 - 4) << 3)) << 20);
  const float subnormal = static_cast<float>(static_cast<std::int32_t>(low)) * 0x1p-13f;
  return bits_to_float(pick(low < 8, float_to_bits(subnormal), float_to_bits(normal)));
}

inline float e4m3_inverse(std::uint32_t code) {
  return bits_to_float(pick(code != 0, float_to_bits(1.0f / e4m3_step(code)), 0));
}

}  // namespace hyperlane
