// Rows to one payload of int4.
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

class EntropyWriter {
 public:
  EntropyWriter(const Entropy& codec, const EntropyKernels& kernels, std::size_t rows)
      : codec_(codec),
        kernels_(kernels),
        capacity_(std::min(kEncodedAtOnce * codec.string_rows, rows)),
        stride_(codec.vectors * kCoders),
        symbols_(new std::uint8_t[(capacity_ + kRowsAtOnce) * stride_]),
        rooms_(new std::uint8_t[std::min(kEncodedAtOnce, rows) *
                                string_reach(codec, std::min(codec.string_rows, rows))]),
        new_heads_(new std::uint8_t[kRowsAtOnce * (codec.head_bytes + 8)]),
        new_patches_(new Patch[kRowsAtOnce * codec.most_patches]),
        heads_(new std::uint8_t[rows * codec.head_bytes]),
        sizes_(new std::uint32_t[rows]),
        counts_(new std::uint8_t[rows]),
        patches_(new Patch[rows * codec.most_patches]) {}

  // Returns the payload's bytes.
  std::size_t write(const std::uint8_t* values, bool half, std::size_t rows, const std::uint32_t* positions,
                    std::uint8_t* payload) {
    std::memcpy(payload, codec_.id.data(), kIdBytes);
    std::uint8_t* states = payload + kIdBytes;
    std::memset(states, 0, states_end(rows) - kIdBytes);
    strings_ = payload + states_end(rows) + usual_bytes(rows, positions);
    const std::size_t row_bytes = codec_.width * (half ? 2 : 4);
    for (std::size_t first = 0; first < rows; first += kRowsAtOnce) {
      const std::size_t count = std::min(kRowsAtOnce, rows - first);
      const std::uint8_t* of_rows = values + first * row_bytes;
      float rms[kRowsAtOnce];
      bool coded[kRowsAtOnce];
      quantize(of_rows, half, count, positions + first, rms, coded);
      for (std::size_t i = 0; i < count; ++i) {
        if (coded[i]) continue;  // kCoded is 0
        const State state = raw_state(of_rows + i * row_bytes, half, codec_.width, rms[i]);
        set_state(states, first + i, state);
        add_raw(of_rows + i * row_bytes, half, state);
      }
    }
    return static_cast<std::size_t>(append_coded(payload + states_end(rows)) - payload);
  }

 private:
  // What comes before the strings if only rows at position 0 are not coded, as halves.
  std::size_t usual_bytes(std::size_t rows, const std::uint32_t* positions) const {
    const auto raw = static_cast<std::size_t>(std::count(positions, positions + rows, 0u));
    return 2 * codec_.width * raw + before_strings(rows - raw);
  }

  std::size_t before_strings(std::size_t coded) const {
    return coded * codec_.head_bytes + 4 * ((coded + codec_.string_rows - 1) / codec_.string_rows);
  }

  void add_raw(const std::uint8_t* values, bool half, State state) {
    const std::size_t at = raw_.size();
    raw_.resize(at + raw_bytes(state, codec_.width));
    write_raw(values, half, codec_.width, state, raw_.data() + at);
  }

  // Some rows; tells the RMS of each, and whether it is coded.
  void quantize(const std::uint8_t* values, bool half, std::size_t count, const std::uint32_t* positions,
                float* rms, bool* coded) {
    QuantizedRow rows[kRowsAtOnce];
    std::size_t of[kRowsAtOnce], candidates = 0;
    for (std::size_t i = 0; i < count; ++i, values += codec_.width * (half ? 2 : 4)) {
      const float mean = kernels_.squares(values, half, codec_.width) / static_cast<float>(codec_.width);
      const half_bits bits = float_to_half(std::sqrt(mean));
      rms[i] = half_to_float(bits);
      coded[i] = false;
      if (positions[i] == 0 || !(rms[i] <= codec_.limit && rms[i] >= kSmallestRms)) continue;
      of[candidates] = i;
      rows[candidates] = {values,
                          static_cast<std::uint8_t>((bits + 0x3F + (bits >> 7 & 1)) >> 7),
                          new_heads_.get() + candidates * (codec_.head_bytes + 8),
                          symbols_.get() + (waiting_ + candidates) * stride_,
                          new_patches_.get() + candidates * codec_.most_patches,
                          0,
                          false};
      ++candidates;
    }
    if (candidates) kernels_.quantize(codec_, half, candidates, rows);
    for (std::size_t i = 0; i < candidates; ++i)
      if ((coded[of[i]] = rows[i].fits)) keep(rows[i]);
    while (waiting_ >= capacity_) encode_waiting();
  }

  // Behind those that were kept before.
  void keep(const QuantizedRow& row) {
    std::memcpy(heads_.get() + coded_++ * codec_.head_bytes, row.head, codec_.head_bytes);
    std::uint8_t* const symbols = symbols_.get() + waiting_++ * stride_;
    if (symbols != row.symbols) std::memmove(symbols, row.symbols, stride_);
    std::copy(row.patches, row.patches + row.patch_count, patches_.get() + patch_count_);
    patch_count_ += row.patch_count;
    if (row.patch_count) counts_[patched_++] = static_cast<std::uint8_t>(row.patch_count);
  }

  // As many whole strings as go at once, or the last; rows that are left move to the front.
  void encode_waiting() {
    const std::size_t whole = std::min(waiting_ / codec_.string_rows, kEncodedAtOnce);
    const std::size_t count = std::max<std::size_t>(whole, 1);
    const std::size_t rows = whole ? codec_.string_rows : waiting_;
    encode_strings(count, rows);
    waiting_ -= count * rows;
    std::memmove(symbols_.get(), symbols_.get() + count * rows * stride_, waiting_ * stride_);
  }

  void encode_strings(std::size_t count, std::size_t rows) {
    const std::uint8_t* symbols[kEncodedAtOnce];
    std::uint8_t* rooms[kEncodedAtOnce];
    std::size_t sizes[kEncodedAtOnce];
    const std::size_t reach = string_reach(codec_, rows);
    for (std::size_t i = 0; i < count; ++i) {
      symbols[i] = symbols_.get() + i * rows * stride_;
      rooms[i] = rooms_.get() + i * reach;
    }
    kernels_.encode(codec_, rows, count, symbols, rooms, sizes);
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(strings_ + string_bytes_, rooms[i] + reach - sizes[i], sizes[i]);
      string_bytes_ += sizes[i];
      sizes_[string_count_++] = static_cast<std::uint32_t>(sizes[i]);
    }
  }

  std::uint8_t* append_coded(std::uint8_t* out) {
    while (waiting_) encode_waiting();
    std::uint8_t* const strings = out + raw_.size() + before_strings(coded_);
    if (strings != strings_) std::memmove(strings, strings_, string_bytes_);
    out = append(out, raw_.data(), raw_.size());
    out = append(out, heads_.get(), coded_ * codec_.head_bytes);
    out = append(out, sizes_.get(), 4 * string_count_);
    out = append(out + string_bytes_, counts_.get(), patched_);
    for (std::size_t i = 0; i < patch_count_; ++i) {
      out = append(out, &patches_[i].channel, 2);
      *out++ = static_cast<std::uint8_t>(patches_[i].rest);
    }
    return out;
  }

  static std::uint8_t* append(std::uint8_t* out, const void* data, std::size_t bytes) {
    if (bytes) std::memcpy(out, data, bytes);
    return out + bytes;
  }

  const Entropy& codec_;
  const EntropyKernels& kernels_;
  const std::size_t capacity_, stride_;  // rows that wait, at most; bytes of one
  // None is zeroed: rows may be few.
  std::unique_ptr<std::uint8_t[]> symbols_, rooms_, new_heads_;
  std::unique_ptr<Patch[]> new_patches_;
  std::unique_ptr<std::uint8_t[]> heads_;
  std::unique_ptr<std::uint32_t[]> sizes_;
  std::unique_ptr<std::uint8_t[]> counts_;
  std::unique_ptr<Patch[]> patches_;
  std::vector<std::uint8_t> raw_;
  std::uint8_t* strings_ = nullptr;  // in the payload, where they end up as a rule
  std::size_t coded_ = 0, waiting_ = 0, string_bytes_ = 0, string_count_ = 0, patched_ = 0, patch_count_ = 0;
};

}  // namespace
}  // namespace hyperlane
