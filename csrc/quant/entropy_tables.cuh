// One boundary's tables as the kernels of `int4` read them: what a host makes of them once, and the plain struct
// of device pointers that every launch takes.
#pragma once
#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hyperlane {

constexpr unsigned kMostShift = 7;
constexpr unsigned kSymbols = 32, kMiddle = 16;
constexpr unsigned kStringValues = 32768;
constexpr unsigned kStatesBytes = 64;  // of a string

// The parts that the host's EntropyCodec is made of.
struct EntropyDeviceParts {
  std::array<std::uint8_t, 8> id;
  float limit, sixteenfold;
  std::vector<float> mean, step;
  std::vector<unsigned> order;
  std::vector<std::uint8_t> shift, table, frequency;
};

// A symbol's division and place: q = umulhi(x, inverse), x -> x + q * (256 - frequency) + start.
struct SymbolCode {
  std::uint32_t inverse;
  std::uint32_t packed;  // frequency << 24 | (256 - frequency) << 16 | start
};

// Symbols of a row stand four vectors together: vector v, lane l at 128 (v / 4) + 4 l + v % 4.
struct EntropyView {
  unsigned width, vector_count, table_count, string_rows, head_bytes, most_patches, low_words;
  unsigned symbol_bytes;  // of a row, a multiple of 128
  float limit, sixteenfold;
  std::uint8_t id[8];
  // By channel, in pairs with room for an odd one:
  const float2 *mean_inverse, *step_mean;
  const unsigned* info;    // where its symbol stands, u16; then shift, lowest and highest symbol: 3, 5, 5 bits
  const unsigned* low_at;  // [7][channels]: where bit b stands among the head's bits
  // By vector:
  const unsigned* table;      // with room for as many as four at a time
  const unsigned* channel_4;  // [vectors / 4][32]: the channels' low bytes of four vectors
  // By table:
  const SymbolCode* codes;  // [32]
  const unsigned* slots;    // [256]: symbol - 16, frequency, slot - start, slot; a byte each
};

// Device memory with the tables. Throws std::runtime_error where CUDA fails, std::invalid_argument where the
// parts don't fit together.
class EntropyDeviceTables {
 public:
  explicit EntropyDeviceTables(const EntropyDeviceParts& parts);
  ~EntropyDeviceTables();
  EntropyDeviceTables(const EntropyDeviceTables&) = delete;
  EntropyDeviceTables& operator=(const EntropyDeviceTables&) = delete;

  const EntropyView& view() const { return view_; }

 private:
  EntropyView view_{};
  void* memory_ = nullptr;
};

}  // namespace hyperlane
