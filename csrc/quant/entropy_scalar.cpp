// int4 in plain C++.
#include "quant/entropy_plain.hpp"

namespace hyperlane {

EntropyKernels scalar_entropy_kernels() { return plain_entropy_kernels(); }

}  // namespace hyperlane
