// One boundary's tables as the rotated codecs' kernels read them: what a host makes of them once, and the
// plain struct of device pointers that every launch takes.
#pragma once
#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hyperlane {

constexpr unsigned kBlockSize = 64;
constexpr unsigned kTrellisLanes = 16;
constexpr float kLoudError = 25.0f;  // the squared error of a value above 10 times its row's RMS is more

enum class DeviceQuantizer : unsigned { nf4, trellis, bytes };  // h4, int4, h8

struct DeviceBlock {
  unsigned start, size, bits, scale_at, code_at, code_bytes;  // the last three within a coded row
};

// Whole blocks of one number of bits that follow each other: blocks first to first + count.
struct BlockRun {
  unsigned bits, first, count;
};

// The values of a step, by int4's search: `count` from place `start`, in a block of `bits` bits.
struct StepInfo {
  unsigned start;
  std::uint16_t bits, count;
};

// Where a step of int4's search keeps its words: block 4 times, and which of the block's steps it is.
using StepPlace = std::uint16_t;

struct RotatedView {
  DeviceQuantizer quantizer;
  unsigned width, block_count, whole_count;  // blocks in all; blocks of 64, which come first
  unsigned row_bytes, scale_count, trial_count;
  float limit, trials[4];
  std::uint8_t id[8];
  float nf4[16], nf4_midpoints[16];

  const DeviceBlock* blocks;
  // In the order of the blocks: [width].
  const float *mean, *forward, *backward;
  const unsigned* order;  // the channel at a place; the identity for h4 and h8
  // A thread a whole block, four values at a time: float4 [16][whole_count].
  const float4 *mean_by_block, *forward_by_block, *backward_by_block;
  const uint4* order_by_block;   // int4: u16 channels, eight at a time: [8][whole_count]
  const unsigned* block_before;  // int4: code_at of the last block with bits before a whole block, or 0

  // int4 only. Sixteen lanes a block, lane l with values l, 16 + l, 32 + l and 48 + l: float4
  // [block_count][16].
  const float4 *mean_by_lane, *forward_by_lane;
  const unsigned* slot;  // of a channel: 64 block + 4 lane + step
  bool guessable;        // what the search leaves of a usual row is so little that a loud value stands out
  unsigned coded_values;
  const std::uint16_t* coded;  // the whole blocks that have bits
  const BlockRun* runs;
  unsigned coded_count, run_count, step_count;
  const StepPlace* steps;
  const StepInfo* step_infos;
  const unsigned* first_step;   // of a block
  const unsigned char* search;  // SearchTables' image, [kSearchBytes]
  const float* levels;          // [256][32]: level i of b bits stands at 2^(b + 1) + i, once a lane
};

// The parts that the host's RotatedCodec is made of.
struct RotatedParts {
  DeviceQuantizer quantizer;
  std::array<std::uint8_t, 8> id;
  float limit;
  std::vector<float> mean, forward, backward;
  std::vector<unsigned> order;                     // empty: unsorted
  std::vector<std::array<std::size_t, 3>> blocks;  // start, size, bits
  std::vector<std::vector<float>> books;
  std::vector<float> trials;
};

// Device memory with the tables. Throws std::runtime_error where CUDA fails, std::invalid_argument where the
// parts don't fit together.
class RotatedTables {
 public:
  explicit RotatedTables(const RotatedParts& parts);
  ~RotatedTables();
  RotatedTables(const RotatedTables&) = delete;
  RotatedTables& operator=(const RotatedTables&) = delete;

  const RotatedView& view() const { return view_; }

 private:
  RotatedView view_{};
  void* memory_ = nullptr;
};

// ---- int4's search for the nearest levels: an image for shared memory
//
// A bucket of a value holds at most one threshold; an entry tells it, and where the four levels are that are
// nearest to a value at or below it. The next 4 levels, one place on, are nearest to a value above it. Up to
// 4 bits each lane has its own copy, so that no two meet in a bank.

struct SearchEntry {
  float threshold;
  std::uint32_t nearest;  // offset in the image; for 5 and 6 bits the number of thresholds below the bucket
};

constexpr unsigned kCopiedBits = 4;  // and fewer
__host__ __device__ constexpr unsigned search_buckets(unsigned bits) {
  return bits == 2 ? 16 : bits == 3 ? 32 : bits == 4 ? 64 : bits == 5 ? 256 : bits == 6 ? 512 : 0;
}
__host__ __device__ constexpr unsigned search_stride(unsigned bits) {
  return bits <= kCopiedBits ? 16 * 8 : 8;
}
__host__ __device__ constexpr unsigned search_start(unsigned bits) {
  unsigned at = 0;
  for (unsigned b = 2; b < bits; ++b) at += search_buckets(b) * search_stride(b);
  return at;
}
// Levels of 4 bits take the first half of each 256 bytes, those of 1, 2 and 3 bits the second halves: eight
// copies of float4, and the second byte of an offset counts.
constexpr unsigned kNearestStart = (search_start(7) + 255) / 256 * 256;
__host__ __device__ constexpr unsigned nearest_count(unsigned bits) { return (2u << bits) - 3; }
__host__ __device__ constexpr unsigned nearest_row(unsigned bits) {
  return bits == 2 ? 1 : bits == 3 ? 6 : 0;
}
__host__ __device__ constexpr unsigned nearest_start(unsigned bits) {
  if (bits <= kCopiedBits) return kNearestStart + 256 * nearest_row(bits) + (bits < kCopiedBits ? 128 : 0);
  const unsigned five = kNearestStart + 256 * nearest_count(4);
  return bits == 5 ? five : five + 16 * nearest_count(5);
}
__host__ __device__ constexpr unsigned nearest_stride(unsigned bits) {
  return bits <= kCopiedBits ? 256 : 16;
}
constexpr unsigned kSearchBytes = (nearest_start(6) + 16 * nearest_count(6) + 255) / 256 * 256;

// Adding it leaves an integer in the low bits of a float.
constexpr float kIntegerAbove = 8388608.0f;

// A bucket is saturate(fma(value, spread, 0.5)) times the number of the last bucket, rounded.
__host__ __device__ constexpr float search_spread(unsigned bits) {
  // A little beyond the outermost thresholds of codebooks.py's levels.
  return bits == 2 ? 1 / 2.0f : bits == 3 ? 1 / 3.6f : bits == 4 ? 1 / 5.4f : bits == 5 ? 1 / 6.8f : 1 / 8.0f;
}

}  // namespace hyperlane
