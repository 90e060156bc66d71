// int4 on AVX2.
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
#pragma GCC target("avx2,f16c,bmi,bmi2,popcnt")
#include "quant/entropy_decode_avx2.hpp"
#include "quant/entropy_encode_avx2.hpp"
#include "quant/rans_avx2.hpp"

namespace hyperlane {
namespace {

void encode(const Entropy& codec, std::size_t rows, std::size_t count, const std::uint8_t* const* symbols,
            std::uint8_t* const* rooms, std::size_t* sizes) {
  for (; count >= 2; count -= 2, symbols += 2, rooms += 2, sizes += 2)
    encode_strings<2>(codec, rows, symbols, rooms, sizes);
  if (count) encode_strings<1>(codec, rows, symbols, rooms, sizes);
}

// The symbols of a row of each string, `stride` apart.
void read_row(const Entropy& codec, std::size_t count, StringDecoder* strings, const LaneMask& last,
              std::size_t stride, std::uint8_t* symbols) {
  for (std::size_t vector = 0; vector < codec.vectors; ++vector) {
    const SymbolTable& table = codec.tables[codec.table[vector]];
    const bool whole = last.bits == 0xFFFFFFFF || vector + 1 < codec.vectors;
    for (std::size_t i = 0; i < count; ++i) {
      const __m256i of = whole ? strings[i].step<true>(table, last) : strings[i].step<false>(table, last);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols + i * stride + kCoders * vector), of);
    }
  }
}

bool decode(const Entropy& codec, std::size_t rows, std::size_t count, const StringBytes* strings,
            const CodedRow* coded, bool half, std::uint8_t* room) {
  StringDecoder decoders[kStringsAtOnce];
  const LaneMask last(codec.last_lanes);
  const std::size_t stride = codec.mean.size();
  for (std::size_t i = 0; i < count; ++i) decoders[i].start(strings[i].data);
  for (std::size_t row = 0; row < rows; ++row) {
    read_row(codec, count, decoders, last, stride, room);
    const CodedRow* of_strings[kStringsAtOnce];
    for (std::size_t i = 0; i < count; ++i) of_strings[i] = coded + i * rows + row;
    if (half)
      write_rows<half_bits>(codec, room, stride, count, of_strings);
    else
      write_rows<float>(codec, room, stride, count, of_strings);
  }
  bool sound = true;
  for (std::size_t i = 0; i < count; ++i) sound &= decoders[i].ended(strings[i].data + strings[i].size);
  return sound;
}

}  // namespace

EntropyKernels avx2_entropy_kernels() { return {squares, quantize, encode, decode}; }

}  // namespace hyperlane
#pragma GCC pop_options
#endif
