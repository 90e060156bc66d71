// Symbols in the tables' order back to rows, on AVX2, up to eight rows side by side. Include it under the
// target's options; all is internal.
#pragma once
#include "quant/entropy_plain.hpp"
#include "quant/interleave_avx2.hpp"

namespace hyperlane {
namespace {

// Up to 32 bits of the low bits in a head.
inline std::uint32_t bits_at(const std::uint8_t* head, std::uint32_t at) {
  std::uint64_t bits;
  std::memcpy(&bits, head + 2 + at / 8, sizeof bits);
  return static_cast<std::uint32_t>(bits >> (at % 8));
}

// k of a vector, but for channels of larger shifts than kMostByteShift.
inline __m256i multiples(const Entropy& codec, const std::uint8_t* symbols, std::size_t vector,
                         const std::uint8_t* head) {
  const LowBits* low = codec.low_bits.data() + codec.first_low[vector];
  const LowBits* const end = codec.low_bits.data() + codec.first_low[vector + 1];
  const __m256i symbol = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols));
  __m256i k = _mm256_sub_epi8(symbol, _mm256_set1_epi8(kMiddle));
  if (low == end) return k;
  const auto* const factor = reinterpret_cast<const __m256i*>(&codec.factor[kCoders * vector]);
  const __m256i first =
      _mm256_mullo_epi16(_mm256_cvtepi8_epi16(_mm256_castsi256_si128(k)), _mm256_loadu_si256(factor));
  const __m256i second = _mm256_mullo_epi16(_mm256_cvtepi8_epi16(_mm256_extracti128_si256(k, 1)),
                                            _mm256_loadu_si256(factor + 1));
  k = _mm256_permute4x64_epi64(_mm256_packs_epi16(first, second), 0xD8);
  for (; low != end; ++low) {
    const __m256i set = byte_mask(_pdep_u32(bits_at(head, low->at), low->lanes));
    k = _mm256_add_epi8(k, _mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(1 << low->bit))));
  }
  return k;
}

inline void store_8(half_bits* out, __m256 values) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_8(float* out, __m256 values) { _mm256_storeu_ps(out, values); }

// The factors and the place of a row. k g and (k g) step are exact.
template <class T>
struct RowValues {
  float g, r;
  T* out;

  void start(const CodedRow& row) {
    out = static_cast<T*>(row.out);
    g = e4m3_step(row.head[1]);
    r = r_value(row.head[0]);
  }

  // A block's channels from `start`, or as many as there are.
  void write(const Entropy& codec, std::size_t start, const std::uint8_t* k) const {
    const std::size_t stop = std::min(start + kSorted, codec.width);
    std::size_t at = start;
    for (; at + 8 <= stop; at += 8) store_8(out + at, values(codec, at, k + (at - start)));
    if (at == stop) return;
    T rest[8];
    store_8(rest, values(codec, at, k + (at - start)));
    std::copy(rest, rest + (stop - at), out + at);
  }

 private:
  __m256 values(const Entropy& codec, std::size_t channel, const std::uint8_t* k) const {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(k));
    const __m256 whole = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    const __m256 y =
        _mm256_mul_ps(_mm256_mul_ps(whole, _mm256_set1_ps(g)), _mm256_loadu_ps(&codec.step[channel]));
    return _mm256_mul_ps(_mm256_add_ps(y, _mm256_loadu_ps(&codec.mean[channel])), _mm256_set1_ps(r));
  }
};

// One row of each of `count` strings, whose symbols lie `stride` apart.
template <class T>
void write_rows(const Entropy& codec, const std::uint8_t* symbols, std::size_t stride, std::size_t count,
                const CodedRow* const* rows) {
  RowValues<T> values[kStringsAtOnce];
  for (std::size_t i = 0; i < count; ++i) values[i].start(*rows[i]);
  ByteRows by_place{}, by_channel{};
  for (std::size_t start = 0; start < codec.width; start += kSorted) {
    for (std::size_t i = 0; i < count; ++i)
      for (std::size_t at = start; at < std::min(start + kSorted, kCoders * codec.vectors); at += kCoders)
        _mm256_store_si256(reinterpret_cast<__m256i*>(by_place.of[i] + (at - start)),
                           multiples(codec, symbols + i * stride + at, at / kCoders, rows[i]->head));
    permute_rows(by_place, count, &codec.place[start], start, by_channel);
    for (std::size_t i = 0; i < count; ++i) values[i].write(codec, start, by_channel.of[i]);
  }
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t place : codec.wide)
      write_value(codec, *rows[i], sizeof(T) == 2, place, symbols[i * stride + place] - kMiddle);
}

}  // namespace
}  // namespace hyperlane
