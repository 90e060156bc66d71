// Rows to one payload of int4.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "quant/entropy.hpp"
#include "quant/entropy_plain.hpp"

namespace hyperlane {
namespace {

class EntropyWriter {
 public:
  EntropyWriter(const Entropy& codec, const EntropyKernels& kernels, std::size_t rows)
      : codec_(codec),
        kernels_(kernels),
        at_once_(std::min(kStringsAtOnce, (rows + codec.string_rows - 1) / codec.string_rows)),
        string_rows_(std::min(codec.string_rows, rows)),
        stride_(codec.vectors * kCoders),
        reach_(string_reach(codec, string_rows_)),
        floats_(new float[codec.mean.size()]),
        values_(new std::uint8_t[at_once_ * string_rows_ * stride_ + kSorted]),
        rooms_(new std::uint8_t[at_once_ * reach_]),
        heads_(new std::uint8_t[rows * codec.head_bytes + 8]),
        strings_(new std::uint8_t[rows * stride_ + (rows / codec.string_rows + 1) * kStatesBytes]),
        sizes_(new std::uint32_t[rows]),
        counts_(new std::uint8_t[rows]),
        patches_(new Patch[rows * codec.most_patches]) {}

  // Returns the payload's bytes.
  std::size_t write(const std::uint8_t* values, bool half, std::size_t rows, const std::uint32_t* positions,
                    std::uint8_t* payload) {
    std::memcpy(payload, codec_.id.data(), kIdBytes);
    std::uint8_t* states = payload + kIdBytes;
    std::memset(states, 0, states_end(rows) - kIdBytes);
    std::uint8_t* raw = payload + states_end(rows);
    for (std::size_t i = 0; i < rows; ++i, values += codec_.width * (half ? 2 : 4)) {
      const half_bits rms_bits = float_to_half(
          std::sqrt(kernels_.squares(values, half, codec_.width) / static_cast<float>(codec_.width)));
      const float rms = half_to_float(rms_bits);
      const bool may = positions[i] != 0 && rms <= codec_.limit && rms >= kSmallestRms;
      if (may && code(values, half, rms_bits)) continue;  // kCoded is 0
      const State state = raw_state(values, half, codec_.width, rms);
      set_state(states, i, state);
      raw = write_raw(values, half, codec_.width, state, raw);
    }
    return static_cast<std::size_t>(append_coded(raw) - payload);
  }

 private:
  bool code(const std::uint8_t* values, bool half, half_bits rms) {
    const auto r = static_cast<std::uint8_t>((rms + 0x3F + (rms >> 7 & 1)) >> 7);
    QuantizedRow row{heads_.get() + coded_ * codec_.head_bytes, values_.get() + waiting_ * stride_,
                     patches_.get() + patch_count_, 0};
    if (!kernels_.quantize(codec_, values, half, r, floats_.get(), row)) return false;
    if (row.patch_count) counts_[patched_++] = static_cast<std::uint8_t>(row.patch_count);
    patch_count_ += row.patch_count;
    ++coded_;
    if (++waiting_ == at_once_ * string_rows_) encode_waiting();
    return true;
  }

  // Whole strings first, then what is left.
  void encode_waiting() {
    const std::size_t whole = waiting_ / codec_.string_rows, rest = waiting_ % codec_.string_rows;
    if (whole) encode_strings(0, whole, codec_.string_rows);
    if (rest) encode_strings(whole * codec_.string_rows, 1, rest);
    waiting_ = 0;
  }

  void encode_strings(std::size_t first_row, std::size_t count, std::size_t rows) {
    const std::uint8_t* values[kStringsAtOnce];
    std::uint8_t* rooms[kStringsAtOnce];
    std::size_t sizes[kStringsAtOnce];
    const std::size_t reach = string_reach(codec_, rows);
    for (std::size_t i = 0; i < count; ++i) {
      values[i] = values_.get() + (first_row + i * rows) * stride_;
      rooms[i] = rooms_.get() + i * reach;
    }
    kernels_.encode(codec_, rows, count, values, rooms, sizes);
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(strings_.get() + string_bytes_, rooms[i] + reach - sizes[i], sizes[i]);
      string_bytes_ += sizes[i];
      sizes_[string_count_++] = static_cast<std::uint32_t>(sizes[i]);
    }
  }

  std::uint8_t* append_coded(std::uint8_t* out) {
    encode_waiting();
    out = append(out, heads_.get(), coded_ * codec_.head_bytes);
    out = append(out, sizes_.get(), 4 * string_count_);
    out = append(out, strings_.get(), string_bytes_);
    out = append(out, counts_.get(), patched_);
    for (std::size_t i = 0; i < patch_count_; ++i) {
      out = append(out, &patches_[i].channel, 2);
      *out++ = static_cast<std::uint8_t>(patches_[i].rest);
    }
    return out;
  }

  static std::uint8_t* append(std::uint8_t* out, const void* data, std::size_t bytes) {
    std::memcpy(out, data, bytes);
    return out + bytes;
  }

  const Entropy& codec_;
  const EntropyKernels& kernels_;
  const std::size_t at_once_, string_rows_, stride_,
      reach_;  // strings; rows, bytes of one; bytes of its room
  // None is zeroed: rows may be few.
  std::unique_ptr<float[]> floats_;
  std::unique_ptr<std::uint8_t[]> values_, rooms_, heads_, strings_;
  std::unique_ptr<std::uint32_t[]> sizes_;
  std::unique_ptr<std::uint8_t[]> counts_;
  std::unique_ptr<Patch[]> patches_;
  std::size_t coded_ = 0, waiting_ = 0, string_bytes_ = 0, string_count_ = 0, patched_ = 0, patch_count_ = 0;
};

}  // namespace
}  // namespace hyperlane
