// hyperlane._native.cuda: the operators' kernels as functions of addresses, for the tests.
#ifdef HYPERLANE_CUDA
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/memory.hpp"
#include "cuda_ops/attention.hpp"
#include "cuda_ops/product.hpp"

namespace py = pybind11;

namespace hyperlane {
namespace {

using namespace cuda_ops;

constexpr int kHopper = 9;

template <typename T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Whether the current device has what the operators are made of.
bool has_operators() {
  int device = 0, major = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess)
    return major == kHopper;  // later ones may have less shared memory than the kernels ask for
  cudaGetLastError();
  return false;
}

void half_linear(std::uintptr_t x, std::uintptr_t weight, std::uintptr_t up, std::uintptr_t norm,
                 std::uintptr_t residual, std::uintptr_t out, std::uintptr_t scratch, int rows, int K, int N,
                 float epsilon, const Stream& stream) {
  multiply_rows({pointer<half>(x), pointer<half>(weight), pointer<half>(up), pointer<half>(norm),
                 pointer<half>(residual), pointer<half>(out), rows, K, N, epsilon},
                pointer<half>(scratch), stream.get());
}

void half_attention(std::uintptr_t packed, std::uintptr_t keys, std::uintptr_t values,
                    std::uintptr_t positions, std::uintptr_t cos, std::uintptr_t sin, std::uintptr_t out,
                    int slots, int rows, int heads, int kv_heads, int head, int length, float scale,
                    const Stream& stream) {
  const Attention attention{pointer<half>(packed),
                            pointer<half>(keys),
                            pointer<half>(values),
                            pointer<std::int64_t>(positions),
                            pointer<half>(cos),
                            pointer<half>(sin),
                            pointer<half>(out),
                            slots,
                            rows,
                            heads,
                            kv_heads,
                            head,
                            length,
                            scale};
  check_cuda(rows == 1 ? attend_one(attention, stream.get()) : attend_many(attention, stream.get()));
}

}  // namespace

void bind_device_operators(py::module_& module) {
  module.def("has_operators", &has_operators, "Whether the operators run on the current device.");
  module.def("half_linear", &half_linear, py::arg("x"), py::arg("weight"), py::arg("up"), py::arg("norm"),
             py::arg("residual"), py::arg("out"), py::arg("scratch"), py::arg("rows"), py::arg("K"),
             py::arg("N"), py::arg("epsilon"), py::arg("stream"));
  module.def("half_attention", &half_attention, py::arg("packed"), py::arg("keys"), py::arg("values"),
             py::arg("positions"), py::arg("cos"), py::arg("sin"), py::arg("out"), py::arg("slots"),
             py::arg("rows"), py::arg("heads"), py::arg("kv_heads"), py::arg("head"), py::arg("length"),
             py::arg("scale"), py::arg("stream"));
}

}  // namespace hyperlane
#endif
