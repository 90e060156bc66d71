// rANS on AVX-512 with VBMI2: the 32 coders of a string are the words of a register. A step is a chain of
// about twenty cycles, so that strings go side by side. Include it under the target's options; all is
// internal.
#pragma once
#include "quant/entropy.hpp"

namespace hyperlane {
namespace {

constexpr __mmask32 kAllCoders = 0xFFFFFFFF;

// 0 to 31, twice.
struct Rotations {
  std::uint8_t of[2 * kCoders];
};

constexpr Rotations make_rotations() {
  Rotations rotations{};
  for (std::size_t i = 0; i < 2 * kCoders; ++i) rotations.of[i] = static_cast<std::uint8_t>(i % kCoders);
  return rotations;
}

constexpr Rotations kRotations = make_rotations();

inline __m512i lookup_words(const std::uint16_t* table, __m512i index) {
  return _mm512_permutexvar_epi16(index, _mm512_load_si512(table));
}

// 256 bytes at the bytes of `index`.
inline __m512i lookup_bytes(const std::uint8_t* table, __m512i index) {
  const __m512i low =
      _mm512_permutex2var_epi8(_mm512_load_si512(table), index, _mm512_load_si512(table + 64));
  const __m512i high =
      _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), index, _mm512_load_si512(table + 192));
  return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index), high);
}

// A step of one string backwards: `symbols` are bytes.
inline void encode_step(const SymbolTable& table, const std::uint8_t* symbols, __mmask32 lanes,
                        __m512i& state, std::uint8_t*& out) {
  const __m512i symbol = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols)));
  const __m512i frequency = lookup_words(table.frequency, symbol);
  const __m512i add_shift = lookup_words(table.add_shift, symbol);
  const __m512i above = _mm512_srli_epi16(state, 8);
  const __mmask32 moved = _mm512_mask_cmpge_epu16_mask(lanes, above, frequency);
  const auto count = static_cast<unsigned>(__builtin_popcount(moved));
  const __m256i bytes = _mm256_maskz_compress_epi8(moved, _mm512_cvtepi16_epi8(state));
  // To the register's end; what stands before is overwritten by the next step. Not by a store under a mask.
  const __m256i end = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kRotations.of + count));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) - 1, _mm256_permutexvar_epi8(end, bytes));
  out -= count;
  const __m512i x = _mm512_mask_mov_epi16(state, moved, above);
  __m512i numerator = x;
  if (table.carries) numerator = _mm512_add_epi16(x, lookup_words(table.carry, symbol));
  const __m512i product = _mm512_mulhi_epu16(numerator, lookup_words(table.reciprocal, symbol));
  const __m512i quotient = _mm512_srlv_epi16(product, _mm512_srli_epi16(add_shift, 12));
  const __m512i sum = _mm512_add_epi16(x, _mm512_and_si512(add_shift, _mm512_set1_epi16(0xFFF)));
  const __m512i upper = _mm512_add_epi16(sum, _mm512_slli_epi16(quotient, 8));
  state = _mm512_mask_sub_epi16(state, lanes, upper, _mm512_mullo_epi16(quotient, frequency));
}

template <int COUNT>
void encode_strings(const Entropy& codec, std::size_t rows, const std::uint8_t* const* symbols,
                    std::uint8_t* const* rooms, std::size_t* sizes) {
  __m512i state[COUNT];
  std::uint8_t* out[COUNT];
  const std::size_t reach = string_reach(codec, rows);
#pragma GCC unroll 4
  for (int i = 0; i < COUNT; ++i) {
    state[i] = _mm512_set1_epi16(kTotal);
    out[i] = rooms[i] + reach;
  }
  for (std::size_t row = rows; row-- > 0;) {
    __mmask32 lanes = codec.last_lanes;
    for (std::size_t vector = codec.vectors; vector-- > 0; lanes = kAllCoders) {
      const SymbolTable& table = codec.tables[codec.table[vector]];
      const std::size_t at = (row * codec.vectors + vector) * kCoders;
#pragma GCC unroll 4
      for (int i = 0; i < COUNT; ++i) encode_step(table, symbols[i] + at, lanes, state[i], out[i]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < COUNT; ++i) {
    out[i] -= kStatesBytes;
    _mm512_storeu_si512(out[i], state[i]);
    sizes[i] = static_cast<std::size_t>(rooms[i] + reach - out[i]);
  }
}

// Two strings whose symbols have the same tables: low and high bytes of the words that look them up.
struct StringPair {
  __m512i state[2];
  const std::uint8_t* in[2];

  void start(const std::uint8_t* first, const std::uint8_t* second) {
    in[0] = first + kStatesBytes;
    in[1] = second + kStatesBytes;
    state[0] = _mm512_loadu_si512(first);
    state[1] = _mm512_loadu_si512(second);
  }

  // The symbols of a step, of the first string in the low bytes.
  __m512i step(const SymbolTable& table, __mmask32 lanes) {
    const __m512i low = _mm512_set1_epi16(0xFF);
    const __m512i slot = _mm512_mask_mov_epi8(_mm512_slli_epi16(state[1], 8), 0x5555555555555555, state[0]);
    const __m512i symbol = lookup_bytes(table.symbol, slot);
    const __m512i frequency = _mm512_permutexvar_epi8(symbol, _mm512_load_si512(table.frequency_bytes));
    const __m512i start = _mm512_permutexvar_epi8(symbol, _mm512_load_si512(table.start_bytes));
    const __m512i rest = _mm512_sub_epi8(slot, start);
    advance(0, _mm512_and_si512(frequency, low), _mm512_and_si512(rest, low), lanes);
    advance(1, _mm512_srli_epi16(frequency, 8), _mm512_srli_epi16(rest, 8), lanes);
    return symbol;
  }

  bool ended(int i, const std::uint8_t* end) const {
    return in[i] == end && _mm512_cmpeq_epi16_mask(state[i], _mm512_set1_epi16(kTotal)) == kAllCoders;
  }

 private:
  void advance(int i, __m512i frequency, __m512i rest, __mmask32 lanes) {
    const __m512i product = _mm512_mullo_epi16(frequency, _mm512_srli_epi16(state[i], 8));
    __m512i x = _mm512_mask_add_epi16(state[i], lanes, product, rest);
    const __mmask32 short_of = _mm512_mask_cmplt_epu16_mask(lanes, x, _mm512_set1_epi16(kTotal));
    const __m256i next = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in[i]));
    const __m512i bytes = _mm512_cvtepu8_epi16(_mm256_maskz_expand_epi8(short_of, next));
    in[i] += __builtin_popcount(short_of);
    state[i] = _mm512_or_si512(_mm512_mask_slli_epi16(x, short_of, x, 8), bytes);
  }
};

}  // namespace
}  // namespace hyperlane
