// int4 on AVX-512 with VBMI and VBMI2.
#include "quant/isa.hpp"
#ifdef HYPERLANE_X86
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

// Before the target's options: these are shared with files of other targets.
#include "quant/e4m3.hpp"
#include "quant/entropy.hpp"
#include "quant/half.hpp"
#include "quant/raw_rows.hpp"

#pragma GCC push_options
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx2,f16c,bmi,bmi2,popcnt")
#include "quant/entropy_decode_avx512.hpp"
#include "quant/entropy_encode_avx512.hpp"
#include "quant/rans_avx512.hpp"

namespace hyperlane {
namespace {

void encode(const Entropy& codec, std::size_t rows, std::size_t count, const std::uint8_t* const* symbols,
            std::uint8_t* const* rooms, std::size_t* sizes) {
  for (; count >= 2; count -= 2, symbols += 2, rooms += 2, sizes += 2)
    encode_strings<2>(codec, rows, symbols, rooms, sizes);
  if (count) encode_strings<1>(codec, rows, symbols, rooms, sizes);
}

// Strings in pairs; one that has none is decoded twice.
template <int PAIRS>
bool decode_strings(const Entropy& codec, std::size_t rows, std::size_t count, const StringBytes* strings,
                    const CodedRow* coded, bool half, std::uint8_t* room) {
  StringPair pairs[PAIRS];
  const std::size_t pair_bytes = 2 * codec.mean.size();
  const auto other = [count](int pair) { return std::min<std::size_t>(2 * pair + 1, count - 1); };
#pragma GCC unroll 2
  for (int i = 0; i < PAIRS; ++i) pairs[i].start(strings[2 * i].data, strings[other(i)].data);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t vector = 0; vector < codec.vectors; ++vector) {
      const SymbolTable& table = codec.tables[codec.table[vector]];
      const __mmask32 lanes = vector + 1 == codec.vectors ? codec.last_lanes : kAllCoders;
#pragma GCC unroll 2
      for (int i = 0; i < PAIRS; ++i)
        _mm512_storeu_si512(room + static_cast<std::size_t>(i) * pair_bytes + 64 * vector,
                            pairs[i].step(table, lanes));
    }
    for (int i = 0; i < PAIRS; ++i) {
      const CodedRow* first = coded + 2 * static_cast<std::size_t>(i) * rows + row;
      const CodedRow* second = 2 * static_cast<std::size_t>(i) + 1 < count ? first + rows : nullptr;
      const std::uint8_t* symbols = room + static_cast<std::size_t>(i) * pair_bytes;
      if (half)
        write_rows<half_bits>(codec, symbols, first, second);
      else
        write_rows<float>(codec, symbols, first, second);
    }
  }
  bool sound = true;
  for (std::size_t i = 0; i < count; ++i)
    sound &= pairs[i / 2].ended(static_cast<int>(i % 2), strings[i].data + strings[i].size);
  return sound;
}

bool decode(const Entropy& codec, std::size_t rows, std::size_t count, const StringBytes* strings,
            const CodedRow* coded, bool half, std::uint8_t* room) {
  if (count > 2) return decode_strings<2>(codec, rows, count, strings, coded, half, room);
  return decode_strings<1>(codec, rows, count, strings, coded, half, room);
}

}  // namespace

EntropyKernels avx512_entropy_kernels() { return {squares, quantize, encode, decode}; }

}  // namespace hyperlane
#pragma GCC diagnostic pop
#pragma GCC pop_options
#endif
