// One block in plain C++: the scalar path, and the short blocks at a row's end on every path.
#pragma once
#include <algorithm>
#include <cmath>

#include "quant/e4m3.hpp"
#include "quant/half.hpp"
#include "quant/rotated.hpp"

namespace hyperlane {
namespace {

struct Trials {
  std::uint8_t code[4];
  float step[4], inverse[4];
};

inline Trials block_trials(const Rotated& codec, float gain) {
  Trials trials{};
  for (std::size_t i = 0; i < codec.trials.size(); ++i) {
    const std::uint32_t code = e4m3_nearest(gain * codec.trials[i]);
    trials.code[i] = static_cast<std::uint8_t>(code);
    trials.step[i] = e4m3_step(code);
    trials.inverse[i] = e4m3_inverse(code);
  }
  return trials;
}

// The scale byte of a block of h8: the least that clips nothing.
inline std::uint32_t byte_scale(float sixteenfold) {
  const std::uint32_t code = e4m3_nearest(sixteenfold);
  return code + (e4m3_step(code) * 16.0f < sixteenfold && code < 126);
}

inline float halving_sum(float* values, std::size_t size) {
  for (std::size_t half = size / 2; half; half /= 2)
    for (std::size_t i = 0; i < half; ++i) values[i] += values[i + half];
  return values[0];
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

inline std::uint32_t search(const Codebook& book, float value) {
  std::uint32_t code = 0;
  for (int step = 0; step < 4; ++step) code = 2 * code + (value > book.steps[step][code]);
  return code;
}

inline bool encode_levels(const Rotated& codec, const Block& block, const float* values, std::uint8_t* scale,
                          std::uint8_t* codes) {
  const Codebook& book = codec.nf4;
  float gain = 0;
  for (std::size_t i = 0; i < block.size; ++i) gain = std::max(gain, std::fabs(values[i]));
  const Trials trials = block_trials(codec, gain);
  float least = INFINITY;
  std::uint32_t best[kBlock] = {};
  *scale = 0;
  for (std::size_t trial = 0; trial < codec.trials.size(); ++trial) {
    std::uint32_t index[kBlock];
    float errors[kBlock];
    for (std::size_t i = 0; i < block.size; ++i) {
      index[i] = search(book, values[i] * trials.inverse[trial]);
      const float wrong = values[i] - book.levels[index[i]] * trials.step[trial];
      errors[i] = wrong * wrong;
    }
    const float error = halving_sum(errors, block.size);
    if (!(error < least)) continue;
    least = error;
    *scale = trials.code[trial];
    std::copy(index, index + block.size, best);
  }
  std::fill(codes, codes + block.code_bytes, std::uint8_t{0});
  std::size_t at = 0;
  for (int bit = block.bits - 1; bit >= 0; --bit)
    for (std::size_t i = 0; i < block.size; ++i, ++at)
      codes[at / 8] |= static_cast<std::uint8_t>(((best[i] >> bit) & 1) << (at % 8));
  return gain * codec.trials.back() <= kLargestScale;
}

inline bool encode_bytes(const Block& block, const float* values, std::uint8_t* scale, std::uint8_t* codes) {
  float absmax = 0;
  for (std::size_t i = 0; i < block.size; ++i) absmax = std::max(absmax, std::fabs(values[i]));
  const std::uint32_t code = byte_scale(absmax * 16.0f);
  const float inverse = e4m3_inverse(code) * 127.0f;
  for (std::size_t i = 0; i < block.size; ++i) {
    const float steps = std::min(std::max(std::nearbyint(values[i] * inverse), -127.0f), 127.0f);
    codes[i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(steps));
  }
  *scale = static_cast<std::uint8_t>(code);
  return absmax * 16.0f <= kLargestScale;
}

// Rotated values of one block -> its scale byte and codes; false where the scale cannot hold them.
inline bool encode_block(const Rotated& codec, const Block& block, const float* values, std::uint8_t* scale,
                         std::uint8_t* codes) {
  if (codec.quantizer == Quantizer::bytes) return encode_bytes(block, values, scale, codes);
  return encode_levels(codec, block, values, scale, codes);
}

inline void decode_block(const Rotated& codec, const Block& block, std::uint8_t scale,
                         const std::uint8_t* codes, float* values) {
  const float step = e4m3_step(scale);
  if (codec.quantizer == Quantizer::bytes) {
    const float byte_step = step * (1.0f / 127.0f);
    for (std::size_t i = 0; i < block.size; ++i)
      values[i] = static_cast<float>(static_cast<std::int8_t>(codes[i])) * byte_step;
    return;
  }
  std::uint32_t index[kBlock] = {};
  std::size_t at = 0;
  for (int bit = block.bits - 1; bit >= 0; --bit)
    for (std::size_t i = 0; i < block.size; ++i, ++at)
      index[i] |= static_cast<std::uint32_t>((codes[at / 8] >> (at % 8)) & 1) << bit;
  for (std::size_t i = 0; i < block.size; ++i) values[i] = codec.nf4.levels[index[i]] * step;
}

}  // namespace
}  // namespace hyperlane
