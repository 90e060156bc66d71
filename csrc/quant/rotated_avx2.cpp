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
  static constexpr int W = 8;

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F load_half(const half_bits* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_half(half_bits* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static F set(float v) { return _mm256_set1_ps(v); }
  static I set_int(int v) { return _mm256_set1_epi32(v); }
  static float first(F v) { return _mm256_cvtss_f32(v); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F abs(F v) { return _mm256_andnot_ps(set(-0.0f), v); }

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
  // Lane i takes itself and lane i ^ H: their sum, or in the upper of both the difference.
  template <int H>
  static F butterfly(F v) {
    return add(swap<H>(v), flip<H>(v));
  }

  template <int SIZE>
  static F lookup(const float* table, I index) {
    if constexpr (SIZE == 1) return set(table[0]);
    if constexpr (SIZE <= 8) return _mm256_permutevar8x32_ps(load(table), index);
    return _mm256_i32gather_ps(table, index, 4);
  }
  // How many midpoints lie below each of COUNT values.
  struct Search {
    const Codebook& book;

    template <int COUNT>
    void find(const F* value, I* code) const {
      for (int i = 0; i < COUNT; ++i) code[i] = find_one(value[i], _mm256_setzero_si256());
    }
    template <int STEP = 0>
    I find_one(F value, I code) const {
      if constexpr (STEP == 4) {
        return code;
      } else {
        const F greater = _mm256_cmp_ps(value, lookup<(1 << STEP)>(book.steps[STEP], code), _CMP_GT_OQ);
        const I next = _mm256_sub_epi32(_mm256_add_epi32(code, code), _mm256_castps_si256(greater));
        return find_one<STEP + 1>(value, next);
      }
    }
  };
  // The sums of four registers in halving order.
  static void sum_each(const F* v, float* sums) {
    for (int i = 0; i < 4; ++i) {
      F sum = add(v[i], swap<4>(v[i]));
      sum = add(sum, swap<2>(sum));
      sums[i] = first(add(sum, swap<1>(sum)));
    }
  }

  static void store_codes(const I* code, std::uint8_t* p) {
    for (int i = 0; i < 8; i += 4) {
      const I low = in_order(_mm256_packus_epi32(code[i], code[i + 1]));
      const I high = in_order(_mm256_packus_epi32(code[i + 2], code[i + 3]));
      _mm256_storeu_si256(reinterpret_cast<I*>(p + 8 * i), in_order(_mm256_packus_epi16(low, high)));
    }
  }
  static I in_order(I packed) { return _mm256_permute4x64_epi64(packed, 0xD8); }  // packs work in halves
  template <int BITS>
  static void store_planes(const std::uint8_t* codes, std::uint8_t* p) {
    for (int half = 0; half < 2; ++half) {
      const I bytes = _mm256_loadu_si256(reinterpret_cast<const I*>(codes + 32 * half));
      for (int plane = 0; plane < BITS; ++plane) {
        const int bits = _mm256_movemask_epi8(_mm256_slli_epi16(bytes, 8 - BITS + plane));
        std::memcpy(p + 8 * plane + 4 * half, &bits, sizeof bits);
      }
    }
  }
  template <int BITS>
  static void load_planes(const std::uint8_t* p, I* code) {
    const I lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    for (int i = 0; i < 8; ++i) {
      code[i] = _mm256_setzero_si256();
      for (int plane = 0; plane < BITS; ++plane) {
        const I ones = _mm256_cmpeq_epi32(_mm256_and_si256(set_int(p[8 * plane + i]), lanes), lanes);
        code[i] = _mm256_or_si256(code[i], _mm256_and_si256(ones, set_int(1 << (BITS - 1 - plane))));
      }
    }
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
