// IEEE 754 binary16 in plain C++, rounding to nearest even as F16C and NumPy do.
#pragma once
#include <cstdint>
#include <cstring>

namespace hyperlane {

using half_bits = std::uint16_t;

constexpr float kHalfMax = 65504.0f;
constexpr half_bits kHalfNan = 0x7E00;
constexpr half_bits kHalfInf = 0x7C00;

inline float bits_to_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::uint32_t float_to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float half_to_float(half_bits half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t rest = half & 0x7FFF;
  if (rest >= kHalfInf) {
    const std::uint32_t quiet = rest > kHalfInf ? 0x400000 : 0;
    return bits_to_float(sign | 0x7F800000 | (rest & 0x3FF) << 13 | quiet);
  }
  // Exponents differ by 112: shift the bits into place and scale, which is exact for denormals too.
  return bits_to_float(sign | float_to_bits(bits_to_float(rest << 13) * 0x1p112f));
}

inline half_bits float_to_half(float value) {
  const std::uint32_t bits = float_to_bits(value);
  const std::uint32_t rest = bits & 0x7FFFFFFF;
  const half_bits sign = static_cast<half_bits>((bits >> 16) & 0x8000);
  if (rest > 0x7F800000) return sign | kHalfNan | ((rest >> 13) & 0x3FF);
  if (rest >= 0x477FF000) return sign | kHalfInf;  // 65520 and above
  if (rest < 0x38800000) {                         // a denormal half: let the FPU round at 2^-24
    const float shifted = bits_to_float(rest) + 0.5f;
    return sign | static_cast<half_bits>(float_to_bits(shifted) - 0x3F000000);
  }
  const std::uint32_t odd = (rest >> 13) & 1;
  return sign | static_cast<half_bits>((rest - 0x38000000 + 0xFFF + odd) >> 13);
}

}  // namespace hyperlane
