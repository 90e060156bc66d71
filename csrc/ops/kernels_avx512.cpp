#include <cmath>

#include "ops/kernels.hpp"
#include "ops/numbers.hpp"

#ifdef HYPERLANE_X86
// GCC 12 warns of its own _mm512_undefined_ps.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#define HYPERLANE_VNNI \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c"), always_inline)) inline
#define HYPERLANE_VNNI_ENTRY \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c")))

namespace hyperlane::ops {
namespace {

constexpr int kMostRows =
    8;  // that one pass over a tile serves: 8 weights + 2 accumulators a row fit 32 registers

HYPERLANE_VNNI __mmask16 lanes(int64_t count) {
  return count >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

HYPERLANE_VNNI float tree_sum(__m512 sum) {  // lane i with i + 8, then i + 4, i + 2, i + 1
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}

HYPERLANE_VNNI_ENTRY void norm(const float* x, const float* weight, float epsilon, int64_t width,
                               float* out) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t k = 0; k < width; k += 16) {
    const __m512 value = _mm512_maskz_loadu_ps(lanes(width - k), x + k);
    sum = _mm512_add_ps(sum, _mm512_mul_ps(value, value));
  }
  const float inverse = 1.0f / std::sqrt(tree_sum(sum) / static_cast<float>(width) + epsilon);
  for (int64_t k = 0; k < width; k += 16) {
    const __mmask16 mask = lanes(width - k);
    const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + k), _mm512_set1_ps(inverse));
    _mm512_mask_storeu_ps(out + k, mask, _mm512_mul_ps(scaled, _mm512_maskz_loadu_ps(mask, weight + k)));
  }
}

HYPERLANE_VNNI_ENTRY void quantize(const float* x, int64_t width, bool interleaved, int8_t* codes,
                                   float* scales, int32_t* totals, float* sums) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  for (int64_t b = 0; b * kBlock < width; ++b) {
    const int64_t left = width - b * kBlock;
    const __m512 low = _mm512_maskz_loadu_ps(lanes(left), x + b * kBlock);
    const __m512 high =
        left > 16 ? _mm512_maskz_loadu_ps(lanes(left - 16), x + b * kBlock + 16) : _mm512_setzero_ps();
    const __m512i largest = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                                             _mm512_and_si512(_mm512_castps_si512(high), magnitude));
    const BlockScale scale = block_scale(_mm512_reduce_max_epu32(largest));
    __m512i low_codes = _mm512_setzero_si512(), high_codes = low_codes;
    if (scale.usable) {
      const __m512 inverse = _mm512_set1_ps(scale.inverse);
      low_codes = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
      high_codes = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    }
    __m128i low_bytes = _mm512_cvtepi32_epi8(low_codes), high_bytes = _mm512_cvtepi32_epi8(high_codes);
    if (interleaved) {
      low_bytes = _mm_shuffle_epi8(low_bytes, order);
      high_bytes = _mm_shuffle_epi8(high_bytes, order);
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + b * kBlock), low_bytes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + b * kBlock + 16), high_bytes);
    const int32_t total = _mm512_reduce_add_epi32(_mm512_add_epi32(low_codes, high_codes));
    scales[b] = scale.scale;
    totals[b] = total;
    sums[b] = scale.scale * static_cast<float>(total);
  }
}

template <int kBits>
HYPERLANE_VNNI void load_block(const uint8_t* codes, __m512i (&values)[8]) {
  if constexpr (kBits == 8) {
    for (int i = 0; i < 8; ++i) values[i] = _mm512_loadu_si512(codes + 64 * i);
  } else {
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int i = 0; i < 4; ++i) {
      const __m512i packed = _mm512_loadu_si512(codes + 64 * i);
      values[2 * i] = _mm512_and_si512(packed, nibble);
      values[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
    }
  }
}

HYPERLANE_VNNI __m512 load_halves(const uint16_t* halves) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
}

HYPERLANE_VNNI __m512i four_codes(const int8_t* codes) {
  int32_t value;
  std::memcpy(&value, codes, sizeof value);
  return _mm512_set1_epi32(value);
}

template <int kBits, bool kMinima, int kRows>
HYPERLANE_VNNI void rows_of_tile(const Weights& weights, int64_t tile, const Rows& rows, int64_t first,
                                 float* out) {
  const uint8_t* codes = weights.codes + tile * weights.tile_bytes();
  const uint16_t* scales = weights.scales + tile * weights.blocks * kTile;
  const uint16_t* minima = kMinima ? weights.minima + tile * weights.blocks * kTile : nullptr;
  const int64_t blocks = rows.blocks;
  const int8_t* row_codes = rows.codes + first * blocks * kBlock;
  const float *row_scales = rows.scales + first * blocks, *row_sums = rows.sums + first * blocks;
  const int32_t* row_totals = rows.totals + first * blocks;
  __m512 sums[kRows];
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  for (int64_t b = 0; b < blocks; ++b) {
    __m512i values[8];
    load_block<kBits>(codes + b * (kTile * kBlock * kBits / 8), values);
    const __m512 scale = load_halves(scales + b * kTile);
    const __m512 minimum = kMinima ? load_halves(minima + b * kTile) : scale;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = r * blocks + b;
      constexpr int kMiddle = 1 << (kBits - 1);
      __m512i product = kMinima ? _mm512_setzero_si512() : _mm512_set1_epi32(-kMiddle * row_totals[at]);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i)
        product = _mm512_dpbusd_epi32(product, values[i], four_codes(row_codes + at * kBlock + 4 * i));
      const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(product), scale);
      sums[r] = _mm512_add_ps(sums[r], _mm512_mul_ps(scaled, _mm512_set1_ps(row_scales[at])));
      if (kMinima) sums[r] = _mm512_add_ps(sums[r], _mm512_mul_ps(minimum, _mm512_set1_ps(row_sums[at])));
    }
  }
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(out + r * kTile, sums[r]);
}

template <int kBits, bool kMinima>
HYPERLANE_VNNI void all_rows(const Weights& weights, int64_t tile, const Rows& rows, int64_t first,
                             int64_t count, float* out) {
  for (; count >= kMostRows; count -= kMostRows, first += kMostRows, out += kMostRows * kTile)
    rows_of_tile<kBits, kMinima, kMostRows>(weights, tile, rows, first, out);
  switch (count) {
    case 7:
      return rows_of_tile<kBits, kMinima, 7>(weights, tile, rows, first, out);
    case 6:
      return rows_of_tile<kBits, kMinima, 6>(weights, tile, rows, first, out);
    case 5:
      return rows_of_tile<kBits, kMinima, 5>(weights, tile, rows, first, out);
    case 4:
      return rows_of_tile<kBits, kMinima, 4>(weights, tile, rows, first, out);
    case 3:
      return rows_of_tile<kBits, kMinima, 3>(weights, tile, rows, first, out);
    case 2:
      return rows_of_tile<kBits, kMinima, 2>(weights, tile, rows, first, out);
    case 1:
      return rows_of_tile<kBits, kMinima, 1>(weights, tile, rows, first, out);
    default:
      return;
  }
}

HYPERLANE_VNNI_ENTRY void tile(const Weights& weights, int64_t tile, const Rows& rows, int64_t first,
                               int64_t count, float* out) {
  const bool minima = weights.minima != nullptr;
  if (weights.bits == 4)
    minima ? all_rows<4, true>(weights, tile, rows, first, count, out)
           : all_rows<4, false>(weights, tile, rows, first, count, out);
  else
    minima ? all_rows<8, true>(weights, tile, rows, first, count, out)
           : all_rows<8, false>(weights, tile, rows, first, count, out);
}

HYPERLANE_VNNI __m512 exponential_16(__m512 x) {
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(kExpLow)), _mm512_set1_ps(kExpHigh));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(kLog2E)), _MM_FROUND_CUR_DIRECTION);
  const __m512 r = _mm512_sub_ps(_mm512_sub_ps(x, _mm512_mul_ps(n, _mm512_set1_ps(kLn2High))),
                                 _mm512_mul_ps(n, _mm512_set1_ps(kLn2Low)));
  __m512 p = _mm512_set1_ps(kExpTerms[0]);
  for (int i = 1; i < 6; ++i) p = _mm512_add_ps(_mm512_mul_ps(p, r), _mm512_set1_ps(kExpTerms[i]));
  const __m512 y =
      _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(_mm512_mul_ps(p, r), r), r), _mm512_set1_ps(1.0f));
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_mul_ps(y, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
}

HYPERLANE_VNNI_ENTRY void gate(const float* gate, const float* up, float* out) {
  const __m512 g = _mm512_loadu_ps(gate);
  const __m512 negated = _mm512_xor_ps(g, _mm512_set1_ps(-0.0f));
  const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), exponential_16(negated)));
  _mm512_storeu_ps(out, _mm512_mul_ps(silu, _mm512_loadu_ps(up)));
}

HYPERLANE_VNNI_ENTRY float largest(const float* x, int64_t count) {
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 found = lowest;
  for (int64_t i = 0; i < count; i += 16)  // the second operand stays where the first is a NaN
    found = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, lanes(count - i), x + i), found);
  return _mm512_reduce_max_ps(found);
}

HYPERLANE_VNNI_ENTRY float exponential_sum(const float* x, int64_t count, float offset) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = lanes(count - i);
    const __m512 power =
        exponential_16(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_set1_ps(offset)));
    sum = _mm512_mask_add_ps(sum, mask, sum, power);
  }
  return tree_sum(sum);
}

}  // namespace

const Kernels kAvx512 = {norm, quantize, tile, gate, largest, exponential_sum};

}  // namespace hyperlane::ops
#endif
