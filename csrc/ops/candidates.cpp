#include "ops/candidates.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace hyperlane::ops {
namespace {

constexpr int64_t kChunk = 256;

// At least `count` values are not below this: the count-th largest of the chunks' largest, if there are so
// many.
float threshold(const std::vector<float>& largest, int64_t count) {
  if (static_cast<int64_t>(largest.size()) < count) return -std::numeric_limits<float>::infinity();
  std::vector<float> sorted = largest;
  std::nth_element(sorted.begin(), sorted.begin() + (count - 1), sorted.end(), std::greater<float>());
  return sorted[count - 1];
}

}  // namespace

float candidates(const float* x, int64_t width, int64_t count, const Kernels& kernels, int64_t* ids,
                 float* logits) {
  std::vector<float> largest;
  for (int64_t start = 0; start < width; start += kChunk)
    largest.push_back(kernels.largest(x + start, std::min(kChunk, width - start)));
  const float least = threshold(largest, count);
  std::vector<int64_t> found;
  for (int64_t start = 0; start < width; start += kChunk) {
    if (largest[start / kChunk] < least) continue;
    for (int64_t i = start; i < std::min(width, start + kChunk); ++i)
      if (x[i] >= least) found.push_back(i);
  }
  for (int64_t i = 0; static_cast<int64_t>(found.size()) < count; ++i)  // only where there are NaNs
    if (!(x[i] >= least)) found.push_back(i);
  const auto before = [x](int64_t a, int64_t b) {
    if (x[a] > x[b]) return true;
    if (x[a] < x[b]) return false;
    return std::isnan(x[a]) != std::isnan(x[b]) ? std::isnan(x[b]) : a < b;
  };
  std::partial_sort(found.begin(), found.begin() + count, found.end(), before);
  for (int64_t i = 0; i < count; ++i) {
    ids[i] = found[i];
    logits[i] = x[found[i]];
  }
  const float most = *std::max_element(largest.begin(), largest.end());
  const float sum = kernels.exponential_sum(x, width, most);
  return static_cast<float>(static_cast<double>(most) + std::log(static_cast<double>(sum)));
}

}  // namespace hyperlane::ops
