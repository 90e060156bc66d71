// What the kernels of custom operators share: shapes, and a class as ONNX Runtime's description of an
// operator.
#pragma once
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "ops/ort_abi.hpp"

namespace hyperlane::ops {

constexpr size_t kMostDims = 4;

struct Shape {
  int64_t dims[kMostDims];
  size_t rank;
  int64_t rows() const {
    int64_t count = 1;
    for (size_t i = 0; i + 1 < rank; ++i) count *= dims[i];
    return count;
  }
};

inline Shape shape_of(const ort::Runtime& runtime, const ort::Value* value) {
  Shape shape{};
  shape.rank = runtime.shape(value, shape.dims, kMostDims);
  return shape;
}

// Of a class with a name, a provider (null: the CPU's), types of inputs and outputs, and `compute`.
template <typename Kernel>
constexpr ort::CustomOp describe() {
  return {ort::kOpVersion,
          [](const ort::CustomOp*, const ort::Api* api, const ort::KernelInfo* info) -> void* {
            return new Kernel(api, info);
          },
          [](const ort::CustomOp*) { return Kernel::kName; },
          [](const ort::CustomOp*) -> const char* { return Kernel::kProvider; },
          [](const ort::CustomOp*, size_t i) { return Kernel::kInputs[i]; },
          [](const ort::CustomOp*) { return std::size(Kernel::kInputs); },
          [](const ort::CustomOp*, size_t i) { return Kernel::kOutputs[i]; },
          [](const ort::CustomOp*) { return std::size(Kernel::kOutputs); },
          [](void* kernel, ort::KernelContext* context) { static_cast<Kernel*>(kernel)->compute(context); },
          [](void* kernel) { delete static_cast<Kernel*>(kernel); },
          [](const ort::CustomOp*, size_t i) {
            return i < Kernel::kRequiredInputs ? ort::kRequired : ort::kOptional;
          },
          [](const ort::CustomOp*, size_t i) { return i < 1 ? ort::kRequired : ort::kOptional; }};
}

}  // namespace hyperlane::ops
