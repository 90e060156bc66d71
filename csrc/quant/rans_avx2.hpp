// rANS on AVX2: the 32 coders of a string are the words of two registers, those of lanes 0 to 7 and 16 to 23
// in the first, so that packing them gives bytes in order. Include it under the target's options; all is
// internal.
#pragma once
#include "quant/entropy.hpp"
#include "quant/interleave_avx2.hpp"

namespace hyperlane {
namespace {

// By eight lanes' bits: which byte of the next ones each takes (0x80 for none), and which lanes' bytes go to
// the end of eight. The second of each is for the upper half of 16 bytes.
struct ByteMoves {
  std::uint8_t expand[2][256][8], compress[2][256][8];
};

constexpr ByteMoves make_moves() {
  ByteMoves moves{};
  for (int half = 0; half < 2; ++half)
    for (int bits = 0; bits < 256; ++bits) {
      int count = 0;
      for (int lane = 0; lane < 8; ++lane) {
        const bool set = bits >> lane & 1;
        moves.expand[half][bits][lane] = static_cast<std::uint8_t>(set ? count + 8 * half : 0x80);
        count += set;
      }
      int at = 8 - count;
      for (int i = 0; i < 8; ++i) moves.compress[half][bits][i] = 0x80;
      for (int lane = 0; lane < 8; ++lane)
        if (bits >> lane & 1) moves.compress[half][bits][at++] = static_cast<std::uint8_t>(lane + 8 * half);
    }
  return moves;
}

constexpr ByteMoves kMoves = make_moves();

inline __m256i twice(const void* sixteen) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(static_cast<const __m128i*>(sixteen)));
}

// Of 32 bytes, those that `index` says; `upper` has its bit 4 as bit 7.
inline __m256i lookup_32(const std::uint8_t* table, __m256i index, __m256i upper) {
  return _mm256_blendv_epi8(_mm256_shuffle_epi8(twice(table), index),
                            _mm256_shuffle_epi8(twice(table + 16), index), upper);
}

inline __m128i pair_of(const std::uint8_t* low, const std::uint8_t* high) {
  const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
  return _mm_unpacklo_epi64(first, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(high)));
}

// Bytes to the words of the two registers.
inline void widen(__m256i bytes, __m256i* words) {
  words[0] = _mm256_unpacklo_epi8(bytes, _mm256_setzero_si256());
  words[1] = _mm256_unpackhi_epi8(bytes, _mm256_setzero_si256());
}

// What of a vector there is, as bytes and as words.
struct LaneMask {
  std::uint32_t bits;
  __m256i words[2];

  explicit LaneMask(std::uint32_t lanes) : bits(lanes) {
    const __m256i bytes = byte_mask(lanes);
    words[0] = _mm256_unpacklo_epi8(bytes, bytes);
    words[1] = _mm256_unpackhi_epi8(bytes, bytes);
  }
};

struct Coders {
  __m256i state[2];

  void load(const std::uint8_t* states) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states) + 1);
    state[0] = _mm256_permute2x128_si256(low, high, 0x20);
    state[1] = _mm256_permute2x128_si256(low, high, 0x31);
  }
  void store(std::uint8_t* states) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(states),
                        _mm256_permute2x128_si256(state[0], state[1], 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(states) + 1,
                        _mm256_permute2x128_si256(state[0], state[1], 0x31));
  }
  __m256i low_bytes() const {
    const __m256i low = _mm256_set1_epi16(0xFF);
    return _mm256_packus_epi16(_mm256_and_si256(state[0], low), _mm256_and_si256(state[1], low));
  }
};

// ---- encoding

struct StringWriter : Coders {
  std::uint8_t* out;

  // A step backwards; with `x` the state without the byte that moves, x / f is rounded down from 65536 / f,
  // and then one too small where the rest is f or more.
  template <bool ALL>
  void step(const SymbolTable& table, const std::uint8_t* symbols, const LaneMask& lanes) {
    const __m256i symbol = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols));
    const __m256i upper = _mm256_slli_epi16(symbol, 3);
    const __m256i low = lookup_32(table.quotient_bytes[0], symbol, upper);
    const __m256i high = lookup_32(table.quotient_bytes[1], symbol, upper);
    const __m256i part[2] = {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
    __m256i frequency[2], start[2], kept[2], next[2];
    widen(lookup_32(table.frequency_bytes, symbol, upper), frequency);
    widen(lookup_32(table.start_bytes, symbol, upper), start);
    for (int i = 0; i < 2; ++i) {
      const __m256i f = frequency[i], above = _mm256_srli_epi16(state[i], 8);
      kept[i] = _mm256_cmpgt_epi16(f, above);
      const __m256i x = _mm256_blendv_epi8(above, state[i], kept[i]);
      const __m256i quotient = _mm256_mulhi_epu16(x, part[i]);
      const __m256i rest = _mm256_sub_epi16(x, _mm256_mullo_epi16(quotient, f));
      const __m256i more =
          _mm256_andnot_si256(_mm256_cmpgt_epi16(f, rest), _mm256_sub_epi16(_mm256_set1_epi16(kTotal), f));
      const __m256i sum = _mm256_add_epi16(_mm256_add_epi16(rest, start[i]), more);
      next[i] = _mm256_add_epi16(sum, _mm256_slli_epi16(quotient, 8));
    }
    auto moved = ~static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(kept[0], kept[1])));
    if (!ALL) moved &= lanes.bits;
    append(low_bytes(), moved);
    for (int i = 0; i < 2; ++i)
      state[i] = ALL ? next[i] : _mm256_blendv_epi8(state[i], next[i], lanes.words[i]);
  }

 private:
  // Eight lanes after eight, the last ones first; what stands before is overwritten.
  void append(__m256i bytes, std::uint32_t moved) {
    const std::uint32_t a = moved & 255, b = moved >> 8 & 255, c = moved >> 16 & 255, d = moved >> 24;
    const __m128i low = _mm_shuffle_epi8(_mm256_castsi256_si128(bytes),
                                         pair_of(kMoves.compress[0][a], kMoves.compress[1][b]));
    const __m128i high = _mm_shuffle_epi8(_mm256_extracti128_si256(bytes, 1),
                                          pair_of(kMoves.compress[0][c], kMoves.compress[1][d]));
    put(_mm_unpackhi_epi64(high, high), out);
    put(high, out - __builtin_popcount(d));
    put(_mm_unpackhi_epi64(low, low), out - __builtin_popcount(moved >> 16));
    put(low, out - __builtin_popcount(moved >> 8));
    out -= __builtin_popcount(moved);
  }
  static void put(__m128i bytes, std::uint8_t* end) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(end - 8), bytes);
  }
};

template <int COUNT>
void encode_strings(const Entropy& codec, std::size_t rows, const std::uint8_t* const* symbols,
                    std::uint8_t* const* rooms, std::size_t* sizes) {
  StringWriter writers[COUNT];
  const std::size_t reach = string_reach(codec, rows);
  const LaneMask last(codec.last_lanes);
  for (int i = 0; i < COUNT; ++i) {
    writers[i].state[0] = writers[i].state[1] = _mm256_set1_epi16(kTotal);
    writers[i].out = rooms[i] + reach;
  }
  const bool whole = codec.last_lanes == 0xFFFFFFFF;
  for (std::size_t row = rows; row-- > 0;)
    for (std::size_t vector = codec.vectors; vector-- > 0;) {
      const SymbolTable& table = codec.tables[codec.table[vector]];
      const std::size_t at = (row * codec.vectors + vector) * kCoders;
      if (whole || vector + 1 < codec.vectors) {
#pragma GCC unroll 4
        for (int i = 0; i < COUNT; ++i) writers[i].template step<true>(table, symbols[i] + at, last);
      } else {
        for (int i = 0; i < COUNT; ++i) writers[i].template step<false>(table, symbols[i] + at, last);
      }
    }
  for (int i = 0; i < COUNT; ++i) {
    writers[i].out -= kStatesBytes;
    writers[i].store(writers[i].out);
    sizes[i] = static_cast<std::size_t>(rooms[i] + reach - writers[i].out);
  }
}

// ---- decoding

struct StringDecoder : Coders {
  const std::uint8_t* in;

  void start(const std::uint8_t* string) {
    load(string);
    in = string + kStatesBytes;
  }

  // The symbols of a step.
  template <bool ALL>
  __m256i step(const SymbolTable& table, const LaneMask& lanes) {
    const __m256i slot = low_bytes(), symbol = symbol_of(table, slot), upper = _mm256_slli_epi16(symbol, 3);
    const __m256i start = lookup_32(table.start_bytes, symbol, upper);
    __m256i frequency[2], rest[2], x[2], is_short[2], byte[2];
    widen(lookup_32(table.frequency_bytes, symbol, upper), frequency);
    widen(_mm256_sub_epi8(slot, start), rest);
    for (int i = 0; i < 2; ++i) {
      const __m256i product = _mm256_mullo_epi16(frequency[i], _mm256_srli_epi16(state[i], 8));
      x[i] = _mm256_add_epi16(product, rest[i]);
      if (!ALL) x[i] = _mm256_blendv_epi8(state[i], x[i], lanes.words[i]);
      is_short[i] = _mm256_cmpeq_epi16(_mm256_srli_epi16(x[i], 8), _mm256_setzero_si256());
      if (!ALL) is_short[i] = _mm256_and_si256(is_short[i], lanes.words[i]);
    }
    const __m256i of_lanes = _mm256_packs_epi16(is_short[0], is_short[1]);
    widen(take(static_cast<std::uint32_t>(_mm256_movemask_epi8(of_lanes))), byte);
    for (int i = 0; i < 2; ++i) {
      const __m256i shifted = _mm256_blendv_epi8(x[i], _mm256_slli_epi16(x[i], 8), is_short[i]);
      state[i] = _mm256_or_si256(shifted, byte[i]);
    }
    return symbol;
  }

  bool ended(const std::uint8_t* end) const {
    const __m256i total = _mm256_set1_epi16(kTotal);
    const __m256i same =
        _mm256_and_si256(_mm256_cmpeq_epi16(state[0], total), _mm256_cmpeq_epi16(state[1], total));
    return in == end && _mm256_movemask_epi8(same) == -1;
  }

 private:
  static __m256i symbol_of(const SymbolTable& table, __m256i slot) {
    const __m256i from = _mm256_xor_si256(slot, _mm256_set1_epi8(-128));
    __m256i known = _mm256_setzero_si256();
#pragma GCC unroll 5
    for (int step = 0; step < 5; ++step) {
      const __m256i least = _mm256_shuffle_epi8(twice(table.search[step]), known);
      known = _mm256_sub_epi8(_mm256_add_epi8(known, known), _mm256_cmpgt_epi8(from, least));
    }
    return _mm256_add_epi8(known, _mm256_set1_epi8(static_cast<char>(table.lowest)));
  }

  // The next bytes, one for each lane that is set.
  __m256i take(std::uint32_t lanes) {
    const std::uint32_t a = lanes & 255, b = lanes >> 8 & 255, c = lanes >> 16 & 255, d = lanes >> 24;
    const std::uint8_t* const of_b = in + __builtin_popcount(a);
    const std::uint8_t* const of_c = in + __builtin_popcount(lanes & 0xFFFF);
    const std::uint8_t* const of_d = in + __builtin_popcount(lanes & 0xFFFFFF);
    const __m256i bytes = _mm256_set_m128i(pair_of(of_c, of_d), pair_of(in, of_b));
    const __m256i places = _mm256_set_m128i(pair_of(kMoves.expand[0][c], kMoves.expand[1][d]),
                                            pair_of(kMoves.expand[0][a], kMoves.expand[1][b]));
    in += __builtin_popcount(lanes);
    return _mm256_shuffle_epi8(bytes, places);
  }
};

}  // namespace
}  // namespace hyperlane
