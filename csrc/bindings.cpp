// The Python module hyperlane._native: each part registers its own functions.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void bind_crc32c(py::module_& module);
void bind_cuda(py::module_& module);
void bind_entropy(py::module_& module);
void bind_isa(py::module_& module);
void bind_link(py::module_& module);
void bind_int4_plain(py::module_& module);
void bind_int8(py::module_& module);
void bind_ops(py::module_& module);
void bind_rotated(py::module_& module);
void bind_slices(py::module_& module);
void bind_turn(py::module_& module);

PYBIND11_MODULE(_native, module) {
  module.doc() = "Native data plane of Hyperlane; the Python files of the same names are its specification.";
  bind_isa(module);
  bind_crc32c(module);
  bind_link(module);
  bind_entropy(module);
  bind_int8(module);
  bind_int4_plain(module);
  bind_ops(module);
  bind_rotated(module);
  bind_slices(module);
  bind_turn(module);
#ifdef HYPERLANE_CUDA
  bind_cuda(module);
  module.attr("built_with_cuda") = true;
#else
  module.attr("built_with_cuda") = false;
#endif
}
