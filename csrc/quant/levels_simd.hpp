// The scale search of h4 on vectors of V::W floats: the squared error and the codes of blocks under each of
// their scales. Scales that round to the same byte are tried once.
#pragma once
#include "quant/rotated_block.hpp"

namespace hyperlane {
namespace {

template <class V>
struct LevelSearch {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int W = V::W;
  static constexpr int N = static_cast<int>(kBlock) / W;  // registers a block
  static constexpr std::size_t kTrials = 4;

  // Of trial i of block b, at 4 b + i: the scale's code (as a float), what it stands for, its inverse, the
  // error, and 64 codes. A trial that is left out has an infinite error.
  struct Trial {
    float *scale_codes, *steps, *inverses, *errors;
    std::uint8_t* codes;
    std::uint32_t* tasks;
  };

  // In (4 * 5 + 64) * blocks + 4 floats.
  static Trial room(float* work, std::size_t blocks) {
    return {work,
            work + 4 * blocks,
            work + 8 * blocks,
            work + 12 * blocks,
            reinterpret_cast<std::uint8_t*>(work + 20 * blocks + 4),
            reinterpret_cast<std::uint32_t*>(work + 16 * blocks)};
  }

  // Fills errors and codes of the first `blocks` blocks, which are whole, from their rotated values. The
  // narrowest scale comes last, and only where what it clips does not already cost more than the best of the
  // others.
  static void run(const Codebook& book, const float* values, std::size_t blocks, const Trial& trial) {
    std::fill(trial.errors, trial.errors + kTrials * blocks, INFINITY);
    attempt_all(book, values, list_wider(blocks, trial), trial);
    attempt_all(book, values, list_narrowest(values, blocks, trial), trial);
  }

 private:
  // Each is a number of tasks, a trial each. A scale that equals its neighbour gives the same codes.
  static std::size_t list_wider(std::size_t blocks, const Trial& trial) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < kTrials * blocks; at += kTrials) {
      trial.tasks[count++] = static_cast<std::uint32_t>(at + 1);
      for (std::size_t i = at + 2; i < at + kTrials; ++i) {
        trial.tasks[count] = static_cast<std::uint32_t>(i);
        count += trial.scale_codes[i] != trial.scale_codes[i - 1];
      }
    }
    return count;
  }

  static std::size_t list_narrowest(const float* values, std::size_t blocks, const Trial& trial) {
    std::size_t count = 0;
    for (std::size_t first = 0; first < blocks; first += 4) {
      F parts[4];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) {
        const std::size_t block = std::min(first + i, blocks - 1);
        parts[i] = clipped(values + block * kBlock, trial.steps[kTrials * block]);
      }
      float least[4];
      V::sum_each(parts, least);
      for (std::size_t i = 0; i < std::min<std::size_t>(4, blocks - first); ++i) {
        const std::size_t at = kTrials * (first + i);
        const float* errors = trial.errors + at;
        // A sum of some of the squares is never above the sum of all, however both round.
        const bool open = !(least[i] > std::min(errors[1], std::min(errors[2], errors[3])));
        trial.tasks[count] = static_cast<std::uint32_t>(at);
        count += open & (trial.scale_codes[at] != trial.scale_codes[at + 1]);
      }
    }
    return count;
  }

  // As attempt(), of the values alone that lie beyond the last level.
  __attribute__((always_inline)) static F clipped(const float* values, float step) {
    F v[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
      v[i] = V::max(V::sub(V::abs(V::load(values + i * W)), V::set(step)), V::set(0));
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::mul(v[i], v[i]);
    return fold(v);
  }

  static void attempt_all(const Codebook& book, const float* values, std::size_t count, const Trial& trial) {
    const typename V::Search search{book};
    for (; count % 4; ++count) trial.tasks[count] = trial.tasks[count - 1];  // in fours
    for (std::size_t first = 0; first < count; first += 4) {
      F parts[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t task = trial.tasks[first + static_cast<std::size_t>(i)];
        parts[i] = attempt(book, search, values + task / kTrials * kBlock, trial.steps[task],
                           trial.inverses[task], trial.codes + kBlock * task);
      }
      float errors[4];
      V::sum_each(parts, errors);
      for (std::size_t i = 0; i < 4; ++i) trial.errors[trial.tasks[first + i]] = errors[i];
    }
  }

  // The register-wise part of the halving sum of a block's squared errors under one scale.
  __attribute__((always_inline)) static F attempt(const Codebook& book, const typename V::Search& search,
                                                  const float* values, float step, float inverse,
                                                  std::uint8_t* codes) {
    alignas(64) float levels[16];
    for (int i = 0; i < 16; i += W) V::store(levels + i, V::mul(V::load(book.levels + i), V::set(step)));
    F exact[N], v[N];
    I code[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) exact[i] = V::load(values + i * W);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::mul(exact[i], V::set(inverse));
    search.template find<N>(v, code);
    V::store_codes(code, codes);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::template lookup<16>(levels, code[i]);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::sub(exact[i], v[i]);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::mul(v[i], v[i]);
    return fold(v);
  }

 public:
  // The register-wise part of a block's halving sum. Overwrites `v`.
  template <int HALF = N / 2>
  static F fold(F* v) {
#pragma GCC unroll 4
    for (int i = 0; i < HALF; ++i) v[i] = V::add(v[i], v[i + HALF]);
    if constexpr (HALF > 1) return fold<HALF / 2>(v);
    return v[0];
  }
};

}  // namespace
}  // namespace hyperlane
