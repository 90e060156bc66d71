// Whether bytes in host memory are a payload of `int4`, as far as its kernels must know to read nothing beyond it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/entropy_tables.cuh"

namespace hyperlane {

class EntropyPayload {
 public:
  EntropyPayload(const EntropyView& view, const std::uint8_t* data, std::size_t bytes)
      : view_(view), data_(data), bytes_(bytes) {}

  bool fits(std::size_t rows) const {
    std::size_t at = sizeof(view_.id) + (rows + 3) / 4, coded = 0;
    if (bytes_ < at || std::memcmp(data_, view_.id, sizeof(view_.id)) != 0) return false;
    const std::size_t raw_bytes[] = {0, 2 * std::size_t{view_.width}, 4 * std::size_t{view_.width}, 0};
    for (std::size_t row = 0; row < rows; ++row) {
      const unsigned state = data_[sizeof(view_.id) + row / 4] >> 2 * (row % 4) & 3;
      at += raw_bytes[state];
      coded += state == 0;
    }
    const std::size_t heads = at, strings = (coded + view_.string_rows - 1) / view_.string_rows;
    const std::size_t sizes = heads + coded * view_.head_bytes;
    at = sizes + 4 * strings;
    if (bytes_ < at) return false;
    for (std::size_t string = 0; string < strings; ++string) {
      const std::size_t size = u32(sizes + 4 * string);
      if (size < kStatesBytes || size > bytes_ - at) return false;
      at += size;
    }
    return at + patch_bytes(heads, coded, at) == bytes_;
  }

 private:
  static constexpr unsigned kPatched = 128, kPatchBytes = 3;

  // Of counts and patches, the counts from `at` on; more than the payload has where they are not in it.
  std::size_t patch_bytes(std::size_t heads, std::size_t coded, std::size_t at) const {
    std::size_t patched = 0, patches = 0;
    for (std::size_t row = 0; row < coded; ++row)
      if (data_[heads + row * view_.head_bytes + 1] & kPatched) {
        if (at + patched >= bytes_) return bytes_ + 1;
        patches += data_[at + patched++];
      }
    return patched + kPatchBytes * patches;
  }

  std::uint32_t u32(std::size_t at) const {
    return data_[at] | data_[at + 1] << 8 | data_[at + 2] << 16 | static_cast<std::uint32_t>(data_[at + 3]) << 24;
  }

  const EntropyView& view_;
  const std::uint8_t* data_;
  std::size_t bytes_;
};

}  // namespace hyperlane
