#include "ops/linear.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "quant/half.hpp"

namespace hyperlane::ops {
namespace {

constexpr int64_t kRowsAtOnce = 64;  // whose products of a tile stay in the first cache
constexpr int64_t kTilesAtOnce = 4;  // a thread's least work

int64_t tiles_of(int64_t size) { return (size + kTile - 1) / kTile; }

// The quantized rows of a call. Memory is kept from call to call: a session calls from one thread.
struct Scratch {
  std::vector<float> normed, scales, sums;
  std::vector<int8_t> codes;
  std::vector<int32_t> totals;

  void fit(int64_t rows, int64_t width, int64_t blocks, bool norm) {
    const auto grow = [](auto& memory, int64_t size) {
      if (static_cast<int64_t>(memory.size()) < size) memory.resize(size);
    };
    if (norm) grow(normed, rows * width);
    grow(scales, rows * blocks), grow(sums, rows * blocks), grow(totals, rows * blocks);
    grow(codes, rows * blocks * kBlock);
  }
};

void prepare_row(const Linear& linear, const float* x, int64_t row, const Kernels& kernels,
                 Scratch& scratch) {
  const int64_t at = row * linear.weights.blocks;
  const float* values = x + row * linear.width;
  if (linear.norm != nullptr) {
    float* normed = scratch.normed.data() + row * linear.width;
    kernels.norm(values, linear.norm, linear.epsilon, linear.width, normed);
    values = normed;
  }
  kernels.quantize(values, linear.width, linear.weights.bits == 4, scratch.codes.data() + at * kBlock,
                   scratch.scales.data() + at, scratch.totals.data() + at, scratch.sums.data() + at);
}

// Where a tile's columns go.
struct Target {
  float* out;
  const float *bias, *residual;
  int64_t stride, columns;
};

Target target_of(const Linear& linear, int64_t tile, float* const outputs[kMostOutputs]) {
  int64_t before = 0;
  int output = 0;
  while (tile >= tiles_of(linear.sizes[output])) {
    tile -= tiles_of(linear.sizes[output]);
    before += linear.sizes[output++];
  }
  const int64_t size = linear.sizes[output], column = tile * kTile;
  const float* bias = linear.bias == nullptr ? nullptr : linear.bias + before + column;
  const float* residual = linear.residual == nullptr ? nullptr : linear.residual + column;
  return {outputs[output] + column, bias, residual, size, std::min(kTile, size - column)};
}

void store(const Target& target, int64_t first, int64_t count, const float* products) {
  for (int64_t r = 0; r < count; ++r) {
    float* out = target.out + (first + r) * target.stride;
    const float* residual =
        target.residual == nullptr ? nullptr : target.residual + (first + r) * target.stride;
    for (int64_t n = 0; n < target.columns; ++n) {
      float value = products[r * kTile + n];
      if (target.bias != nullptr) value += target.bias[n];
      if (residual != nullptr) value += residual[n];
      out[n] = value;
    }
  }
}

}  // namespace

void Linear::run(const float* x, int64_t count, float* const outputs[kMostOutputs], const Kernels& kernels,
                 const Parallel& parallel) const {
  thread_local Scratch scratch;
  Scratch& own = scratch;  // the threads of `parallel` must not take their own
  own.fit(count, width, weights.blocks, norm != nullptr);
  const auto prepare = [&](int64_t row) { prepare_row(*this, x, row, kernels, own); };
  if (count < 8)
    for (int64_t row = 0; row < count; ++row) prepare(row);
  else
    parallel(count, prepare);
  const Rows rows = {count,          weights.blocks, own.codes.data(), own.scales.data(), own.totals.data(),
                     own.sums.data()};
  const int64_t tiles = gated ? weights.tiles / 2 : weights.tiles;
  parallel((tiles + kTilesAtOnce - 1) / kTilesAtOnce, [&](int64_t group) {
    float products[kRowsAtOnce * kTile], up[kRowsAtOnce * kTile];
    for (int64_t tile = group * kTilesAtOnce; tile < std::min(tiles, (group + 1) * kTilesAtOnce); ++tile) {
      const Target target = target_of(*this, tile, outputs);
      for (int64_t first = 0; first < count; first += kRowsAtOnce) {
        const int64_t some = std::min(kRowsAtOnce, count - first);
        kernels.tile(weights, tile, rows, first, some, products);
        if (gated) {
          kernels.tile(weights, tiles + tile, rows, first, some, up);
          for (int64_t r = 0; r < some; ++r)
            kernels.gate(products + r * kTile, up + r * kTile, products + r * kTile);
        }
        store(target, first, some, products);
      }
    }
  });
}

void embed(const Weights& weights, int64_t index, int64_t width, float* out) {
  const int64_t tile = index / kTile, n = index % kTile;
  const uint8_t* codes = weights.codes + tile * weights.tile_bytes() + n * 4;
  const int64_t block_bytes = kTile * kBlock * weights.bits / 8;
  for (int64_t k = 0; k < width; ++k) {
    const int64_t b = k / kBlock, i = k % kBlock, place = (tile * weights.blocks + b) * kTile + n;
    const uint8_t* block = codes + b * block_bytes;
    const uint8_t byte = weights.bits == 8 ? block[i / 4 * 64 + i % 4] : block[i / 8 * 64 + i % 8 / 2];
    const int code = weights.bits == 8 ? byte : i % 2 == 0 ? byte & 15 : byte >> 4;
    const float scale = half_to_float(weights.scales[place]);
    out[k] = weights.minima == nullptr
                 ? static_cast<float>(code - (1 << (weights.bits - 1))) * scale
                 : static_cast<float>(code) * scale + half_to_float(weights.minima[place]);
  }
}

}  // namespace hyperlane::ops
