// Groups of 64 values on AVX2 and AVX-512: the same bits as groups.hpp.
#pragma once
#include "quant/groups.hpp"
#include "quant/isa.hpp"

#ifdef HYPERLANE_X86
#include <immintrin.h>

namespace hyperlane {

// A normal half is off by 2^-11 of itself at most, which takes no code beyond the last level. Groups of other
// scales (denormal, saturated, NaN) are rare and left to the scalar form.
inline bool needs_no_clip(half_bits scale) { return scale == 0 || (scale >= 0x0400 && scale < 0x7BFF); }

// F16C and NumPy round alike, so do the scalar forms: only speed differs.
HYPERLANE_AVX2 inline GroupScale scale_of(float absmax, float levels) {
  const float wanted = std::min(absmax / levels, kHalfMax);
  const half_bits half = static_cast<half_bits>(_cvtss_sh(wanted, _MM_FROUND_TO_NEAREST_INT));
  const float scale = _cvtsh_ss(half);
  return {half, scale > 0 ? 1.0f / scale : 0.0f};
}

// Without its sign a float orders as an integer, NaN and Inf above all: one integer maximum finds both.
HYPERLANE_AVX2 inline GroupScale scale_of_bits(std::uint32_t float_bits, float levels) {
  if (float_bits >= 0x7F800000) return {kHalfNan, 0.0f};
  return scale_of(bits_to_float(float_bits), levels);
}

HYPERLANE_AVX2 inline GroupScale scale_of_bits(half_bits bits, float levels) {
  if (bits >= kHalfInf) return {kHalfNan, 0.0f};
  return scale_of(_cvtsh_ss(bits), levels);
}

HYPERLANE_AVX2 inline std::uint32_t max_u32(__m128i values) {
  values = _mm_max_epu32(values, _mm_shuffle_epi32(values, 0x4E));
  values = _mm_max_epu32(values, _mm_shuffle_epi32(values, 0xB1));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(values));
}

HYPERLANE_AVX2 inline half_bits max_u16(__m128i values) {
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(values, _mm_set1_epi16(-1)));
  return static_cast<half_bits>(~_mm_cvtsi128_si32(least));
}

HYPERLANE_AVX2 inline __m256 load8(const float* values) { return _mm256_loadu_ps(values); }
HYPERLANE_AVX2 inline __m256 load8(const half_bits* values) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
}

HYPERLANE_AVX2 inline GroupScale group_scale_avx2(const float* values, float levels) {
  const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
  const __m256i* source = reinterpret_cast<const __m256i*>(values);
  __m256i most = _mm256_setzero_si256();
  for (int i = 0; i < 8; ++i)
    most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_loadu_si256(source + i), magnitude));
  const __m128i halves = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  return scale_of_bits(max_u32(halves), levels);
}

HYPERLANE_AVX2 inline GroupScale group_scale_avx2(const half_bits* values, float levels) {
  const __m256i magnitude = _mm256_set1_epi16(0x7FFF);
  const __m256i* source = reinterpret_cast<const __m256i*>(values);
  __m256i most = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i)
    most = _mm256_max_epu16(most, _mm256_and_si256(_mm256_loadu_si256(source + i), magnitude));
  const __m128i halves = _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  return scale_of_bits(max_u16(halves), levels);
}

// Eight codes as int32, of a group whose scale needs_no_clip.
template <class T>
HYPERLANE_AVX2 inline __m256i codes8(const T* values, __m256 inverse) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(load8(values), inverse));
}

// The lowest byte of each of eight int32.
HYPERLANE_AVX2 inline void store_bytes8(std::uint8_t* out, __m256i values) {
  const __m256i pick = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8,
                                        12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i bytes = _mm256_shuffle_epi8(values, pick);
  const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), both);
}

HYPERLANE_AVX2 inline void store8(float* out, __m256 values) { _mm256_storeu_ps(out, values); }
HYPERLANE_AVX2 inline void store8(half_bits* out, __m256 values) {
  // min and max return their second operand for a NaN, so that NaN passes.
  values = _mm256_max_ps(_mm256_set1_ps(-kHalfMax), _mm256_min_ps(_mm256_set1_ps(kHalfMax), values));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}

HYPERLANE_AVX512 inline __m512 load16(const float* values) { return _mm512_loadu_ps(values); }
HYPERLANE_AVX512 inline __m512 load16(const half_bits* values) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
}

HYPERLANE_AVX512 inline GroupScale group_scale_avx512(const float* values, float levels) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i most = _mm512_setzero_si512();
  for (int i = 0; i < 4; ++i)
    most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(values + 16 * i), magnitude));
  const __m256i half = _mm256_max_epu32(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64(most, 1));
  const __m128i quarter = _mm_max_epu32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return scale_of_bits(max_u32(quarter), levels);
}

HYPERLANE_AVX512 inline GroupScale group_scale_avx512(const half_bits* values, float levels) {
  const __m512i magnitude = _mm512_set1_epi16(0x7FFF);
  const __m512i most = _mm512_max_epu16(_mm512_and_si512(_mm512_loadu_si512(values), magnitude),
                                        _mm512_and_si512(_mm512_loadu_si512(values + 32), magnitude));
  const __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64(most, 1));
  const __m128i quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return scale_of_bits(max_u16(quarter), levels);
}

template <class T>
HYPERLANE_AVX512 inline __m512i codes16(const T* values, __m512 inverse) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(load16(values), inverse));
}

HYPERLANE_AVX512 inline void store16(float* out, __m512 values) { _mm512_storeu_ps(out, values); }
HYPERLANE_AVX512 inline void store16(half_bits* out, __m512 values) {
  values = _mm512_max_ps(_mm512_set1_ps(-kHalfMax), _mm512_min_ps(_mm512_set1_ps(kHalfMax), values));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace hyperlane
#endif
