// The second pass of `int4`'s encoding, a warp a string: rANS from the last symbol to the first.
#pragma once
#include "quant/entropy_window.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kFoursAhead = 4;  // symbols on their way to a lane, four at a time

__host__ __device__ inline unsigned code_bytes(const EntropyView& view) {
  return view.table_count * kSymbols * static_cast<unsigned>(sizeof(SymbolCode));
}
__host__ __device__ inline unsigned table_bytes(const EntropyView& view) {  // each vector's
  return view.symbol_bytes / 8;
}

// A lane's coder; `out` is where the string begins so far, the same in all lanes.
struct Coder {
  unsigned state;
  unsigned char* out;
  unsigned below;  // lanes

  __device__ __forceinline__ void put(const uint2 code, bool present) {
    const bool moved = present && (state << 16 | 0xFFFFFFu) >= code.y;
    const unsigned all = __ballot_sync(kAllLanes, moved);
    out -= __popc(all);
    if (moved) {
      out[__popc(all & below)] = static_cast<unsigned char>(state);
      state >>= 8;
    }
    if (!present) return;
    const unsigned quotient = __umulhi(state, code.x);
    state += quotient * (code.y >> 16 & 0xFF) + (code.y & 0xFFFF);
  }
};

// Walks the fours of a string's rows from the last one back.
struct Fours {
  const unsigned char* symbols;
  const unsigned* row;  // of the string's first
  unsigned symbol_bytes, per_row, lane;
  int at;         // row of the string
  unsigned four;  // of the row

  __device__ __forceinline__ unsigned next() {
    if (at < 0) return 0;
    const unsigned char* from = symbols + static_cast<std::size_t>(row[at]) * symbol_bytes;
    const unsigned found = reinterpret_cast<const unsigned*>(from)[32 * four + lane];
    if (four == 0) {
      four = per_row - 1;
      --at;
    } else {
      --four;
    }
    return found;
  }
};

// `row`: the string's rows, in shared memory; `codes` and `tables` too: [tables][32], and [vectors].
__device__ __forceinline__ void encode_string(const EntropyView& view, const EntropyScratch& scratch,
                                              std::size_t string, const unsigned* row, unsigned row_count,
                                              const uint2* codes, const unsigned* tables, unsigned lane) {
  const unsigned fours = view.symbol_bytes / 128;
  const unsigned last_lanes = view.width - 32 * (view.vector_count - 1);
  unsigned char* end = scratch.strings + (string + 1) * scratch.string_pitch;
  Coder coder{256, end, (1u << lane) - 1};
  Fours source{scratch.symbols, row, view.symbol_bytes, fours, lane, static_cast<int>(row_count) - 1, fours - 1};
  unsigned ahead[kFoursAhead];
#pragma unroll
  for (unsigned i = 0; i < kFoursAhead; ++i) ahead[i] = source.next();
  unsigned four = fours - 1;
  for (unsigned left = row_count * fours; left;) {
#pragma unroll
    for (unsigned i = 0; i < kFoursAhead; ++i) {
      if (!left) break;
      const unsigned symbols = ahead[i];
      ahead[i] = source.next();
      const uint4 table = reinterpret_cast<const uint4*>(tables)[four];
      const unsigned starts[4] = {table.x, table.y, table.z, table.w};
      uint2 code[4];
#pragma unroll
      for (unsigned v = 0; v < 4; ++v) code[v] = codes[kSymbols * starts[v] + (symbols >> 8 * v & 0xFF)];
      if (four + 1 < fours) {
#pragma unroll
        for (int v = 3; v >= 0; --v) coder.put(code[v], true);
      } else {
#pragma unroll
        for (int v = 3; v >= 0; --v) {
          const unsigned vector = 4 * four + v;
          if (vector < view.vector_count)
            coder.put(code[v], vector + 1 < view.vector_count || lane < last_lanes);
        }
      }
      four = four ? four - 1 : fours - 1;
      --left;
    }
  }
  coder.out -= kStatesBytes;
  coder.out[2 * lane] = static_cast<unsigned char>(coder.state);
  coder.out[2 * lane + 1] = static_cast<unsigned char>(coder.state >> 8);
  if (lane == 0) scratch.sizes[string] = static_cast<unsigned>(end - coder.out);
}

}  // namespace
}  // namespace hyperlane
