// The rotated codecs' kernels in `hyperlane._native.cuda`.
#ifdef HYPERLANE_CUDA
#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/memory.hpp"
#include "quant/rotated.cuh"

namespace py = pybind11;

namespace hyperlane {
namespace {

void* pointer(std::uintptr_t address) { return reinterpret_cast<void*>(address); }
cudaStream_t stream_of(std::uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

}  // namespace

void bind_rotated_cuda(py::module_& module) {
  module.def("rotated_scratch_bytes", &rotated_scratch_bytes, py::arg("row_count"), py::arg("row_bytes"),
             "Device memory that encode and decode work in.");
  module.def(
      "rotated_encode",
      [](std::uintptr_t plan, std::size_t row_bytes, std::uintptr_t rows, bool half, std::size_t row_count,
         std::uintptr_t positions, std::uintptr_t scratch, std::uintptr_t payload,
         std::uintptr_t payload_bytes, std::uintptr_t stream) {
        check_cuda(rotated_encode(pointer(plan), row_bytes, pointer(rows), half, row_count,
                                  pointer(positions), pointer(scratch), pointer(payload),
                                  pointer(payload_bytes), stream_of(stream)));
      },
      py::kw_only(), py::arg("plan"), py::arg("row_bytes"), py::arg("rows"), py::arg("half"),
      py::arg("row_count"), py::arg("positions"), py::arg("scratch"), py::arg("payload"),
      py::arg("payload_bytes"), py::arg("stream"),
      "Queue an encoding; `plan` is RotatedCodec.plan() on the device, `payload_bytes` a u64 that gets the "
      "length.");
  module.def(
      "rotated_decode",
      [](std::uintptr_t plan, std::size_t width, std::size_t row_bytes, std::uintptr_t payload,
         std::size_t row_count, std::uintptr_t scratch, std::uintptr_t rows, bool half,
         std::uintptr_t stream) {
        check_cuda(rotated_decode(pointer(plan), width, row_bytes, pointer(payload), row_count,
                                  pointer(scratch), pointer(rows), half, stream_of(stream)));
      },
      py::kw_only(), py::arg("plan"), py::arg("width"), py::arg("row_bytes"), py::arg("payload"),
      py::arg("row_count"), py::arg("scratch"), py::arg("rows"), py::arg("half"), py::arg("stream"),
      "Queue a decoding of a payload whose length was checked.");
}

}  // namespace hyperlane
#endif
