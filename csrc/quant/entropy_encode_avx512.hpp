// Rows to multiples of their channels' steps, in the tables' order, on AVX-512. Include it under the target's
// options; all is internal.
#pragma once
#include "quant/entropy_plain.hpp"

namespace hyperlane {
namespace {

// 16 values from `at` of a row; zeros behind its end.
inline __m512 load_values(const void* values, bool half, std::size_t at, std::size_t width) {
  const std::size_t left = width > at ? width - at : 0;
  if (left >= 16) {
    if (!half) return _mm512_loadu_ps(static_cast<const float*>(values) + at);
    return _mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const half_bits*>(values) + at)));
  }
  const auto mask = static_cast<__mmask16>((1u << left) - 1);
  if (!half) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(values) + at);
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, static_cast<const half_bits*>(values) + at));
}

// The sum of 64 in halving order.
inline float halved(const __m512* sums) {
  __m512 v = _mm512_add_ps(_mm512_add_ps(sums[0], sums[2]), _mm512_add_ps(sums[1], sums[3]));
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4E));
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xB1));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4E));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xB1));
  return _mm512_cvtss_f32(v);
}

inline float squares(const void* values, bool half, std::size_t width) {
  __m512 sums[4] = {};
  for (std::size_t at = 0; at < width; at += 64)
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) {
      const __m512 value = load_values(values, half, at + 16 * i, width);
      sums[i] = _mm512_add_ps(sums[i], _mm512_mul_ps(value, value));
    }
  return halved(sums);
}

// Writes y of all channels and returns the sum of |y|.
inline float centre(const Entropy& codec, const void* values, bool half, float inverse_r, float* y) {
  const __m512 factor = _mm512_set1_ps(inverse_r);
  __m512 sums[4] = {};
  for (std::size_t at = 0; at < codec.width; at += 64)
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t channel = at + 16 * i;
      const __m512 unit = _mm512_mul_ps(load_values(values, half, channel, codec.width), factor);
      const __m512 apart = _mm512_sub_ps(unit, _mm512_loadu_ps(&codec.mean[channel]));
      const __m512 value = _mm512_mul_ps(apart, _mm512_loadu_ps(&codec.inverse_step[channel]));
      _mm512_storeu_ps(y + channel, value);
      sums[i] = _mm512_add_ps(sums[i], _mm512_abs_ps(value));
    }
  return halved(sums);
}

// Appends bits to bytes.
class BitWriter {
 public:
  explicit BitWriter(std::uint8_t* out) : out_(out) {}

  // Up to 32 bits; 8 bytes from the current one are overwritten.
  void append(std::uint64_t bits, unsigned count) {
    waiting_ |= bits << filled_;
    filled_ += count;
    std::memcpy(out_, &waiting_, sizeof waiting_);
    out_ += filled_ / 8;
    waiting_ >>= filled_ & ~7u;
    filled_ %= 8;
  }

 private:
  std::uint8_t* out_;
  std::uint64_t waiting_ = 0;
  unsigned filled_ = 0;
};

// 256 bytes in another order, 64 of them.
inline __m512i reorder(const __m512i* bytes, const BlockOrder& order, std::size_t i) {
  const __m512i index = _mm512_load_si512(order.index[i]);
  const __m512i low = _mm512_permutex2var_epi8(bytes[0], index, bytes[1]);
  return _mm512_mask_mov_epi8(low, order.upper[i], _mm512_permutex2var_epi8(bytes[2], index, bytes[3]));
}

// k of 64 channels, packed: k >> shift, saturated, and the seven lowest bits.
inline void multiples(const Entropy& codec, const float* y, std::size_t at, __m512 inverse_g, __m512i& rest,
                      __m512i& low) {
  __m512i k[4];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i)
    k[i] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(y + at + 16 * i), inverse_g));
  const __m512i first = _mm512_packs_epi32(k[0], k[1]), second = _mm512_packs_epi32(k[2], k[3]);
  const __m512i seven = _mm512_set1_epi16(127);
  low = _mm512_packus_epi16(_mm512_and_si512(first, seven), _mm512_and_si512(second, seven));
  rest = _mm512_packs_epi16(_mm512_srav_epi16(first, _mm512_loadu_si512(&codec.packed_shift[at])),
                            _mm512_srav_epi16(second, _mm512_loadu_si512(&codec.packed_shift[at + 32])));
}

// The patches of 64 places; false where the format holds none such.
inline bool add_patches(const Entropy& codec, const float* y, float inverse_g, std::size_t at,
                        std::uint64_t patched, QuantizedRow& row) {
  for (; patched; patched &= patched - 1) {
    const std::size_t channel = codec.order[at + static_cast<std::size_t>(__builtin_ctzll(patched))];
    if (!add_patch(codec, row, channel, exact_rest(codec, channel, y[channel], inverse_g))) return false;
  }
  return true;
}

inline void append_low_bits(const Entropy& codec, std::size_t at, __m512i low, BitWriter& out) {
  const std::size_t vector = at / kCoders;
  const std::size_t end = codec.first_low[std::min(vector + 2, codec.vectors)];
  for (std::size_t i = codec.first_low[std::min(vector, codec.vectors)]; i < end; ++i) {
    const LowBits& bits = codec.low_bits[i];
    const std::uint64_t set = _mm512_test_epi8_mask(low, _mm512_set1_epi8(static_cast<char>(1 << bits.bit)));
    out.append(_pext_u32(static_cast<std::uint32_t>(set >> (kCoders * (bits.vector - vector))), bits.lanes),
               bits.count);
  }
}

inline bool quantize(const Entropy& codec, const void* values, bool half, std::uint8_t r, float* y,
                     QuantizedRow& row) {
  std::uint32_t g;
  if (!choose_g(codec, centre(codec, values, half, 1.0f / r_value(r), y), r, g)) return false;
  const float inverse_g = e4m3_inverse(g);
  const std::size_t computed = (codec.width + 63) / 64 * 64;
  std::fill(y + computed, y + codec.mean.size(), 0.0f);
  BitWriter low_bits(row.head + 2);
  row.patch_count = 0;
  for (std::size_t start = 0; start < codec.width; start += kSorted) {
    __m512i rest[4], low[4];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i)
      multiples(codec, y, start + 64 * i, _mm512_set1_ps(inverse_g), rest[i], low[i]);
    const BlockOrder& order = codec.sort[start / kSorted];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t at = start + 64 * i;
      const __m512i exact = reorder(rest, order, i);
      const __m512i least = _mm512_max_epi8(exact, _mm512_loadu_si512(&codec.lowest[at]));
      const __m512i kept = _mm512_min_epi8(least, _mm512_loadu_si512(&codec.highest[at]));
      const std::uint64_t patched = _mm512_cmpneq_epi8_mask(exact, kept);
      if (__builtin_expect(patched != 0, 0) && !add_patches(codec, y, inverse_g, at, patched, row))
        return false;
      _mm512_storeu_si512(row.values + at, _mm512_add_epi8(kept, _mm512_set1_epi8(kMiddle)));
      append_low_bits(codec, at, reorder(low, order, i), low_bits);
    }
  }
  row.head[0] = r;
  row.head[1] = static_cast<std::uint8_t>(g | (row.patch_count ? kPatched : 0));
  return true;
}

}  // namespace
}  // namespace hyperlane
