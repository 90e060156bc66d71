// The largest logits of a row, and the logsumexp of all.
#pragma once
#include <cstdint>

#include "ops/kernels.hpp"

namespace hyperlane::ops {

// One row of `width` logits -> the `count` largest, the largest first, of equals the lower index first;
// returns log(sum of e^x). A NaN is never among them while there are other values.
float candidates(const float* x, int64_t width, int64_t count, const Kernels& kernels, int64_t* ids,
                 float* logits);

}  // namespace hyperlane::ops
