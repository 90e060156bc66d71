#include <cmath>
#include <cstring>

#include "ops/kernels.hpp"
#include "ops/numbers.hpp"

namespace hyperlane::ops {
namespace {

float halved(float (&lanes)[16]) {  // lane i with i + 8, then i + 4, i + 2, i + 1
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

void norm(const float* x, const float* weight, float epsilon, int64_t width, float* out) {
  float lanes[16] = {};
  for (int64_t k = 0; k < width; ++k) lanes[k % 16] += x[k] * x[k];
  const float inverse = 1.0f / std::sqrt(halved(lanes) / static_cast<float>(width) + epsilon);
  for (int64_t k = 0; k < width; ++k) out[k] = (x[k] * inverse) * weight[k];
}

void quantize(const float* x, int64_t width, bool interleaved, int8_t* codes, float* scales, int32_t* totals,
              float* sums) {
  for (int64_t b = 0; b * kBlock < width; ++b) {
    float block[kBlock] = {};
    const int64_t count = width - b * kBlock < kBlock ? width - b * kBlock : kBlock;
    std::memcpy(block, x + b * kBlock, count * sizeof(float));
    uint32_t largest = 0;
    for (float value : block) largest = std::max(largest, float_to_bits(value) & 0x7fffffffu);
    const BlockScale scale = block_scale(largest);
    int32_t total = 0;
    for (int k = 0; k < kBlock; ++k) {
      const int code = scale.usable ? static_cast<int>(round_even(block[k] * scale.inverse)) : 0;
      codes[b * kBlock + (interleaved ? interleaved_place(k) : k)] = static_cast<int8_t>(code);
      total += code;
    }
    scales[b] = scale.scale;
    totals[b] = total;
    sums[b] = scale.scale * static_cast<float>(total);
  }
}

int32_t dot(const Weights& weights, const uint8_t* block, int n, const int8_t* codes) {
  int32_t sum = 0;
  if (weights.bits == 8) {
    for (int k = 0; k < kBlock; ++k) sum += block[k / 4 * 64 + n * 4 + k % 4] * codes[k];
    return sum;
  }
  for (int k = 0; k < kBlock; ++k) {  // in each 8: low nibbles of 4 bytes, then their high ones
    const uint8_t byte = block[k / 8 * 64 + n * 4 + k % 4];
    sum += (k % 8 < 4 ? byte & 15 : byte >> 4) * codes[k];
  }
  return sum;
}

void tile(const Weights& weights, int64_t tile, const Rows& rows, int64_t first, int64_t count, float* out) {
  const int64_t block_bytes = kTile * kBlock * weights.bits / 8;
  const uint8_t* codes = weights.codes + tile * weights.tile_bytes();
  const int32_t middle = 1 << (weights.bits - 1);
  for (int64_t r = 0; r < count; ++r)
    for (int n = 0; n < kTile; ++n) {
      float sum = 0;
      for (int64_t b = 0; b < weights.blocks; ++b) {
        const int64_t at = (first + r) * rows.blocks + b, place = (tile * weights.blocks + b) * kTile + n;
        int32_t product = dot(weights, codes + b * block_bytes, n, rows.codes + at * kBlock);
        if (weights.minima == nullptr) product -= middle * rows.totals[at];
        sum += (static_cast<float>(product) * half_to_float(weights.scales[place])) * rows.scales[at];
        if (weights.minima != nullptr) sum += half_to_float(weights.minima[place]) * rows.sums[at];
      }
      out[r * kTile + n] = sum;
    }
}

void gate(const float* gate, const float* up, float* out) {
  for (int i = 0; i < kTile; ++i) out[i] = (gate[i] / (1.0f + exponential(-gate[i]))) * up[i];
}

float largest(const float* x, int64_t count) {
  float found = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) found = x[i] > found ? x[i] : found;
  return found;
}

float exponential_sum(const float* x, int64_t count, float offset) {
  float lanes[16] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i % 16] += exponential(x[i] - offset);
  return halved(lanes);
}

}  // namespace

const Kernels kScalar = {norm, quantize, tile, gate, largest, exponential_sum};

}  // namespace hyperlane::ops
