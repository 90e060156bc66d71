// Payloads of the rotated codecs: which rows are coded, which are sent as they are, and the class that Python
// sees.
#include "quant/rotated.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "quant/arrays.hpp"
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

std::vector<float> midpoints_of(const std::vector<float>& levels) {
  std::vector<float> midpoints;
  for (std::size_t code = 1; code < levels.size(); ++code)
    midpoints.push_back((levels[code - 1] + levels[code]) * 0.5f);
  return midpoints;
}

// Buckets that reach from one end of the midpoints to the other.
float spread_of(const std::vector<float>& midpoints) {
  float most = 0;
  for (float midpoint : midpoints) most = std::max(most, std::fabs(midpoint));
  return kLastBucket / (most > 0 ? most : 1.0f) * 0.99f;
}

void fill_buckets(Codebook& book, const std::vector<float>& midpoints) {
  for (int bucket = -16; bucket < 16; ++bucket) {
    std::int32_t code = 0;
    float inside = INFINITY;
    for (float midpoint : midpoints) {
      const double of_midpoint = std::nearbyint(static_cast<double>(midpoint) * book.spread);  // rounded once
      code += of_midpoint < bucket;
      if (of_midpoint == bucket) inside = std::min(inside, midpoint);
    }
    book.bucket_codes[bucket & 31] = code;
    book.bucket_midpoints[bucket & 31] = inside;
  }
}

Codebook make_book(const std::vector<float>& levels) {
  Codebook book{};
  const std::vector<float> midpoints = midpoints_of(levels);
  std::copy(levels.begin(), levels.end(), book.levels);
  book.spread = spread_of(midpoints);
  fill_buckets(book, midpoints);
  for (int step = 0; step < 4; ++step)
    for (std::size_t known = 0; known < 1u << step; ++known)
      book.steps[step][known] = midpoints[((2 * known + 1) << (3 - step)) - 1];
  return book;
}

std::vector<float> padded(const FloatArray& values, std::size_t size) {
  std::vector<float> result(size);
  std::copy(values.data(), values.data() + values.size(), result.begin());
  return result;
}

class RotatedCodec {
 public:
  RotatedCodec(int quantizer, const py::bytes& id, float limit, const FloatArray& mean,
               const FloatArray& forward, const FloatArray& backward,
               const std::vector<std::array<std::size_t, 3>>& blocks, const std::vector<float>& levels,
               const std::vector<float>& trials, const std::string& isa)
      : kernels_(kernels(choose_isa(isa))) {
    const std::string id_bytes = id;
    if ((quantizer != 0 && quantizer != 2) || id_bytes.size() != kIdBytes || mean.size() == 0 ||
        levels.size() != 16 || trials.empty() || trials.size() > 4)
      throw std::invalid_argument("not the parts of a rotated codec");
    codec_.quantizer = static_cast<Quantizer>(quantizer);
    codec_.width = static_cast<std::size_t>(mean.size());
    codec_.limit = limit;
    std::memcpy(codec_.id.data(), id_bytes.data(), kIdBytes);
    padded_ = codec_.width + kBlock;  // a short block is read and written as if it were whole
    codec_.trials = trials;
    codec_.mean = padded(mean, padded_);
    codec_.forward = padded(forward, padded_);
    codec_.backward = padded(backward, padded_);
    add_blocks(blocks);
    codec_.nf4 = make_book(levels);
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

  std::size_t quantizer_bits() const { return codec_.quantizer == Quantizer::nf4 ? 4 : 8; }

  Shape checked(const py::array& rows, const IndexArray& positions) const {
    const Shape shape = rows_shape(rows);
    if (shape.width != codec_.width || static_cast<std::size_t>(positions.size()) != shape.rows)
      throw std::invalid_argument("rows, positions and tables do not fit together");
    return shape;
  }

  std::size_t encode_rows(const std::uint8_t* values, bool half, std::size_t rows,
                          const std::uint32_t* positions, std::uint8_t* payload) const {
    const std::unique_ptr<float[]> room(
        new float[padded_ + room_size(codec_)]);  // not zeroed: rows are short
    std::memcpy(payload, codec_.id.data(), kIdBytes);
    std::uint8_t* states = payload + kIdBytes;
    std::memset(states, 0, states_end(rows) - kIdBytes);
    std::uint8_t* out = payload + states_end(rows);
    const std::size_t stride = codec_.width * (half ? 2 : 4);
    for (std::size_t i = 0; i < rows; ++i, values += stride) {
      if (i + 1 < rows)  // while this row computes
        for (std::size_t at = 0; at < stride; at += 64) __builtin_prefetch(values + stride + at, 0, 2);
      set_state(states, i, encode_row(values, half, positions[i], room.get(), out));
    }
    return static_cast<std::size_t>(out - payload);
  }

  State encode_row(const std::uint8_t* values, bool half, std::uint32_t position, float* row,
                   std::uint8_t*& out) const {
    const float squares = kernels_.load_row(values, half, codec_.width, row);
    const half_bits rms_bits = float_to_half(std::sqrt(squares / static_cast<float>(codec_.width)));
    const float rms = half_to_float(rms_bits);
    if (position != 0 && rms <= codec_.limit && rms >= kSmallestRms) {
      std::memcpy(out, &rms_bits, 2);
      if (kernels_.encode_row(codec_, row, 1.0f / rms, row + padded_, out + 2,
                              out + 2 + codec_.scale_count)) {
        out += codec_.row_bytes;
        return kCoded;
      }
    }
    const State state = raw_state(values, half, codec_.width, rms);
    out = write_raw(values, half, codec_.width, state, out);
    return state;
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
    const std::unique_ptr<float[]> row(new float[padded_]);  // not zeroed: rows are short
    const std::uint8_t* in = payload + states_end(rows);
    for (std::size_t i = 0; i < rows; ++i, values += codec_.width * (half ? 2 : 4)) {
      const State state = state_of(states, i);
      if (state == kCoded)
        decode_row(in, row.get(), values, half);
      else
        read_raw(in, state, codec_.width, values, half);
      in += lengths[state];
    }
    return "";
  }

  void decode_row(const std::uint8_t* in, float* row, std::uint8_t* values, bool half) const {
    half_bits rms;
    std::memcpy(&rms, in, 2);
    kernels_.decode_row(codec_, in + 2, in + 2 + codec_.scale_count, half_to_float(rms), row,
                        half ? reinterpret_cast<half_bits*>(values) : nullptr);
    if (!half) kernels_.store_row(row, codec_.width, values, false);
  }

  Rotated codec_{};
  RotatedKernels kernels_;
  std::size_t padded_;
};

}  // namespace
}  // namespace hyperlane

void bind_rotated(pybind11::module_& module) {
  namespace py = pybind11;
  using hyperlane::RotatedCodec;
  py::class_<RotatedCodec>(module, "RotatedCodec", "h4 (0) or h8 (2) with one boundary's tables made ready.")
      .def(py::init<int, py::bytes, float, hyperlane::FloatArray, hyperlane::FloatArray,
                    hyperlane::FloatArray, std::vector<std::array<std::size_t, 3>>, std::vector<float>,
                    std::vector<float>, std::string>(),
           py::kw_only(), py::arg("quantizer"), py::arg("id"), py::arg("limit"), py::arg("mean"),
           py::arg("forward"), py::arg("backward"), py::arg("blocks"), py::arg("levels"), py::arg("trials"),
           py::arg("isa") = "")
      .def("encode", &RotatedCodec::encode, py::arg("rows"), py::arg("positions"), py::arg("out"),
           "Writes the payload to `out` (uint8) and returns its bytes.")
      .def_property_readonly("row_bytes", &RotatedCodec::row_bytes, "Of a coded row.")
      .def("decode", &RotatedCodec::decode, py::arg("payload"), py::arg("rows"),
           "Writes the rows; returns '' or what is wrong with the payload.");
}
