#include "quant/isa.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <vector>

namespace hyperlane {
namespace {

Isa detect() {
#ifdef HYPERLANE_X86
  const bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                      __builtin_cpu_supports("popcnt");
  if (!narrow) return Isa::scalar;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return wide ? Isa::avx512 : Isa::avx2;
#else
  return Isa::scalar;
#endif
}

const char* const kNames[] = {"scalar", "avx2", "avx512"};

}  // namespace

Isa best_isa() {
  static const Isa best = detect();
  return best;
}

Isa choose_isa(const std::string& name) {
  if (name.empty()) return best_isa();
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i)
    if (name == kNames[i]) return static_cast<Isa>(i);
  throw std::invalid_argument("isa '" + name + "' is unknown or not of this CPU");
}

}  // namespace hyperlane

void bind_isa(pybind11::module_& module) {
  module.def(
      "isas",
      [] {
        const int count = static_cast<int>(hyperlane::best_isa()) + 1;
        return std::vector<std::string>(hyperlane::kNames, hyperlane::kNames + count);
      },
      "Names of the instruction sets that kernels can be asked for here, the best last.");
}
