// Blocks of the rotated codecs on one warp: lane i holds values i and 32 + i. The arithmetic of
// rotated_block.hpp.
#pragma once
#include "quant/device_math.cuh"
#include "quant/rotated_tables.cuh"

namespace hyperlane {
namespace {

constexpr float kLargestScale = 448.0f;

struct Pair {
  float low, high;
};

__device__ float halving_sum(Pair v) {
  float sum = v.low + v.high;
  for (int half = 16; half; half /= 2) sum += __shfl_xor_sync(kAllLanes, sum, half);
  return sum;
}

// Of the first `size` values; the others stay as they are.
__device__ Pair hadamard(Pair v, unsigned size, int lane) {
  if (size == 64) v = {v.low + v.high, v.low - v.high};
  for (unsigned half = size == 64 ? 16 : size / 2; half; half /= 2) {
    const float low = __shfl_xor_sync(kAllLanes, v.low, half),
                high = __shfl_xor_sync(kAllLanes, v.high, half);
    v.low = lane & half ? low - v.low : v.low + low;
    v.high = lane & half ? high - v.high : v.high + high;
  }
  return v;
}

__device__ unsigned e4m3_nearest(float value) {
  const unsigned bits = min(__float_as_uint(value), __float_as_uint(kLargestScale));
  if (bits < __float_as_uint(0x1p-6f)) return __float2uint_rn(__uint_as_float(bits) * 512.0f);
  return ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3);
}

__device__ float e4m3_step(unsigned code) {
  const unsigned low = code & 127;
  return low < 8 ? static_cast<float>(low) * 0x1p-13f : __uint_as_float((low + ((120 - 4) << 3)) << 20);
}

__device__ float inverse(float value) { return value > 0 ? __fdiv_rn(1.0f, value) : 0.0f; }

__device__ unsigned search16(const float* midpoints, float value) {
  unsigned code = 0;
#pragma unroll
  for (unsigned step = 8; step; step /= 2) code += value > midpoints[code + step - 1] ? step : 0;
  return code;
}

__device__ float absmax(Pair v) {
  float most = fmaxf(fabsf(v.low), fabsf(v.high));
  for (int half = 16; half; half /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, half));
  return most;
}

// Lanes beyond a short block hold zeros that must not count.
__device__ bool has_low(const DeviceBlock& block, int lane) { return lane < static_cast<int>(block.size); }
__device__ bool has_high(const DeviceBlock& block) { return block.size == 64; }

__device__ void write_planes(const DeviceBlock& block, unsigned low, unsigned high, int lane,
                             unsigned char* codes) {
  unsigned packed = 0;  // of blocks of less than 8, whose planes share bytes
  for (unsigned plane = 0; plane < block.bits; ++plane) {
    const unsigned bit = block.bits - 1 - plane;
    const unsigned lows = __ballot_sync(kAllLanes, low >> bit & 1),
                   highs = __ballot_sync(kAllLanes, high >> bit & 1);
    if (block.size < 8) {
      packed |= (lows & ((1u << block.size) - 1)) << (plane * block.size);
    } else if (lane < static_cast<int>(block.size / 8)) {
      codes[plane * (block.size / 8) + lane] = (lane < 4 ? lows : highs) >> (8 * (lane & 3));
    }
  }
  if (block.size < 8 && lane < static_cast<int>(block.code_bytes)) codes[lane] = packed >> (8 * lane);
}

// NF4 where a kernel has it.
struct Nf4 {
  const float *levels, *midpoints;
};

// Writes a block's scale byte and codes; false where the scale cannot hold it.
__device__ bool encode_levels(const RotatedView& plan, const Nf4& nf4, const DeviceBlock& block, Pair v,
                              int lane, unsigned char* row) {
  const float *levels = nf4.levels, *midpoints = nf4.midpoints;
  const float gain = absmax(v);
  float errors[4];
  unsigned scales[4], lows[4], highs[4];
#pragma unroll
  for (unsigned trial = 0; trial < 4; ++trial) {  // side by side: one alone would wait for each of its steps
    scales[trial] = e4m3_nearest(gain * plan.trials[trial]);
    const float step = e4m3_step(scales[trial]), back = inverse(step);
    lows[trial] = search16(midpoints, v.low * back), highs[trial] = search16(midpoints, v.high * back);
    const float wrong_low = has_low(block, lane) ? v.low - levels[lows[trial]] * step : 0;
    const float wrong_high = has_high(block) ? v.high - levels[highs[trial]] * step : 0;
    errors[trial] = wrong_low * wrong_low + wrong_high * wrong_high;
  }
#pragma unroll
  for (int half = 16; half; half /= 2) {
#pragma unroll
    for (float& error : errors) error += __shfl_xor_sync(kAllLanes, error, half);
  }
  float least = INFINITY;
  unsigned scale = 0, best_low = 0, best_high = 0;
#pragma unroll
  for (unsigned trial = 0; trial < 4; ++trial) {
    if (!(errors[trial] < least)) continue;
    least = errors[trial], scale = scales[trial], best_low = lows[trial], best_high = highs[trial];
  }
  if (lane == 0) row[block.scale_at] = scale;
  write_planes(block, best_low, best_high, lane, row + block.code_at);
  return gain * plan.trials[plan.trial_count - 1] <= kLargestScale;
}

__device__ unsigned char byte_code(float steps) {
  return static_cast<unsigned char>(static_cast<signed char>(fminf(fmaxf(rintf(steps), -127.0f), 127.0f)));
}

__device__ bool encode_bytes(const DeviceBlock& block, Pair v, int lane, unsigned char* row) {
  const float sixteenfold = absmax(v) * 16.0f;
  unsigned scale = e4m3_nearest(sixteenfold);
  scale += e4m3_step(scale) * 16.0f < sixteenfold && scale < 126;
  const float back = inverse(e4m3_step(scale)) * 127.0f;
  if (lane == 0) row[block.scale_at] = scale;
  if (has_low(block, lane)) row[block.code_at + lane] = byte_code(v.low * back);
  if (has_high(block)) row[block.code_at + 32 + lane] = byte_code(v.high * back);
  return sixteenfold <= kLargestScale;
}

__device__ unsigned read_code(const DeviceBlock& block, const unsigned char* codes, unsigned index) {
  unsigned code = 0;
  for (unsigned plane = 0; plane < block.bits; ++plane) {
    const unsigned at = plane * block.size + index;
    code = 2 * code + (codes[at / 8] >> (at % 8) & 1);
  }
  return code;
}

__device__ Pair decode_block(const RotatedView& plan, const float* levels, const DeviceBlock& block, int lane,
                             const unsigned char* row) {
  if (!block.bits) return {0, 0};
  const float step = e4m3_step(row[block.scale_at]);
  const unsigned char* codes = row + block.code_at;
  Pair v = {0, 0};
  if (plan.quantizer == DeviceQuantizer::bytes) {
    const float byte_step = step * (1.0f / 127.0f);
    if (has_low(block, lane)) v.low = static_cast<float>(static_cast<signed char>(codes[lane])) * byte_step;
    if (has_high(block)) v.high = static_cast<float>(static_cast<signed char>(codes[32 + lane])) * byte_step;
    return v;
  }
  if (has_low(block, lane)) v.low = levels[read_code(block, codes, lane)] * step;
  if (has_high(block)) v.high = levels[read_code(block, codes, 32 + lane)] * step;
  return v;
}

}  // namespace
}  // namespace hyperlane
