// Rows to multiples of their channels' steps, in the tables' order, on AVX-512. Include it under the target's
// options; all is internal.
#pragma once
#include "quant/bit_writer.hpp"
#include "quant/entropy_plain.hpp"

namespace hyperlane {
namespace {

inline __m512 load_16(const half_bits* values) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
}
inline __m512 load_16(const float* values) { return _mm512_loadu_ps(values); }

inline __m512 load_some(const half_bits* values, __mmask16 which) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(which, values));
}
inline __m512 load_some(const float* values, __mmask16 which) { return _mm512_maskz_loadu_ps(which, values); }

// 64 values from `at` of a row; zeros behind its end, unless they are WHOLE.
template <bool WHOLE, class T>
inline void load_64(const T* values, std::size_t at, std::size_t width, __m512* v) {
  if (WHOLE || at + 64 <= width) {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) v[i] = load_16(values + at + 16 * i);
    return;
  }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t start = at + 16 * i,
                      left = width > start ? std::min<std::size_t>(width - start, 16) : 0;
    v[i] = left ? load_some(values + start, static_cast<__mmask16>((1u << left) - 1)) : _mm512_setzero_ps();
  }
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

template <bool WHOLE, class T>
inline void add_squares(const T* values, std::size_t at, std::size_t width, __m512* sums) {
  __m512 v[4];
  load_64<WHOLE>(values, at, width, v);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) sums[i] = _mm512_add_ps(sums[i], _mm512_mul_ps(v[i], v[i]));
}

template <class T>
float squares_of(const T* values, std::size_t width) {
  __m512 sums[4] = {};
  std::size_t at = 0;
  for (; at + 64 <= width; at += 64) add_squares<true>(values, at, width, sums);
  if (at < width) add_squares<false>(values, at, width, sums);
  return halved(sums);
}

inline float squares(const void* values, bool half, std::size_t width) {
  return half ? squares_of(static_cast<const half_bits*>(values), width)
              : squares_of(static_cast<const float*>(values), width);
}

// A bit, in every byte.
struct ByteBits {
  alignas(64) std::uint8_t of[8][64];
};

constexpr ByteBits make_bits() {
  ByteBits bits{};
  for (int bit = 0; bit < 8; ++bit)
    for (std::uint8_t& byte : bits.of[bit]) byte = static_cast<std::uint8_t>(1 << bit);
  return bits;
}

constexpr ByteBits kBits = make_bits();

// 256 bytes in another order, 64 of them.
inline __m512i reorder(const __m512i* bytes, const BlockOrder& order, std::size_t i) {
  const __m512i index = _mm512_load_si512(order.index[i]);
  const __m512i low = _mm512_permutex2var_epi8(bytes[0], index, bytes[1]);
  return _mm512_mask_mov_epi8(low, order.upper[i], _mm512_permutex2var_epi8(bytes[2], index, bytes[3]));
}

// y of 64 channels from `at`.
template <bool WHOLE, class T>
inline void centre(const Entropy& codec, const T* values, __m512 inverse_r, std::size_t at, __m512* y) {
  load_64<WHOLE>(values, at, codec.width, y);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) {
    const __m512 apart =
        _mm512_sub_ps(_mm512_mul_ps(y[i], inverse_r), _mm512_loadu_ps(&codec.mean[at + 16 * i]));
    y[i] = _mm512_mul_ps(apart, _mm512_loadu_ps(&codec.inverse_step[at + 16 * i]));
  }
}

// k of 64 channels, packed: k >> shift, saturated, and the seven lowest bits.
inline void multiples(const Entropy& codec, const __m512* y, std::size_t at, __m512 inverse_g, __m512i& rest,
                      __m512i& low) {
  __m512i k[4];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) k[i] = _mm512_cvtps_epi32(_mm512_mul_ps(y[i], inverse_g));
  const __m512i first = _mm512_packs_epi32(k[0], k[1]), second = _mm512_packs_epi32(k[2], k[3]);
  const __m512i seven = _mm512_set1_epi16(127);
  low = _mm512_packus_epi16(_mm512_and_si512(first, seven), _mm512_and_si512(second, seven));
  rest = _mm512_packs_epi16(_mm512_srav_epi16(first, _mm512_loadu_si512(&codec.packed_shift[at])),
                            _mm512_srav_epi16(second, _mm512_loadu_si512(&codec.packed_shift[at + 32])));
}

// Rows side by side, block by block, so that a block's tables are read once.
template <class T>
class RowQuantizer {
 public:
  RowQuantizer(const Entropy& codec, QuantizedRow* rows, std::size_t count)
      : codec_(codec), rows_(rows), count_(count) {}

  void run() {
    choose_scales();
    for (std::size_t start = 0; start < codec_.width; start += kSorted)
      for (std::size_t i = 0; i < count_; ++i) {
        if (!rows_[i].fits) continue;
        rows_[i].fits =
            start + kSorted <= codec_.width ? write_block<true>(start, i) : write_block<false>(start, i);
      }
    for (std::size_t i = 0; i < count_; ++i)
      if (rows_[i].fits) write_scales(rows_[i], g_[i]);
  }

 private:
  const T* source(std::size_t i) const { return static_cast<const T*>(rows_[i].source); }

  void choose_scales() {
    __m512 sums[kRowsAtOnce][4];
    for (std::size_t i = 0; i < count_; ++i) {
      inverse_r_[i] = 1.0f / r_value(rows_[i].r);
      std::fill(sums[i], sums[i] + 4, _mm512_setzero_ps());
    }
    for (std::size_t start = 0; start < codec_.width; start += kSorted)
      for (std::size_t i = 0; i < count_; ++i) {
        if (start + kSorted <= codec_.width)
          add_sizes<true>(start, i, sums[i]);
        else
          add_sizes<false>(start, i, sums[i]);
      }
    for (std::size_t i = 0; i < count_; ++i) {
      rows_[i].patch_count = 0;
      rows_[i].fits = choose_g(codec_, halved(sums[i]), rows_[i].r, g_[i]);
      inverse_g_[i] = e4m3_inverse(g_[i]);
      low_bits_[i] = BitWriter(rows_[i].head + 2);
    }
  }

  // |y| of a block, or what there is of it.
  template <bool WHOLE>
  void add_sizes(std::size_t start, std::size_t i, __m512* of_row) const {
    const __m512 inverse_r = _mm512_set1_ps(inverse_r_[i]);
    const std::size_t end = WHOLE ? start + kSorted : codec_.width;
    __m512 sums[4] = {of_row[0], of_row[1], of_row[2], of_row[3]};
    for (std::size_t at = start; at < end; at += 64) {
      __m512 y[4];
      centre<WHOLE>(codec_, source(i), inverse_r, at, y);
#pragma GCC unroll 4
      for (std::size_t j = 0; j < 4; ++j) sums[j] = _mm512_add_ps(sums[j], _mm512_abs_ps(y[j]));
    }
    std::copy(sums, sums + 4, of_row);
  }

  template <bool WHOLE>
  bool write_block(std::size_t start, std::size_t i) {
    const __m512 inverse_r = _mm512_set1_ps(inverse_r_[i]), inverse_g = _mm512_set1_ps(inverse_g_[i]);
    __m512i rest[4], low[4];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
      __m512 y[4];
      centre<WHOLE>(codec_, source(i), inverse_r, start + 64 * j, y);
      multiples(codec_, y, start + 64 * j, inverse_g, rest[j], low[j]);
    }
    const BlockOrder& order = codec_.sort[start / kSorted];
    const std::int8_t *lowest = &codec_.lowest[start], *highest = &codec_.highest[start];
    __m512i exact[4], kept[4];
    std::uint64_t patched[4];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
      exact[j] = reorder(rest, order, j);
      kept[j] = _mm512_min_epi8(_mm512_max_epi8(exact[j], _mm512_loadu_si512(lowest + 64 * j)),
                                _mm512_loadu_si512(highest + 64 * j));
      patched[j] = _mm512_cmpneq_epi8_mask(exact[j], kept[j]);
    }
    append_low_bits(start / kCoders, low, order, i);
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j)
      store_symbols<WHOLE>(rows_[i].symbols, start + 64 * j,
                           _mm512_add_epi8(kept[j], _mm512_set1_epi8(kMiddle)));
    if (__builtin_expect((patched[0] | patched[1] | patched[2] | patched[3]) == 0, 1)) return true;
    bool fits = true;
    for (std::size_t j = 0; fits && j < 4; ++j) fits = add_patches(start + 64 * j, patched[j], i);
    return fits;
  }

  // Of the vectors of a block.
  void append_low_bits(std::size_t vector, const __m512i* low, const BlockOrder& order, std::size_t i) {
    const LowBits* bits = codec_.low_bits.data() + codec_.first_low[vector];
    const LowBits* const end = codec_.low_bits.data() + codec_.first_low[vector + kSorted / kCoders];
    BitWriter out = low_bits_[i];
    for (; bits != end; vector += 2) {
      if (bits->vector >= vector + 2) continue;
      const __m512i bytes = reorder(low, order, vector % (kSorted / kCoders) / 2);
      for (; bits != end && bits->vector < vector + 2; ++bits) {
        const std::uint64_t set = _mm512_test_epi8_mask(bytes, _mm512_load_si512(kBits.of[bits->bit]));
        out.append(
            _pext_u32(static_cast<std::uint32_t>(set >> (kCoders * (bits->vector - vector))), bits->lanes),
            bits->count);
      }
    }
    low_bits_[i] = out;
  }

  // Two vectors, or one, or none at the end of a row.
  template <bool WHOLE>
  void store_symbols(std::uint8_t* symbols, std::size_t at, __m512i of_places) const {
    const std::size_t end = kCoders * codec_.vectors;
    if (WHOLE || at + 64 <= end)
      _mm512_storeu_si512(symbols + at, of_places);
    else if (at < end)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols + at), _mm512_castsi512_si256(of_places));
  }

  // The patches of 64 places; false where the format holds none such.
  bool add_patches(std::size_t at, std::uint64_t patched, std::size_t i) {
    for (; patched; patched &= patched - 1) {
      const std::size_t channel = codec_.order[at + static_cast<std::size_t>(__builtin_ctzll(patched))];
      const float value = value_at(source(i), sizeof(T) == 2, channel);
      const float y = centred(codec_, value, inverse_r_[i], channel);
      if (!add_patch(codec_, rows_[i], channel, exact_rest(codec_, channel, y, inverse_g_[i]))) return false;
    }
    return true;
  }

  const Entropy& codec_;
  QuantizedRow* const rows_;
  const std::size_t count_;
  float inverse_r_[kRowsAtOnce], inverse_g_[kRowsAtOnce];
  std::uint32_t g_[kRowsAtOnce] = {};
  BitWriter low_bits_[kRowsAtOnce];
};

inline void quantize(const Entropy& codec, bool half, std::size_t count, QuantizedRow* rows) {
  if (half)
    RowQuantizer<half_bits>(codec, rows, count).run();
  else
    RowQuantizer<float>(codec, rows, count).run();
}

}  // namespace
}  // namespace hyperlane
