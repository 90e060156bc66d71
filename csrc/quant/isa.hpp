// Which instruction set a kernel runs on, chosen when it is called.
#pragma once
#include <string>

namespace hyperlane {

enum class Isa { scalar, avx2, avx512 };

// The best that this CPU has. AVX2 here means AVX2 and F16C, AVX-512 means F, BW, DQ and VL.
Isa best_isa();

// "" is the best; "scalar", "avx2", "avx512" are for tests. Throws std::invalid_argument for what this CPU
// lacks.
Isa choose_isa(const std::string& name);

}  // namespace hyperlane

#if defined(__x86_64__) && defined(__GNUC__)
#define HYPERLANE_X86 1
#define HYPERLANE_AVX2 __attribute__((target("avx2,f16c")))
#define HYPERLANE_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,f16c")))
#endif
