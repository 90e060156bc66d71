// int4 in plain C++: what AVX-512 does 32 lanes at a time. All is internal.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/e4m3.hpp"
#include "quant/entropy.hpp"
#include "quant/raw_rows.hpp"

namespace hyperlane {
namespace {

// What the byte of r stands for.
inline float r_value(std::uint8_t byte) { return half_to_float(static_cast<half_bits>(byte << 7)); }

// The low bits of a place, from its row's head.
inline std::int32_t low_bits_of(const Entropy& codec, const std::uint8_t* head, std::size_t place) {
  const std::size_t vector = place / kCoders;
  const std::uint32_t lane = 1u << (place % kCoders);
  std::int32_t bits = 0;
  for (std::size_t i = codec.first_low[vector]; i < codec.first_low[vector + 1]; ++i) {
    const LowBits& low = codec.low_bits[i];
    if (!(low.lanes & lane)) continue;
    const std::size_t at = low.at + static_cast<std::size_t>(__builtin_popcount(low.lanes & (lane - 1)));
    bits |= ((head[2 + at / 8] >> (at % 8)) & 1) << low.bit;
  }
  return bits;
}

// Writes the channel at `place` of a row, whose k >> shift is `rest`.
inline void write_value(const Entropy& codec, const CodedRow& row, bool half, std::size_t place,
                        std::int32_t rest) {
  const std::size_t channel = codec.order[place];
  const std::int32_t k = rest * (1 << codec.shift[channel]) + low_bits_of(codec, row.head, place);
  const float y = static_cast<float>(k) * e4m3_step(row.head[1]);
  const float value = (y * codec.step[channel] + codec.mean[channel]) * r_value(row.head[0]);
  if (half)
    static_cast<half_bits*>(row.out)[channel] = float_to_half(value);
  else
    static_cast<float*>(row.out)[channel] = value;
}

// k >> shift of a value y under the inverse of g.
inline std::int32_t exact_rest(const Entropy& codec, std::size_t channel, float y, float inverse_g) {
  const float k = std::min(std::max(std::nearbyint(y * inverse_g), -32767.0f), 32767.0f);
  return static_cast<std::int32_t>(k) >> codec.shift[channel];
}

// False where the format holds no such patch, or no more of them.
inline bool add_patch(const Entropy& codec, QuantizedRow& row, std::size_t channel, std::int32_t rest) {
  if (rest < -128 || rest > 127 || row.patch_count == codec.most_patches) return false;
  row.patches[row.patch_count++] = {static_cast<std::uint16_t>(channel), static_cast<std::int8_t>(rest)};
  return true;
}

// The byte of g from the sum of |y|; false where it cannot hold them.
inline bool choose_g(const Entropy& codec, float sum, std::uint8_t r, std::uint32_t& g) {
  const float sixteenfold = sum * codec.sixteenfold;
  if (!(sixteenfold <= kLargestScale) || r > kLargestR) return false;
  g = e4m3_nearest(sixteenfold);
  return true;
}

struct PlainEntropy {
  static float squares(const void* values, bool half, std::size_t width) {
    float sums[64] = {};
    for (std::size_t i = 0; i < width; ++i) {
      const float value = value_at(values, half, i);
      sums[i % 64] += value * value;
    }
    return halved(sums);
  }

  static bool quantize(const Entropy& codec, const void* values, bool half, std::uint8_t r, float* y,
                       QuantizedRow& row) {
    const float inverse_r = 1.0f / r_value(r);
    float sums[64] = {};
    for (std::size_t i = 0; i < codec.width; ++i) {
      y[i] = (value_at(values, half, i) * inverse_r - codec.mean[i]) * codec.inverse_step[i];
      sums[i % 64] += std::fabs(y[i]);
    }
    std::uint32_t g;
    if (!choose_g(codec, halved(sums), r, g)) return false;
    const float inverse_g = e4m3_inverse(g);
    std::memset(row.head, 0, codec.head_bytes);
    row.patch_count = 0;
    for (std::size_t place = 0; place < codec.width; ++place) {
      const std::size_t channel = codec.order[place];
      const std::int32_t rest = exact_rest(codec, channel, y[channel], inverse_g);
      const std::int32_t kept =
          std::min<std::int32_t>(std::max<std::int32_t>(rest, codec.lowest[place]), codec.highest[place]);
      if (kept != rest && !add_patch(codec, row, channel, rest)) return false;
      row.values[place] = static_cast<std::uint8_t>(kept + kMiddle);
    }
    write_low_bits(codec, y, inverse_g, row.head + 2);
    row.head[0] = r;
    row.head[1] = static_cast<std::uint8_t>(g | (row.patch_count ? kPatched : 0));
    return true;
  }

  static void encode(const Entropy& codec, std::size_t rows, std::size_t count,
                     const std::uint8_t* const* values, std::uint8_t* const* rooms, std::size_t* sizes) {
    for (std::size_t i = 0; i < count; ++i) sizes[i] = encode_string(codec, rows, values[i], rooms[i]);
  }

  static bool decode(const Entropy& codec, std::size_t rows, std::size_t count, const StringBytes* strings,
                     const CodedRow* coded, bool half, std::uint8_t* room) {
    bool sound = true;
    for (std::size_t i = 0; i < count; ++i)
      sound &= decode_string(codec, rows, strings[i], coded + i * rows, half, room);
    return sound;
  }

 private:
  static float halved(float* sums) {
    for (std::size_t half = 32; half; half /= 2)
      for (std::size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
    return sums[0];
  }

  static void write_low_bits(const Entropy& codec, const float* y, float inverse_g, std::uint8_t* out) {
    for (const LowBits& low : codec.low_bits) {
      std::size_t at = low.at;
      for (std::uint32_t lanes = low.lanes; lanes; lanes &= lanes - 1, ++at) {
        const std::size_t place = low.vector * kCoders + static_cast<std::size_t>(__builtin_ctz(lanes));
        const auto k = static_cast<std::int32_t>(std::nearbyint(y[codec.order[place]] * inverse_g));
        out[at / 8] = static_cast<std::uint8_t>(out[at / 8] | ((k >> low.bit) & 1) << (at % 8));
      }
    }
  }

  static std::size_t encode_string(const Entropy& codec, std::size_t rows, const std::uint8_t* values,
                                   std::uint8_t* room) {
    std::uint8_t* const end = room + string_reach(codec, rows);
    std::uint8_t* out = end;
    std::uint32_t state[kCoders];
    std::fill(state, state + kCoders, kTotal);
    for (std::size_t step = rows * codec.vectors; step-- > 0;) {
      const std::size_t vector = step % codec.vectors;
      const SymbolTable& table = codec.tables[codec.table[vector]];
      for (std::size_t lane = lanes_of(codec, vector); lane-- > 0;) {
        const std::uint8_t symbol = values[step * kCoders + lane];
        const std::uint32_t f = table.frequency[symbol];
        std::uint32_t x = state[lane];
        if (x >= f << 8) {
          *--out = static_cast<std::uint8_t>(x);
          x >>= 8;
        }
        const std::uint32_t add_shift = table.add_shift[symbol];
        const std::uint32_t quotient =
            ((x + table.carry[symbol]) * table.reciprocal[symbol] >> 16) >> (add_shift >> 12);
        state[lane] = x + quotient * (kTotal - f) + (add_shift & 0xFFF);
      }
    }
    for (std::size_t lane = kCoders; lane-- > 0;) {
      *--out = static_cast<std::uint8_t>(state[lane] >> 8);
      *--out = static_cast<std::uint8_t>(state[lane]);
    }
    return static_cast<std::size_t>(end - out);
  }

  static std::size_t lanes_of(const Entropy& codec, std::size_t vector) {
    return std::min(kCoders, codec.width - vector * kCoders);
  }

  static bool decode_string(const Entropy& codec, std::size_t rows, const StringBytes& string,
                            const CodedRow* coded, bool half, std::uint8_t* symbols) {
    std::uint32_t state[kCoders];
    const std::uint8_t* in = string.data;
    for (std::size_t lane = 0; lane < kCoders; ++lane, in += 2)
      state[lane] = in[0] | static_cast<std::uint32_t>(in[1]) << 8;
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t vector = 0; vector < codec.vectors; ++vector) {
        const SymbolTable& table = codec.tables[codec.table[vector]];
        for (std::size_t lane = 0; lane < lanes_of(codec, vector); ++lane) {
          const std::uint32_t slot = state[lane] & 255, symbol = table.symbol[slot];
          std::uint32_t x = table.frequency[symbol] * (state[lane] >> 8) + slot - table.start_bytes[symbol];
          if (x < kTotal) x = x << 8 | *in++;
          state[lane] = x;
          symbols[vector * kCoders + lane] = static_cast<std::uint8_t>(symbol);
        }
      }
      write_row(codec, coded[row], half, symbols);
    }
    bool sound = in == string.data + string.size;
    for (std::uint32_t x : state) sound &= x == kTotal;
    return sound;
  }

  static void write_row(const Entropy& codec, const CodedRow& row, bool half, const std::uint8_t* symbols) {
    for (std::size_t place = 0; place < codec.width; ++place)
      write_value(codec, row, half, place, symbols[place] - kMiddle);
  }
};

inline EntropyKernels plain_entropy_kernels() {
  return {PlainEntropy::squares, PlainEntropy::quantize, PlainEntropy::encode, PlainEntropy::decode};
}

}  // namespace
}  // namespace hyperlane
