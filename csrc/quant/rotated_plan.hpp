// One boundary's tables as one relocatable piece of memory, for kernels on a GPU.
#pragma once
#include <cstddef>
#include <cstdint>

namespace hyperlane {

struct PlanBlock {
  std::uint32_t start, size, bits, scale_at, code_at, code_bytes;  // the last three within a coded row
};

// Followed by mean, forward, backward f32[width], order u32[width] (the identity if unsorted),
// PlanBlock[block_count].
struct RotatedPlan {
  std::uint32_t quantizer;  // 0 h4, 2 h8
  std::uint32_t width, block_count, row_bytes, trial_count;
  float limit;
  float trials[4];
  std::uint8_t id[8];
  float levels[16], midpoints[16];  // of h4
};

}  // namespace hyperlane
