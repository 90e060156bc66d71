// Operators of the domain "hyperlane" that run on GPUs, in FP16: HalfLinear and HalfAttention.
#pragma once
#include "ops/ort_abi.hpp"

namespace hyperlane::cuda_ops {

void add_operators(const ort::Runtime& runtime, ort::Domain* domain);

}  // namespace hyperlane::cuda_ops
