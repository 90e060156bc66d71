// One payload of int4 to rows. The payload may be anything: every read is within it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "quant/entropy.hpp"
#include "quant/entropy_plain.hpp"

namespace hyperlane {
namespace {

class EntropyReader {
 public:
  EntropyReader(const Entropy& codec, const EntropyKernels& kernels, const std::uint8_t* payload,
                std::size_t bytes)
      : codec_(codec), kernels_(kernels), payload_(payload), bytes_(bytes) {}

  // "" or what is wrong with the payload.
  const char* read(std::uint8_t* values, bool half, std::size_t rows) {
    if (bytes_ < states_end(rows)) return "is too short for its rows";
    if (std::memcmp(payload_, codec_.id.data(), kIdBytes) != 0) return "was made with other codec tables";
    at_ = states_end(rows);
    if (!read_raw_rows(values, half, rows)) return "ends within a row";
    const std::uint8_t* heads = take(coded_.size() * codec_.head_bytes);
    const std::size_t strings = (coded_.size() + codec_.string_rows - 1) / codec_.string_rows;
    const std::uint8_t* sizes = take(4 * strings);
    if (!heads || !sizes || !find_strings(sizes, strings)) return "ends within its strings";
    for (std::size_t i = 0; i < coded_.size(); ++i) coded_[i].head = heads + i * codec_.head_bytes;
    if (!decode_strings(half)) return "has a string that does not end where its symbols do";
    return patch(half) ? "" : "has patches that are none";
  }

 private:
  // The next bytes, or null where there are not so many.
  const std::uint8_t* take(std::size_t size) {
    if (size > bytes_ - at_) return nullptr;
    at_ += size;
    return payload_ + at_ - size;
  }

  bool read_raw_rows(std::uint8_t* values, bool half, std::size_t rows) {
    coded_.reserve(rows);
    for (std::size_t i = 0; i < rows; ++i, values += codec_.width * (half ? 2 : 4)) {
      const State state = state_of(payload_ + kIdBytes, i);
      if (state == kCoded) {
        coded_.push_back({nullptr, values});
        continue;
      }
      const std::uint8_t* row = take(raw_bytes(state, codec_.width));
      if (!row) return false;
      read_raw(row, state, codec_.width, values, half);
    }
    return true;
  }

  bool find_strings(const std::uint8_t* sizes, std::size_t count) {
    strings_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      std::uint32_t size;
      std::memcpy(&size, sizes + 4 * i, 4);
      if (size < kStatesBytes || !(strings_[i].data = take(size))) return false;
      strings_[i].size = size;
    }
    return true;
  }

  bool decode_strings(bool half) {
    const std::unique_ptr<std::uint8_t[]> room(new std::uint8_t[room_bytes(codec_)]);
    std::vector<std::uint8_t> padded[kStringsAtOnce];
    const std::size_t whole = coded_.size() / codec_.string_rows;
    for (std::size_t first = 0, row = 0; first < strings_.size();) {
      const std::size_t count = first < whole ? std::min(kStringsAtOnce, whole - first) : 1;
      const std::size_t rows = first < whole ? codec_.string_rows : coded_.size() - row;
      StringBytes strings[kStringsAtOnce];
      for (std::size_t i = 0; i < count; ++i) strings[i] = reachable(strings_[first + i], rows, padded[i]);
      if (!kernels_.decode(codec_, rows, count, strings, &coded_[row], half, room.get())) return false;
      first += count;
      row += count * rows;
    }
    return true;
  }

  // The string where no read of its decoder can leave the payload, else a copy with room behind.
  StringBytes reachable(const StringBytes& string, std::size_t rows,
                        std::vector<std::uint8_t>& padded) const {
    const std::size_t reach = string_reach(codec_, rows);
    if (reach <= static_cast<std::size_t>(payload_ + bytes_ - string.data)) return string;
    padded.assign(reach, 0);
    std::memcpy(padded.data(), string.data, std::min(string.size, reach));
    return {padded.data(), string.size};
  }

  bool patch(bool half) {
    std::size_t rows = 0, total = 0;
    for (const CodedRow& row : coded_) rows += (row.head[1] & kPatched) != 0;
    const std::uint8_t* counts = take(rows);
    if (!counts) return false;
    for (std::size_t i = 0; i < rows; ++i) total += counts[i];
    const std::uint8_t* patches = take(3 * total);
    if (!patches || at_ != bytes_) return false;
    for (const CodedRow& row : coded_) {
      if (!(row.head[1] & kPatched)) continue;
      for (std::size_t left = *counts++; left; --left, patches += 3) {
        const std::size_t channel = patches[0] | static_cast<std::size_t>(patches[1]) << 8;
        if (channel >= codec_.width) return false;
        write_value(codec_, row, half, codec_.place[channel], static_cast<std::int8_t>(patches[2]));
      }
    }
    return true;
  }

  const Entropy& codec_;
  const EntropyKernels& kernels_;
  const std::uint8_t* const payload_;
  const std::size_t bytes_;
  std::size_t at_ = 0;
  std::vector<CodedRow> coded_;
  std::vector<StringBytes> strings_;
};

}  // namespace
}  // namespace hyperlane
