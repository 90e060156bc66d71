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
  static F min(F a, F b) { return _mm256_min_ps(a, b); }

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

  // The largest lane of each of four registers.
  static void largest(const F* v, float* most) {
    const F ab = max(_mm256_permute2f128_ps(v[0], v[1], 0x20), _mm256_permute2f128_ps(v[0], v[1], 0x31));
    const F cd = max(_mm256_permute2f128_ps(v[2], v[3], 0x20), _mm256_permute2f128_ps(v[2], v[3], 0x31));
    F quarters = max(_mm256_unpacklo_ps(ab, cd), _mm256_unpackhi_ps(ab, cd));
    quarters = max(quarters, swap<2>(quarters));  // of a and c, and of b and d
    _mm_storeu_ps(most,
                  _mm_unpacklo_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps(quarters, 1)));
  }

  static I sixteen(const void* bytes) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(static_cast<const __m128i*>(bytes)));
  }

  static void write_levels(const Levels& levels, const float* values, F factor, std::uint8_t* planes) {
    for (int half = 0; half < 2; ++half, values += 32) {
      I k[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) k[i] = _mm256_cvtps_epi32(mul(load(values + i * W), factor));
      const I packed = _mm256_packs_epi16(_mm256_packs_epi32(k[0], k[1]), _mm256_packs_epi32(k[2], k[3]));
      const I bytes = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
      const I part = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
      const I first = _mm256_cmpgt_epi8(bytes, _mm256_shuffle_epi8(sixteen(levels.first), part));
      const I second = _mm256_cmpgt_epi8(bytes, _mm256_shuffle_epi8(sixteen(levels.second), part));
      const I lowest = _mm256_shuffle_epi8(sixteen(levels.lowest), part);
      const I code = _mm256_sub_epi8(_mm256_sub_epi8(lowest, first), second);
      for (int plane = 0; plane < 4; ++plane) {
        const int bits = _mm256_movemask_epi8(_mm256_slli_epi16(code, 4 + plane));
        std::memcpy(planes + 8 * plane + 4 * half, &bits, sizeof bits);
      }
    }
  }

  struct LevelTable {
    I levels;

    explicit LevelTable(const Levels& of) : levels(sixteen(of.level)) {}
  };

  // The transform of a block's levels, in words: no sum leaves 16 bits. Pairs of registers have them between
  // them; a stage takes what a bit of the lane's number tells apart to a register each, so that sums are one
  // operation.
  //
  // With a value's number as bits 5 to 0: bytes start as register 2, half of it 1, quarter 0, dword of the
  // quarter 5, word 4, byte 3. After sums of bytes and of the registers, the stages swap the register for the
  // half, the quarter and the dword: register 5, half 2, quarter 1, dword 0. Sums of words are last.
  template <int COUNT>
  static void read_levels(const LevelTable& table, const std::uint8_t* const* planes, F* v) {
    for (int i = 0; i < COUNT; ++i) read_block(table, planes[i], v + 8 * i);
  }
  static void read_block(const LevelTable& table, const std::uint8_t* planes, F* v) {
    const I ones = _mm256_set1_epi8(1), turn = _mm256_set1_epi16(static_cast<short>(0xFF01));
    I even[2], odd[2];
    for (int i = 0; i < 2; ++i) {
      const I level = _mm256_shuffle_epi8(table.levels, codes_of(planes, i));
      even[i] = _mm256_maddubs_epi16(ones, level);
      odd[i] = _mm256_maddubs_epi16(ones, _mm256_sign_epi8(level, turn));
    }
    stages(even[0], even[1]);
    stages(odd[0], odd[1]);
    for (int i = 0; i < 2; ++i) {
      v[4 * i] = sums(even[i]);
      v[4 * i + 1] = sums(odd[i]);
      v[4 * i + 2] = differences(even[i]);
      v[4 * i + 3] = differences(odd[i]);
    }
  }
  // Those that have `high` as bit 2 of their number.
  static I codes_of(const std::uint8_t* planes, int high) {
    const I low_bits = _mm256_setr_epi64x(kBytes, 2 * kBytes, 4 * kBytes, 8 * kBytes);
    const I bits = high ? _mm256_slli_epi16(low_bits, 4) : low_bits;
    I codes = _mm256_setzero_si256();
    for (int plane = 0; plane < 4; ++plane) {
      long long of_plane;
      std::memcpy(&of_plane, planes + 8 * plane, sizeof of_plane);
      const I set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_set1_epi64x(of_plane), bits), bits);
      codes = _mm256_sub_epi8(_mm256_add_epi8(codes, codes), set);
    }
    return codes;
  }
  static constexpr long long kBytes = 0x0101010101010101;

  static void stages(I& first, I& second) {
    take_sums(first, second, first, second);
    take_sums(first, second, _mm256_permute2x128_si256(first, second, 0x20),
              _mm256_permute2x128_si256(first, second, 0x31));
    take_sums(first, second, _mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
    take_sums(first, second, _mm256_blend_epi32(first, _mm256_slli_epi64(second, 32), 0xAA),
              _mm256_blend_epi32(_mm256_srli_epi64(first, 32), second, 0xAA));
  }
  static void take_sums(I& first, I& second, I low, I high) {
    first = _mm256_add_epi16(low, high);
    second = _mm256_sub_epi16(low, high);
  }
  static F sums(I words) { return _mm256_cvtepi32_ps(_mm256_madd_epi16(words, _mm256_set1_epi16(1))); }
  static F differences(I words) {
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(words, _mm256_set1_epi32(static_cast<int>(0xFFFF0001))));
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
