// The trellis code of int4 on vectors of V::W floats.
#pragma once
#include <type_traits>

#include "quant/trellis.hpp"

namespace hyperlane {
namespace {

template <class V>
struct TrellisPath {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int W = V::W;
  static constexpr int N = static_cast<int>(kBlock) / W;  // registers a block
  static constexpr int K = static_cast<int>(kLanes) / W;  // registers a step
  static constexpr unsigned kMask = (1u << (W - 1) << 1) - 1;

  struct Cost {
    F of[kStates][K];
  };

  // Rotated values of a row -> its codes under one scale. `room` takes two arrays as long as a padded row.
  static bool encode(const Rotated& codec, const float* values, float* room, std::uint8_t scale,
                     std::uint8_t* codes) {
    const float inverse = inverse_step(scale);
    const TrellisRoom work = trellis_room(codec, room);
    Cost cost;
    for (int state = 0; state < kStates; ++state)
      for (int k = 0; k < K; ++k) cost.of[state][k] = V::set(state ? kFar : 0);
    std::size_t step = 0;
    const Block *block = codec.blocks.data(), *end = block + codec.blocks.size();
    while (block < end) {
      const std::size_t run = run_length(block, end);
      dispatch(block->bits, [&](auto bits) {
        const Trellis& book = codec.trellises[bits()];
        std::uint8_t* below = work.below + kLanes * step;
        if (block->size == kBlock)
          advance_run<bits()>(book, values + block->start, run, inverse, cost, below, work.steps + step);
        else
          advance_tail<bits()>(book, *block, values, inverse, cost, below, work.steps + step);
      });
      step += block->bits ? run * step_count(*block) : 0;
      block += run;
    }
    std::uint32_t ends[2] = {};
    for (int k = 0; k < K; ++k) find_ends(cost, k, ends);
    trace_back(ends[0], ends[1], work.steps, step, work.path);
    step = 0;
    for (const Block& block : codec.blocks) {
      if (!block.bits) continue;
      if (block.size == kBlock)
        dispatch(block.bits, [&](auto bits) { store_block<bits()>(work, step, codes); });
      else
        write_codes(block, work, step, codes);
      step += step_count(block);
      codes += block.code_bytes;
    }
    return true;
  }

  // The values of a whole block's codes. `past` holds the path bits of the last 64 values, the latest on top.
  static void decode(const Rotated& codec, const Block& block, float step, const std::uint8_t* codes,
                     std::uint64_t& past, F* v) {
    dispatch(block.bits,
             [&](auto bits) { decode_block<bits()>(codec.trellises[bits()], V::set(step), codes, past, v); });
  }

 private:
  // How many whole blocks of the same bits come first; a short block is alone.
  static std::size_t run_length(const Block* block, const Block* end) {
    std::size_t run = 1;
    while (block[0].size == kBlock && block + run < end && block[run].size == kBlock &&
           block[run].bits == block[0].bits)
      ++run;
    return run;
  }

  template <int BITS>
  static void advance_run(const Trellis& book, const float* values, std::size_t blocks, float inverse,
                          Cost& total, std::uint8_t* below, Step* steps) {
    Cost cost = total;
    const typename V::template Search<BITS + 1> search(book.below);
    const typename V::template Nearest<BITS> nearest(book);
    for (std::size_t at = 0; at < blocks * kBlock; at += kBlock) {
      F value[N];
      I counts[N];
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) value[i] = V::mul(V::load(values + at + i * W), V::set(inverse));
      search.template find<N>(value, counts);
      F error[2][4 * K];  // of this step and the next, whose lookups need not wait for this one's sums
      errors_of<BITS>(nearest, value, counts, error[0]);
#pragma GCC unroll 4
      for (int i = 0; i < N / K; ++i) {
        if (i + 1 < N / K)
          errors_of<BITS>(nearest, value + (i + 1) * K, counts + (i + 1) * K, error[(i + 1) % 2]);
        advance_step(error[i % 2], cost, *steps++);
      }
      V::store_codes(counts, below + at);
    }
    total = cost;
  }

  template <int BITS>
  static void advance_tail(const Trellis& book, const Block& block, const float* values, float inverse,
                           Cost& cost, std::uint8_t* below, Step* steps) {
    const typename V::template Search<BITS + 1> search(book.below);
    const typename V::template Nearest<BITS> nearest(book);
    for (std::size_t at = 0; at < block.size; at += kLanes) {
      F value[K];
      I counts[K];
      for (int k = 0; k < K; ++k)
        value[k] = V::mul(V::load(values + block.start + at + k * W), V::set(inverse));
      search.template find<K>(value, counts);
      F error[4 * K];
      errors_of<BITS>(nearest, value, counts, error);
      for (int k = 0; k < K; ++k) hush(block.size - at, k, error + 4 * k);
      advance_step(error, cost, *steps++);
      std::uint32_t wide[kLanes];
      for (int k = 0; k < K; ++k) V::store_int(wide + k * W, counts[k]);
      std::copy(wide, wide + kLanes, below + at);
    }
  }

  template <int BITS>
  __attribute__((always_inline)) static void errors_of(const typename V::template Nearest<BITS>& nearest,
                                                       const F* value, const I* below, F* error) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) nearest.errors(value[k], below[k], error + 4 * k);
  }

  __attribute__((always_inline)) static void advance_step(const F* error, Cost& cost, Step& step) {
    std::uint32_t over[kStates] = {};
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) advance(error + 4 * k, cost, k, over);
    for (int state = 0; state < kStates; ++state) step.over[state] = static_cast<std::uint16_t>(over[state]);
  }

  // Lanes from `count` on are idle and carry nothing; `error` is of register k.
  static void hush(std::size_t count, int k, F* error) {
    const auto first = static_cast<std::size_t>(k * W);
    float ones[W] = {};
    std::fill(ones, ones + std::min<std::size_t>(count > first ? count - first : 0, W), 1.0f);
    for (int subset = 0; subset < 4; ++subset) error[subset] = V::mul(error[subset], V::load(ones));
  }

  __attribute__((always_inline)) static void advance(const F* error, Cost& cost, int k, std::uint32_t* over) {
    F without[kStates], better[kStates];
#pragma GCC unroll 4
    for (int state = 0; state < kStates; ++state) {
      const int p = state >> 1, p1 = state & 1;
      without[state] = V::add(cost.of[2 * p1][k], error[2 * p + p1]);
      better[state] = V::add(cost.of[2 * p1 + 1][k], error[2 * (1 - p) + p1]);
    }
#pragma GCC unroll 4
    for (int state = 0; state < kStates; ++state) {
      std::uint32_t is_better;
      cost.of[state][k] = V::lesser(better[state], without[state], is_better);
      over[state] |= is_better << (k * W);
    }
  }

  // The first of the cheapest states of each lane: its p1 and its p2.
  static void find_ends(const Cost& cost, int k, std::uint32_t* ends) {
    F least = cost.of[0][k];
    std::uint32_t high = 0, low = 0;
    for (int state = 1; state < kStates; ++state) {
      const std::uint32_t less = V::less(cost.of[state][k], least);
      least = V::min(cost.of[state][k], least);
      high = mux(less, state & 2 ? kMask : 0, high);
      low = mux(less, state & 1 ? kMask : 0, low);
    }
    ends[0] |= high << (k * W);
    ends[1] |= low << (k * W);
  }

  template <int BITS>
  static void store_block(const TrellisRoom& room, std::size_t step, std::uint8_t* codes) {
    std::memcpy(codes, room.path.bit + step, 8);
    if constexpr (BITS > 1) {
      std::uint64_t high, low;
      std::memcpy(&high, room.path.high + step, sizeof high);
      std::memcpy(&low, room.path.low + step, sizeof low);
      alignas(64) std::uint8_t sums[kBlock];
      V::subtract_subsets(room.below + kLanes * step, high, low, sums);
      V::template store_planes<BITS - 1, 2>(sums, codes + 8);  // index = sum / 4
    }
  }

  template <int BITS>
  static void decode_block(const Trellis& book, F step, const std::uint8_t* codes, std::uint64_t& past,
                           F* v) {
    std::uint64_t path, planes[BITS + 1];  // of the levels' numbers: index, then subset
    std::memcpy(&path, codes, 8);
    std::memcpy(planes, codes + 8, 8 * (BITS - 1));
    planes[BITS - 1] = path ^ (path << 32 | past >> 32);
    planes[BITS] = path << 16 | past >> 48;
    past = path;
    I level[N];
    V::template load_planes<BITS + 1>(reinterpret_cast<const std::uint8_t*>(planes), level);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::mul(V::template lookup<(2 << BITS)>(book.levels, level[i]), step);
  }

  // Calls `with` with the number of bits as a constant.
  template <class With>
  static void dispatch(int bits, With with) {
    switch (bits) {
      case 1:
        return with(std::integral_constant<int, 1>());
      case 2:
        return with(std::integral_constant<int, 2>());
      case 3:
        return with(std::integral_constant<int, 3>());
      case 4:
        return with(std::integral_constant<int, 4>());
      case 5:
        return with(std::integral_constant<int, 5>());
      case 6:
        return with(std::integral_constant<int, 6>());
      default:
        return;
    }
  }
};

}  // namespace
}  // namespace hyperlane
