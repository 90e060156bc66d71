// The rotated codecs in plain C++.
#include "quant/rotated_block.hpp"
#include "quant/trellis.hpp"

namespace hyperlane {
namespace {

float load_row(const void* values, bool half, std::size_t width, float* row) {
  float sums[kBlock] = {};
  for (std::size_t i = 0; i < width; ++i) {
    row[i] =
        half ? half_to_float(static_cast<const half_bits*>(values)[i]) : static_cast<const float*>(values)[i];
    sums[i % kBlock] += row[i] * row[i];
  }
  return halving_sum(sums, kBlock);
}

void store_row(const float* row, std::size_t width, void* values, bool half) {
  for (std::size_t i = 0; i < width; ++i) {
    if (half)
      static_cast<half_bits*>(values)[i] = float_to_half(row[i]);
    else
      static_cast<float*>(values)[i] = row[i];
  }
}

bool encode_trellis(const Rotated& codec, const float* values, float* room, std::uint8_t* scale,
                    std::uint8_t* codes) {
  float squares[kBlock] = {}, most = 0;
  for (const Block& block : codec.blocks)
    for (std::size_t i = block.start; block.bits && i < block.start + block.size; ++i) {
      squares[i % kBlock] += values[i] * values[i];
      most = std::max(most, std::fabs(values[i]));
    }
  if (!row_scale(codec, halving_sum(squares, kBlock), most, scale)) return false;
  float cost[kStates][kLanes] = {};
  std::fill(cost[1], cost[1] + 3 * kLanes, kFar);
  const TrellisRoom work = trellis_room(codec, room);
  std::size_t step = 0;
  for (const Block& block : codec.blocks)
    for (std::size_t i = 0; block.bits && i < block.size; i += kLanes, ++step)
      advance(codec.trellises[block.bits], block.bits, values + block.start + i,
              std::min(kLanes, block.size - i), inverse_step(*scale), cost, work.below + kLanes * step,
              work.steps[step]);
  std::uint32_t ends[2] = {};
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    std::uint32_t best = 0;
    for (std::uint32_t state = 1; state < kStates; ++state)
      if (cost[state][lane] < cost[best][lane]) best = state;
    ends[0] |= (best >> 1) << lane;
    ends[1] |= (best & 1) << lane;
  }
  trace_back(ends[0], ends[1], work.steps, step, work.path);
  step = 0;
  for (const Block& block : codec.blocks) {
    if (!block.bits) continue;
    write_codes(block, work, step, codes);
    step += step_count(block);
    codes += block.code_bytes;
  }
  return true;
}

bool encode_row(const Rotated& codec, const float* row, bool in_order, float inverse_rms, float* scratch,
                std::uint8_t* scales, std::uint8_t* codes) {
  for (const Block& block : codec.blocks) {
    for (std::size_t i = block.start; i < block.start + block.size; ++i) {
      const float value = row[in_order ? i : codec.order[i]];
      scratch[i] = (value * inverse_rms - codec.mean[i]) * codec.forward[i];
    }
    hadamard(scratch + block.start, block.size);
  }
  if (codec.quantizer == Quantizer::trellis)
    return encode_trellis(codec, scratch, scratch + codec.mean.size(), scales, codes);
  bool fits = true;
  for (const Block& block : codec.blocks) {
    fits &= encode_block(codec, block, scratch + block.start, scales++, codes);
    codes += block.code_bytes;
  }
  return fits;
}

void decode_row(const Rotated& codec, const std::uint8_t* scales, const std::uint8_t* codes, float rms,
                bool in_order, float* scratch, float* row, half_bits* halves) {
  std::uint64_t past = 0;
  for (const Block& block : codec.blocks) {
    float* values = scratch + block.start;
    std::fill(values, values + block.size, 0.0f);
    if (codec.quantizer != Quantizer::trellis)
      decode_block(codec, block, *scales++, codes, values);
    else if (block.bits)
      decode_trellis(codec, block, e4m3_step(*scales), codes, past, values);
    codes += block.code_bytes;
    hadamard(values, block.size);
    for (std::size_t i = block.start; i < block.start + block.size; ++i)
      row[in_order ? i : codec.order[i]] = (scratch[i] * codec.backward[i] + codec.mean[i]) * rms;
  }
  if (halves) store_row(row, codec.width, halves, true);
}

}  // namespace

RotatedKernels scalar_rotated_kernels() { return {load_row, store_row, encode_row, decode_row, nullptr}; }

}  // namespace hyperlane
