// NumPy arrays of rows as kernels take them: contiguous, float32 or float16.
#pragma once
#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace hyperlane {

namespace py = pybind11;

struct Shape {
  std::size_t rows;
  std::size_t width;
};

inline bool is_half(const py::array& array) {
  if (array.dtype().kind() == 'f' && array.itemsize() == 2) return true;
  if (array.dtype().kind() == 'f' && array.itemsize() == 4) return false;
  throw std::invalid_argument("rows must be float32 or float16");
}

inline Shape rows_shape(const py::array& array) {
  if (array.ndim() != 2 || !(array.flags() & py::array::c_style))
    throw std::invalid_argument("rows must be a C-contiguous array [rows, width]");
  return {static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1))};
}

// A read-only view of any buffer's bytes; throws where its length is not `expected`.
class Bytes {
 public:
  Bytes(const py::buffer& buffer, std::size_t expected) {
    if (PyObject_GetBuffer(buffer.ptr(), &view_, PyBUF_C_CONTIGUOUS) != 0) throw py::error_already_set();
    if (static_cast<std::size_t>(view_.len) != expected) {
      const std::string got = std::to_string(view_.len);
      PyBuffer_Release(&view_);
      throw std::invalid_argument("payload of " + got + " bytes, expected " + std::to_string(expected));
    }
  }
  ~Bytes() { PyBuffer_Release(&view_); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  std::uint8_t* data() const { return static_cast<std::uint8_t*>(view_.buf); }

 private:
  Py_buffer view_;
};

}  // namespace hyperlane
