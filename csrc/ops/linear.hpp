// A linear layer as the graphs have it: up to three weights that read the same rows, with what stands around
// them.
#pragma once
#include <cstdint>
#include <functional>

#include "ops/kernels.hpp"

namespace hyperlane::ops {

constexpr int kMostOutputs = 3;

// Calls a job for each number below `count`, on as many threads as it likes.
using Parallel = std::function<void(int64_t count, const std::function<void(int64_t)>& job)>;

struct Linear {
  Weights weights;                  // of all outputs, one behind another, each padded to whole tiles
  int64_t width;                    // of an input row
  int64_t sizes[kMostOutputs];      // of an output row; 0: no such output
  bool gated = false;               // two weights, gate and up, one output: silu(gate) * up
  float epsilon = 0;                // of the norm
  const float* norm = nullptr;      // [width]: rows pass an RMS norm first
  const float* bias = nullptr;      // [sum of sizes], added to the product
  const float* residual = nullptr;  // [rows, sizes[0]], added last

  // x [rows, width] -> outputs[i] [rows, sizes[i]]
  void run(const float* x, int64_t rows, float* const outputs[kMostOutputs], const Kernels& kernels,
           const Parallel& parallel) const;
};

// Row `index` of a weight as FP32 [width].
void embed(const Weights& weights, int64_t index, int64_t width, float* out);

}  // namespace hyperlane::ops
