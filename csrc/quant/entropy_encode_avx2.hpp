// Rows to multiples of their channels' steps, in the tables' order, on AVX2. Include it under the target's
// options; all is internal.
#pragma once
#include "quant/bit_writer.hpp"
#include "quant/entropy_plain.hpp"
#include "quant/interleave_avx2.hpp"

namespace hyperlane {
namespace {

inline __m256 load_8(const half_bits* values) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
}
inline __m256 load_8(const float* values) { return _mm256_loadu_ps(values); }

inline __m256 magnitude(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

// The sum of 64 in halving order.
inline float halved(const __m256* sums) {
  __m256 four[4];
  for (int i = 0; i < 4; ++i) four[i] = _mm256_add_ps(sums[i], sums[i + 4]);
  __m256 v = _mm256_add_ps(_mm256_add_ps(four[0], four[2]), _mm256_add_ps(four[1], four[3]));
  v = _mm256_add_ps(v, _mm256_permute2f128_ps(v, v, 0x01));
  v = _mm256_add_ps(v, _mm256_permute_ps(v, 0x4E));
  v = _mm256_add_ps(v, _mm256_permute_ps(v, 0xB1));
  return _mm256_cvtss_f32(v);
}

template <class T>
float squares_of(const T* values, std::size_t width) {
  __m256 sums[8];
  std::fill(sums, sums + 8, _mm256_setzero_ps());
  for (std::size_t at = 0; at < width; at += 64) {
    T rest[64];
    const T* from = values + at;
    if (at + 64 > width) {
      std::fill(std::copy(from, values + width, rest), rest + 64, T{0});
      from = rest;
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m256 v = load_8(from + 8 * i);
      sums[i] = _mm256_add_ps(sums[i], _mm256_mul_ps(v, v));
    }
  }
  return halved(sums);
}

inline float squares(const void* values, bool half, std::size_t width) {
  return half ? squares_of(static_cast<const half_bits*>(values), width)
              : squares_of(static_cast<const float*>(values), width);
}

// Rows side by side, block by block, so that a block's tables are read once.
template <class T>
class RowQuantizer {
 public:
  RowQuantizer(const Entropy& codec, QuantizedRow* rows, std::size_t count)
      : codec_(codec), rows_(rows), count_(count) {}

  void run() {
    choose_scales();
    ByteRows by_channel{}, by_place{}, low{}, low_by_place{};
    for (std::size_t start = 0; start < codec_.width; start += kSorted) {
      const bool has_low = codec_.first_low[start / kCoders] != codec_.first_low[(start + kSorted) / kCoders];
      for (std::size_t i = 0; i < count_; ++i)
        round(start, i, by_channel.of[i], has_low ? low.of[i] : nullptr);
      permute_rows(by_channel, count_, &codec_.order[start], start, by_place);
      if (has_low) permute_rows(low, count_, &codec_.order[start], start, low_by_place);
      for (std::size_t i = 0; i < count_; ++i) {
        if (!rows_[i].fits) continue;
        if (has_low) append_low_bits(start / kCoders, low_by_place.of[i], i);
        rows_[i].fits = write_symbols(start, by_place.of[i], i);
      }
    }
    for (std::size_t i = 0; i < count_; ++i)
      if (rows_[i].fits) write_scales(rows_[i], g_[i]);
  }

 private:
  // 64 channels or 32 of a row from `at`; zeros behind its end, in `room`.
  template <std::size_t COUNT>
  const T* values_at(std::size_t i, std::size_t at, T* room) const {
    const T* const values = static_cast<const T*>(rows_[i].source);
    if (at + COUNT <= codec_.width) return values + at;
    const std::size_t left = codec_.width > at ? codec_.width - at : 0;
    std::copy(values + codec_.width - left, values + codec_.width, room);
    std::fill(room + left, room + COUNT, T{0});
    return room;
  }

  // y of 8 channels.
  __m256 centre(const T* values, __m256 inverse_r, std::size_t channel) const {
    const __m256 unit = _mm256_mul_ps(load_8(values), inverse_r);
    const __m256 apart = _mm256_sub_ps(unit, _mm256_loadu_ps(&codec_.mean[channel]));
    return _mm256_mul_ps(apart, _mm256_loadu_ps(&codec_.inverse_step[channel]));
  }

  void choose_scales() {
    __m256 sums[kRowsAtOnce][8];
    for (std::size_t i = 0; i < count_; ++i) {
      inverse_r_[i] = 1.0f / r_value(rows_[i].r);
      std::fill(sums[i], sums[i] + 8, _mm256_setzero_ps());
    }
    for (std::size_t start = 0; start < codec_.width; start += kSorted)
      for (std::size_t i = 0; i < count_; ++i)
        add_sizes(start, std::min(start + kSorted, codec_.width), i, sums[i]);
    for (std::size_t i = 0; i < count_; ++i) {
      rows_[i].patch_count = 0;
      rows_[i].fits = choose_g(codec_, halved(sums[i]), rows_[i].r, g_[i]);
      inverse_g_[i] = e4m3_inverse(g_[i]);
      low_bits_[i] = BitWriter(rows_[i].head + 2);
    }
  }

  // |y| of channels from `start` to `stop`. What lies behind a row's end has a mean and an inverse step of 0.
  void add_sizes(std::size_t start, std::size_t stop, std::size_t i, __m256* of_row) const {
    const __m256 inverse_r = _mm256_set1_ps(inverse_r_[i]);
    __m256 sums[8];
    std::copy(of_row, of_row + 8, sums);
    for (std::size_t at = start; at < stop; at += 64) {
      T room[64];
      const T* const values = values_at<64>(i, at, room);
#pragma GCC unroll 8
      for (std::size_t j = 0; j < 8; ++j)
        sums[j] = _mm256_add_ps(sums[j], magnitude(centre(values + 8 * j, inverse_r, at + 8 * j)));
    }
    std::copy(sums, sums + 8, of_row);
  }

  // k >> shift of a block's channels, saturated, and the seven lowest bits of k where they are asked for.
  void round(std::size_t start, std::size_t i, std::uint8_t* rest, std::uint8_t* low) const {
    const __m256 inverse_r = _mm256_set1_ps(inverse_r_[i]), inverse_g = _mm256_set1_ps(inverse_g_[i]);
    for (std::size_t at = start; at < start + kSorted; at += 32) {
      T room[32];
      const T* const values = values_at<32>(i, at, room);
      __m256i k[4];
#pragma GCC unroll 4
      for (std::size_t j = 0; j < 4; ++j)
        k[j] = _mm256_cvtps_epi32(_mm256_mul_ps(centre(values + 8 * j, inverse_r, at + 8 * j), inverse_g));
      if (low) {
        const __m256i seven = _mm256_set1_epi32(127);
        __m256i bits[4];
#pragma GCC unroll 4
        for (std::size_t j = 0; j < 4; ++j) bits[j] = _mm256_and_si256(k[j], seven);
        store(low + (at - start), bits);
#pragma GCC unroll 4
        for (std::size_t j = 0; j < 4; ++j) k[j] = _mm256_srav_epi32(k[j], shift_at(at + 8 * j));
      }
      store(rest + (at - start), k);
    }
  }

  __m256i shift_at(std::size_t channel) const {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&codec_.long_shift[channel]));
  }

  static void store(std::uint8_t* bytes, const __m256i* k) {
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(k[0], k[1]), _mm256_packs_epi32(k[2], k[3]));
    _mm256_store_si256(reinterpret_cast<__m256i*>(bytes),
                       _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }

  // Of the vectors of a block.
  void append_low_bits(std::size_t vector, const std::uint8_t* low, std::size_t i) {
    const LowBits* bits = codec_.low_bits.data() + codec_.first_low[vector];
    const LowBits* const end = codec_.low_bits.data() + codec_.first_low[vector + kSorted / kCoders];
    for (; bits != end; ++bits) {
      const auto* const bytes = reinterpret_cast<const __m256i*>(low + kCoders * (bits->vector - vector));
      const __m256i highest = _mm256_sll_epi16(_mm256_load_si256(bytes), _mm_cvtsi32_si128(7 - bits->bit));
      const auto set = static_cast<std::uint32_t>(_mm256_movemask_epi8(highest));
      low_bits_[i].append(_pext_u32(set, bits->lanes), bits->count);
    }
  }

  // False where the format does not hold the block's patches.
  bool write_symbols(std::size_t start, const std::uint8_t* rest, std::size_t i) {
    const std::size_t end = std::min(start + kSorted, kCoders * codec_.vectors);
    bool fits = true;
    for (std::size_t at = start; fits && at < end; at += kCoders) {
      const __m256i exact = _mm256_load_si256(reinterpret_cast<const __m256i*>(rest + (at - start)));
      const __m256i lowest = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&codec_.lowest[at]));
      const __m256i highest = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&codec_.highest[at]));
      const __m256i kept = _mm256_min_epi8(_mm256_max_epi8(exact, lowest), highest);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows_[i].symbols + at),
                          _mm256_add_epi8(kept, _mm256_set1_epi8(kMiddle)));
      const auto same = static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(exact, kept)));
      if (__builtin_expect(same != 0xFFFFFFFF, 0)) fits = add_patches(at, ~same, i);
    }
    return fits;
  }

  // The patches of 32 places; false where the format holds none such.
  bool add_patches(std::size_t at, std::uint32_t patched, std::size_t i) {
    for (; patched; patched &= patched - 1) {
      const std::size_t channel = codec_.order[at + static_cast<std::size_t>(__builtin_ctz(patched))];
      const float value = value_at(rows_[i].source, sizeof(T) == 2, channel);
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
