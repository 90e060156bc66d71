// `hyperlane._native.cuda`: devices, memory, streams and events. Device pointers and streams are plain
// integers, as torch, CuPy and onnxruntime give them.
#ifdef HYPERLANE_CUDA
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/memory.hpp"

namespace py = pybind11;

namespace hyperlane {
void bind_device_codecs(py::module_& module);
namespace {

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver or no device: that is an answer, not a failure
  return 0;
}

void bind_memory(py::module_& module) {
  py::class_<PinnedBuffer>(module, "PinnedBuffer", py::buffer_protocol(),
                           "Host memory that copies to and from a GPU asynchronously; a buffer of bytes.")
      .def(py::init<std::size_t>(), py::arg("bytes"))
      .def_property_readonly("address", &PinnedBuffer::address)
      .def_buffer([](PinnedBuffer& buffer) {
        return py::buffer_info(buffer.data(), static_cast<py::ssize_t>(buffer.bytes()));
      });
  py::class_<DeviceBuffer>(module, "DeviceBuffer", "Memory of the current device.")
      .def(py::init<std::size_t>(), py::arg("bytes"))
      .def_property_readonly("bytes", &DeviceBuffer::bytes)
      .def_property_readonly("address", &DeviceBuffer::address);
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
  hyperlane::bind_memory(cuda);
  hyperlane::bind_device_codecs(cuda);
}
#endif
