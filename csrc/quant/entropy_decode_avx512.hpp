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

// 128 + k of a vector of two rows, in low and high bytes, but for channels of larger shifts than
// kMostByteShift.
inline __m512i multiples(const Entropy& codec, const std::uint8_t* symbols, std::size_t vector,
                         const std::uint8_t* first_head, const std::uint8_t* second_head) {
  const LowBits* low = codec.low_bits.data() + codec.first_low[vector];
  const LowBits* const end = codec.low_bits.data() + codec.first_low[vector + 1];
  const __m512i symbol = _mm512_loadu_si512(symbols + 64 * vector);
  if (low == end) return _mm512_add_epi8(symbol, _mm512_set1_epi8(128 - kMiddle));
  const __m512i shift = _mm512_loadu_si512(&codec.place_shift[kCoders * vector]);
  const __m512i zero = _mm512_sllv_epi16(_mm512_set1_epi16(kMiddle << 8 | kMiddle), shift);
  __m512i k = _mm512_sub_epi8(_mm512_sllv_epi16(symbol, shift), zero);
  k = _mm512_xor_si512(k, _mm512_set1_epi8(-128));
  for (; low != end; ++low) {
    const std::uint64_t first = _pdep_u64(bits_at(first_head, low->at), low->spread);
    const std::uint64_t second = _pdep_u64(bits_at(second_head, low->at), low->spread << 1);
    k = _mm512_mask_add_epi8(k, first | second, k, _mm512_load_si512(kBits.of[low->bit]));
  }
  return k;
}

// 128 + k of 256 channels of two rows in the order of places, packed; see entropy_layout.hpp.
inline void multiples(const Entropy& codec, const std::uint8_t* symbols, std::size_t start,
                      const std::uint8_t* first_head, const std::uint8_t* second_head, __m512i* first,
                      __m512i* second) {
  const __m512i byte = _mm512_set1_epi16(0xFF);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) {
    __m512i k[2];
#pragma GCC unroll 2
    for (std::size_t j = 0; j < 2; ++j)
      k[j] = multiples(codec, symbols, start / kCoders + 2 * i + j, first_head, second_head);
    first[i] = _mm512_packus_epi16(_mm512_and_si512(k[0], byte), _mm512_and_si512(k[1], byte));
    second[i] = _mm512_packus_epi16(_mm512_srli_epi16(k[0], 8), _mm512_srli_epi16(k[1], 8));
  }
}

inline void store_values(half_bits* out, __m512 values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_values(float* out, __m512 values) { _mm512_storeu_ps(out, values); }

inline void store_some(half_bits* out, __m512 values, __mmask16 which) {
  _mm256_mask_storeu_epi16(out, which, _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_some(float* out, __m512 values, __mmask16 which) {
  _mm512_mask_storeu_ps(out, which, values);
}

// The factors and the place of a row.
//
// k g and (k g) step are exact for k of 8 bits, g of 4 and step of 11, so that a fused product and sum rounds
// as the reference does. That also makes a float of the byte 128 + k: as the mantissa of 2^23 + 128 + k.
template <class T>
struct RowValues {
  float g, zero, r;
  T* out;

  void start(const CodedRow& row) {
    out = static_cast<T*>(row.out);
    g = e4m3_step(row.head[1]);
    zero = -(0x1p23f + 128) * g;
    r = r_value(row.head[0]);
  }

  // 64 channels from `at`, or as many as there are: channel 16 j + i from byte 4 i + j, 128 + k.
  template <bool WHOLE>
  __attribute__((always_inline)) void write(std::size_t width, std::size_t at, __m512i bytes,
                                            const __m512* step, const __m512* mean) const {
    const __m512 values[4] = {
        value(mantissas<0>(bytes), step[0], mean[0]), value(mantissas<1>(bytes), step[1], mean[1]),
        value(mantissas<2>(bytes), step[2], mean[2]), value(mantissas<3>(bytes), step[3], mean[3])};
    if (!WHOLE) return write_some(width, at, values);
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) store_values(out + at + 16 * j, values[j]);
  }

 private:
  // Byte J of each four of `bytes`, plus 2^23.
  template <int J>
  static __m512 mantissas(__m512i bytes) {
    const __m512i from = _mm512_broadcast_i32x4(_mm_setr_epi32(J, J + 4, J + 8, J + 12));
    const __m512i large = _mm512_set1_epi32(0x4B000000);
    return _mm512_castsi512_ps(_mm512_mask_shuffle_epi8(large, 0x1111111111111111, bytes, from));
  }

  __m512 value(__m512 mantissas, __m512 step, __m512 mean) const {
    const __m512 y = _mm512_fmadd_ps(mantissas, _mm512_set1_ps(g), _mm512_set1_ps(zero));
    return _mm512_mul_ps(_mm512_fmadd_ps(y, step, mean), _mm512_set1_ps(r));
  }

  void write_some(std::size_t width, std::size_t at, const __m512* values) const {
    for (std::size_t j = 0; j < 4 && at + 16 * j < width; ++j) {
      const std::size_t left = std::min<std::size_t>(width - at - 16 * j, 16);
      store_some(out + at + 16 * j, values[j], static_cast<__mmask16>((1u << left) - 1));
    }
  }
};

// 256 channels from `start`, or as many as there are, of two rows, or of one where ROWS is that: side by
// side, so that the tables are read once.
template <int ROWS, bool WHOLE, class T>
void write_block(const Entropy& codec, std::size_t start, const __m512i (*packed)[4],
                 const RowValues<T>* rows) {
  const BlockOrder& order = codec.unsort[start / kSorted];
  const RowValues<T> of[2] = {rows[0], rows[ROWS - 1]};
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) {
    const std::size_t at = start + 64 * i;
    __m512 step[4], mean[4];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
      step[j] = _mm512_loadu_ps(&codec.step[at + 16 * j]);
      mean[j] = _mm512_loadu_ps(&codec.mean[at + 16 * j]);
    }
#pragma GCC unroll 2
    for (int row = 0; row < ROWS; ++row)
      of[row].template write<WHOLE>(codec.width, at, reorder(packed[row], order, i), step, mean);
  }
}

inline void write_wide(const Entropy& codec, const std::uint8_t* symbols, const CodedRow& row, bool half) {
  for (std::size_t place : codec.wide) write_value(codec, row, half, place, symbols[2 * place] - kMiddle);
}

// Rows in PAIRS, whose symbols lie `stride` apart: words that have those of the first in their low bytes. A
// pair's second row may be its first again.
template <class T, int PAIRS>
void write_rows(const Entropy& codec, const std::uint8_t* symbols, std::size_t stride,
                const CodedRow* const (*rows)[2]) {
  RowValues<T> values[PAIRS][2];
  for (std::size_t i = 0; i < PAIRS; ++i)
    for (std::size_t j = 0; j < 2; ++j) values[i][j].start(*rows[i][j]);
  for (std::size_t start = 0; start < codec.width; start += kSorted)
    for (std::size_t i = 0; i < PAIRS; ++i) {
      const CodedRow &first = *rows[i][0], &second = *rows[i][1];
      __m512i packed[2][4];
      multiples(codec, symbols + i * stride, start, first.head, second.head, packed[0], packed[1]);
      const bool whole = start + kSorted <= codec.width, one = &first == &second;
      if (whole && !one)
        write_block<2, true>(codec, start, packed, values[i]);
      else if (!one)
        write_block<2, false>(codec, start, packed, values[i]);
      else if (whole)
        write_block<1, true>(codec, start, packed, values[i]);
      else
        write_block<1, false>(codec, start, packed, values[i]);
    }
  for (std::size_t i = 0; i < PAIRS; ++i)
    for (std::size_t j = 0; j < 2; ++j)
      write_wide(codec, symbols + i * stride + j, *rows[i][j], sizeof(T) == 2);
}

}  // namespace
}  // namespace hyperlane
