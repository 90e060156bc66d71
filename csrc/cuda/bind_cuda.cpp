// The CUDA kernels and what feeds them, as `hyperlane._native.cuda`. Device pointers and streams are plain
// integers, as torch, CuPy and onnxruntime give them.
#ifdef HYPERLANE_CUDA
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/memory.hpp"
#include "quant/int4_plain.cuh"

namespace py = pybind11;

namespace hyperlane {
void bind_rotated_cuda(py::module_& module);
namespace {

void* pointer(std::uintptr_t address) { return reinterpret_cast<void*>(address); }
cudaStream_t stream_of(std::uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver or no device: that is an answer, not a failure
  return 0;
}

void bind_int4_plain_cuda(py::module_& module) {
  module.def(
      "int4_plain_encode",
      [](std::uintptr_t rows, bool half, std::size_t row_count, std::size_t width, std::uintptr_t payload,
         std::uintptr_t stream) {
        check_cuda(
            int4_plain_encode(pointer(rows), half, row_count, width, pointer(payload), stream_of(stream)));
      },
      py::arg("rows"), py::arg("half"), py::arg("row_count"), py::arg("width"), py::arg("payload"),
      py::arg("stream"));
  module.def(
      "int4_plain_decode",
      [](std::uintptr_t payload, std::size_t row_count, std::size_t width, std::uintptr_t rows, bool half,
         std::uintptr_t stream) {
        check_cuda(
            int4_plain_decode(pointer(payload), row_count, width, pointer(rows), half, stream_of(stream)));
      },
      py::arg("payload"), py::arg("row_count"), py::arg("width"), py::arg("rows"), py::arg("half"),
      py::arg("stream"));
}

void bind_memory(py::module_& module) {
  py::class_<PinnedBuffer>(module, "PinnedBuffer", py::buffer_protocol(),
                           "Host memory that copies to and from a GPU asynchronously; a buffer of bytes.")
      .def(py::init<std::size_t>(), py::arg("bytes"))
      .def_property_readonly("address", &PinnedBuffer::address)
      .def_buffer([](PinnedBuffer& buffer) {
        return py::buffer_info(buffer.data(), static_cast<py::ssize_t>(buffer.bytes()));
      });
  py::class_<Stream>(module, "Stream", "A CUDA stream of its own, which waits for no other.")
      .def(py::init<>())
      .def_property_readonly("address", &Stream::address)
      .def("copy", &Stream::copy, py::arg("target"), py::arg("source"), py::arg("bytes"),
           "Queue a copy between any two addresses, host or device.")
      .def("wait", &Stream::wait, py::arg("event"), "What is queued from now on starts after the event.")
      .def("synchronize", &Stream::synchronize, py::call_guard<py::gil_scoped_release>());
  py::class_<Event>(module, "Event", "A point in a stream.")
      .def(py::init<>())
      .def("record", &Event::record, py::arg("stream"))
      .def("synchronize", &Event::synchronize, py::call_guard<py::gil_scoped_release>());
}

}  // namespace
}  // namespace hyperlane

void bind_cuda(py::module_& module) {
  py::module_ cuda = module.def_submodule("cuda");
  cuda.def("device_count", &hyperlane::device_count, "GPUs that can be used; 0 without a driver.");
  hyperlane::bind_int4_plain_cuda(cuda);
  hyperlane::bind_rotated_cuda(cuda);
  hyperlane::bind_memory(cuda);
}
#endif
