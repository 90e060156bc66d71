// The 4-state trellis code of int4; hyperlane/transport/codec/trellis.py is the specification. Sixteen lanes
// step together, and what a step knows of them is 16 bits a word, so that the way back is a few logical
// operations.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/rotated_block.hpp"

namespace hyperlane {
namespace {

constexpr std::size_t kLanes = 16;
constexpr int kStates = 4;     // 2 p1 + p2
constexpr float kFar = 1e30f;  // of states that no path has reached

// One step of 16 lanes: by new state, whether the better path came over p2 = 1.
struct Step {
  std::uint16_t over[kStates];
};

// The best paths, 16 bits a step: the path's own bit, and the two of its subset.
struct Path {
  std::uint16_t *bit, *high, *low;
};

inline std::uint32_t mux(std::uint32_t which, std::uint32_t yes, std::uint32_t no) {
  return no ^ ((yes ^ no) & which);
}

// From the end states (their p1, their p2, a bit a lane) back through all steps.
inline void trace_back(std::uint32_t p, std::uint32_t p1, const Step* steps, std::size_t count,
                       const Path& path) {
  for (std::size_t i = count; i-- > 0;) {
    const std::uint16_t* over = steps[i].over;
    const std::uint32_t p2 = mux(p1, mux(p, over[3], over[1]), mux(p, over[2], over[0]));
    path.bit[i] = static_cast<std::uint16_t>(p);
    path.high[i] = static_cast<std::uint16_t>(p ^ p2);
    path.low[i] = static_cast<std::uint16_t>(p1);
    p = p1;
    p1 = p2;
  }
}

// What a row's search works in.
struct TrellisRoom {
  std::uint8_t* below;  // by lane of a step: how many midpoints lie below its value
  Step* steps;
  Path path;
};

// In two arrays of floats, each as long as a padded row.
inline TrellisRoom trellis_room(const Rotated& codec, float* room) {
  const std::size_t steps = codec.mean.size() / kLanes;
  auto* first = reinterpret_cast<Step*>(room + codec.mean.size());
  auto* bit = reinterpret_cast<std::uint16_t*>(first + steps);
  return {reinterpret_cast<std::uint8_t*>(room), first, {bit, bit + steps, bit + 2 * steps}};
}

inline std::size_t step_count(const Block& block) { return (block.size + kLanes - 1) / kLanes; }

// One step of `count` lanes in plain C++. `below` gets how many midpoints lie below each.
inline void advance(const Trellis& book, int bits, const float* values, std::size_t count, float inverse,
                    float (*cost)[kLanes], std::uint8_t* below, Step& step) {
  std::memset(&step, 0, sizeof step);
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    float error[kStates] = {}, next[kStates];
    below[lane] = 0;
    if (lane < count) {
      const float value = values[lane] * inverse;
      below[lane] = static_cast<std::uint8_t>(search(book.below, bits + 1, value));
      for (std::uint32_t subset = 0; subset < 4; ++subset) {
        const float wrong = value - book.subsets[subset][(below[lane] + 3 - subset) >> 2];
        error[subset] = wrong * wrong;
      }
    }
    for (int state = 0; state < kStates; ++state) {
      const int p = state >> 1, p1 = state & 1;
      const float without = cost[2 * p1][lane] + error[2 * p + p1];
      const float over = cost[2 * p1 + 1][lane] + error[2 * (1 - p) + p1];
      step.over[state] |= static_cast<std::uint16_t>((over < without) << lane);
      next[state] = std::min(over, without);
    }
    for (int state = 0; state < kStates; ++state) cost[state][lane] = next[state];
  }
}

// The codes of a block whose steps begin at `first`, as bit planes.
inline void write_codes(const Block& block, const TrellisRoom& room, std::size_t first, std::uint8_t* codes) {
  std::fill(codes, codes + block.code_bytes, std::uint8_t{0});
  for (std::size_t i = 0; i < block.size; ++i) {
    const std::size_t step = first + i / kLanes, lane = i % kLanes;
    const auto bit = [&](const std::uint16_t* of) {
      return static_cast<std::uint32_t>(of[step] >> lane) & 1;
    };
    const std::uint32_t below = room.below[step * kLanes + lane];
    const std::uint32_t index = (below + 3 - 2 * bit(room.path.high) - bit(room.path.low)) >> 2;
    const std::uint32_t code = (bit(room.path.bit) << (block.bits - 1)) | index;
    for (int plane = 0; plane < block.bits; ++plane) {
      const std::size_t at = static_cast<std::size_t>(plane) * block.size + i;
      codes[at / 8] |= static_cast<std::uint8_t>(((code >> (block.bits - 1 - plane)) & 1) << (at % 8));
    }
  }
}

// The levels of a block's codes. `past` holds the path bits of the last 64 values, the latest on top.
inline void read_levels(const Trellis& book, const Block& block, const std::uint8_t* codes,
                        std::uint64_t& past, float* values) {
  for (std::size_t start = 0; start < block.size; start += kLanes) {
    std::uint64_t path = 0;
    for (std::size_t i = start; i < std::min(start + kLanes, block.size); ++i) {
      std::uint32_t code = 0;
      for (int plane = 0; plane < block.bits; ++plane) {
        const std::size_t at = static_cast<std::size_t>(plane) * block.size + i;
        code = 2 * code + ((codes[at / 8] >> (at % 8)) & 1);
      }
      const std::size_t lane = i - start;
      const std::uint32_t p = code >> (block.bits - 1), index = code & ((1u << (block.bits - 1)) - 1);
      const auto p1 = static_cast<std::uint32_t>(past >> (48 + lane)) & 1;
      const auto p2 = static_cast<std::uint32_t>(past >> (32 + lane)) & 1;
      values[i] = book.levels[4 * index + 2 * (p ^ p2) + p1];
      path |= static_cast<std::uint64_t>(p) << lane;
    }
    past = (past >> kLanes) | (path << 48);
  }
}

inline void decode_trellis(const Rotated& codec, const Block& block, float step, const std::uint8_t* codes,
                           std::uint64_t& past, float* values) {
  read_levels(codec.trellises[block.bits], block, codes, past, values);
  for (std::size_t i = 0; i < block.size; ++i) values[i] *= step;
}

}  // namespace
}  // namespace hyperlane
