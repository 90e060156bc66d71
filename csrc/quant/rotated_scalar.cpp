// The rotated codecs in plain C++.
#include "quant/rotated_block.hpp"

namespace hyperlane {
namespace {

float squares(const void* values, bool half, std::size_t width) {
  float sums[kBlock] = {};
  for (std::size_t i = 0; i < width; ++i) {
    const float value = value_at(values, half, i);
    sums[i % kBlock] += value * value;
  }
  for (std::size_t size = kBlock / 2; size; size /= 2)
    for (std::size_t i = 0; i < size; ++i) sums[i] += sums[i + size];
  return sums[0];
}

bool encode(const Rotated& codec, bool half, std::size_t count, const SourceRow* rows) {
  bool fits = true;
  for (std::size_t i = 0; i < count; ++i) fits &= encode_from(codec, 0, rows[i], half);
  return fits;
}

void decode(const Rotated& codec, bool half, std::size_t count, const RecordRow* rows) {
  for (std::size_t i = 0; i < count; ++i) decode_from(codec, 0, rows[i], half);
}

}  // namespace

RotatedKernels scalar_rotated_kernels() { return {squares, encode, decode}; }

}  // namespace hyperlane
