#include <algorithm>
#include <limits>
#include <vector>

#include "ops/attention.hpp"
#include "ops/numbers.hpp"

#ifdef HYPERLANE_X86
#include <immintrin.h>

#define HYPERLANE_LANES_CALL __attribute__((target("avx2,fma,f16c")))
#define HYPERLANE_LANES HYPERLANE_LANES_CALL __attribute__((always_inline)) inline

namespace hyperlane::ops {
namespace {

struct Lanes {
  static constexpr int kMostQueries = 3,
                       kMostVectors = 2;  // 12 sums and 4 halves of loaded vectors of 16 registers
  __m256 low, high;

  // Numbers behind the end become zeros.
  template <typename T>
  HYPERLANE_LANES static const T* padded(const T* from, int64_t count, T (&memory)[16]) {
    if (count >= 16) return from;
    for (int64_t i = 0; i < 16; ++i) memory[i] = i < count ? from[i] : T(0);
    return memory;
  }
  HYPERLANE_LANES static Lanes all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  HYPERLANE_LANES static Lanes load(const float* from, int64_t count) {
    float memory[16];
    from = padded(from, count, memory);
    return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  }
  HYPERLANE_LANES static Lanes load_halves(const uint16_t* from, int64_t count) {
    uint16_t memory[16];
    const __m128i* halves = reinterpret_cast<const __m128i*>(padded(from, count, memory));
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  HYPERLANE_LANES static Lanes load_bytes(const int8_t* from, int64_t count) {
    int8_t memory[16];
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(padded(from, count, memory)));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
  }
  HYPERLANE_LANES static void store(Lanes a, float* to, int64_t count) {
    float memory[16];
    float* at = count >= 16 ? to : memory;
    _mm256_storeu_ps(at, a.low);
    _mm256_storeu_ps(at + 8, a.high);
    if (at == memory) std::copy(memory, memory + std::max<int64_t>(count, 0), to);
  }
  HYPERLANE_LANES static Lanes fma(Lanes a, Lanes b, Lanes c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  HYPERLANE_LANES static Lanes add(Lanes a, Lanes b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  HYPERLANE_LANES static Lanes sub(Lanes a, Lanes b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  HYPERLANE_LANES static Lanes mul(Lanes a, Lanes b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  HYPERLANE_LANES static Lanes div(Lanes a, Lanes b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  HYPERLANE_LANES static Lanes max(Lanes a, Lanes b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  HYPERLANE_LANES static Lanes min(Lanes a, Lanes b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
  }
  HYPERLANE_LANES static Lanes round(Lanes a) {
    return {_mm256_round_ps(a.low, _MM_FROUND_CUR_DIRECTION),
            _mm256_round_ps(a.high, _MM_FROUND_CUR_DIRECTION)};
  }
  HYPERLANE_LANES static __m256 scaled_half(__m256 a, __m256 power) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  }
  HYPERLANE_LANES static Lanes scaled(Lanes a, Lanes power) {
    return {scaled_half(a.low, power.low), scaled_half(a.high, power.high)};
  }
  HYPERLANE_LANES static Lanes keep(Lanes a, int64_t start, int64_t stop, Lanes other) {
    float kept[16], others[16];
    store(a, kept, 16);
    store(other, others, 16);
    for (int i = 0; i < 16; ++i) kept[i] = start <= i && i < stop ? kept[i] : others[i];
    return load(kept, 16);
  }
  HYPERLANE_LANES static float largest(Lanes a) {
    float memory[16];
    store(a, memory, 16);
    return *std::max_element(memory, memory + 16);
  }
  HYPERLANE_LANES static float sum(Lanes a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
  }
};

#include "ops/attention_kernels.hpp"

}  // namespace

const AttentionKernels kAttentionAvx2 = {Lanes::kMostQueries, attend};

}  // namespace hyperlane::ops
#endif
