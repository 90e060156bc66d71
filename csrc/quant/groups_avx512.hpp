// Scales of sixteen groups of 64 values at a time on AVX-512: the same bits as groups.hpp. One division, one
// rounding and one reduction across lanes serve all sixteen.
#pragma once
#include "quant/groups_simd.hpp"

#ifdef HYPERLANE_X86
namespace hyperlane {

constexpr std::size_t kScalesAtOnce = 16;
constexpr std::size_t kGroupsAtOnce = 64;

// Of up to 64 groups. All scales come before the first code, so that their latencies overlap.
struct GroupScales {
  alignas(64) float inverse[kGroupsAtOnce];
  std::uint64_t clean = 0;  // a bit a group: its codes need no clip, see needs_no_clip
};

HYPERLANE_AVX512 inline __m512i max_of(__m512i a, __m512i b, float) { return _mm512_max_epu32(a, b); }
HYPERLANE_AVX512 inline __m512i max_of(__m512i a, __m512i b, half_bits) { return _mm512_max_epu16(a, b); }

// Without its sign a float orders as an integer: the largest of each lane.
HYPERLANE_AVX512 inline __m512i magnitudes(const float* values) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i most = _mm512_and_si512(_mm512_loadu_si512(values), magnitude);
  for (int i = 16; i < 64; i += 16)
    most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(values + i), magnitude));
  return most;
}

HYPERLANE_AVX512 inline __m512i magnitudes(const half_bits* values) {
  const __m512i magnitude = _mm512_set1_epi16(0x7FFF);
  return _mm512_max_epu16(_mm512_and_si512(_mm512_loadu_si512(values), magnitude),
                          _mm512_and_si512(_mm512_loadu_si512(values + 32), magnitude));
}

// Group 4 l + k of the result's lane 4 l + k is the largest of lane k of each 128 bits l.
template <class T>
HYPERLANE_AVX512 __attribute__((always_inline)) inline __m512i largest_of_each(const __m512i* most) {
  __m512i quads[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512i a = most[k], b = most[4 + k], c = most[8 + k], d = most[12 + k];
    const __m512i ab = max_of(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xEE), T());
    const __m512i cd = max_of(_mm512_shuffle_i64x2(c, d, 0x44), _mm512_shuffle_i64x2(c, d, 0xEE), T());
    quads[k] = max_of(_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xDD), T());
  }
  const __m512i low =
      max_of(_mm512_unpacklo_epi32(quads[0], quads[1]), _mm512_unpackhi_epi32(quads[0], quads[1]), T());
  const __m512i high =
      max_of(_mm512_unpacklo_epi32(quads[2], quads[3]), _mm512_unpackhi_epi32(quads[2], quads[3]), T());
  return max_of(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high), T());
}

// The largest magnitudes as floats, and which of them are numbers.
HYPERLANE_AVX512 inline __m512 widened(__m512i largest, float, __mmask16& finite) {
  finite = _mm512_cmplt_epu32_mask(largest, _mm512_set1_epi32(0x7F800000));
  return _mm512_castsi512_ps(largest);
}

HYPERLANE_AVX512 inline __m512 widened(__m512i largest, half_bits, __mmask16& finite) {
  largest =
      _mm512_and_si512(_mm512_max_epu16(largest, _mm512_srli_epi32(largest, 16)), _mm512_set1_epi32(0xFFFF));
  finite = _mm512_cmplt_epu32_mask(largest, _mm512_set1_epi32(kHalfInf));
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(largest));
}

// Scales of `count` (at most 16) groups; the result says which of them are clean.
template <class T>
HYPERLANE_AVX512 inline std::uint32_t scale_sixteen(const T* values, std::size_t count, float levels,
                                                    half_bits* scales, float* inverse) {
  __m512i most[kScalesAtOnce], largest;
  if (count == kScalesAtOnce) {  // in registers
#pragma GCC unroll 16
    for (std::size_t g = 0; g < kScalesAtOnce; ++g) most[g] = magnitudes(values + g * kGroup);
    largest = largest_of_each<T>(most);
  } else {
    for (std::size_t g = 0; g < kScalesAtOnce; ++g)
      most[g] = g < count ? magnitudes(values + g * kGroup) : _mm512_setzero_si512();
    largest = largest_of_each<T>(most);
  }
  __mmask16 finite;
  const __m512 absmax = widened(largest, T(), finite);
  const __m512 wanted =
      _mm512_min_ps(_mm512_div_ps(absmax, _mm512_set1_ps(levels)), _mm512_set1_ps(kHalfMax));
  const __m256i halves = _mm512_cvtps_ph(wanted, _MM_FROUND_TO_NEAREST_INT);
  const __m512 scale = _mm512_cvtph_ps(halves);
  const __mmask16 some = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_GT_OQ);
  _mm512_store_ps(inverse, _mm512_maskz_div_ps(some, _mm512_set1_ps(1), scale));
  const __mmask16 normal = _mm256_cmplt_epu16_mask(_mm256_sub_epi16(halves, _mm256_set1_epi16(0x0400)),
                                                   _mm256_set1_epi16(0x7BFF - 0x0400));
  const auto in = static_cast<__mmask16>((1u << count) - 1);
  _mm256_mask_storeu_epi16(scales, in, halves);
  return finite & (normal | static_cast<__mmask16>(~some));
}

// Fetches a group while others compute. It may lie beyond the rows.
template <class T>
HYPERLANE_AVX512 inline void prefetch_group(const T* values) {
  for (std::size_t at = 0; at < kGroup * sizeof(T); at += 64)
    _mm_prefetch(reinterpret_cast<const char*>(values) + at, _MM_HINT_T0);
}

// Scales of `count` (at most 64) groups. Those that are not clean are left to the scalar form.
template <class T>
HYPERLANE_AVX512 inline void scale_groups(const T* values, std::size_t count, float levels, half_bits* scales,
                                          GroupScales& result) {
  for (std::size_t first = 0; first < count; first += kScalesAtOnce) {
    const std::uint64_t clean = scale_sixteen(values + first * kGroup, std::min(count - first, kScalesAtOnce),
                                              levels, scales + first, result.inverse + first);
    result.clean |= clean << first;
  }
}

}  // namespace hyperlane
#endif
