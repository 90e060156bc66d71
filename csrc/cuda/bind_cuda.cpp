// `hyperlane._native.cuda`: devices, memory, streams and events. Device pointers and streams are plain
// integers, as torch, CuPy and onnxruntime give them.
#ifdef HYPERLANE_CUDA
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "cuda/counters.hpp"
#include "cuda/memory.hpp"
#include "cuda/stamp.cuh"

namespace py = pybind11;

namespace hyperlane {
void bind_device_codecs(py::module_& module);
void bind_device_operators(py::module_& module);
namespace {

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver or no device: that is an answer, not a failure
  return 0;
}

void set_device(int index) { check_cuda(cudaSetDevice(index)); }

// Which GPU of the machine the current device is.
std::string device_name() {
  int index = 0;
  char name[32] = {};
  check_cuda(cudaGetDevice(&index));
  check_cuda(cudaDeviceGetPCIBusId(name, sizeof name, index));
  return name;
}

// Free and all bytes of the current device.
py::tuple memory_info() {
  std::size_t free_bytes = 0, total_bytes = 0;
  check_cuda(cudaMemGetInfo(&free_bytes, &total_bytes));
  return py::make_tuple(free_bytes, total_bytes);
}

py::bytes export_memory(std::uintptr_t address) {
  cudaIpcMemHandle_t handle;
  check_cuda(cudaIpcGetMemHandle(&handle, reinterpret_cast<void*>(address)));
  return {reinterpret_cast<const char*>(&handle), sizeof handle};
}

// Memory of another process, mapped for as long as this lives.
class ImportedMemory {
 public:
  explicit ImportedMemory(const std::string& handle) {
    cudaIpcMemHandle_t raw;
    if (handle.size() != sizeof raw) throw std::invalid_argument("not a handle of CUDA memory");
    std::memcpy(&raw, handle.data(), sizeof raw);
    check_cuda(cudaIpcOpenMemHandle(&data_, raw, cudaIpcMemLazyEnablePeerAccess));
  }
  ~ImportedMemory() { cudaIpcCloseMemHandle(data_); }
  ImportedMemory(const ImportedMemory&) = delete;
  ImportedMemory& operator=(const ImportedMemory&) = delete;
  std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(data_); }

 private:
  void* data_ = nullptr;
};

void bind_devices(py::module_& module) {
  module.def("device_count", &device_count, "GPUs that can be used; 0 without a driver.");
  module.def("set_device", &set_device, py::arg("index"), "Of this thread, from now on.");
  module.def("device_name", &device_name, "PCI address of the current device.");
  module.def("memory_info", &memory_info, "Free and all bytes of the current device.");
  module.def("export_memory", &export_memory, py::arg("address"),
             "A handle of a DeviceBuffer for other processes of this machine.");
  py::class_<ImportedMemory>(module, "ImportedMemory", "A DeviceBuffer of another process.")
      .def(py::init([](const py::bytes& handle) { return std::make_unique<ImportedMemory>(handle); }),
           py::arg("handle"))
      .def_property_readonly("address", &ImportedMemory::address);
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
           py::call_guard<py::gil_scoped_release>(),  // to or from memory that is not pinned it waits
           "Queue a copy between any two addresses, host or device.")
      .def("copy_rows", &Stream::copy_rows, py::arg("target"), py::arg("source"), py::arg("pitch"),
           py::arg("bytes"), py::arg("count"), "Queue a copy of rows that are `pitch` bytes apart.")
      .def(
          "stamp",
          [](Stream& stream, std::uintptr_t place) {
            check_cuda(stamp(reinterpret_cast<std::uint64_t*>(place), stream.get()));
          },
          py::arg("place"), "Queue: the GPU's clock in nanoseconds to a u64 in pinned memory.")
      .def("zero", &Stream::zero, py::arg("target"), py::arg("bytes"))
      .def("wait", &Stream::wait, py::arg("event"), "What is queued from now on starts after the event.")
      .def("synchronize", &Stream::synchronize, py::call_guard<py::gil_scoped_release>());
  py::class_<Event>(module, "Event", "A point in a stream.")
      .def(py::init<>())
      .def("record", &Event::record, py::arg("stream"))
      .def("synchronize", &Event::synchronize, py::call_guard<py::gil_scoped_release>());
  py::class_<SharedCounters>(module, "SharedCounters",
                             "Counters (u64) in memory shared with another process.")
      .def(py::init<std::uintptr_t, std::size_t>(), py::arg("address"), py::arg("bytes"))
      .def("wait", &SharedCounters::wait, py::arg("stream"), py::arg("index"), py::arg("value"),
           "What is queued on the stream from now on starts once the counter is at least `value`.")
      .def("hold", &SharedCounters::hold, py::arg("index"), py::arg("value"), py::arg("timeout_s"),
           py::call_guard<py::gil_scoped_release>(), "Wait here, busily; False where that takes too long.")
      .def("write", &SharedCounters::write, py::arg("stream"), py::arg("index"), py::arg("value"),
           "Once all that was queued on the stream before is done.");
}

}  // namespace
}  // namespace hyperlane

void bind_cuda(py::module_& module) {
  py::module_ cuda = module.def_submodule("cuda");
  hyperlane::bind_devices(cuda);
  hyperlane::bind_memory(cuda);
  hyperlane::bind_device_codecs(cuda);
  hyperlane::bind_device_operators(cuda);
}
#endif
