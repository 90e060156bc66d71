// Groups of 64 values with one FP16 scale, in plain C++: what codecs int8 and int4_plain share.
// hyperlane/transport/codec/groups.py is the specification.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "quant/half.hpp"

namespace hyperlane {

constexpr std::size_t kGroup = 64;

inline std::size_t group_count(std::size_t width) { return (width + kGroup - 1) / kGroup; }

// A group's scale as it is sent, and what its values are multiplied by. A group to be sent as NaN has inverse
// NaN.
struct GroupScale {
  half_bits half;
  float inverse;
};

inline GroupScale finite_scale(half_bits half) {
  const float scale = half_to_float(half);
  return {half, scale > 0 ? 1.0f / scale : 0.0f};
}

inline float widen(float value) { return value; }
inline float widen(half_bits value) { return half_to_float(value); }

template <class T>
GroupScale group_scale(const T* values, std::size_t count, float levels) {
  float absmax = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const float value = std::fabs(widen(values[i]));
    if (!(value <= 3.4028234663852886e38f)) return {kHalfNan, std::nanf("")};
    absmax = std::max(absmax, value);
  }
  return finite_scale(float_to_half(std::min(absmax / levels, kHalfMax)));
}

inline int group_code(float value, GroupScale scale, float levels) {
  if (scale.half == kHalfNan) return 0;
  return static_cast<int>(std::nearbyint(std::min(std::max(value * scale.inverse, -levels), levels)));
}

inline void store_value(float* out, float value) { *out = value; }
inline void store_value(half_bits* out, float value) {
  *out = float_to_half(value > kHalfMax ? kHalfMax : value < -kHalfMax ? -kHalfMax : value);
}

}  // namespace hyperlane
