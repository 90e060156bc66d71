// The rotated codecs on AVX2 and F16C.
#include "quant/isa.hpp"
#ifdef HYPERLANE_X86
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#pragma GCC push_options
#pragma GCC target("avx2,f16c")
#include "quant/rotated_simd.hpp"

namespace hyperlane {
namespace {

struct Avx2 {
  using F = __m256;
  using I = __m256i;
  using M = __m256;
  static constexpr int W = 8;

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F load_half(const half_bits* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_half(half_bits* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static F gather(const float* base, const std::uint32_t* at) {
    return _mm256_i32gather_ps(base, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)), 4);
  }
  static F set(float v) { return _mm256_set1_ps(v); }
  static I set_int(int v) { return _mm256_set1_epi32(v); }
  static I zero() { return _mm256_setzero_si256(); }
  static float first(F v) { return _mm256_cvtss_f32(v); }
  static int first_int(I v) { return _mm_cvtsi128_si32(_mm256_castsi256_si128(v)); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F abs(F v) { return _mm256_andnot_ps(set(-0.0f), v); }
  static M less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static F choose(M m, F yes, F no) { return _mm256_blendv_ps(no, yes, m); }
  static I choose(M m, I yes, I no) { return _mm256_blendv_epi8(no, yes, _mm256_castps_si256(m)); }

  // Lane i takes lane i ^ H.
  template <int H>
  static F swap(F v) {
    if constexpr (H == 4) return _mm256_permute2f128_ps(v, v, 0x01);
    if constexpr (H == 2) return _mm256_permute_ps(v, 0x4E);
    return _mm256_permute_ps(v, 0xB1);
  }
  // Lanes whose number has bit H change sign.
  template <int H>
  static F flip(F v) {
    constexpr float a = H == 1 ? -0.0f : 0.0f, b = H == 2 ? -0.0f : 0.0f, c = H == 4 ? -0.0f : 0.0f;
    constexpr float ab = H <= 2 ? -0.0f : 0.0f, ac = H != 2 ? -0.0f : 0.0f, bc = H != 1 ? -0.0f : 0.0f;
    return _mm256_xor_ps(v, _mm256_setr_ps(0.0f, a, b, ab, c, ac, bc, -0.0f));
  }

  template <int SIZE>
  static F lookup(const float* table, I index) {
    if constexpr (SIZE == 1) return set(table[0]);
    if constexpr (SIZE <= 8) return _mm256_permutevar8x32_ps(load(table), index);
    return _mm256_i32gather_ps(table, index, 4);
  }
  template <int LEVEL>
  static I set_if_greater(I index, F value, F threshold) {
    const I greater = _mm256_castps_si256(_mm256_cmp_ps(value, threshold, _CMP_GT_OQ));
    return _mm256_or_si256(index, _mm256_and_si256(greater, set_int(1 << LEVEL)));
  }
  static void store_plane(I index, int level, std::uint8_t* p) {
    *p = static_cast<std::uint8_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_slli_epi32(index, 31 - level))));
  }
  static I load_plane(I index, int level, const std::uint8_t* p) {
    const I lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const I set = _mm256_cmpeq_epi32(_mm256_and_si256(set_int(*p), lanes), lanes);
    return _mm256_or_si256(index, _mm256_and_si256(set, set_int(1 << level)));
  }
  static void store_bytes(F v, std::uint8_t* p) {
    const I steps = _mm256_max_epi32(_mm256_cvtps_epi32(v), set_int(-127));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(steps), _mm256_extracti128_si256(steps, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }
  static F load_bytes(const std::uint8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
};

}  // namespace

RotatedKernels avx2_rotated_kernels() { return Simd<Avx2>::kernels(); }

}  // namespace hyperlane
#pragma GCC pop_options
#endif
