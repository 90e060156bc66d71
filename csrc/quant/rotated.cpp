// Payloads of the rotated codecs: which rows are coded, which are sent as they are, and the class that Python
// sees.
#include "quant/rotated.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "quant/arrays.hpp"
#include "quant/e4m3.hpp"
#include "quant/half.hpp"
#include "quant/raw_rows.hpp"

namespace hyperlane {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using IndexArray = py::array_t<std::uint32_t, py::array::c_style>;

RotatedKernels kernels(Isa isa) {
#ifdef HYPERLANE_X86
  if (isa == Isa::avx512) return avx512_rotated_kernels();
  if (isa == Isa::avx2) return avx2_rotated_kernels();
#endif
  (void)isa;
  return scalar_rotated_kernels();
}

// Levels rise, and so far apart that 16 neighbouring numbers have at most three of them.
Levels make_levels(const std::vector<int>& level) {
  Levels result{};
  for (std::size_t code = 0; code < 16; ++code) {
    if (level[code] < -127 || level[code] > 127 || (code && level[code] <= level[code - 1]))
      throw std::invalid_argument("levels do not rise from -127 to 127");
    result.level[code] = static_cast<std::int8_t>(level[code]);
  }
  std::fill(result.first, result.first + 16, std::int8_t{127});
  std::fill(result.second, result.second + 16, std::int8_t{127});
  std::size_t code = 0;
  for (int k = -128; k < 128; ++k) {
    const std::size_t byte = static_cast<unsigned>(k) & 255, part = byte / 16;
    const bool passed = code < 15 && 2 * k > level[code] + level[code + 1];
    const std::size_t next = code + passed;
    if (k % 16 == 0) {
      result.lowest[part] = static_cast<std::int8_t>(next);
    } else if (next != code) {
      const std::size_t before = code - static_cast<std::size_t>(result.lowest[part]);
      if (before > 1) throw std::invalid_argument("levels are too close to each other");
      (before ? result.second : result.first)[part] = static_cast<std::int8_t>(k - 1);
    }
    code = next;
    result.code[byte] = static_cast<std::uint8_t>(code);
  }
  return result;
}

float step_of(Quantizer quantizer, std::uint8_t scale) {
  const float factor = e4m3_step(scale);
  if (quantizer == Quantizer::bytes) return factor * (1.0f / 127.0f);
  return (scale & kNegative ? -factor : factor) * (1.0f / 128.0f);
}

// A short block is read as if it were whole.
std::vector<float> padded(const FloatArray& values) {
  std::vector<float> result(static_cast<std::size_t>(values.size()) + kBlock);
  std::copy(values.data(), values.data() + values.size(), result.begin());
  return result;
}

class RotatedCodec {
 public:
  RotatedCodec(int quantizer, const py::bytes& id, float limit, const FloatArray& mean,
               const FloatArray& forward, const FloatArray& backward,
               const std::vector<std::array<std::size_t, 3>>& blocks, const std::vector<int>& levels,
               const std::string& isa)
      : kernels_(kernels(choose_isa(isa))) {
    const std::string id_bytes = id;
    if ((quantizer != 0 && quantizer != 2) || id_bytes.size() != kIdBytes || mean.size() == 0 ||
        levels.size() != 16)
      throw std::invalid_argument("not the parts of a rotated codec");
    codec_.quantizer = static_cast<Quantizer>(quantizer);
    codec_.width = static_cast<std::size_t>(mean.size());
    codec_.limit = limit;
    std::memcpy(codec_.id.data(), id_bytes.data(), kIdBytes);
    codec_.mean = padded(mean);
    codec_.forward = padded(forward);
    codec_.backward = padded(backward);
    add_blocks(blocks);
    codec_.levels = make_levels(levels);
    for (std::size_t scale = 0; scale < 256; ++scale)
      codec_.step[scale] = step_of(codec_.quantizer, static_cast<std::uint8_t>(scale));
  }

  std::size_t encode(const py::array& rows, const IndexArray& positions, const py::array& out) const {
    const Shape shape = checked(rows, positions);
    const bool half = is_half(rows);
    const py::buffer_info space = out.request(true);
    if (static_cast<std::size_t>(space.size * space.itemsize) <
        states_end(shape.rows) + 4 * shape.rows * (codec_.width + 2))
      throw std::invalid_argument("the payload's room is too small");
    const auto* values = static_cast<const std::uint8_t*>(rows.data());
    const std::uint32_t* at = positions.data();
    auto* payload = static_cast<std::uint8_t*>(space.ptr);
    const py::gil_scoped_release released;
    return encode_rows(values, half, shape.rows, at, payload);
  }

  // "" or why the payload is not one of such rows made with these tables.
  std::string decode(const py::buffer& payload, const py::array& rows) const {
    const Shape shape = rows_shape(rows);
    const py::buffer_info data = payload.request();
    const auto bytes = static_cast<std::size_t>(data.size * data.itemsize);
    auto* values = static_cast<std::uint8_t*>(py::array(rows).mutable_data());
    const bool half = is_half(rows);
    if (shape.width != codec_.width) throw std::invalid_argument("rows of another width than the tables");
    const py::gil_scoped_release released;
    return decode_rows(static_cast<const std::uint8_t*>(data.ptr), bytes, values, half, shape.rows);
  }

  std::size_t row_bytes() const { return codec_.row_bytes; }

 private:
  void add_blocks(const std::vector<std::array<std::size_t, 3>>& blocks) {
    codec_.scale_count = 0;
    std::size_t code_bytes = 0, next = 0;
    for (const auto& [start, size, bits] : blocks) {
      if (start != next || size == 0 || size > kBlock || (size & (size - 1)) || bits != quantizer_bits())
        throw std::invalid_argument("blocks do not follow each other");
      next = start + size;
      codec_.blocks.push_back({start, size, static_cast<int>(bits), (size * bits + 7) / 8});
      ++codec_.scale_count;
      code_bytes += codec_.blocks.back().code_bytes;
    }
    if (next != codec_.width) throw std::invalid_argument("blocks do not fill the width");
    codec_.row_bytes = 2 + codec_.scale_count + code_bytes;
  }

  std::size_t quantizer_bits() const { return codec_.quantizer == Quantizer::levels ? 4 : 8; }

  Shape checked(const py::array& rows, const IndexArray& positions) const {
    const Shape shape = rows_shape(rows);
    if (shape.width != codec_.width || static_cast<std::size_t>(positions.size()) != shape.rows)
      throw std::invalid_argument("rows, positions and tables do not fit together");
    return shape;
  }

  struct Measured {
    half_bits rms;
    bool may_be_coded;
  };

  std::size_t encode_rows(const std::uint8_t* values, bool half, std::size_t rows,
                          const std::uint32_t* positions, std::uint8_t* payload) const {
    std::memcpy(payload, codec_.id.data(), kIdBytes);
    std::uint8_t* states = payload + kIdBytes;
    std::memset(states, 0, states_end(rows) - kIdBytes);
    std::uint8_t* out = payload + states_end(rows);
    const std::size_t stride = codec_.width * (half ? 2 : 4);
    Measured measured[kTogether];
    for (std::size_t first = 0; first < rows; first += kTogether) {
      const std::size_t count = std::min(kTogether, rows - first);
      for (std::size_t i = 0; i < count; ++i)
        measured[i] = measure(values + (first + i) * stride, half, positions[first + i]);
      for (std::size_t i = 0; i < count;) {
        std::size_t run = 0;
        while (i + run < count && measured[i + run].may_be_coded) ++run;
        const std::uint8_t* const source = values + (first + i) * stride;
        if (run)
          out = encode_run(source, half, run, measured + i, states, first + i, out);
        else
          out = encode_raw(source, half, measured[i], states, first + i, out);
        i += std::max<std::size_t>(run, 1);
      }
    }
    return static_cast<std::size_t>(out - payload);
  }

  Measured measure(const std::uint8_t* values, bool half, std::uint32_t position) const {
    const float squares = kernels_.squares(values, half, codec_.width);
    const half_bits bits = float_to_half(std::sqrt(squares / static_cast<float>(codec_.width)));
    const float rms = half_to_float(bits);
    return {bits, position != 0 && rms <= codec_.limit && rms >= kSmallestRms};
  }

  // Neighbouring rows, from row `at`, that may be coded; one by one where some scale does not fit.
  std::uint8_t* encode_run(const std::uint8_t* values, bool half, std::size_t count, const Measured* measured,
                           std::uint8_t* states, std::size_t at, std::uint8_t* out) const {
    SourceRow rows[kTogether] = {};
    const std::size_t stride = codec_.width * (half ? 2 : 4);
    for (std::size_t i = 0; i < count; ++i) {
      std::uint8_t* const record = out + i * codec_.row_bytes;
      std::memcpy(record, &measured[i].rms, 2);
      rows[i] = {values + i * stride, 1.0f / half_to_float(measured[i].rms), record + 2,
                 record + 2 + codec_.scale_count};
    }
    if (kernels_.encode(codec_, half, count, rows)) return out + count * codec_.row_bytes;  // kCoded is 0
    if (count == 1) return encode_raw(values, half, *measured, states, at, out);
    for (std::size_t i = 0; i < count; ++i)
      out = encode_run(values + i * stride, half, 1, measured + i, states, at + i, out);
    return out;
  }

  std::uint8_t* encode_raw(const std::uint8_t* values, bool half, const Measured& measured,
                           std::uint8_t* states, std::size_t at, std::uint8_t* out) const {
    const State state = raw_state(values, half, codec_.width, half_to_float(measured.rms));
    set_state(states, at, state);
    return write_raw(values, half, codec_.width, state, out);
  }

  std::string decode_rows(const std::uint8_t* payload, std::size_t bytes, std::uint8_t* values, bool half,
                          std::size_t rows) const {
    if (bytes < states_end(rows)) return "is too short for " + std::to_string(rows) + " rows";
    if (std::memcmp(payload, codec_.id.data(), kIdBytes) != 0) return "was made with other codec tables";
    const std::size_t lengths[] = {codec_.row_bytes, 2 * codec_.width, 4 * codec_.width, 0};
    const std::uint8_t* states = payload + kIdBytes;
    std::size_t expected = states_end(rows);
    for (std::size_t i = 0; i < rows; ++i) expected += lengths[state_of(states, i)];
    if (expected != bytes) return "should have " + std::to_string(expected) + " bytes";
    const std::uint8_t* in = payload + states_end(rows);
    const std::size_t stride = codec_.width * (half ? 2 : 4);
    for (std::size_t i = 0; i < rows;) {
      std::size_t run = 0;
      while (run < kTogether && i + run < rows && state_of(states, i + run) == kCoded) ++run;
      if (run) {
        decode_run(in, run, values + i * stride, half);
        in += run * codec_.row_bytes;
        i += run;
      } else {
        const State state = state_of(states, i);
        read_raw(in, state, codec_.width, values + i++ * stride, half);
        in += lengths[state];
      }
    }
    return "";
  }

  void decode_run(const std::uint8_t* in, std::size_t count, std::uint8_t* values, bool half) const {
    RecordRow rows[kTogether];
    for (std::size_t i = 0; i < count; ++i, in += codec_.row_bytes) {
      half_bits rms;
      std::memcpy(&rms, in, 2);
      rows[i] = {in + 2, in + 2 + codec_.scale_count, half_to_float(rms),
                 values + i * codec_.width * (half ? 2 : 4)};
    }
    kernels_.decode(codec_, half, count, rows);
  }

  Rotated codec_{};
  RotatedKernels kernels_;
};

}  // namespace
}  // namespace hyperlane

void bind_rotated(pybind11::module_& module) {
  namespace py = pybind11;
  using hyperlane::RotatedCodec;
  py::class_<RotatedCodec>(module, "RotatedCodec", "h4 (0) or h8 (2) with one boundary's tables made ready.")
      .def(
          py::init<int, py::bytes, float, hyperlane::FloatArray, hyperlane::FloatArray, hyperlane::FloatArray,
                   std::vector<std::array<std::size_t, 3>>, std::vector<int>, std::string>(),
          py::kw_only(), py::arg("quantizer"), py::arg("id"), py::arg("limit"), py::arg("mean"),
          py::arg("forward"), py::arg("backward"), py::arg("blocks"), py::arg("levels"), py::arg("isa") = "")
      .def("encode", &RotatedCodec::encode, py::arg("rows"), py::arg("positions"), py::arg("out"),
           "Writes the payload to `out` (uint8) and returns its bytes.")
      .def_property_readonly("row_bytes", &RotatedCodec::row_bytes, "Of a coded row.")
      .def("decode", &RotatedCodec::decode, py::arg("payload"), py::arg("rows"),
           "Writes the rows; returns '' or what is wrong with the payload.");
}
