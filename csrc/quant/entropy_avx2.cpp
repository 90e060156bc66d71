// int4 as the compiler makes it of plain C++ with AVX2.
#include "quant/isa.hpp"
#ifdef HYPERLANE_X86
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

// Before the target's options: these are shared with files of other targets.
#include "quant/e4m3.hpp"
#include "quant/entropy.hpp"
#include "quant/half.hpp"
#include "quant/raw_rows.hpp"

#pragma GCC push_options
#pragma GCC target("avx2,f16c,bmi,bmi2,popcnt")
#include "quant/entropy_plain.hpp"

namespace hyperlane {

EntropyKernels avx2_entropy_kernels() { return plain_entropy_kernels(); }

}  // namespace hyperlane
#pragma GCC pop_options
#endif
