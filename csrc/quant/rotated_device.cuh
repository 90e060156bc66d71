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

// The largest value of a block, or the largest magnitude of a negative one; 0 where there is none.
__device__ float warp_max(float most) {
  for (int half = 16; half; half /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, half));
  return most;
}
__device__ float highest(Pair v) { return warp_max(fmaxf(fmaxf(v.low, v.high), 0.0f)); }
__device__ float lowest(Pair v) { return warp_max(fmaxf(fmaxf(-v.low, -v.high), 0.0f)); }

constexpr unsigned kNegative = 128;  // in a scale byte of h4

// What a whole number of a block stands for.
__device__ float level_step(unsigned scale) {
  const float step = e4m3_step(scale) * (1.0f / 128.0f);
  return scale & kNegative ? -step : step;
}
__device__ float byte_step(unsigned scale) { return e4m3_step(scale) * (1.0f / 127.0f); }

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

// Writes a block's scale byte and codes; false where the scale cannot hold it. `midpoints` are where a kernel
// has them.
__device__ bool encode_levels(const float* midpoints, const DeviceBlock& block, Pair v, int lane,
                              unsigned char* row) {
  const float high = highest(v), low = lowest(v), sixteenfold = fabsf(fmaxf(high, low)) * 16.0f;
  const unsigned scale = e4m3_nearest(sixteenfold);
  const float back = inverse(e4m3_step(scale)) * (low > high ? -128.0f : 128.0f);
  const auto code = [&](float value) {
    return search16(midpoints, fminf(fmaxf(rintf(value * back), -128.0f), 127.0f));
  };
  if (lane == 0) row[block.scale_at] = scale | (low > high ? kNegative : 0);
  write_planes(block, code(v.low), code(v.high), lane, row + block.code_at);
  return sixteenfold <= kLargestScale;
}

__device__ unsigned char byte_code(float steps) {
  return static_cast<unsigned char>(static_cast<signed char>(fminf(fmaxf(rintf(steps), -127.0f), 127.0f)));
}

__device__ bool encode_bytes(const DeviceBlock& block, Pair v, int lane, unsigned char* row) {
  const float sixteenfold = fabsf(fmaxf(highest(v), lowest(v))) * 16.0f;  // never -0
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

// A block's values before they are scaled by the tables. Whole numbers are transformed exactly.
__device__ Pair decode_block(const RotatedView& plan, const float* levels, const DeviceBlock& block, int lane,
                             const unsigned char* row) {
  const unsigned char* codes = row + block.code_at;
  const unsigned scale = row[block.scale_at];
  Pair v = {0, 0};
  if (plan.quantizer == DeviceQuantizer::bytes) {
    if (has_low(block, lane)) v.low = static_cast<float>(static_cast<signed char>(codes[lane]));
    if (has_high(block)) v.high = static_cast<float>(static_cast<signed char>(codes[32 + lane]));
  } else {
    if (has_low(block, lane)) v.low = levels[read_code(block, codes, lane)];
    if (has_high(block)) v.high = levels[read_code(block, codes, 32 + lane)];
  }
  v = hadamard(v, block.size, lane);
  const float step = plan.quantizer == DeviceQuantizer::bytes ? byte_step(scale) : level_step(scale);
  return {v.low * step, v.high * step};
}

}  // namespace
}  // namespace hyperlane
