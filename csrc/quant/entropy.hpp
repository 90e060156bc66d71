// int4; hyperlane/transport/codec/entropy.py is the specification, which this matches bit for bit: FP32,
// every operation rounded, none fused, sums in the reference's order.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "quant/half.hpp"
#include "quant/isa.hpp"

namespace hyperlane {

constexpr std::size_t kCoders = 32;   // rANS coders of a string, a lane of a vector each
constexpr std::size_t kSymbols = 32;  // of a table
constexpr std::size_t kSorted = 256;  // channels are in the tables' order within blocks of so many
constexpr int kMiddle = 16;           // the symbol of 0
constexpr int kMostShift = 7;
constexpr std::uint8_t kMostByteShift = 3;  // a symbol shifted by so much stays a byte
constexpr std::uint32_t kTotal = 256;       // what frequencies sum to
constexpr std::uint8_t kPatched = 128;      // in the byte of g
constexpr int kLargestR = 247;
constexpr std::size_t kStatesBytes = 2 * kCoders;
constexpr std::size_t kMostPatches = 255;

// What coders know of a table, by symbol.
//
// A state x becomes x' + q (256 - f) + start, where q = x' / f = ((x' + carry) * reciprocal >> 16) >> shift.
// For f of 1 that gives q - 1, and `add`, elsewhere start, makes up for it; see entropy_tables.cpp.
struct alignas(64) SymbolTable {
  std::uint16_t frequency[kSymbols];
  std::uint16_t reciprocal[kSymbols];
  std::uint16_t add_shift[kSymbols];  // add + (shift << 12)
  std::uint16_t carry[kSymbols];
  alignas(64) std::uint8_t symbol[kTotal];       // by slot
  alignas(64) std::uint8_t frequency_bytes[64];  // twice the 32
  alignas(64) std::uint8_t start_bytes[64];      // twice the 32
  // For AVX2: 65536 / f rounded down (65535 for f of 1), low and high bytes; and a search for a slot's
  // symbol, less `lowest`, a bit a step from the most significant: what slot - 128 is compared with, by the
  // bits known.
  alignas(32) std::uint8_t quotient_bytes[2][kSymbols];
  alignas(16) std::int8_t search[5][16];
  bool carries;                  // some carry is not 0
  std::uint8_t lowest, highest;  // symbols that the table has
};

// One bit of the values of a vector that goes as it is, for `lanes`; `at` counts bits in the head, behind r
// and g.
struct LowBits {
  std::uint64_t spread;  // the lanes, as even bits
  std::uint32_t vector, lanes, at;
  std::uint8_t bit, count;
};

// The order within a block of 256 bytes, for two-register permutations of 64 bytes each: byte i of register j
// comes from place index[j][i] of the first 128 bytes, or, where bit i of upper[j] is set, of the second.
struct alignas(64) BlockOrder {
  std::uint8_t index[4][64];
  std::uint64_t upper[4];
};

// One boundary's tables, made ready. Arrays by channel or place are padded to whole blocks of 256.
struct Entropy {
  std::size_t width, vectors, string_rows, head_bytes, most_patches;
  std::uint32_t last_lanes;                     // that the last vector has
  float limit;                                  // rows of a larger RMS are sent as they are
  float sixteenfold;                            // 16 / (width * loudness)
  std::array<std::uint8_t, 8> id;               // of the tables
  std::vector<float> mean, step, inverse_step;  // by channel
  std::vector<std::uint8_t> shift;              // by channel
  std::vector<std::uint16_t> order, place;      // place -> channel, and back
  std::vector<std::int8_t> lowest, highest;     // by place: k >> shift that its table has
  std::vector<std::uint8_t> table;              // by vector
  std::vector<SymbolTable> tables;
  std::vector<LowBits> low_bits;
  std::vector<std::uint32_t> first_low;  // by vector of whole blocks, and the end
  // For AVX-512; see entropy_layout.hpp.
  std::vector<BlockOrder> sort, unsort;                  // by block
  std::vector<std::uint16_t> packed_shift, place_shift;  // by packed channel; by place
  std::vector<std::size_t> wide;                         // places of shifts that leave no byte
  std::vector<std::int32_t> long_shift;                  // for AVX2: by channel
  std::vector<std::int16_t> factor;                      // for AVX2: by place, 2^shift
};

struct Patch {
  std::uint16_t channel;
  std::int8_t rest;  // k >> shift
};

// A row, and how it travels.
struct QuantizedRow {
  const void* source;
  std::uint8_t r;
  std::uint8_t* head;     // head_bytes, with room for 8 more
  std::uint8_t* symbols;  // 32 a vector, in their order
  Patch* patches;         // with room for most_patches
  std::size_t patch_count;
  bool fits;  // false where the format cannot hold it
};

constexpr std::size_t kRowsAtOnce = 8;

// A string for decoding.
struct StringBytes {
  const std::uint8_t* data;  // with at least string_reach() bytes readable
  std::size_t size;          // at least kStatesBytes
};

struct CodedRow {
  const std::uint8_t* head;  // with 8 more bytes readable
  void* out;
};

constexpr std::size_t kStringsAtOnce = 8;  // that are decoded
constexpr std::size_t kEncodedAtOnce = 4;

// What the string of so many rows takes at most, and the vectors that kernels move at its end.
inline std::size_t string_reach(const Entropy& codec, std::size_t rows) {
  return kStatesBytes + kCoders * (rows * codec.vectors + 2);
}

// What differs between instruction sets.
struct EntropyKernels {
  // The sum of the squares of a row.
  float (*squares)(const void* values, bool half, std::size_t width);
  // One to kRowsAtOnce rows of finite values to what travels.
  void (*quantize)(const Entropy& codec, bool half, std::size_t count, QuantizedRow* rows);
  // `count` strings of `rows` rows each, one to kEncodedAtOnce of them: sizes, and each to the end of its
  // room of string_reach() bytes.
  void (*encode)(const Entropy& codec, std::size_t rows, std::size_t count,
                 const std::uint8_t* const* symbols, std::uint8_t* const* rooms, std::size_t* sizes);
  // Back to rows, without their patches; `coded` has those of the first string, then of the next, and so on.
  // False for strings that do not end where they should. `room` takes room_bytes().
  bool (*decode)(const Entropy& codec, std::size_t rows, std::size_t count, const StringBytes* strings,
                 const CodedRow* coded, bool half, std::uint8_t* room);
};

inline std::size_t room_bytes(const Entropy& codec) { return kStringsAtOnce * (codec.mean.size() + kSorted); }

struct EntropyParts {
  std::array<std::uint8_t, 8> id;
  float limit, sixteenfold;
  std::vector<float> mean, step;
  std::vector<std::uint32_t> order;
  std::vector<std::uint8_t> shift, table, frequency;  // by channel, by vector, 32 a table
};

// Throws std::invalid_argument where the parts do not fit each other.
Entropy make_entropy(const EntropyParts& parts);

EntropyKernels scalar_entropy_kernels();
#ifdef HYPERLANE_X86
EntropyKernels avx2_entropy_kernels();
EntropyKernels avx512_entropy_kernels();  // takes VBMI and VBMI2 too
#endif

}  // namespace hyperlane
