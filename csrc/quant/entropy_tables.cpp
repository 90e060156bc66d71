// Makes one boundary's tables of int4 ready for the coders.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "quant/entropy.hpp"
#include "quant/entropy_layout.hpp"

namespace hyperlane {
namespace {

constexpr std::size_t kStringValues = 32768;

void check(bool sound, const char* what) {
  if (!sound) throw std::invalid_argument(what);
}

// floor(x / f) for all x < 256 f by a product, a shift and perhaps a carry. Rounded up, the reciprocal is
// wrong by e / 2^n, e < f, n = 16 + shift; that stays below 1 / f as long as x e < 2^n. Where it does not (28
// large f), the reciprocal rounded down serves, and x + 1, which errs by f - e. A test tries all f and x.
void add_symbol(SymbolTable& table, std::size_t symbol, std::uint32_t f, std::uint32_t start) {
  table.frequency[symbol] = static_cast<std::uint16_t>(f);
  table.frequency_bytes[symbol] = table.frequency_bytes[symbol + kSymbols] = static_cast<std::uint8_t>(f);
  table.start_bytes[symbol] = table.start_bytes[symbol + kSymbols] = static_cast<std::uint8_t>(start);
  const std::uint32_t down = std::min(65536 / f, 65535u);
  table.quotient_bytes[0][symbol] = static_cast<std::uint8_t>(down);
  table.quotient_bytes[1][symbol] = static_cast<std::uint8_t>(down >> 8);
  if (f == 1) {
    table.reciprocal[symbol] = 65535;
    table.add_shift[symbol] = static_cast<std::uint16_t>(start + kTotal - 1);
    return;
  }
  std::uint32_t shift = 0;
  while (2u << shift < f) ++shift;  // 2^16 / f stays below 2^16
  const std::uint32_t power = 65536u << shift;
  const std::uint32_t up = (power + f - 1) / f;
  const bool carry = (256 * f - 1) * static_cast<std::uint64_t>(up * f - power) >= power;
  table.reciprocal[symbol] = static_cast<std::uint16_t>(carry ? power / f : up);
  table.carry[symbol] = carry;
  table.carries |= carry;
  table.add_shift[symbol] = static_cast<std::uint16_t>(start | shift << 12);
}

// A symbol is at least the one that starts at s where slot > s - 1; one that is not there is never reached.
void add_search(SymbolTable& table) {
  for (std::size_t step = 0; step < 5; ++step)
    for (std::size_t known = 0; known < std::size_t{1} << step; ++known) {
      const std::size_t symbol = table.lowest + ((2 * known + 1) << (4 - step));
      const int start = symbol <= table.highest ? table.start_bytes[symbol] : 256;
      table.search[step][known] = static_cast<std::int8_t>(start - 1 - 128);
    }
}

SymbolTable make_table(const std::uint8_t* frequency) {
  SymbolTable table{};
  std::uint32_t start = 0, present = 0;
  for (std::size_t symbol = 0; symbol < kSymbols; ++symbol) {
    const std::uint32_t f = frequency[symbol];
    if (f == 0) continue;
    check(start + f <= kTotal, "frequencies of a table sum to more than 256");
    if (present++ == 0) table.lowest = static_cast<std::uint8_t>(symbol);
    table.highest = static_cast<std::uint8_t>(symbol);
    add_symbol(table, symbol, f, start);
    std::memset(table.symbol + start, static_cast<int>(symbol), f);
    start += f;
  }
  check(start == kTotal, "frequencies of a table do not sum to 256");
  check(table.highest - table.lowest + 1u == present, "a table has a symbol of frequency 0 between others");
  add_search(table);
  return table;
}

void add_order(Entropy& codec, const std::vector<std::uint32_t>& order) {
  const std::size_t padded = codec.mean.size();
  codec.order.assign(padded, 0);
  codec.place.assign(padded, 0xFFFF);
  for (std::size_t place = 0; place < padded; ++place) {
    const std::size_t channel = place < codec.width ? order[place] : place;
    check(channel < padded && channel / kSorted == place / kSorted && codec.place[channel] == 0xFFFF,
          "an order does not sort channels within blocks of 256");
    codec.order[place] = static_cast<std::uint16_t>(channel);
    codec.place[channel] = static_cast<std::uint16_t>(place);
  }
}

void add_tables(Entropy& codec, const EntropyParts& parts) {
  check(parts.table.size() == codec.vectors && parts.frequency.size() % kSymbols == 0,
        "not a table a vector");
  codec.table = parts.table;
  for (std::size_t i = 0; i < parts.frequency.size(); i += kSymbols)
    codec.tables.push_back(make_table(&parts.frequency[i]));
  codec.lowest.assign(codec.mean.size(), -128);
  codec.highest.assign(codec.mean.size(), 127);
  for (std::size_t place = 0; place < codec.width; ++place) {
    const std::size_t of = codec.table[place / kCoders];
    check(of < codec.tables.size(), "a vector's table is not there");
    codec.lowest[place] = static_cast<std::int8_t>(codec.tables[of].lowest - kMiddle);
    codec.highest[place] = static_cast<std::int8_t>(codec.tables[of].highest - kMiddle);
  }
}

void add_low_bits(Entropy& codec) {
  std::uint32_t at = 0;
  for (std::uint32_t vector = 0; vector < codec.vectors; ++vector) {
    codec.first_low.push_back(static_cast<std::uint32_t>(codec.low_bits.size()));
    for (std::uint8_t bit = 0; bit < kMostShift; ++bit) {
      LowBits low{0, vector, 0, at, bit, 0};
      for (std::size_t lane = 0; lane < kCoders && vector * kCoders + lane < codec.width; ++lane)
        if (codec.shift[codec.order[vector * kCoders + lane]] > bit) {
          low.lanes |= 1u << lane;
          low.spread |= std::uint64_t{1} << (2 * lane);
          ++low.count;
        }
      if (low.lanes) codec.low_bits.push_back(low);
      at += low.count;
    }
  }
  codec.first_low.resize(codec.mean.size() / kCoders + 1, static_cast<std::uint32_t>(codec.low_bits.size()));
  codec.head_bytes = 2 + (at + 7) / 8;
}

}  // namespace

Entropy make_entropy(const EntropyParts& parts) {
  Entropy codec{};
  const std::size_t width = parts.mean.size();
  check(0 < width && width < 65536 && parts.step.size() == width && parts.order.size() == width &&
            parts.shift.size() == width,
        "parts of an entropy codec are of different widths");
  const std::size_t padded = (width + kSorted - 1) / kSorted * kSorted;
  codec.width = width;
  codec.vectors = (width + kCoders - 1) / kCoders;
  codec.string_rows = std::max<std::size_t>(kStringValues / (kCoders * codec.vectors), 1);
  codec.most_patches = std::min(width / 32, kMostPatches);
  codec.last_lanes = 0xFFFFFFFFu >> (kCoders * codec.vectors - width);
  codec.limit = parts.limit;
  codec.sixteenfold = parts.sixteenfold;
  codec.id = parts.id;
  codec.mean = parts.mean;
  codec.step = parts.step;
  codec.shift = parts.shift;
  for (float step : parts.step) codec.inverse_step.push_back(1.0f / step);
  for (std::uint8_t shift : parts.shift) check(shift <= kMostShift, "a shift is above 7");
  codec.mean.resize(padded);
  codec.step.resize(padded);
  codec.inverse_step.resize(padded);
  codec.shift.resize(padded);
  add_order(codec, parts.order);
  add_tables(codec, parts);
  add_low_bits(codec);
  add_layout(codec);
  return codec;
}

}  // namespace hyperlane
