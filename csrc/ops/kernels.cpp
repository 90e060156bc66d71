#include "ops/kernels.hpp"

namespace hyperlane::ops {

Isa best_ops_isa() {
#ifdef HYPERLANE_X86
  if (best_isa() == Isa::avx512 && !__builtin_cpu_supports("avx512vnni")) return Isa::avx2;
#endif
  return best_isa();
}

const Kernels& kernels(Isa isa) {
#ifdef HYPERLANE_X86
  if (isa == Isa::avx512 && best_ops_isa() == Isa::avx512) return kAvx512;
  if (isa != Isa::scalar) return kAvx2;
#endif
  (void)isa;
  return kScalar;
}

}  // namespace hyperlane::ops
