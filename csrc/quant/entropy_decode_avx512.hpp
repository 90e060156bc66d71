// Symbols in the tables' order back to rows, on AVX-512, two rows side by side. Include it under the target's
// options; all is internal.
#pragma once
#include "quant/entropy_encode_avx512.hpp"
#include "quant/entropy_plain.hpp"

namespace hyperlane {
namespace {

// Up to 32 bits of the low bits in a head.
inline std::uint64_t bits_at(const std::uint8_t* head, std::uint32_t at) {
  std::uint64_t bits;
  std::memcpy(&bits, head + 2 + at / 8, sizeof bits);
  return bits >> (at % 8);
}

// k of a vector of two rows, in low and high bytes, but for channels of larger shifts than kMostByteShift.
inline __m512i multiples(const Entropy& codec, const std::uint8_t* symbols, std::size_t vector,
                         const std::uint8_t* first_head, const std::uint8_t* second_head) {
  const __m512i shift = _mm512_loadu_si512(&codec.place_shift[kCoders * vector]);
  const __m512i zero = _mm512_sllv_epi16(_mm512_set1_epi16(kMiddle << 8 | kMiddle), shift);
  __m512i k = _mm512_sub_epi8(_mm512_sllv_epi16(_mm512_loadu_si512(symbols + 64 * vector), shift), zero);
  for (std::size_t i = codec.first_low[vector]; i < codec.first_low[vector + 1]; ++i) {
    const LowBits& low = codec.low_bits[i];
    const std::uint64_t first = _pdep_u64(bits_at(first_head, low.at), low.spread);
    const std::uint64_t second = _pdep_u64(bits_at(second_head, low.at), low.spread << 1);
    k = _mm512_mask_add_epi8(k, first | second, k, _mm512_set1_epi8(static_cast<char>(1 << low.bit)));
  }
  return k;
}

inline void store_values(half_bits* out, __m512 values, std::size_t left) {
  const __m256i halves = _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
  if (left >= 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), halves);
  else
    _mm256_mask_storeu_epi16(out, static_cast<__mmask16>((1u << left) - 1), halves);
}

inline void store_values(float* out, __m512 values, std::size_t left) {
  if (left >= 16)
    _mm512_storeu_ps(out, values);
  else
    _mm512_mask_storeu_ps(out, static_cast<__mmask16>((1u << left) - 1), values);
}

// The factors and the place of a row.
template <class T>
struct RowValues {
  __m512 g, r;
  T* out;

  explicit RowValues(const CodedRow& row)
      : g(_mm512_set1_ps(e4m3_step(row.head[1]))),
        r(_mm512_set1_ps(r_value(row.head[0]))),
        out(static_cast<T*>(row.out)) {}

  // 64 channels from `at`, of k as bytes: channel 16 j + i is byte 4 i + j.
  void write(const Entropy& codec, std::size_t at, __m512i bytes) const {
#pragma GCC unroll 4
    for (unsigned j = 0; j < 4; ++j) {
      const std::size_t channel = at + 16 * j;
      if (channel >= codec.width) return;
      const __m512i k = _mm512_srai_epi32(_mm512_slli_epi32(bytes, 24 - 8 * j), 24);
      const __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(k), g);
      const __m512 unit = _mm512_add_ps(_mm512_mul_ps(y, _mm512_loadu_ps(&codec.step[channel])),
                                        _mm512_loadu_ps(&codec.mean[channel]));
      store_values(out + channel, _mm512_mul_ps(unit, r), codec.width - channel);
    }
  }
};

inline void write_wide(const Entropy& codec, const std::uint8_t* symbols, const CodedRow& row, bool half) {
  for (std::size_t place : codec.wide) write_value(codec, row, half, place, symbols[2 * place] - kMiddle);
}

// One row or two of `symbols`, whose words have those of the first in their low bytes.
template <class T>
void write_rows(const Entropy& codec, const std::uint8_t* symbols, const CodedRow* first,
                const CodedRow* second) {
  const std::uint8_t *first_head = first->head, *second_head = second ? second->head : first_head;
  const RowValues<T> first_row(*first), second_row(second ? *second : *first);
  for (std::size_t start = 0; start < codec.width; start += kSorted) {
    __m512i low[4], high[4];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) {
      __m512i k[2];
#pragma GCC unroll 2
      for (std::size_t j = 0; j < 2; ++j) {
        const std::size_t vector = start / kCoders + 2 * i + j;
        k[j] = vector < codec.vectors ? multiples(codec, symbols, vector, first_head, second_head)
                                      : _mm512_setzero_si512();
      }
      const __m512i byte = _mm512_set1_epi16(0xFF);
      low[i] = _mm512_packus_epi16(_mm512_and_si512(k[0], byte), _mm512_and_si512(k[1], byte));
      high[i] = _mm512_packus_epi16(_mm512_srli_epi16(k[0], 8), _mm512_srli_epi16(k[1], 8));
    }
    const BlockOrder& order = codec.unsort[start / kSorted];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) {
      first_row.write(codec, start + 64 * i, reorder(low, order, i));
      if (second) second_row.write(codec, start + 64 * i, reorder(high, order, i));
    }
  }
  constexpr bool kHalf = sizeof(T) == 2;
  write_wide(codec, symbols, *first, kHalf);
  if (second) write_wide(codec, symbols + 1, *second, kHalf);
}

}  // namespace
}  // namespace hyperlane
