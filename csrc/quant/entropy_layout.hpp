// How bytes lie in registers on their way between channels and places (AVX-512).
//
// Encoding narrows four registers of 16 channels to 64 bytes by two steps that pack within 128 bits: channel
// 16 j + i of 64 is byte 16 (i / 4) + 4 j + i % 4. Decoding two rows at once leaves places 32 v + l of 64 as
// byte 16 (l / 8) + 8 v + l % 8, and takes channel 16 j + i as byte 4 i + j, which one shift widens.
#pragma once
#include "quant/entropy.hpp"

namespace hyperlane {

inline std::size_t packed_channel(std::size_t channel) {
  const std::size_t j = channel % 64 / 16, i = channel % 16;
  return channel / 64 * 64 + 16 * (i / 4) + 4 * j + i % 4;
}

inline std::size_t packed_place(std::size_t place) {
  const std::size_t v = place % 64 / 32, l = place % 32;
  return place / 64 * 64 + 16 * (l / 8) + 8 * v + l % 8;
}

inline std::size_t widened_channel(std::size_t channel) {
  return channel / 64 * 64 + 4 * (channel % 16) + channel % 64 / 16;
}

inline void put(BlockOrder& order, std::size_t to, std::size_t from) {
  order.index[to / 64][to % 64] = static_cast<std::uint8_t>(from % 128);
  if (from >= 128) order.upper[to / 64] |= std::uint64_t{1} << (to % 64);
}

inline void add_layout(Entropy& codec) {
  const std::size_t padded = codec.mean.size();
  codec.sort.assign(padded / kSorted, BlockOrder{});
  codec.unsort.assign(padded / kSorted, BlockOrder{});
  codec.packed_shift.assign(padded, 0);
  codec.place_shift.assign(padded, 0);
  codec.long_shift.assign(codec.shift.begin(), codec.shift.end());
  codec.factor.assign(padded, 1);
  for (std::size_t place = 0; place < padded; ++place) {
    const std::size_t channel = codec.order[place];
    const std::size_t block = place / kSorted, in = place % kSorted, out = channel % kSorted;
    put(codec.sort[block], in, packed_channel(out));
    put(codec.unsort[block], widened_channel(out), packed_place(in));
    codec.place_shift[place] = codec.shift[channel];
    codec.factor[place] = static_cast<std::int16_t>(1 << codec.shift[channel]);
    if (codec.shift[channel] > kMostByteShift) codec.wide.push_back(place);
  }
  for (std::size_t channel = 0; channel < padded; ++channel) {
    // As words, the channels of two registers after the first packing.
    const std::size_t j = channel % 64 / 16, i = channel % 16;
    codec.packed_shift[channel / 64 * 64 + 32 * (j / 2) + 8 * (i / 4) + 4 * (j % 2) + i % 4] =
        codec.shift[channel];
  }
}

}  // namespace hyperlane
