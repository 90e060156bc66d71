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

namespace hyperlane {
namespace {

enum State : std::uint8_t { kCoded, kHalf, kSingle, kZero };

constexpr std::size_t kIdBytes = 8;
constexpr float kSmallestRms = 0x1p-14f;

using FloatArray = py::array_t<float, py::array::c_style>;
using IndexArray = py::array_t<std::uint32_t, py::array::c_style>;

std::size_t head_bytes(std::size_t rows) { return kIdBytes + (rows + 3) / 4; }

RotatedKernels kernels(Isa isa) {
#ifdef HYPERLANE_X86
  if (isa == Isa::avx512) return avx512_rotated_kernels();
  if (isa == Isa::avx2) return avx2_rotated_kernels();
#endif
  (void)isa;
  return scalar_rotated_kernels();
}

std::vector<float> midpoints_of(const std::vector<float>& levels, std::size_t apart) {
  std::vector<float> midpoints;
  for (std::size_t code = apart; code < levels.size(); ++code)
    midpoints.push_back((levels[code - apart] + levels[code]) * 0.5f);
  return midpoints;
}

// Buckets that reach from one end of the midpoints to the other.
float spread_of(const std::vector<float>& midpoints) {
  float most = 0;
  for (float midpoint : midpoints) most = std::max(most, std::fabs(midpoint));
  return kLastBucket / (most > 0 ? most : 1.0f) * 0.99f;
}

void fill_buckets(Codebook& book, const std::vector<float>& midpoints) {
  std::fill(book.midpoints, book.midpoints + 32, INFINITY);
  for (std::size_t i = 0; i < std::min<std::size_t>(midpoints.size(), 32); ++i)
    book.midpoints[i] = midpoints[i];
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

// A search among midpoints in rising order; beyond them lies infinity.
Codebook make_search(std::vector<float> midpoints) {
  Codebook book{};
  book.spread = spread_of(midpoints);
  fill_buckets(book, midpoints);
  for (auto& step : book.steps) std::fill(std::begin(step), std::end(step), INFINITY);
  std::size_t size = 1;
  int bits = 0;
  for (; size <= midpoints.size(); size *= 2) ++bits;
  midpoints.resize(size - 1, INFINITY);
  for (int step = 0; step < bits; ++step)
    for (std::size_t known = 0; known < 1u << step; ++known)
      book.steps[step][known] = midpoints[(2 * known + 1) * (size >> (step + 1)) - 1];
  return book;
}

Codebook make_book(const std::vector<float>& levels) {
  Codebook book = make_search(midpoints_of(levels, 1));
  std::copy(levels.begin(), levels.end(), book.levels);
  return book;
}

Trellis make_trellis(const std::vector<float>& levels) {
  Trellis trellis{};
  trellis.below = make_search(midpoints_of(levels, 4));
  std::copy(levels.begin(), levels.end(), trellis.levels);
  for (std::size_t level = 0; level < levels.size(); ++level)
    trellis.subsets[level % 4][level / 4] = levels[level];
  for (std::size_t w = 0; w + 3 < std::min<std::size_t>(levels.size(), 32); ++w)
    for (std::size_t level = w; level < w + 4; ++level) trellis.nearest[level % 4][w] = levels[level];
  return trellis;
}

std::vector<float> padded(const FloatArray& values, std::size_t size) {
  std::vector<float> result(size);
  std::copy(values.data(), values.data() + values.size(), result.begin());
  return result;
}

// What a row that is not coded goes as.
State raw_state(bool half, const float* row, std::size_t width, float rms) {
  bool zero = true, holds = rms >= kSmallestRms;
  for (std::size_t i = 0; i < width; ++i) {
    zero &= row[i] == 0;
    holds &= std::fabs(row[i]) <= kHalfMax;
  }
  if (zero) return kZero;
  return half || holds ? kHalf : kSingle;
}

std::uint8_t* write_raw(const void* values, bool half, std::size_t width, State state, std::uint8_t* out) {
  if (state == kZero) return out;
  const std::size_t bytes = width * (state == kHalf ? 2 : 4);
  if (half || state == kSingle) {
    std::memcpy(out, values, bytes);
    return out + bytes;
  }
  for (std::size_t i = 0; i < width; ++i) {
    const half_bits bits = float_to_half(static_cast<const float*>(values)[i]);
    std::memcpy(out + 2 * i, &bits, 2);
  }
  return out + bytes;
}

class RotatedCodec {
 public:
  RotatedCodec(int quantizer, const py::bytes& id, float limit, const FloatArray& mean,
               const FloatArray& forward, const FloatArray& backward, const IndexArray& order,
               const std::vector<std::array<std::size_t, 3>>& blocks,
               const std::vector<std::vector<float>>& books, const std::vector<float>& trials,
               const std::string& isa)
      : kernels_(kernels(choose_isa(isa))) {
    const std::string id_bytes = id;
    if (quantizer < 0 || quantizer > 2 || id_bytes.size() != kIdBytes || mean.size() == 0 ||
        trials.size() > 4)
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
    add_order(order);
    add_levels(books);
  }

  std::size_t encode(const py::array& rows, const IndexArray& positions, const py::array& out) const {
    const Shape shape = checked(rows, positions);
    const bool half = is_half(rows);
    const py::buffer_info space = out.request(true);
    if (static_cast<std::size_t>(space.size * space.itemsize) <
        head_bytes(shape.rows) + 4 * shape.rows * (codec_.width + 2))
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
  // Sixteen rows of halves whose channels are sorted together, or put back together; nothing where the
  // kernels cannot, or where rows are left over.
  class Sixteen {
   public:
    Sixteen(const RotatedCodec& codec, bool half, std::size_t rows) : codec_(codec), stride_(codec.padded_) {
      if (half && rows >= kSixteen && codec.kernels_.permute_rows && !codec.codec_.order.empty())
        room_.reset(new half_bits[3 * kSixteen * stride_]);
    }

    // How many rows later a row is wanted.
    std::size_t ahead() const { return room_ ? kSixteen : 1; }

    // The sorted channels of row `i` of `rows`, which begins at `values`.
    const half_bits* sort(const std::uint8_t* values, std::size_t i, std::size_t rows) {
      if (!room_ || !whole(i, rows)) return nullptr;
      if (i % kSixteen == 0) {
        for (std::size_t at = 0; at < kSixteen; ++at)
          std::memcpy(apart(at), values + at * 2 * width(), 2 * width());
        codec_.kernels_.permute_rows(apart(0), stride_, width(), codec_.codec_.order.data(), columns(),
                                     row(0));
      }
      return row(i);
    }

    // Where row `i` of `rows` is to leave its sorted channels.
    template <class StateOf>
    half_bits* place(std::size_t i, std::size_t rows, StateOf state_of) {
      if (!room_ || !whole(i, rows)) return nullptr;
      if (i % kSixteen == 0) {
        coded_ = true;
        for (std::size_t at = i; at < i + kSixteen; ++at) coded_ &= state_of(at) == kCoded;
      }
      return coded_ ? row(i) : nullptr;
    }

    // Writes the last sixteen rows once row `i`, which ends them, is decoded; it begins at `values`.
    void put_back(std::size_t i, std::uint8_t* values) {
      if (i % kSixteen != kSixteen - 1) return;
      codec_.kernels_.permute_rows(row(0), stride_, width(), codec_.codec_.place.data(), columns(), apart(0));
      for (std::size_t at = 0; at < kSixteen; ++at)
        std::memcpy(values - (kSixteen - 1 - at) * 2 * width(), apart(at), 2 * width());
    }

   private:
    static constexpr std::size_t kSixteen = 16;

    static bool whole(std::size_t i, std::size_t rows) { return i / kSixteen * kSixteen + kSixteen <= rows; }
    std::size_t width() const { return codec_.codec_.width; }
    half_bits* row(std::size_t i) { return room_.get() + i % kSixteen * stride_; }
    // Rows as they come and go, not 2^n bytes apart, where a cache would hold few of them at once.
    half_bits* apart(std::size_t i) { return row(i) + kSixteen * stride_; }
    half_bits* columns() { return room_.get() + 2 * kSixteen * stride_; }

    const RotatedCodec& codec_;
    std::size_t stride_;
    std::unique_ptr<half_bits[]> room_;
    bool coded_ = false;
  };

  void add_levels(const std::vector<std::vector<float>>& books) {
    if (codec_.quantizer == Quantizer::bytes) return;
    const bool trellis = codec_.quantizer == Quantizer::trellis;
    if (books.size() != (trellis ? kMaxBits + 1 : 5))
      throw std::invalid_argument("not the levels of a codec");
    if (!trellis) codec_.nf4 = make_book(books[4]);
    for (std::size_t bits = 1; trellis && bits <= kMaxBits; ++bits) {
      if (books[bits].size() != 2u << bits) throw std::invalid_argument("not the levels of a trellis");
      codec_.trellises[bits] = make_trellis(books[bits]);
    }
  }

  void add_blocks(const std::vector<std::array<std::size_t, 3>>& blocks) {
    codec_.scale_count = 0;
    std::size_t code_bytes = 0, next = 0;
    for (const auto& [start, size, bits] : blocks) {
      if (start != next || size == 0 || size > kBlock || (size & (size - 1)) || bits > 8)
        throw std::invalid_argument("blocks do not follow each other");
      next = start + size;
      codec_.blocks.push_back({start, size, static_cast<int>(bits), (size * bits + 7) / 8});
      codec_.scale_count += bits > 0;
      codec_.coded += bits > 0 ? size : 0;
      code_bytes += codec_.blocks.back().code_bytes;
    }
    if (next != codec_.width) throw std::invalid_argument("blocks do not fill the width");
    if (codec_.quantizer == Quantizer::trellis) codec_.scale_count = 1;
    codec_.row_bytes = 2 + codec_.scale_count + code_bytes;
  }

  void add_order(const IndexArray& order) {
    if (order.size() == 0) return;
    codec_.order.assign(padded_, 0);
    codec_.place.assign(padded_, 0);
    for (std::size_t i = 0; i < codec_.width; ++i) {
      const std::uint32_t channel = order.at(i);
      if (channel >= codec_.width) throw std::invalid_argument("the order names a channel that is not there");
      codec_.order[i] = channel;
      codec_.place[channel] = static_cast<std::uint32_t>(i);
    }
  }

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
    Sixteen sorted(*this, half, rows);
    std::memcpy(payload, codec_.id.data(), kIdBytes);
    std::uint8_t* states = payload + kIdBytes;
    std::memset(states, 0, head_bytes(rows) - kIdBytes);
    std::uint8_t* out = payload + head_bytes(rows);
    const std::size_t stride = codec_.width * (half ? 2 : 4);
    for (std::size_t i = 0; i < rows; ++i, values += stride) {
      if (i + sorted.ahead() < rows)  // while this row computes
        for (std::size_t at = 0; at < stride; at += 64)
          __builtin_prefetch(values + sorted.ahead() * stride + at, 0, 2);
      const half_bits* of_row = sorted.sort(values, i, rows);
      const State state = encode_row(values, half, positions[i], of_row, room.get(), out);
      states[i / 4] |= static_cast<std::uint8_t>(state << (2 * (i % 4)));
    }
    return static_cast<std::size_t>(out - payload);
  }

  // `sorted` has the row's channels in order, or is null.
  State encode_row(const std::uint8_t* values, bool half, std::uint32_t position, const half_bits* sorted,
                   float* row, std::uint8_t*& out) const {
    const float squares = kernels_.load_row(values, half, codec_.width, row);
    const half_bits rms_bits = float_to_half(std::sqrt(squares / static_cast<float>(codec_.width)));
    const float rms = half_to_float(rms_bits);
    if (position != 0 && rms <= codec_.limit && rms >= kSmallestRms) {
      std::uint8_t* codes = out + 2 + codec_.scale_count;
      std::memcpy(out, &rms_bits, 2);
      if (sorted) kernels_.load_row(sorted, true, codec_.width, row);
      if (kernels_.encode_row(codec_, row, sorted || codec_.order.empty(), 1.0f / rms, row + padded_, out + 2,
                              codes)) {
        out += codec_.row_bytes;
        return kCoded;
      }
      if (sorted) kernels_.load_row(values, half, codec_.width, row);
    }
    const State state = raw_state(half, row, codec_.width, rms);
    out = write_raw(values, half, codec_.width, state, out);
    return state;
  }

  std::string decode_rows(const std::uint8_t* payload, std::size_t bytes, std::uint8_t* values, bool half,
                          std::size_t rows) const {
    if (bytes < head_bytes(rows)) return "is too short for " + std::to_string(rows) + " rows";
    if (std::memcmp(payload, codec_.id.data(), kIdBytes) != 0) return "was made with other codec tables";
    const std::size_t lengths[] = {codec_.row_bytes, 2 * codec_.width, 4 * codec_.width, 0};
    const std::uint8_t* states = payload + kIdBytes;
    std::size_t expected = head_bytes(rows);
    for (std::size_t i = 0; i < rows; ++i) expected += lengths[(states[i / 4] >> (2 * (i % 4))) & 3];
    if (expected != bytes) return "should have " + std::to_string(expected) + " bytes";
    const std::unique_ptr<float[]> room(
        new float[padded_ + room_size(codec_)]);  // not zeroed: rows are short
    Sixteen sorted(*this, half, rows);
    const std::uint8_t* in = payload + head_bytes(rows);
    const auto state_of = [&](std::size_t i) { return (states[i / 4] >> (2 * (i % 4))) & 3; };
    for (std::size_t i = 0; i < rows; ++i, values += codec_.width * (half ? 2 : 4)) {
      half_bits* of_row = sorted.place(i, rows, state_of);
      decode_row(in, state_of(i), of_row, room.get(), values, half);
      in += lengths[state_of(i)];
      if (of_row) sorted.put_back(i, values);
    }
    return "";
  }

  // Where `sorted` is not null, it takes the row's channels, in order, instead of `values`.
  void decode_row(const std::uint8_t* in, int state, half_bits* sorted, float* row, std::uint8_t* values,
                  bool half) const {
    if (state == kCoded) {
      half_bits rms;
      std::memcpy(&rms, in, 2);
      const bool in_order = sorted || codec_.order.empty();
      half_bits* halves = sorted ? sorted : in_order && half ? reinterpret_cast<half_bits*>(values) : nullptr;
      kernels_.decode_row(codec_, in + 2, in + 2 + codec_.scale_count, half_to_float(rms), in_order,
                          row + padded_, row, halves);
      if (!halves) kernels_.store_row(row, codec_.width, values, half);
      return;
    }
    const std::size_t out_bytes = codec_.width * (half ? 2 : 4);
    if (state == kZero) {
      std::memset(values, 0, out_bytes);
    } else if ((state == kHalf) == half) {
      std::memcpy(values, in, out_bytes);
    } else {
      for (std::size_t i = 0; i < codec_.width; ++i) convert(in, values, i, half);
    }
  }

  static void convert(const std::uint8_t* in, std::uint8_t* values, std::size_t i, bool to_half) {
    half_bits bits;
    float value;
    if (to_half) {
      std::memcpy(&value, in + 4 * i, 4);
      bits = float_to_half(value);
      std::memcpy(values + 2 * i, &bits, 2);
    } else {
      std::memcpy(&bits, in + 2 * i, 2);
      value = half_to_float(bits);
      std::memcpy(values + 4 * i, &value, 4);
    }
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
  py::class_<RotatedCodec>(module, "RotatedCodec",
                           "h4 (0), int4 (1) or h8 (2) with one boundary's tables made ready.")
      .def(py::init<int, py::bytes, float, hyperlane::FloatArray, hyperlane::FloatArray,
                    hyperlane::FloatArray, hyperlane::IndexArray, std::vector<std::array<std::size_t, 3>>,
                    std::vector<std::vector<float>>, std::vector<float>, std::string>(),
           py::kw_only(), py::arg("quantizer"), py::arg("id"), py::arg("limit"), py::arg("mean"),
           py::arg("forward"), py::arg("backward"), py::arg("order"), py::arg("blocks"), py::arg("books"),
           py::arg("trials"), py::arg("isa") = "")
      .def("encode", &RotatedCodec::encode, py::arg("rows"), py::arg("positions"), py::arg("out"),
           "Writes the payload to `out` (uint8) and returns its bytes.")
      .def_property_readonly("row_bytes", &RotatedCodec::row_bytes, "Of a coded row.")
      .def("decode", &RotatedCodec::decode, py::arg("payload"), py::arg("rows"),
           "Writes the rows; returns '' or what is wrong with the payload.");
}
