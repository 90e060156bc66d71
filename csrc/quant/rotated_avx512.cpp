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
  static constexpr float kRound = 0x1.8p23f;
  static constexpr int kRoundBits = 0x4B400000;

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
  static F abs(F v) { return _mm512_abs_ps(v); }
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

  template <int SIZE>
  static F lookup(const float* table, I index) {
    if constexpr (SIZE == 16) return _mm512_permutexvar_ps(index, _mm512_load_ps(table));
    return _mm512_permutex2var_ps(_mm512_load_ps(table), index, _mm512_load_ps(table + 16));
  }
  // How many midpoints lie below each of COUNT values: by bucket, which leaves one comparison. One stage for
  // all values before the next, as few chains fit into the scheduler one by one.
  struct Search {
    const Codebook& book;

    template <int COUNT>
    __attribute__((always_inline)) void find(const F* value, I* code) const {
      I bucket[COUNT];
      // Adding 1.5 * 2^23 rounds to nearest and leaves the bucket in the low bits.
      each<COUNT>([&](int i) {
        bucket[i] = _mm512_castps_si512(_mm512_fmadd_ps(value[i], set(book.spread), set(kRound)));
      });
      each<COUNT>([&](int i) { bucket[i] = _mm512_min_epi32(bucket[i], set_int(kRoundBits + 15)); });
      each<COUNT>([&](int i) { bucket[i] = _mm512_max_epi32(bucket[i], set_int(kRoundBits - 15)); });
      each<COUNT>([&](int i) {
        code[i] = _mm512_permutex2var_epi32(_mm512_load_si512(book.bucket_codes), bucket[i],
                                            _mm512_load_si512(book.bucket_codes + 16));
      });
      count_greater<COUNT>(value, code, [&](int i) { return lookup<32>(book.bucket_midpoints, bucket[i]); });
    }
  };
  template <int COUNT, class Do>
  __attribute__((always_inline)) static void each(Do what) {
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; ++i) what(i);
  }
  template <int COUNT, class Midpoint>
  __attribute__((always_inline)) static void count_greater(const F* value, I* code, Midpoint midpoint) {
    F found[COUNT];
    M greater[COUNT];
    each<COUNT>([&](int i) { found[i] = midpoint(i); });
    each<COUNT>([&](int i) { greater[i] = _mm512_cmp_ps_mask(value[i], found[i], _CMP_GT_OQ); });
    each<COUNT>([&](int i) { code[i] = _mm512_mask_add_epi32(code[i], greater[i], code[i], set_int(1)); });
  }
  // The sums of four registers in halving order.
  static void sum_each(const F* v, float* sums) {
    const F ab = add(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xEE));
    const F cd = add(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xEE));
    F quarters = add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    quarters = add(quarters, swap<2>(quarters));
    quarters = add(quarters, swap<1>(quarters));
    // Not by a compressing store, which takes Zen 4 a hundred cycles.
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_permutexvar_ps(transposed(), quarters)));
  }

  // 64 codes, a byte each in the order of the values, and back to four registers, whose upper bits are noise.
  static I to_bytes(const I* code) {
    const I low = _mm512_packs_epi32(code[0], code[1]), high = _mm512_packs_epi32(code[2], code[3]);
    return _mm512_permutexvar_epi32(transposed(), _mm512_packus_epi16(low, high));
  }
  static void from_bytes(I bytes, I* code) {
    code[0] = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(transposed(), bytes), quads());
    code[1] = _mm512_srli_epi32(code[0], 8);
    code[2] = _mm512_srli_epi32(code[0], 16);
    code[3] = _mm512_srli_epi32(code[0], 24);
  }
  static I quads() {
    return _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  }
  static I transposed() { return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); }

  static void store_codes(const I* code, std::uint8_t* p) { _mm512_storeu_si512(p, to_bytes(code)); }
  template <int BITS>
  static void store_planes(const std::uint8_t* codes, std::uint8_t* p) {
    const I bytes = _mm512_loadu_si512(codes);
#pragma GCC unroll 6
    for (int plane = 0; plane < BITS; ++plane) {
      const __mmask64 bits = _mm512_test_epi8_mask(bytes, _mm512_set1_epi8(1 << (BITS - 1 - plane)));
      std::memcpy(p + 8 * plane, &bits, sizeof bits);
    }
  }
  template <int BITS>
  static void load_planes(const std::uint8_t* p, I* code) {
    I bytes = _mm512_setzero_si512();
#pragma GCC unroll 7
    for (int plane = 0; plane < BITS; ++plane) {
      __mmask64 bits;
      std::memcpy(&bits, p + 8 * plane, sizeof bits);
      bytes = _mm512_or_si512(bytes, _mm512_maskz_set1_epi8(bits, 1 << (BITS - 1 - plane)));
    }
    from_bytes(bytes, code);
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
