#include "ops/kernels.hpp"
#include "ops/numbers.hpp"

#ifdef HYPERLANE_X86
#include <immintrin.h>

namespace hyperlane::ops {
namespace {

constexpr int kMostRows = 4;

// Bytes 4 * i to 4 * i + 4 of a block's codes against 8 columns' codes, all unsigned bytes: products summed
// by fours.
template <int kBits>
HYPERLANE_AVX2 inline __m256i multiply(__m256i sum, __m256i weights, __m256i codes) {
  if (kBits == 4)  // 15 * 127 * 2 fits a signed 16-bit word
    return _mm256_add_epi32(sum,
                            _mm256_madd_epi16(_mm256_maddubs_epi16(weights, codes), _mm256_set1_epi16(1)));
  const __m256i even = _mm256_set1_epi16(0xff);
  const __m256i low =
      _mm256_madd_epi16(_mm256_and_si256(weights, even), _mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 8));
  const __m256i high = _mm256_madd_epi16(_mm256_srli_epi16(weights, 8), _mm256_srai_epi16(codes, 8));
  return _mm256_add_epi32(sum, _mm256_add_epi32(low, high));
}

HYPERLANE_AVX2 inline __m256i load(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

HYPERLANE_AVX2 inline __m256 load_halves(const uint16_t* halves) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
}

HYPERLANE_AVX2 inline __m256i four_codes(const int8_t* codes) {
  int32_t value;
  std::memcpy(&value, codes, sizeof value);
  return _mm256_set1_epi32(value);
}

// Columns 8 * side to 8 * side + 8 of a tile, for kRows rows.
template <int kBits, bool kMinima, int kRows>
HYPERLANE_AVX2 void half_tile(const Weights& weights, int64_t tile, int side, const Rows& rows, int64_t first,
                              float* out) {
  const uint8_t* codes = weights.codes + tile * weights.tile_bytes() + side * 32;
  const int64_t blocks = rows.blocks, corner = tile * weights.blocks * kTile + side * 8;
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256 sums[kRows];
  for (int r = 0; r < kRows; ++r) sums[r] = _mm256_setzero_ps();
  for (int64_t b = 0; b < blocks; ++b) {
    __m256i products[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int32_t total = rows.totals[(first + r) * blocks + b];
      products[r] = kMinima ? _mm256_setzero_si256() : _mm256_set1_epi32(-(1 << (kBits - 1)) * total);
    }
    const uint8_t* block = codes + b * (kTile * kBlock * kBits / 8);
    for (int i = 0; i < 8; ++i) {
      __m256i values;
      if (kBits == 8) {
        values = load(block + 64 * i);
      } else {
        const __m256i packed = load(block + 64 * (i / 2));
        values = _mm256_and_si256(i % 2 == 0 ? packed : _mm256_srli_epi16(packed, 4), nibble);
      }
      for (int r = 0; r < kRows; ++r) {
        const int8_t* row = rows.codes + ((first + r) * blocks + b) * kBlock;
        products[r] = multiply<kBits>(products[r], values, four_codes(row + 4 * i));
      }
    }
    const __m256 scale = load_halves(weights.scales + corner + b * kTile);
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = (first + r) * blocks + b;
      const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(products[r]), scale);
      sums[r] = _mm256_add_ps(sums[r], _mm256_mul_ps(scaled, _mm256_set1_ps(rows.scales[at])));
      if (kMinima) {
        const __m256 minimum = load_halves(weights.minima + corner + b * kTile);
        sums[r] = _mm256_add_ps(sums[r], _mm256_mul_ps(minimum, _mm256_set1_ps(rows.sums[at])));
      }
    }
  }
  for (int r = 0; r < kRows; ++r) _mm256_storeu_ps(out + r * kTile + side * 8, sums[r]);
}

template <int kBits, bool kMinima>
HYPERLANE_AVX2 void all_rows(const Weights& weights, int64_t tile, const Rows& rows, int64_t first,
                             int64_t count, float* out) {
  for (; count > 0; count -= kMostRows, first += kMostRows, out += kMostRows * kTile)
    for (int side = 0; side < 2; ++side) switch (count) {
        case 1:
          half_tile<kBits, kMinima, 1>(weights, tile, side, rows, first, out);
          break;
        case 2:
          half_tile<kBits, kMinima, 2>(weights, tile, side, rows, first, out);
          break;
        case 3:
          half_tile<kBits, kMinima, 3>(weights, tile, side, rows, first, out);
          break;
        default:
          half_tile<kBits, kMinima, kMostRows>(weights, tile, side, rows, first, out);
      }
}

HYPERLANE_AVX2 void tile(const Weights& weights, int64_t tile, const Rows& rows, int64_t first, int64_t count,
                         float* out) {
  const bool minima = weights.minima != nullptr;
  if (weights.bits == 4)
    minima ? all_rows<4, true>(weights, tile, rows, first, count, out)
           : all_rows<4, false>(weights, tile, rows, first, count, out);
  else
    minima ? all_rows<8, true>(weights, tile, rows, first, count, out)
           : all_rows<8, false>(weights, tile, rows, first, count, out);
}

HYPERLANE_AVX2 float exponential_sum(const float* x, int64_t count, float offset) {
  float lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int lane = 0; lane < 16; ++lane)
      lanes[lane] += exponential(x[i + lane] - offset);  // becomes vector code
  for (; i < count; ++i) lanes[i % 16] += exponential(x[i] - offset);
  for (int half = 8; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

}  // namespace

// The rest is a small part of the work: what the compiler makes of the scalar code will do.
const Kernels kAvx2 = {kScalar.norm, kScalar.quantize, tile, kScalar.gate, kScalar.largest, exponential_sum};

}  // namespace hyperlane::ops
#endif
