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

// Adding it leaves an integer in the low bits of a float.
constexpr float kIntegerAbove = 8388608.0f;

enum class DeviceQuantizer : unsigned { levels, bytes };  // h4, h8

struct DeviceBlock {
  unsigned start, size, bits, scale_at, code_at, code_bytes;  // the last three within a coded row
};

struct RotatedView {
  DeviceQuantizer quantizer;
  unsigned width, block_count, whole_count;  // blocks in all; blocks of 64, which come first
  unsigned row_bytes, scale_count;
  float limit;
  std::uint8_t id[8];
  float levels[16], midpoints[16];  // of h4, in 128ths; the last is infinite

  const DeviceBlock* blocks;
  // In the order of the blocks: [width].
  const float *mean, *forward, *backward;
  // A thread a whole block, four values at a time: float4 [16][whole_count].
  const float4 *mean_by_block, *forward_by_block, *backward_by_block;
};

// The parts that the host's RotatedCodec is made of.
struct RotatedParts {
  DeviceQuantizer quantizer;
  std::array<std::uint8_t, 8> id;
  float limit;
  std::vector<float> mean, forward, backward;
  std::vector<std::array<std::size_t, 3>> blocks;  // start, size, bits
  std::vector<int> levels;                         // of h4
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

}  // namespace hyperlane
