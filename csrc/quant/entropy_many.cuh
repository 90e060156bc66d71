// The first pass of `int4`'s encoding where rows are many and of whole blocks of 256: a warp takes four rows at a time,
// so that what the tables say of a channel is read and taken apart once for all four.
#pragma once
#include "quant/entropy_rows.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kManyRows = 4;
constexpr unsigned kBlockBytes = 256;  // of a block's symbols

// Of a warp, in shared memory: symbols of one block of each row; low bits, a word a bit with a byte a row; patches.
struct ManyRoom {
  unsigned char* symbols;
  unsigned char* low;
  Patch* patches;

  __device__ __forceinline__ Patch* patches_of(const EntropyView& view, unsigned row) const {
    return patches + row * view.most_patches;
  }
};

__host__ __device__ inline unsigned many_room_bytes(const EntropyView& view) {
  return kManyRows * (kBlockBytes + low_room_bytes(view) +
                      (static_cast<unsigned>(sizeof(Patch)) * view.most_patches + 15) / 16 * 16);
}

__device__ __forceinline__ ManyRoom many_room(const EntropyView& view, unsigned char* at) {
  unsigned char* low = at + kManyRows * kBlockBytes;
  return {at, low, reinterpret_cast<Patch*>(low + kManyRows * low_room_bytes(view))};
}

template <class T>
using WholeRow = RowOf<T, true>;

// By channel, in shared memory; two channels a word.
struct ManyTables {
  const float4* mean_inverse;
  const uint4* info;
};

// A block of one row again, for its patches, and for bits above the lowest two.
template <class T>
__device__ __noinline__ bool put_rare(const EntropyView& view, const T* row, float inverse_r, float inverse_g,
                                      unsigned first, unsigned lane, unsigned char* low, Patch* patches,
                                      unsigned& patch_count) {
  const WholeRow<T> of{view, row, lane};
  float y[2 * kPairs];
  uint2 info[2 * kPairs];
  Multiple each[2 * kPairs];
#pragma unroll
  for (unsigned i = 0; i < kPairs; ++i) {
    const unsigned at = first + 64 * i + 2 * lane;
    of.steps(at, inverse_r, y + 2 * i);
    const uint4 both = __ldg(reinterpret_cast<const uint4*>(view.info + at));
    info[2 * i] = {both.x, both.y}, info[2 * i + 1] = {both.z, both.w};
  }
#pragma unroll
  for (unsigned i = 0; i < 2 * kPairs; ++i) {
    each[i] = multiple_of(y[i], inverse_g, info[i]);
    const unsigned channel = first + 64 * (i / 2) + 2 * lane + i % 2;
    for (unsigned bit = 2; bit < shift_of(info[i]); ++bit)
      low[kManyRows * __ldg(view.low_at + bit * view.width + channel)] =
          static_cast<unsigned char>(each[i].k >> bit);
  }
  return put_patches(view, each, info, 2 * kPairs, first, lane, patches, patch_count);
}

template <class T>
struct FourRows {
  const T* row[kManyRows];
  float inverse_r[kManyRows], inverse_g[kManyRows];
};

template <class T>
struct Block {
  T of[kManyRows][2 * kPairs];

  __device__ __forceinline__ Block(const FourRows<T>& four, unsigned first, unsigned lane) {
#pragma unroll
    for (unsigned r = 0; r < kManyRows; ++r)
#pragma unroll
      for (unsigned i = 0; i < kPairs; ++i) load_pair(four.row[r] + first + 64 * i + 2 * lane, of[r] + 2 * i);
  }
};

template <class T>
__device__ __forceinline__ void squares_of_four(const EntropyView& view, const FourRows<T>& four, unsigned lane,
                                                float* squares) {
  float even[kManyRows] = {}, odd[kManyRows] = {};
  for (unsigned first = 0; first < view.width; first += 64 * kPairs) {
    const Block<T> block(four, first, lane);
#pragma unroll
    for (unsigned r = 0; r < kManyRows; ++r)
#pragma unroll
      for (unsigned i = 0; i < kPairs; ++i) {
        even[r] = add_square(even[r], widen(block.of[r][2 * i]), T());
        odd[r] = add_square(odd[r], widen(block.of[r][2 * i + 1]), T());
      }
  }
#pragma unroll
  for (unsigned r = 0; r < kManyRows; ++r) squares[r] = halved(even[r], odd[r]);
}

template <class T>
__device__ __forceinline__ void loudness_of_four(const EntropyView& view, const FourRows<T>& four, const ManyTables& tables,
                                                 unsigned lane, float* loudness) {
  float even[kManyRows] = {}, odd[kManyRows] = {};
  for (unsigned first = 0; first < view.width; first += 64 * kPairs) {
    const Block<T> block(four, first, lane);
#pragma unroll
    for (unsigned i = 0; i < kPairs; ++i) {
      const float4 table = tables.mean_inverse[first / 2 + 32 * i + lane];
#pragma unroll
      for (unsigned r = 0; r < kManyRows; ++r) {
        const float low = widen(block.of[r][2 * i]), high = widen(block.of[r][2 * i + 1]);
        even[r] = __fadd_rn(even[r], fabsf(by_step(low, four.inverse_r[r], {table.x, table.y})));
        odd[r] = __fadd_rn(odd[r], fabsf(by_step(high, four.inverse_r[r], {table.z, table.w})));
      }
    }
  }
#pragma unroll
  for (unsigned r = 0; r < kManyRows; ++r) loudness[r] = halved(even[r], odd[r]);
}

// One block of four rows: symbols to the room, low bits too; a row's `rare` is not 0 where it has patches.
template <class T>
__device__ __forceinline__ void put_block(const FourRows<T>& four, const ManyTables& tables, unsigned first,
                                          const ManyRoom& room, unsigned lane, unsigned* rare) {
  const Block<T> block(four, first, lane);
#pragma unroll
  for (unsigned i = 0; i < kPairs; ++i) {
    const float4 table = tables.mean_inverse[first / 2 + 32 * i + lane];
    const uint4 infos = tables.info[first / 2 + 32 * i + lane];
#pragma unroll
    for (unsigned j = 0; j < 2; ++j) {
      const uint2 info = j ? uint2{infos.z, infos.w} : uint2{infos.x, infos.y};
      const float2 mean_inverse = j ? float2{table.z, table.w} : float2{table.x, table.y};
      const unsigned shift = shift_of(info);
      const int lowest = static_cast<int>(info.x >> 16 & 31), highest = static_cast<int>(info.x >> 21 & 31);
      unsigned char* symbols = room.symbols + (info.x & 0xFF);
      unsigned char* low = room.low + kManyRows * (info.y & ((1u << kLowBits) - 1));
      unsigned char* low_1 = low + kManyRows * (info.y >> kLowBits);
      const unsigned deep = shift > 2;
#pragma unroll
      for (unsigned r = 0; r < kManyRows; ++r) {
        const float y = by_step(widen(block.of[r][2 * i + j]), four.inverse_r[r], mean_inverse);
        const int k = __float2int_rn(__fmul_rn(y, four.inverse_g[r]));
        const int symbol = (k >> shift) + static_cast<int>(kMiddle);
        const int coded = min(max(symbol, lowest), highest);
        rare[r] |= static_cast<unsigned>(symbol ^ coded) | deep;
        symbols[kBlockBytes * r] = static_cast<unsigned char>(coded);
        if (shift > 0) low[r] = static_cast<unsigned char>(k);
        if (shift > 1) low_1[r] = static_cast<unsigned char>(k >> 1);
      }
    }
  }
}

// Eight bits of each of four rows a lane, from a word a bit.
__device__ __forceinline__ void write_low_bits_of_four(const EntropyView& view, const EntropyJob& job,
                                                       const unsigned char* low, std::size_t first_row, unsigned rows,
                                                       unsigned lane) {
  const auto* words = reinterpret_cast<const uint4*>(low);
  for (unsigned i = lane; i + 2 < view.head_bytes; i += 32) {
    const uint4 a = words[2 * i], b = words[2 * i + 1];
    const unsigned each[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    unsigned bytes = 0;
#pragma unroll
    for (unsigned bit = 0; bit < 8; ++bit) bytes |= (each[bit] & 0x01010101u) << bit;
#pragma unroll
    for (unsigned r = 0; r < kManyRows; ++r)
      if (r < rows)
        job.scratch.heads[(first_row + r) * job.scratch.head_pitch + 2 + i] =
            static_cast<unsigned char>(bytes >> (8 * r));
  }
}

// Rows `first_row` on, four or what is left.
template <class T>
__device__ __forceinline__ void quantize_four(const EntropyView& view, const EntropyJob& job, const T* rows,
                                              const ManyTables& tables, std::size_t first_row, const ManyRoom& room, unsigned lane) {
  const auto count = static_cast<unsigned>(
      min(static_cast<unsigned long long>(kManyRows), static_cast<unsigned long long>(job.row_count - first_row)));
  FourRows<T> four;
#pragma unroll
  for (unsigned r = 0; r < kManyRows; ++r) four.row[r] = rows + (first_row + min(r, count - 1)) * view.width;
  float found[kManyRows];
  squares_of_four(view, four, lane, found);
  unsigned rms_bits[kManyRows], g[kManyRows], rare_count[kManyRows];
  bool coded[kManyRows];
#pragma unroll
  for (unsigned r = 0; r < kManyRows; ++r) {
    rms_bits[r] = half_bits(__fsqrt_rn(__fdiv_rn(found[r], static_cast<float>(view.width)))) & 0xFFFF;
    const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits[r])));
    coded[r] = r < count && job.positions[first_row + min(r, count - 1)] != 0 && rms <= view.limit &&
               rms >= kSmallestRms && r_byte(rms_bits[r]) <= kLargestR;
    four.inverse_r[r] = coded[r] ? __fdiv_rn(1.0f, r_value(r_byte(rms_bits[r]))) : 0.0f;
    rare_count[r] = 0;
  }
  loudness_of_four(view, four, tables, lane, found);
#pragma unroll
  for (unsigned r = 0; r < kManyRows; ++r) {
    const float sixteenfold = __fmul_rn(found[r], view.sixteenfold);
    coded[r] = coded[r] && sixteenfold <= kLargestScale;
    g[r] = coded[r] ? e4m3_nearest(sixteenfold) : 0;
    four.inverse_g[r] = inverse(e4m3_step(g[r]));
  }
  if (lane < low_room_bytes(view) - view.low_count)  // what fills the last byte is 0
    reinterpret_cast<unsigned*>(room.low)[view.low_count + lane] = 0;
  for (unsigned first = 0; first < view.width; first += 64 * kPairs) {
    unsigned rare[kManyRows] = {};
    put_block(four, tables, first, room, lane, rare);
    __syncwarp();
#pragma unroll
    for (unsigned r = 0; r < kManyRows; ++r) {
      const uint2 eight = reinterpret_cast<const uint2*>(room.symbols + kBlockBytes * r)[lane];
      if (coded[r])
        reinterpret_cast<uint2*>(job.scratch.symbols + (first_row + r) * view.symbol_bytes + first)[lane] = eight;
    }
    if (__any_sync(kAllLanes, (rare[0] | rare[1] | rare[2] | rare[3]) != 0)) {
#pragma unroll
      for (unsigned r = 0; r < kManyRows; ++r)
        if (coded[r] && __any_sync(kAllLanes, rare[r] != 0) &&
            !__all_sync(kAllLanes, put_rare(view, four.row[r], four.inverse_r[r], four.inverse_g[r], first, lane,
                                            room.low + r, room.patches_of(view, r), rare_count[r])))
          rare_count[r] = view.most_patches + 1;
    }
    __syncwarp();
  }
  write_low_bits_of_four(view, job, room.low, first_row, count, lane);
#pragma unroll
  for (unsigned r = 0; r < kManyRows; ++r) {
    if (r >= count) continue;
    const std::size_t index = first_row + r;
    coded[r] = coded[r] && rare_count[r] <= view.most_patches;
    if (coded[r] && rare_count[r])
      write_patches(room.patches_of(view, r), rare_count[r],
                    job.scratch.patches + index * kPatchBytes * view.most_patches, lane);
    const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits[r])));
    const unsigned state = coded[r] ? kCoded : raw_state(four.row[r], view.width, rms, lane);
    if (lane == 0) {
      unsigned char* head = job.scratch.heads + index * job.scratch.head_pitch;
      head[0] = static_cast<unsigned char>(r_byte(rms_bits[r]));
      head[1] = static_cast<unsigned char>(g[r] | (rare_count[r] ? kPatched : 0));
      job.scratch.states[index] = static_cast<unsigned char>(state);
      job.scratch.counts[index] = static_cast<unsigned char>(coded[r] ? rare_count[r] : 0);
    }
  }
  __syncwarp();
}

}  // namespace
}  // namespace hyperlane
