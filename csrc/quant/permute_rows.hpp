// The channels of sixteen rows of halves in another order. Two transpositions do what would take a gather a
// row: in between, a channel of all rows lies together. Include it under the target's options (AVX2); all is
// internal.
#pragma once
#include <cstddef>
#include <cstdint>

#include "quant/half.hpp"

namespace hyperlane {
namespace {

constexpr std::size_t kRowsAtOnce = 16;

struct PermuteRows {
  static constexpr std::size_t kTile = 8;  // channels

  // out[row][i] = rows[row][from[i]]; `stride` counts halves from row to row of both. `columns` takes 16
  // times `width`.
  static void permute(const half_bits* rows, std::size_t stride, std::size_t width, const std::uint32_t* from,
                      half_bits* columns, half_bits* out) {
    const std::size_t whole = width / kTile * kTile;
    for (std::size_t at = 0; at < whole; at += kTile)
      to_columns(rows + at, stride, columns + at * kRowsAtOnce);
    for (std::size_t at = whole; at < width; ++at)
      for (std::size_t row = 0; row < kRowsAtOnce; ++row)
        columns[at * kRowsAtOnce + row] = rows[row * stride + at];
    for (std::size_t at = 0; at < whole; at += kTile) to_rows(columns, from + at, out + at, stride);
    for (std::size_t at = whole; at < width; ++at)
      for (std::size_t row = 0; row < kRowsAtOnce; ++row)
        out[row * stride + at] = columns[from[at] * kRowsAtOnce + row];
  }

 private:
  // 8 channels of 16 rows -> 8 columns.
  static void to_columns(const half_bits* rows, std::size_t stride, half_bits* columns) {
    __m256i v[kTile];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kTile; ++i) {
      const auto* low = reinterpret_cast<const __m128i*>(rows + i * stride);
      const auto* high = reinterpret_cast<const __m128i*>(rows + (i + kTile) * stride);
      v[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
    }
    transpose(v);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kTile; ++i)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(columns + i * kRowsAtOnce), v[i]);
  }

  static void to_rows(const half_bits* columns, const std::uint32_t* from, half_bits* rows,
                      std::size_t stride) {
    __m256i v[kTile];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kTile; ++i)
      v[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns + from[i] * kRowsAtOnce));
    transpose(v);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kTile; ++i) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(rows + i * stride), _mm256_castsi256_si128(v[i]));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(rows + (i + kTile) * stride),
                       _mm256_extracti128_si256(v[i], 1));
    }
  }

  // Two squares of 8 by 8 halves, one in each 128 bits of the registers.
  static void transpose(__m256i* v) {
    __m256i pairs[kTile], quads[kTile];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      pairs[i] = _mm256_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
      pairs[4 + i] = _mm256_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      quads[i] = i % 2 ? _mm256_unpackhi_epi32(pairs[i / 2 * 4], pairs[i / 2 * 4 + 1])
                       : _mm256_unpacklo_epi32(pairs[i / 2 * 4], pairs[i / 2 * 4 + 1]);
      quads[4 + i] = i % 2 ? _mm256_unpackhi_epi32(pairs[i / 2 * 4 + 2], pairs[i / 2 * 4 + 3])
                           : _mm256_unpacklo_epi32(pairs[i / 2 * 4 + 2], pairs[i / 2 * 4 + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = _mm256_unpacklo_epi64(quads[i], quads[4 + i]);
      v[2 * i + 1] = _mm256_unpackhi_epi64(quads[i], quads[4 + i]);
    }
  }
};

}  // namespace
}  // namespace hyperlane
