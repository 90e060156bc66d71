// Eight rows of bytes permuted alike: eight bytes of a column, one of each row, move as one word. Include it
// under the target's options; all is internal.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace hyperlane {
namespace {

constexpr std::size_t kColumns = 256;

struct ByteRows {
  alignas(32) std::uint8_t of[8][kColumns];
};

// Bit APART of the registers' numbers becomes the lowest of the bytes' numbers, whose highest takes its
// place.
template <int APART>
inline void unpack_stage(__m128i* v) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    if (i & APART) continue;
    const __m128i low = v[i], high = v[i | APART];
    v[i] = _mm_unpacklo_epi8(low, high);
    v[i | APART] = _mm_unpackhi_epi8(low, high);
  }
}

// Column c of the result is column from[c] - first.
inline void permute_columns(const ByteRows& rows, const std::uint16_t* from, std::size_t first,
                            ByteRows& result) {
  alignas(32) std::uint64_t columns[kColumns];
  for (std::size_t at = 0; at < kColumns; at += 16) {
    __m128i v[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = _mm_load_si128(reinterpret_cast<const __m128i*>(rows.of[i] + at));
    unpack_stage<4>(v);
    unpack_stage<2>(v);
    unpack_stage<1>(v);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) _mm_store_si128(reinterpret_cast<__m128i*>(columns + at + 2 * i), v[i]);
  }
  for (std::size_t at = 0; at < kColumns; at += 16) {
    __m128i v[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const std::uint16_t* const pair = from + at + 2 * i;
      v[i] =
          _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(columns + (pair[0] - first))),
                             _mm_loadl_epi64(reinterpret_cast<const __m128i*>(columns + (pair[1] - first))));
    }
    unpack_stage<4>(v);
    unpack_stage<2>(v);
    unpack_stage<1>(v);
    unpack_stage<4>(v);
    constexpr int kRow[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // which the registers have now
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) _mm_store_si128(reinterpret_cast<__m128i*>(result.of[kRow[i]] + at), v[i]);
  }
}

// The same of `count` rows one by one, where they are few.
inline void permute_rows(const ByteRows& rows, std::size_t count, const std::uint16_t* from,
                         std::size_t first, ByteRows& result) {
  if (count > 2) return permute_columns(rows, from, first, result);
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t c = 0; c < kColumns; ++c) result.of[i][c] = rows.of[i][from[c] - first];
}

// Bit i of `bits` in all of byte i.
inline __m256i byte_mask(std::uint32_t bits) {
  const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), spread);
  const __m256i of = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
  return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, of), of);
}

}  // namespace
}  // namespace hyperlane
