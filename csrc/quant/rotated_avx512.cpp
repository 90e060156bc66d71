// The rotated codecs on AVX-512: a comparison's mask is a bit plane.
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
#pragma GCC diagnostic ignored "-Wuninitialized"
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
  static F set(float v) { return _mm512_set1_ps(v); }
  static I set_int(int v) { return _mm512_set1_epi32(v); }
  static float first(F v) { return _mm512_cvtss_f32(v); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  // Lane i takes lane i ^ H.
  template <int H>
  static F swap(F v) {
    if constexpr (H == 8) return _mm512_shuffle_f32x4(v, v, 0x4E);
    if constexpr (H == 4) return _mm512_shuffle_f32x4(v, v, 0xB1);
    if constexpr (H == 2) return _mm512_permute_ps(v, 0x4E);
    return _mm512_permute_ps(v, 0xB1);
  }
  // Lane i takes itself and lane i ^ H: their sum, or in the upper of both the difference. A product with 1
  // or -1 is exact, so this rounds once.
  template <int H>
  static F butterfly(F v) {
    constexpr M upper = H == 8 ? 0xFF00 : H == 4 ? 0xF0F0 : H == 2 ? 0xCCCC : 0xAAAA;
    const F sign = _mm512_mask_blend_ps(upper, set(1), set(-1));
    return _mm512_fmadd_ps(v, sign, swap<H>(v));
  }

  // The largest lane of each of four registers.
  static void largest(const F* v, float* most) {
    const F ab = max(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xEE));
    const F cd = max(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xEE));
    F quarters = max(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    quarters = max(quarters, swap<2>(quarters));
    quarters = max(quarters, swap<1>(quarters));
    // Not by a compressing store, which takes Zen 4 a hundred cycles.
    _mm_storeu_ps(most, _mm512_castps512_ps128(_mm512_permutexvar_ps(transposed(), quarters)));
  }

  static I sixteen(const void* bytes) {
    return _mm512_broadcast_i32x4(_mm_load_si128(static_cast<const __m128i*>(bytes)));
  }
  static I transposed() { return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); }

  static void write_levels(const Levels& levels, const float* values, F factor, std::uint8_t* planes) {
    I k[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) k[i] = _mm512_cvtps_epi32(mul(load(values + i * W), factor));
    const I packed = _mm512_packs_epi16(_mm512_packs_epi32(k[0], k[1]), _mm512_packs_epi32(k[2], k[3]));
    const I bytes = _mm512_permutexvar_epi32(transposed(), packed);
    const I part = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), _mm512_set1_epi8(15));
    const I one = _mm512_set1_epi8(1);
    I code = _mm512_shuffle_epi8(sixteen(levels.lowest), part);
    const __mmask64 first = _mm512_cmpgt_epi8_mask(bytes, _mm512_shuffle_epi8(sixteen(levels.first), part));
    const __mmask64 second = _mm512_cmpgt_epi8_mask(bytes, _mm512_shuffle_epi8(sixteen(levels.second), part));
    code = _mm512_mask_add_epi8(code, first, code, one);
    code = _mm512_mask_add_epi8(code, second, code, one);
#pragma GCC unroll 4
    for (int plane = 0; plane < 4; ++plane) {
      const __mmask64 bits = _mm512_test_epi8_mask(code, _mm512_set1_epi8(static_cast<char>(8 >> plane)));
      std::memcpy(planes + 8 * plane, &bits, sizeof bits);
    }
  }

  struct LevelTable {
    I levels;

    explicit LevelTable(const Levels& of) : levels(sixteen(of.level)) {}
  };

  // The transform of the levels of COUNT blocks, in words: no sum leaves 16 bits. Two registers have a block
  // between them; a stage takes what a bit of the lane's number tells apart to a register each, so that sums
  // are one operation.
  //
  // With a value's number as bits 5 to 0, dwords of a register as L3 to L0, words of one as b and bytes of
  // one as p, bytes start as L3 L2 L1 L0 b p = 3 5 0 2 4 1. Sums of bytes make p the register. The stages
  // over L1, L0, L3 and L2 move bits to register 5, L3 L2 L1 L0 = 3 2 1 0. Sums of words are last.
  template <int COUNT>
  static void read_levels(const LevelTable& table, const std::uint8_t* const* planes, F* v) {
    const I ones = _mm512_set1_epi8(1), both = _mm512_set1_epi16(1);
    const I apart = _mm512_set1_epi32(static_cast<int>(0xFFFF0001));
    I even[COUNT], odd[COUNT];
    each<COUNT>([&](int i) {
      const I codes = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(lanes(), codes_of(planes[i])), places());
      const I level = _mm512_shuffle_epi8(table.levels, codes);
      even[i] = _mm512_maddubs_epi16(ones, level);
      odd[i] = _mm512_maddubs_epi16(
          ones, _mm512_mask_sub_epi8(level, 0xAAAAAAAAAAAAAAAA, _mm512_setzero_si512(), level));
    });
    for (int twice = 0; twice < 2; ++twice)
      each<COUNT>([&](int i) {
        take_sums(even[i], odd[i], _mm512_unpacklo_epi32(even[i], odd[i]),
                  _mm512_unpackhi_epi32(even[i], odd[i]));
      });
    each<COUNT>([&](int i) {
      take_sums(even[i], odd[i], _mm512_shuffle_i32x4(even[i], odd[i], 0x44),
                _mm512_shuffle_i32x4(even[i], odd[i], 0xEE));
    });
    each<COUNT>([&](int i) {
      take_sums(even[i], odd[i], _mm512_shuffle_i32x4(even[i], odd[i], 0x88),
                _mm512_shuffle_i32x4(even[i], odd[i], 0xDD));
    });
    each<COUNT>([&](int i) {
      v[4 * i] = _mm512_cvtepi32_ps(_mm512_madd_epi16(even[i], both));
      v[4 * i + 1] = _mm512_cvtepi32_ps(_mm512_madd_epi16(even[i], apart));
      v[4 * i + 2] = _mm512_cvtepi32_ps(_mm512_madd_epi16(odd[i], both));
      v[4 * i + 3] = _mm512_cvtepi32_ps(_mm512_madd_epi16(odd[i], apart));
    });
  }
  template <int COUNT, class Do>
  __attribute__((always_inline)) static void each(Do what) {
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; ++i) what(i);
  }
  static void take_sums(I& first, I& second, I low, I high) {
    first = _mm512_add_epi16(low, high);
    second = _mm512_sub_epi16(low, high);
  }
  static I codes_of(const std::uint8_t* planes) {
    I part[4];
#pragma GCC unroll 4
    for (int plane = 0; plane < 4; ++plane) {
      __mmask64 bits;
      std::memcpy(&bits, planes + 8 * plane, sizeof bits);
      part[plane] = _mm512_maskz_mov_epi8(bits, _mm512_set1_epi8(static_cast<char>(8 >> plane)));
    }
    return _mm512_or_si512(_mm512_or_si512(part[0], part[1]), _mm512_or_si512(part[2], part[3]));
  }
  // From values in their order: first the dwords (bits 5 to 2 of a value's number) to L3 L2 = 3 5, the others
  // 4 and 2, then the bytes within 16.
  static I lanes() { return _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15); }
  static I places() {
    return _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15));
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
