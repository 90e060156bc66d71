// The rotated codecs on vectors of V::W floats. Include it after V and under the target's options; all is
// internal.
#pragma once
#include "quant/rotated_block.hpp"

namespace hyperlane {
namespace {

template <class V>
struct Simd {
  using F = typename V::F;  // W floats
  static constexpr int W = V::W;
  static constexpr int N = static_cast<int>(kBlock) / W;  // registers a block
  static constexpr int kAtOnce = W == 16 ? 2 : 1;         // blocks whose transforms run side by side
  static constexpr int kReadAtOnce = W == 16 ? 4 : 1;     // blocks that are read side by side
  static constexpr std::size_t kTiles = 16;  // blocks of some rows whose scales are found at once

  // Stage by stage for BLOCKS blocks at once, as the chain of one leaves the units idle.
  template <int BLOCKS, int H>
  static void hadamard_lanes(F* v) {
#pragma GCC unroll 16
    for (int i = 0; i < BLOCKS * N; ++i) v[i] = V::template butterfly<H>(v[i]);
    if constexpr (H > 1) hadamard_lanes<BLOCKS, H / 2>(v);
  }

  template <int BLOCKS, int HALF>
  static void hadamard_registers(F* v) {
#pragma GCC unroll 16
    for (int i = 0; i < BLOCKS * N; ++i)
      if (!(i & HALF)) {
        const F first = v[i], second = v[i + HALF];
        v[i] = V::add(first, second);
        v[i + HALF] = V::sub(first, second);
      }
    if constexpr (HALF > 1) hadamard_registers<BLOCKS, HALF / 2>(v);
  }

  template <int BLOCKS = 1>
  static void hadamard(F* v) {
    hadamard_registers<BLOCKS, N / 2>(v);
    hadamard_lanes<BLOCKS, W / 2>(v);
  }

  // One register of N folded into one by `with`.
  template <int HALF = N / 2, class With>
  static F fold(F* v, With with) {
#pragma GCC unroll 4
    for (int i = 0; i < HALF; ++i) v[i] = with(v[i], v[i + HALF]);
    if constexpr (HALF > 1) return fold<HALF / 2>(v, with);
    return v[0];
  }

  template <int H = W / 2, class With>
  static float fold_lanes(F v, With with) {
    v = with(v, V::template swap<H>(v));
    if constexpr (H > 1) return fold_lanes<H / 2>(v, with);
    return V::first(v);
  }

  static F load(const half_bits* values) { return V::load_half(values); }
  static F load(const float* values) { return V::load(values); }
  static void store(half_bits* values, F v) { V::store_half(values, v); }
  static void store(float* values, F v) { V::store(values, v); }

  static float squares(const void* values, bool half, std::size_t width) {
    return half ? squares_of(static_cast<const half_bits*>(values), width)
                : squares_of(static_cast<const float*>(values), width);
  }

  template <class T>
  static float squares_of(const T* values, std::size_t width) {
    F sums[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sums[i] = V::set(0);
    std::size_t at = 0;
    for (; at + kBlock <= width; at += kBlock) add_squares(values + at, sums);
    if (at < width) {
      T rest[kBlock] = {};
      std::copy(values + at, values + width, rest);
      add_squares(rest, sums);
    }
    return fold_lanes(fold(sums, V::add), V::add);
  }

  template <class T>
  static void add_squares(const T* values, F* sums) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const F value = load(values + i * W);
      sums[i] = V::add(sums[i], V::mul(value, value));
    }
  }

  // ---- encoding

  // A whole block of a row, on its way to codes.
  template <class T>
  struct Tile {
    const T* values;
    float inverse_rms;
    std::size_t start;
  };

  // Some blocks of all rows before the next, so that the tables are read once, and stage by stage, so that
  // tiles overlap in the pipeline instead of waiting on a scale.
  template <class T>
  static bool encode_rows(const Rotated& codec, std::size_t count, const SourceRow* rows) {
    const std::size_t whole = codec.width / kBlock, blocks = kTiles / count;
    Tile<T> tiles[kTiles];
    bool fits = true;
    for (std::size_t first = 0; first < whole; first += blocks) {
      const std::size_t stop = std::min(first + blocks, whole);
      std::size_t n = 0;
      for (std::size_t b = first; b < stop; ++b)
        for (std::size_t i = 0; i < count; ++i)
          tiles[n++] = {static_cast<const T*>(rows[i].values) + b * kBlock, rows[i].inverse_rms, b * kBlock};
      fits &= encode_tiles(codec, tiles, first, stop, count, rows);
    }
    for (std::size_t i = 0; whole < codec.blocks.size() && i < count; ++i)
      fits &= encode_from(codec, whole, rows[i], sizeof(T) == 2);
    return fits;
  }

  template <class T>
  static bool encode_tiles(const Rotated& codec, const Tile<T>* tiles, std::size_t first, std::size_t stop,
                           std::size_t count, const SourceRow* rows) {
    const std::size_t n = (stop - first) * count;
    alignas(64) float values[kTiles * kBlock], highs[kTiles], lows[kTiles];
    F of_highs[kTiles], of_lows[kTiles];
    std::size_t t = 0;
    for (; t + kAtOnce <= n; t += kAtOnce)
      rotate<kAtOnce>(codec, tiles + t, values + t * kBlock, of_highs + t, of_lows + t);
    for (; t < n; ++t) rotate<1>(codec, tiles + t, values + t * kBlock, of_highs + t, of_lows + t);
    for (; t < kTiles; ++t) of_highs[t] = of_lows[t] = V::set(0);
    for (t = 0; t < kTiles; t += 4) {
      V::largest(of_highs + t, highs + t);
      V::largest(of_lows + t, lows + t);
    }
    alignas(64) std::uint32_t scales[kTiles];
    alignas(64) float factors[kTiles];
    const bool bytes = codec.quantizer == Quantizer::bytes;
    const float most = bytes ? choose_scales([](float of, bool sign) { return byte_scale(of, sign); }, highs,
                                             lows, scales, factors)
                             : choose_scales([](float of, bool sign) { return level_scale(of, sign); }, highs,
                                             lows, scales, factors);
    t = 0;
    for (std::size_t b = first; b < stop; ++b)
      for (std::size_t i = 0; i < count; ++i, ++t) {
        rows[i].scales[b] = static_cast<std::uint8_t>(scales[t]);
        const float* const of_tile = values + t * kBlock;
        const F factor = V::set(factors[t]);
        if (bytes)
          write_bytes(of_tile, factor, rows[i].codes + b * kBlock);
        else
          V::write_levels(codec.levels, of_tile, factor, rows[i].codes + b * kBlock / 2);
      }
    return most <= kLargestScale;
  }

  // Returns the largest of 16 times a block's magnitude. No branches, so that the loop is vectors.
  template <class Choose>
  static float choose_scales(const Choose& choose, const float* highs, const float* lows,
                             std::uint32_t* scales, float* factors) {
    alignas(64) float sixteenfold[kTiles];
    F most = V::set(0);
    for (std::size_t t = 0; t < kTiles; t += W) {
      const F of = V::max(V::max(V::load(highs + t), V::load(lows + t)), V::set(0));
      V::store(sixteenfold + t, V::mul(of, V::set(16)));
      most = V::max(most, of);
    }
    for (std::size_t t = 0; t < kTiles; ++t) {
      const Scale scale = choose(sixteenfold[t], lows[t] > highs[t]);
      scales[t] = scale.byte;
      factors[t] = scale.factor;
    }
    return fold_lanes(most, V::max) * 16.0f;
  }

  // Centres, scales and turns tiles; of each, the largest value and the largest of the negatives, lane by
  // lane.
  template <int TILES, class T>
  static void rotate(const Rotated& codec, const Tile<T>* tiles, float* values, F* highs, F* lows) {
    F v[TILES * N];
#pragma GCC unroll 2
    for (int t = 0; t < TILES; ++t) {
      const F inverse_rms = V::set(tiles[t].inverse_rms);
      const float *mean = &codec.mean[tiles[t].start], *forward = &codec.forward[tiles[t].start];
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) {
        const F unit = V::mul(load(tiles[t].values + i * W), inverse_rms);
        v[t * N + i] = V::mul(V::sub(unit, V::load(mean + i * W)), V::load(forward + i * W));
      }
    }
    hadamard<TILES>(v);
#pragma GCC unroll 16
    for (int i = 0; i < TILES * N; ++i) V::store(values + i * W, v[i]);
#pragma GCC unroll 2
    for (int t = 0; t < TILES; ++t) {
      F high[N], low[N];
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) high[i] = low[i] = v[t * N + i];
      highs[t] = fold(high, V::max);
      lows[t] = V::sub(V::set(0), fold(low, V::min));
    }
  }

  static void write_bytes(const float* values, F factor, std::uint8_t* codes) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) V::store_bytes(V::mul(V::load(values + i * W), factor), codes + i * W);
  }

  static bool encode(const Rotated& codec, bool half, std::size_t count, const SourceRow* rows) {
    return half ? encode_rows<half_bits>(codec, count, rows) : encode_rows<float>(codec, count, rows);
  }

  // ---- decoding

  // The transform of a block's whole numbers.
  static void read_bytes(const std::uint8_t* codes, F* v) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::load_bytes(codes + i * W);
    hadamard(v);
  }

  template <class T>
  static void decode_rows(const Rotated& codec, std::size_t count, const RecordRow* rows) {
    const std::size_t whole = codec.width / kBlock;
    if (codec.quantizer == Quantizer::bytes) {
      for (std::size_t b = 0; b < whole; ++b)
        for (std::size_t i = 0; i < count; ++i) {
          F v[N];
          read_bytes(rows[i].codes + b * kBlock, v);
          finish<T>(codec, b * kBlock, v, codec.step[rows[i].scales[b]], rows[i]);
        }
    } else {
      const typename V::LevelTable table(codec.levels);
      for (std::size_t b = 0; b < whole; ++b) {
        std::size_t i = 0;
        for (; i + kReadAtOnce <= count; i += kReadAtOnce)
          read_rows<kReadAtOnce, T>(codec, table, b, rows + i);
        for (; i < count; ++i) read_rows<1, T>(codec, table, b, rows + i);
      }
    }
    for (std::size_t i = 0; whole < codec.blocks.size() && i < count; ++i)
      decode_from(codec, whole, rows[i], sizeof(T) == 2);
  }

  // A block of some rows.
  template <int ROWS, class T>
  static void read_rows(const Rotated& codec, const typename V::LevelTable& table, std::size_t block,
                        const RecordRow* rows) {
    const std::uint8_t* planes[ROWS];
    F v[ROWS * N];
    for (int i = 0; i < ROWS; ++i) planes[i] = rows[i].codes + block * kBlock / 2;
    V::template read_levels<ROWS>(table, planes, v);
    for (int i = 0; i < ROWS; ++i)
      finish<T>(codec, block * kBlock, v + i * N, codec.step[rows[i].scales[block]], rows[i]);
  }

  // Undoes step, scale, mean and RMS of one block.
  template <class T>
  static void finish(const Rotated& codec, std::size_t start, const F* v, float step, const RecordRow& row) {
    const F factor = V::set(step), rms = V::set(row.rms);
    T* const out = static_cast<T*>(row.values) + start;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const std::size_t at = start + static_cast<std::size_t>(i * W);
      const F scaled = V::mul(V::mul(v[i], factor), V::load(&codec.backward[at]));
      store(out + i * W, V::mul(V::add(scaled, V::load(&codec.mean[at])), rms));
    }
  }

  static void decode(const Rotated& codec, bool half, std::size_t count, const RecordRow* rows) {
    if (half)
      decode_rows<half_bits>(codec, count, rows);
    else
      decode_rows<float>(codec, count, rows);
  }

  static RotatedKernels kernels() { return {squares, encode, decode}; }
};

}  // namespace
}  // namespace hyperlane
