#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/attention.hpp"
#include "ops/numbers.hpp"

#define HYPERLANE_LANES inline
#define HYPERLANE_LANES_CALL inline

namespace hyperlane::ops {
namespace {

struct Lanes {
  static constexpr int kMostQueries = 1, kMostVectors = 1;
  float x[16];

  template <typename F>
  static Lanes each(F of) {
    Lanes y;
    for (int i = 0; i < 16; ++i) y.x[i] = of(i);
    return y;
  }
  static Lanes all(float value) {
    return each([&](int) { return value; });
  }
  static Lanes load(const float* from, int64_t count) {
    return each([&](int i) { return i < count ? from[i] : 0.0f; });
  }
  static Lanes load_halves(const uint16_t* from, int64_t count) {
    return each([&](int i) { return i < count ? half_to_float(from[i]) : 0.0f; });
  }
  static Lanes load_bytes(const int8_t* from, int64_t count) {
    return each([&](int i) { return i < count ? static_cast<float>(from[i]) : 0.0f; });
  }
  static void store(const Lanes& a, float* to, int64_t count) {
    for (int64_t i = 0; i < count && i < 16; ++i) to[i] = a.x[i];
  }
  static Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return each([&](int i) { return std::fma(a.x[i], b.x[i], c.x[i]); });
  }
  static Lanes add(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.x[i] + b.x[i]; });
  }
  static Lanes sub(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.x[i] - b.x[i]; });
  }
  static Lanes mul(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.x[i] * b.x[i]; });
  }
  static Lanes div(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.x[i] / b.x[i]; });
  }
  // Where either is a NaN, the second, as x86 has it.
  static Lanes max(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.x[i] > b.x[i] ? a.x[i] : b.x[i]; });
  }
  static Lanes min(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.x[i] < b.x[i] ? a.x[i] : b.x[i]; });
  }
  static Lanes round(const Lanes& a) {
    return each([&](int i) { return round_even(a.x[i]); });
  }
  static Lanes scaled(const Lanes& a, const Lanes& power) {
    return each([&](int i) {
      return a.x[i] * bits_to_float(static_cast<uint32_t>(static_cast<int32_t>(power.x[i]) + 127) << 23);
    });
  }
  static Lanes keep(const Lanes& a, int64_t start, int64_t stop, const Lanes& other) {
    return each([&](int i) { return start <= i && i < stop ? a.x[i] : other.x[i]; });
  }
  static float largest(const Lanes& a) { return *std::max_element(a.x, a.x + 16); }
  static float sum(Lanes a) {
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) a.x[i] += a.x[i + half];
    return a.x[0];
  }
};

#include "ops/attention_kernels.hpp"

}  // namespace

const AttentionKernels kAttentionScalar = {Lanes::kMostQueries, attend};

}  // namespace hyperlane::ops
