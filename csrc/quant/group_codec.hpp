// The rows of a payload, given how one format packs its groups: scales [rows, groups], then packed codes
// [rows, bytes].
#pragma once
#include <string>

#include "quant/arrays.hpp"
#include "quant/groups.hpp"
#include "quant/isa.hpp"

namespace hyperlane {

// Format has kGroupBytes, tail_bytes(values), encode_group and decode_group for a group of any size, and
// encode_groups and decode_groups for whole groups on a given instruction set.
template <class Format>
class GroupCodec {
 public:
  static void encode(const py::array& hidden, const py::buffer& payload, const std::string& isa_name) {
    const Shape shape = rows_shape(hidden);
    const Bytes out(payload, payload_bytes(shape));
    const Isa isa = choose_isa(isa_name);
    const bool half = is_half(hidden);
    const void* rows = hidden.data();
    py::gil_scoped_release unlocked;
    if (half) return encode_rows(static_cast<const half_bits*>(rows), shape, out.data(), isa);
    encode_rows(static_cast<const float*>(rows), shape, out.data(), isa);
  }

  static void decode(const py::buffer& payload, py::array& out, const std::string& isa_name) {
    const Shape shape = rows_shape(out);
    const Bytes in(payload, payload_bytes(shape));
    const Isa isa = choose_isa(isa_name);
    const bool half = is_half(out);
    void* rows = out.mutable_data();
    py::gil_scoped_release unlocked;
    if (half) return decode_rows(in.data(), shape, static_cast<half_bits*>(rows), isa);
    decode_rows(in.data(), shape, static_cast<float*>(rows), isa);
  }

 private:
  static std::size_t row_bytes(std::size_t width) {
    return width / kGroup * Format::kGroupBytes + Format::tail_bytes(width % kGroup);
  }

  static std::size_t payload_bytes(Shape shape) {
    return shape.rows * (2 * group_count(shape.width) + row_bytes(shape.width));
  }

  template <class T>
  static void encode_rows(const T* rows, Shape shape, std::uint8_t* payload, Isa isa) {
    const std::size_t full = shape.width / kGroup, tail = shape.width % kGroup;
    half_bits* scales = reinterpret_cast<half_bits*>(payload);
    std::uint8_t* codes = payload + 2 * group_count(shape.width) * shape.rows;
    for (std::size_t r = 0; r < shape.rows; ++r) {
      Format::encode_groups(rows, full, scales, codes, isa);
      if (tail)
        scales[full] = Format::encode_group(rows + full * kGroup, tail, codes + full * Format::kGroupBytes);
      rows += shape.width, scales += group_count(shape.width), codes += row_bytes(shape.width);
    }
  }

  template <class T>
  static void decode_rows(const std::uint8_t* payload, Shape shape, T* rows, Isa isa) {
    const std::size_t full = shape.width / kGroup, tail = shape.width % kGroup;
    const half_bits* scales = reinterpret_cast<const half_bits*>(payload);
    const std::uint8_t* codes = payload + 2 * group_count(shape.width) * shape.rows;
    for (std::size_t r = 0; r < shape.rows; ++r) {
      Format::decode_groups(scales, codes, full, rows, isa);
      if (tail)
        Format::decode_group(scales[full], codes + full * Format::kGroupBytes, tail, rows + full * kGroup);
      rows += shape.width, scales += group_count(shape.width), codes += row_bytes(shape.width);
    }
  }
};

}  // namespace hyperlane
