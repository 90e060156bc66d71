// The rotated codecs on AVX-512: a comparison's mask is a bit plane, and a codebook is one or two registers.
#include "quant/isa.hpp"
#ifdef HYPERLANE_X86
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#pragma GCC push_options
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")
#include "quant/rotated_simd.hpp"

namespace hyperlane {
namespace {

struct Avx512 {
  using F = __m512;
  using I = __m512i;
  using M = __mmask16;
  static constexpr int W = 16;

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F load_half(const half_bits* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_half(half_bits* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static F gather(const float* base, const std::uint32_t* at) {
    return _mm512_i32gather_ps(_mm512_loadu_si512(at), base, 4);
  }
  static F set(float v) { return _mm512_set1_ps(v); }
  static I set_int(int v) { return _mm512_set1_epi32(v); }
  static I zero() { return _mm512_setzero_si512(); }
  static float first(F v) { return _mm512_cvtss_f32(v); }
  static int first_int(I v) { return _mm512_cvtsi512_si32(v); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F v) { return _mm512_abs_ps(v); }
  static M less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static F choose(M m, F yes, F no) { return _mm512_mask_blend_ps(m, no, yes); }
  static I choose(M m, I yes, I no) { return _mm512_mask_blend_epi32(m, no, yes); }

  // Lane i takes lane i ^ H.
  template <int H>
  static F swap(F v) {
    if constexpr (H == 8) return _mm512_shuffle_f32x4(v, v, 0x4E);
    if constexpr (H == 4) return _mm512_shuffle_f32x4(v, v, 0xB1);
    if constexpr (H == 2) return _mm512_permute_ps(v, 0x4E);
    return _mm512_permute_ps(v, 0xB1);
  }
  // Lanes whose number has bit H change sign.
  template <int H>
  static F flip(F v) {
    constexpr M upper = H == 8 ? 0xFF00 : H == 4 ? 0xF0F0 : H == 2 ? 0xCCCC : 0xAAAA;
    return _mm512_mask_xor_ps(v, upper, v, _mm512_set1_ps(-0.0f));
  }

  template <int SIZE>
  static F lookup(const float* table, I index) {
    if constexpr (SIZE == 1) return set(table[0]);
    if constexpr (SIZE <= 16) return _mm512_permutexvar_ps(index, _mm512_load_ps(table));
    const F low = _mm512_permutex2var_ps(_mm512_load_ps(table), index, _mm512_load_ps(table + 16));
    if constexpr (SIZE <= 32) return low;
    const F high = _mm512_permutex2var_ps(_mm512_load_ps(table + 32), index, _mm512_load_ps(table + 48));
    return choose(_mm512_test_epi32_mask(index, set_int(32)), high, low);
  }
  template <int LEVEL>
  static I set_if_greater(I index, F value, F threshold) {
    return _mm512_mask_or_epi32(index, _mm512_cmp_ps_mask(value, threshold, _CMP_GT_OQ), index, set_int(1 << LEVEL));
  }
  static void store_plane(I index, int level, std::uint8_t* p) {
    const M plane = _mm512_test_epi32_mask(index, set_int(1 << level));
    std::memcpy(p, &plane, sizeof plane);
  }
  static I load_plane(I index, int level, const std::uint8_t* p) {
    M plane;
    std::memcpy(&plane, p, sizeof plane);
    return _mm512_mask_or_epi32(index, plane, index, set_int(1 << level));
  }
  static void store_bytes(F v, std::uint8_t* p) {
    const I steps = _mm512_max_epi32(_mm512_cvtps_epi32(v), set_int(-127));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(steps));
  }
  static F load_bytes(const std::uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
};

}  // namespace

RotatedKernels avx512_rotated_kernels() { return Simd<Avx512>::kernels(); }

}  // namespace hyperlane
#pragma GCC diagnostic pop
#pragma GCC pop_options
#endif
