// Scalar arithmetic that all instruction sets follow to the bit.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "quant/half.hpp"

namespace hyperlane::ops {

// To the nearest integer, ties to even, for magnitudes below 2^22.
inline float round_even(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

// Of a block of a row, from the bits of its largest magnitude (as integers, so that a NaN is the largest).
struct BlockScale {
  bool usable;
  float scale, inverse;
};

constexpr uint32_t kSmallest = 27u << 23;  // 2^-100: below it a block counts as zero
constexpr uint32_t kInfinity = 0x7f800000u;

inline BlockScale block_scale(uint32_t largest) {
  if (largest >= kInfinity) return {false, std::numeric_limits<float>::quiet_NaN(), 0.0f};
  if (largest < kSmallest) return {false, 0.0f, 0.0f};
  const float magnitude = bits_to_float(largest);
  return {true, magnitude / 127.0f, 127.0f / magnitude};
}

// Where value k of a block stands for 4-bit weights: of each 8, the even ones first.
inline int interleaved_place(int k) { return k / 8 * 8 + k % 2 * 4 + k % 8 / 2; }

constexpr float kExpLow = -87.0f, kExpHigh = 88.0f, kLog2E = 1.44269504088896341f;
constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
constexpr float kExpTerms[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                               4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};

// e^x by a polynomial (Cephes expf); x is held to [-87, 88].
inline float exponential(float x) {
  x = std::min(kExpHigh, std::max(kExpLow, x));  // a NaN becomes the low end
  const float n = round_even(x * kLog2E);
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = kExpTerms[0];
  for (int i = 1; i < 6; ++i) p = p * r + kExpTerms[i];
  const float y = ((p * r) * r + r) + 1.0f;
  return y * bits_to_float(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace hyperlane::ops
