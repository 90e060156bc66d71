// hyperlane._native.linear, attention, candidates: the graphs' operators as functions of arrays, for the
// tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <vector>

#include "ops/attention.hpp"
#include "ops/candidates.hpp"
#include "ops/linear.hpp"

namespace py = pybind11;

namespace hyperlane::ops {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using OptionalFloats = std::optional<Array<float>>;

const float* pointer(const OptionalFloats& array) { return array ? array->data() : nullptr; }

Weights weights_of(int bits, const Array<uint8_t>& codes, const Array<uint16_t>& scales,
                   const std::optional<Array<uint16_t>>& minima) {
  if (codes.ndim() != 5 || scales.ndim() != 3 || (minima && minima->ndim() != 3))
    throw std::invalid_argument("codes need 5 dimensions, scales and minima 3");
  return {bits,         codes.shape(0), codes.shape(1),
          codes.data(), scales.data(),  minima ? minima->data() : nullptr};
}

std::vector<Array<float>> linear(const Array<float>& x, int bits, const Array<uint8_t>& codes,
                                 const Array<uint16_t>& scales, const std::optional<Array<uint16_t>>& minima,
                                 const std::vector<int64_t>& sizes, bool gated, const OptionalFloats& norm,
                                 float epsilon, const OptionalFloats& bias, const OptionalFloats& residual,
                                 const std::string& isa) {
  Linear layer{weights_of(bits, codes, scales, minima),
               x.shape(1),
               {0, 0, 0},
               gated,
               epsilon,
               pointer(norm),
               pointer(bias),
               pointer(residual)};
  std::vector<Array<float>> results;
  float* outputs[kMostOutputs] = {};
  for (size_t i = 0; i < sizes.size() && i < kMostOutputs; ++i) {
    layer.sizes[i] = sizes[i];
    results.emplace_back(std::vector<py::ssize_t>{x.shape(0), static_cast<py::ssize_t>(sizes[i])});
    outputs[i] = results.back().mutable_data();
  }
  const Kernels& chosen = kernels(isa.empty() ? best_ops_isa() : choose_isa(isa));
  py::gil_scoped_release release;
  layer.run(x.data(), x.shape(0), outputs, chosen,
            [](int64_t count, const std::function<void(int64_t)>& job) {
              for (int64_t i = 0; i < count; ++i) job(i);
            });
  return results;
}

py::tuple candidates_of(const Array<float>& logits, int64_t count, const std::string& isa) {
  const int64_t rows = logits.shape(0), width = logits.shape(1);
  count = std::min(count, width);
  Array<int64_t> ids({rows, count});
  Array<float> kept({rows, count}), sums(std::vector<py::ssize_t>{rows});
  const Kernels& chosen = kernels(isa.empty() ? best_ops_isa() : choose_isa(isa));
  for (int64_t r = 0; r < rows; ++r)
    sums.mutable_data()[r] = candidates(logits.data() + r * width, width, count, chosen,
                                        ids.mutable_data() + r * count, kept.mutable_data() + r * count);
  return py::make_tuple(ids, kept, sums);
}

// Writes to `keys` and `values`; cos and sin [.., rotary / 2] may be left out.
Array<float> attention(const Array<float>& q, const Array<float>& k, const Array<float>& v,
                       Array<uint8_t> keys, Array<uint8_t> values, const Array<int64_t>& positions,
                       const Array<int64_t>& slots, int64_t heads, int bits, float scale, int64_t window,
                       float softcap, const OptionalFloats& cos, const OptionalFloats& sin,
                       const std::string& isa) {
  Attention layer{};
  layer.heads = heads, layer.kv_heads = keys.shape(1), layer.head_dim = q.shape(1) / heads;
  layer.slots = keys.shape(0), layer.length = keys.shape(2), layer.kind = static_cast<CacheKind>(bits);
  layer.scale = scale, layer.window = window, layer.softcap = softcap;
  std::vector<int64_t> rotary_rows(q.shape(0));
  for (size_t r = 0; r < rotary_rows.size(); ++r) rotary_rows[r] = static_cast<int64_t>(r);
  if (cos) {
    layer.rotary = 2 * cos->shape(1), layer.cos = cos->data(), layer.sin = pointer(sin);
    layer.rotary_rows = rotary_rows.data();
  }
  if (keys.ndim() != 4 || values.size() != keys.size() || layer.length % kPositions ||
      keys.shape(3) != position_bytes(layer.kind, layer.head_dim) || positions.size() != q.shape(0) ||
      slots.size() != q.shape(0) || k.size() != q.shape(0) * layer.kv_heads * layer.head_dim ||
      v.size() != k.size())
    throw std::invalid_argument("attention: rows and cache do not fit each other");
  Array<float> out({q.shape(0), q.shape(1)});
  layer.run(q.data(), k.data(), v.data(), slots.data(), positions.data(), q.shape(0), keys.mutable_data(),
            values.mutable_data(), out.mutable_data(), isa.empty() ? best_ops_isa() : choose_isa(isa),
            [](int64_t count, const std::function<void(int64_t)>& job) {
              for (int64_t i = 0; i < count; ++i) job(i);
            });
  return out;
}

}  // namespace
}  // namespace hyperlane::ops

void bind_ops(py::module_& module) {
  using namespace hyperlane::ops;
  module.def("linear", &linear, py::arg("x"), py::arg("bits"), py::arg("codes"), py::arg("scales"),
             py::arg("minima"), py::arg("sizes"), py::arg("gated") = false, py::arg("norm") = py::none(),
             py::arg("epsilon") = 0.0f, py::arg("bias") = py::none(), py::arg("residual") = py::none(),
             py::arg("isa") = "");
  module.def("attention", &attention, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("keys").noconvert(),
             py::arg("values").noconvert(), py::arg("positions"), py::arg("slots"), py::arg("heads"),
             py::arg("bits"), py::arg("scale"), py::arg("window") = 0, py::arg("softcap") = 0.0f,
             py::arg("cos") = py::none(), py::arg("sin") = py::none(), py::arg("isa") = "");
  module.def("candidates", &candidates_of, py::arg("logits"), py::arg("count"), py::arg("isa") = "");
}
