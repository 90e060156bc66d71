// int4 as Python sees it.
#include "quant/entropy.hpp"

#include <algorithm>
#include <string>

#include "quant/arrays.hpp"
#include "quant/entropy_reader.hpp"
#include "quant/entropy_writer.hpp"

namespace hyperlane {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using IndexArray = py::array_t<std::uint32_t, py::array::c_style>;
using ByteArray = py::array_t<std::uint8_t, py::array::c_style>;

EntropyKernels kernels(Isa isa) {
#ifdef HYPERLANE_X86
  if (isa == Isa::avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2"))
    return avx512_entropy_kernels();
  if (isa != Isa::scalar) return avx2_entropy_kernels();
#endif
  (void)isa;
  return scalar_entropy_kernels();
}

template <class T>
std::vector<T> vector_of(const py::array_t<T, py::array::c_style>& array) {
  return {array.data(), array.data() + array.size()};
}

class EntropyCodec {
 public:
  EntropyCodec(const py::bytes& id, float limit, const FloatArray& mean, const FloatArray& step,
               float sixteenfold, const IndexArray& order, const ByteArray& shift, const ByteArray& table,
               const ByteArray& frequency, const std::string& isa)
      : kernels_(kernels(choose_isa(isa))) {
    EntropyParts parts{};
    const std::string id_bytes = id;
    if (id_bytes.size() != kIdBytes) throw std::invalid_argument("an id of tables has 8 bytes");
    std::copy(id_bytes.begin(), id_bytes.end(), parts.id.begin());
    parts.limit = limit;
    parts.sixteenfold = sixteenfold;
    parts.mean = vector_of(mean);
    parts.step = vector_of(step);
    parts.order = vector_of(order);
    parts.shift = vector_of(shift);
    parts.table = vector_of(table);
    parts.frequency = vector_of(frequency);
    codec_ = make_entropy(parts);
  }

  std::size_t encode(const py::array& rows, const IndexArray& positions, const py::array& out) const {
    const Shape shape = rows_shape(rows);
    if (shape.width != codec_.width || static_cast<std::size_t>(positions.size()) != shape.rows)
      throw std::invalid_argument("rows, positions and tables do not fit together");
    const py::buffer_info space = out.request(true);
    if (static_cast<std::size_t>(space.size * space.itemsize) < max_bytes(shape.rows))
      throw std::invalid_argument("the payload's room is too small");
    const bool half = is_half(rows);
    const auto* values = static_cast<const std::uint8_t*>(rows.data());
    const std::uint32_t* at = positions.data();
    auto* payload = static_cast<std::uint8_t*>(space.ptr);
    const py::gil_scoped_release released;
    return EntropyWriter(codec_, kernels_, shape.rows).write(values, half, shape.rows, at, payload);
  }

  std::string decode(const py::buffer& payload, const py::array& rows) const {
    const Shape shape = rows_shape(rows);
    if (shape.width != codec_.width) throw std::invalid_argument("rows of another width than the tables");
    const py::buffer_info data = payload.request();
    const auto bytes = static_cast<std::size_t>(data.size * data.itemsize);
    auto* values = static_cast<std::uint8_t*>(py::array(rows).mutable_data());
    const bool half = is_half(rows);
    const py::gil_scoped_release released;
    return EntropyReader(codec_, kernels_, static_cast<const std::uint8_t*>(data.ptr), bytes)
        .read(values, half, shape.rows);
  }

 private:
  std::size_t max_bytes(std::size_t rows) const {
    const std::size_t lanes = kCoders * codec_.vectors;
    const std::size_t coded = codec_.head_bytes + 4 + kStatesBytes + lanes + 1 + 3 * codec_.most_patches;
    return states_end(rows) + rows * std::max(4 * codec_.width, coded);
  }

  Entropy codec_{};
  EntropyKernels kernels_;
};

}  // namespace
}  // namespace hyperlane

void bind_entropy(pybind11::module_& module) {
  namespace py = pybind11;
  using hyperlane::EntropyCodec;
  py::class_<EntropyCodec>(module, "EntropyCodec", "int4 with one boundary's tables made ready.")
      .def(py::init<py::bytes, float, hyperlane::FloatArray, hyperlane::FloatArray, float,
                    hyperlane::IndexArray, hyperlane::ByteArray, hyperlane::ByteArray, hyperlane::ByteArray,
                    std::string>(),
           py::kw_only(), py::arg("id"), py::arg("limit"), py::arg("mean"), py::arg("step"),
           py::arg("sixteenfold"), py::arg("order"), py::arg("shift"), py::arg("table"), py::arg("frequency"),
           py::arg("isa") = "")
      .def("encode", &EntropyCodec::encode, py::arg("rows"), py::arg("positions"), py::arg("out"),
           "Writes the payload to `out` (uint8) and returns its bytes.")
      .def("decode", &EntropyCodec::decode, py::arg("payload"), py::arg("rows"),
           "Writes the rows; returns '' or what is wrong with the payload.");
}
