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

// A lane's coder; `out` is where the string begins so far, the same in all lanes. Four steps at a time: first
// the states, each of which waits for the one before, then where their bytes go, side by side.
struct Coder {
  unsigned state;
  unsigned char* out;
  unsigned below;  // lanes

  // Steps of vectors 3 to 0; kAll: all are there, else those that are not `present` leave the state as it is.
  template <bool kAll>
  __device__ __forceinline__ void put(const uint2* codes, const bool* present) {
    bool moved[4];
    unsigned before[4];
#pragma unroll
    for (int v = 3; v >= 0; --v) {
      moved[v] = __byte_perm(state, 0xFFFF, 0x7154) >= codes[v].y;  // state >= frequency << 8
      if (!kAll) moved[v] = moved[v] && present[v];
      before[v] = state;
      const unsigned shifted = moved[v] ? state >> 8 : state;
      const unsigned coded = __dp2a_lo(__umulhi(shifted << 8, codes[v].x) | 1u << 16, codes[v].y, shifted);
      state = kAll || present[v] ? coded : state;
    }
    unsigned all[4];
    int at[4];
    int taken = 0;
#pragma unroll
    for (int v = 3; v >= 0; --v) all[v] = __ballot_sync(kAllLanes, moved[v]);
#pragma unroll
    for (int v = 3; v >= 0; --v) {
      taken -= __popc(all[v]);
      at[v] = taken + __popc(all[v] & below);
    }
#pragma unroll
    for (int v = 3; v >= 0; --v)
      if (moved[v]) out[at[v]] = static_cast<unsigned char>(before[v]);
    out += taken;
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

// Ends at `end`; returns its bytes. `symbols`: of all rows; `row`: the string's. `row`, `codes` and `tables`
// lie in shared memory: [tables][32], and [vectors].
__device__ __forceinline__ unsigned encode_string(const EntropyView& view, const unsigned char* symbol_rows,
                                                  unsigned char* end, const unsigned* row, unsigned row_count,
                                                  const uint2* codes, const unsigned* tables, unsigned lane) {
  const unsigned fours = view.symbol_bytes / 128;
  const unsigned last_lanes = view.width - 32 * (view.vector_count - 1);
  const bool regular = view.width % 128 == 0;  // all fours are whole
  Coder coder{256, end, (1u << lane) - 1};
  Fours source{symbol_rows, row, view.symbol_bytes, fours, lane, static_cast<int>(row_count) - 1, fours - 1};
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
      if (regular || four + 1 < fours) {
        coder.put<true>(code, nullptr);
      } else {
        bool present[4];
#pragma unroll
        for (unsigned v = 0; v < 4; ++v) {
          const unsigned vector = 4 * four + v;
          present[v] =
              vector + 1 < view.vector_count || (vector + 1 == view.vector_count && lane < last_lanes);
        }
        coder.put<false>(code, present);
      }
      four = four ? four - 1 : fours - 1;
      --left;
    }
  }
  coder.out -= kStatesBytes;
  coder.out[2 * lane] = static_cast<unsigned char>(coder.state);
  coder.out[2 * lane + 1] = static_cast<unsigned char>(coder.state >> 8);
  return static_cast<unsigned>(end - coder.out);
}

}  // namespace
}  // namespace hyperlane
