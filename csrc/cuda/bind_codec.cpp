// The codecs' kernels in `hyperlane._native.cuda`. Device pointers and streams are plain integers, as torch,
// CuPy and onnxruntime give them.
#ifdef HYPERLANE_CUDA
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/codec.hpp"
#include "cuda/host_path.hpp"

namespace py = pybind11;

namespace hyperlane {
namespace {

using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;
using ByteArray = py::array_t<std::uint8_t, py::array::c_style | py::array::forcecast>;
using IndexArray = py::array_t<std::uint32_t, py::array::c_style | py::array::forcecast>;

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

template <class T>
std::vector<T> vector_of(const py::array_t<T, py::array::c_style | py::array::forcecast>& array) {
  return {array.data(), array.data() + array.size()};
}

template <class Id>
void take_id(const std::string& bytes, Id& id) {
  if (bytes.size() != id.size()) throw std::invalid_argument("a codec's tables have an id of 8 bytes");
  std::copy(bytes.begin(), bytes.end(), id.begin());
}

std::shared_ptr<KernelCodec> make_rotated(int quantizer, const std::string& id, float limit,
                                          const FloatArray& mean, const FloatArray& forward,
                                          const FloatArray& backward,
                                          const std::vector<std::array<std::size_t, 3>>& blocks,
                                          const std::vector<int>& levels, std::size_t max_rows,
                                          std::optional<std::size_t> few_rows) {
  RotatedParts parts{};
  if (quantizer != 0 && quantizer != 2) throw std::invalid_argument("not the parts of a rotated codec");
  take_id(id, parts.id);
  parts.quantizer = quantizer == 0 ? DeviceQuantizer::levels : DeviceQuantizer::bytes;
  parts.limit = limit;
  parts.mean = vector_of(mean);
  parts.forward = vector_of(forward);
  parts.backward = vector_of(backward);
  parts.blocks = blocks;
  parts.levels = levels;
  return std::make_shared<RotatedDeviceCodec>(parts, max_rows,
                                              few_rows.value_or(DeviceCodec::kTwiceTheProcessors));
}

std::shared_ptr<KernelCodec> make_entropy(const std::string& id, float limit, const FloatArray& mean,
                                          const FloatArray& step, float sixteenfold, const IndexArray& order,
                                          const ByteArray& shift, const ByteArray& table,
                                          const ByteArray& frequency, std::size_t max_rows,
                                          std::optional<std::size_t> few_rows) {
  EntropyDeviceParts parts{};
  take_id(id, parts.id);
  parts.limit = limit, parts.sixteenfold = sixteenfold;
  parts.mean = vector_of(mean);
  parts.step = vector_of(step);
  parts.order = vector_of(order);
  parts.shift = vector_of(shift);
  parts.table = vector_of(table);
  parts.frequency = vector_of(frequency);
  return std::make_shared<EntropyDeviceKernels>(parts, max_rows,
                                                few_rows.value_or(DeviceEntropyCodec::kTwiceTheProcessors));
}

void bind_codecs(py::module_& module) {
  py::class_<KernelCodec, std::shared_ptr<KernelCodec>>(module, "Codec",
                                                        "A codec's kernels on the current device.")
      .def(
          "encode",
          [](KernelCodec& codec, std::uintptr_t rows, bool half, std::size_t row_count,
             std::uintptr_t positions, std::uintptr_t payload, std::uintptr_t payload_bytes,
             std::uintptr_t stream) {
            codec.encode(pointer<void>(rows), half, row_count, pointer<unsigned>(positions),
                         pointer<void>(payload), pointer<void>(payload_bytes), pointer<CUstream_st>(stream));
          },
          py::arg("rows"), py::arg("half"), py::arg("row_count"), py::arg("positions"), py::arg("payload"),
          py::arg("payload_bytes"), py::arg("stream"),
          "Queue an encoding; `payload_bytes`, a u64, gets the length where it is not fixed.")
      .def(
          "decode",
          [](KernelCodec& codec, std::uintptr_t payload, std::size_t row_count, std::uintptr_t rows,
             bool half, std::uintptr_t stream) {
            codec.decode(pointer<void>(payload), row_count, pointer<void>(rows), half,
                         pointer<CUstream_st>(stream));
          },
          py::arg("payload"), py::arg("row_count"), py::arg("rows"), py::arg("half"), py::arg("stream"),
          "Queue a decoding of a payload whose length was checked.")
      .def("max_bytes", &KernelCodec::max_bytes, py::arg("rows"))
      .def("usual_bytes", &KernelCodec::usual_bytes, py::arg("rows"))
      .def_property_readonly("fixed", &KernelCodec::fixed);
  module.def(
      "int4_plain",
      [](std::size_t width) -> std::shared_ptr<KernelCodec> { return std::make_shared<PlainKernels>(width); },
      py::arg("width"));
  module.def(
      "raw",
      [](std::size_t row_bytes) -> std::shared_ptr<KernelCodec> {
        return std::make_shared<RawKernels>(row_bytes);
      },
      py::arg("row_bytes"));
  module.def("rotated", &make_rotated, py::kw_only(), py::arg("quantizer"), py::arg("id"), py::arg("limit"),
             py::arg("mean"), py::arg("forward"), py::arg("backward"), py::arg("blocks"), py::arg("levels"),
             py::arg("max_rows"), py::arg("few_rows") = py::none(),
             "h4 (0) or h8 (2) with one boundary's tables on the current device.");
  module.def("entropy", &make_entropy, py::kw_only(), py::arg("id"), py::arg("limit"), py::arg("mean"),
             py::arg("step"), py::arg("sixteenfold"), py::arg("order"), py::arg("shift"), py::arg("table"),
             py::arg("frequency"), py::arg("max_rows"), py::arg("few_rows") = py::none(),
             "int4 with one boundary's tables on the current device.");
}

std::size_t encode(HostPath& path, std::uintptr_t rows, bool half, std::size_t row_count,
                   const IndexArray& positions, const Event* after) {
  if (static_cast<std::size_t>(positions.size()) != row_count)
    throw std::invalid_argument("as many positions as rows");
  const std::uint32_t* at = positions.data();
  const py::gil_scoped_release released;
  return path.encode(pointer<void>(rows), half, row_count, at, after);
}

bool take(HostPath& path, const py::buffer& payload, std::size_t row_count, std::uintptr_t rows, bool half,
          const Event& free, Event& done) {
  const py::buffer_info view = payload.request();
  const auto bytes = static_cast<std::size_t>(view.size * view.itemsize);
  const py::gil_scoped_release released;
  return path.take(static_cast<const std::uint8_t*>(view.ptr), bytes, row_count, pointer<void>(rows), half,
                   free, done);
}

void bind_path(py::module_& module) {
  py::class_<HostPath>(module, "HostPath", "Rows on the device to payloads in pinned memory, and back.")
      .def(py::init<std::shared_ptr<KernelCodec>, std::size_t, std::size_t>(), py::arg("codec"),
           py::arg("max_rows"), py::arg("depth") = 1)
      .def("encode", &encode, py::arg("rows"), py::arg("half"), py::arg("row_count"), py::arg("positions"),
           py::arg("after") = nullptr, "The bytes of the payload that now stands in `payload`.")
      .def("take", &take, py::arg("payload"), py::arg("row_count"), py::arg("rows"), py::arg("half"),
           py::arg("free"), py::arg("done"),
           "Queue a decoding after `free` and before `done`; False for bytes that are no such payload.")
      .def(
          "decode",
          [](HostPath& path, std::size_t bytes, std::size_t row_count, std::uintptr_t rows, bool half) {
            path.decode(bytes, row_count, pointer<void>(rows), half);
          },
          py::arg("bytes"), py::arg("row_count"), py::arg("rows"), py::arg("half"),
          py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("max_rows", &HostPath::max_rows)
      .def_property_readonly("payload", &HostPath::payload, py::return_value_policy::reference_internal);
}

}  // namespace

void bind_device_codecs(py::module_& module) {
  bind_codecs(module);
  bind_path(module);
}

}  // namespace hyperlane
#endif
