#include <algorithm>
#include <limits>
#include <vector>

#include "ops/attention.hpp"
#include "ops/numbers.hpp"

#ifdef HYPERLANE_X86
// GCC 12 warns of its own _mm512_undefined_ps.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#define HYPERLANE_LANES_CALL __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define HYPERLANE_LANES HYPERLANE_LANES_CALL __attribute__((always_inline)) inline

namespace hyperlane::ops {
namespace {

struct Lanes {
  static constexpr int kMostQueries = 6, kMostVectors = 4;  // 24 sums and 4 loaded vectors of 32 registers
  __m512 x;

  HYPERLANE_LANES static __mmask16 first(int64_t count) {
    return count >= 16 ? static_cast<__mmask16>(0xffff)
                       : static_cast<__mmask16>((1u << std::max<int64_t>(count, 0)) - 1);
  }
  HYPERLANE_LANES static Lanes all(float value) { return {_mm512_set1_ps(value)}; }
  HYPERLANE_LANES static Lanes load(const float* from, int64_t count) {
    return {count >= 16 ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(first(count), from)};
  }
  HYPERLANE_LANES static Lanes load_halves(const uint16_t* from, int64_t count) {
    return {_mm512_cvtph_ps(count >= 16 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))
                                        : _mm256_maskz_loadu_epi16(first(count), from))};
  }
  HYPERLANE_LANES static Lanes load_bytes(const int8_t* from, int64_t count) {
    return {_mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(count >= 16 ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
                                         : _mm_maskz_loadu_epi8(first(count), from)))};
  }
  HYPERLANE_LANES static void store(Lanes a, float* to, int64_t count) {
    count >= 16 ? _mm512_storeu_ps(to, a.x) : _mm512_mask_storeu_ps(to, first(count), a.x);
  }
  HYPERLANE_LANES static Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.x, b.x, c.x)}; }
  HYPERLANE_LANES static Lanes add(Lanes a, Lanes b) { return {_mm512_add_ps(a.x, b.x)}; }
  HYPERLANE_LANES static Lanes sub(Lanes a, Lanes b) { return {_mm512_sub_ps(a.x, b.x)}; }
  HYPERLANE_LANES static Lanes mul(Lanes a, Lanes b) { return {_mm512_mul_ps(a.x, b.x)}; }
  HYPERLANE_LANES static Lanes div(Lanes a, Lanes b) { return {_mm512_div_ps(a.x, b.x)}; }
  HYPERLANE_LANES static Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.x, b.x)}; }
  HYPERLANE_LANES static Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.x, b.x)}; }
  HYPERLANE_LANES static Lanes round(Lanes a) {
    return {_mm512_roundscale_ps(a.x, _MM_FROUND_CUR_DIRECTION)};
  }
  HYPERLANE_LANES static Lanes scaled(Lanes a, Lanes power) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(power.x), _mm512_set1_epi32(127));
    return {_mm512_mul_ps(a.x, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)))};
  }
  HYPERLANE_LANES static Lanes keep(Lanes a, int64_t start, int64_t stop, Lanes other) {
    return {_mm512_mask_mov_ps(other.x, static_cast<__mmask16>(first(stop) & ~first(start)), a.x)};
  }
  HYPERLANE_LANES static float largest(Lanes a) { return _mm512_reduce_max_ps(a.x); }
  HYPERLANE_LANES static float sum(Lanes a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.x), _mm512_extractf32x8_ps(a.x, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
  }
};

#include "ops/attention_kernels.hpp"

}  // namespace

const AttentionKernels kAttentionAvx512 = {Lanes::kMostQueries, attend};

}  // namespace hyperlane::ops
#endif
