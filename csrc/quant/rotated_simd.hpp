// The rotated codecs on vectors of V::W floats. Include it after V and under the target's options; all is internal.
#pragma once
#include "quant/rotated_block.hpp"

namespace hyperlane {
namespace {

template <class V>
struct Simd {
  using F = typename V::F;  // W floats
  using I = typename V::I;  // W 32-bit integers
  static constexpr int W = V::W;
  static constexpr int N = static_cast<int>(kBlock) / W;  // registers a block

  template <int H>
  static void hadamard_lanes(F* v) {
    for (int i = 0; i < N; ++i) v[i] = V::add(V::template swap<H>(v[i]), V::template flip<H>(v[i]));
    if constexpr (H > 1) hadamard_lanes<H / 2>(v);
  }

  static void hadamard(F* v) {
    for (int half = N / 2; half; half /= 2)
      for (int base = 0; base < N; base += 2 * half)
        for (int i = base; i < base + half; ++i) {
          const F first = v[i], second = v[i + half];
          v[i] = V::add(first, second);
          v[i + half] = V::sub(first, second);
        }
    hadamard_lanes<W / 2>(v);
  }

  template <int H>
  static F sum_lanes(F v) {
    v = V::add(v, V::template swap<H>(v));
    if constexpr (H > 1) return sum_lanes<H / 2>(v);
    return v;
  }

  // The halving sum of a block, in every lane. Overwrites `v`.
  static F sum(F* v) {
    for (int half = N / 2; half; half /= 2)
      for (int i = 0; i < half; ++i) v[i] = V::add(v[i], v[i + half]);
    return sum_lanes<W / 2>(v[0]);
  }

  template <int H>
  static F max_lanes(F v) {
    v = V::max(v, V::template swap<H>(v));
    if constexpr (H > 1) return max_lanes<H / 2>(v);
    return v;
  }

  static float absmax(const F* v) {
    F most = V::abs(v[0]);
    for (int i = 1; i < N; ++i) most = V::max(most, V::abs(v[i]));
    return V::first(max_lanes<W / 2>(most));
  }

  template <int BITS, int LEVEL = 0>
  static I search(const Codebook& book, F value, I index) {
    if constexpr (LEVEL == BITS) {
      return index;
    } else {
      const F threshold = V::template lookup<(1 << LEVEL)>(book.thresholds[LEVEL], index);
      return search<BITS, LEVEL + 1>(book, value, V::template set_if_greater<LEVEL>(index, value, threshold));
    }
  }

  template <int BITS>
  static float gain(const Codebook& book, const F* v) {
    F squares[N], products[N], norms[N];
    for (int i = 0; i < N; ++i) squares[i] = V::mul(v[i], v[i]);
    const float rms = std::sqrt(V::first(sum(squares)) * (1.0f / kBlock));
    const F inverse = V::set(rms > 0 ? 1.0f / rms : 0.0f);
    for (int i = 0; i < N; ++i) {
      const I index = search<BITS>(book, V::mul(v[i], inverse), V::zero());
      const F level = V::template lookup<(1 << BITS)>(book.levels, index);
      products[i] = V::mul(v[i], level);
      norms[i] = V::mul(level, level);
    }
    return V::first(sum(products)) / V::first(sum(norms));
  }

  template <int BITS, int TRIALS>
  static bool encode_levels(const Rotated& codec, const F* v, float gain, std::uint8_t* scale, std::uint8_t* codes) {
    const Codebook& book = codec.books[BITS];
    const Trials trials = try_scales(codec, gain);
    F least = V::set(INFINITY);
    I best[N], chosen = V::zero();
    for (int i = 0; i < N; ++i) best[i] = V::zero();
    for (int trial = 0; trial < TRIALS; ++trial) {
      const F inverse = V::set(trials.inverse[trial]), step = V::set(trials.step[trial]);
      I index[N];
      F errors[N];
      for (int i = 0; i < N; ++i) {
        index[i] = search<BITS>(book, V::mul(v[i], inverse), V::zero());
        const F wrong = V::sub(v[i], V::mul(V::template lookup<(1 << BITS)>(book.levels, index[i]), step));
        errors[i] = V::mul(wrong, wrong);
      }
      const F error = sum(errors);
      const auto better = V::less(error, least);
      least = V::choose(better, error, least);
      chosen = V::choose(better, V::set_int(trial), chosen);
      for (int i = 0; i < N; ++i) best[i] = V::choose(better, index[i], best[i]);
    }
    *scale = trials.code[V::first_int(chosen)];
    for (int level = 0; level < BITS; ++level)
      for (int i = 0; i < N; ++i) V::store_plane(best[i], level, codes + level * 8 + i * (W / 8));
    return gain * codec.trials.back() <= kLargestScale;
  }

  template <int BITS>
  static bool encode_gauss(const Rotated& codec, const F* v, std::uint8_t* scale, std::uint8_t* codes) {
    return encode_levels<BITS, 3>(codec, v, gain<BITS>(codec.books[BITS], v), scale, codes);
  }

  static bool encode_bytes(const F* v, std::uint8_t* scale, std::uint8_t* codes) {
    const float most = absmax(v) * 16.0f;
    const std::uint32_t code = byte_scale(most);
    const F inverse = V::set((code ? 1.0f / e4m3_step(code) : 0.0f) * 127.0f);
    for (int i = 0; i < N; ++i) V::store_bytes(V::mul(v[i], inverse), codes + i * W);
    *scale = static_cast<std::uint8_t>(code);
    return most <= kLargestScale;
  }

  static bool encode(const Rotated& codec, int bits, const F* v, std::uint8_t* scale, std::uint8_t* codes) {
    if (codec.quantizer == Quantizer::nf4) return encode_levels<4, 4>(codec, v, absmax(v), scale, codes);
    switch (bits) {
      case 1: return encode_gauss<1>(codec, v, scale, codes);
      case 2: return encode_gauss<2>(codec, v, scale, codes);
      case 3: return encode_gauss<3>(codec, v, scale, codes);
      case 4: return encode_gauss<4>(codec, v, scale, codes);
      case 5: return encode_gauss<5>(codec, v, scale, codes);
      case 6: return encode_gauss<6>(codec, v, scale, codes);
      default: return encode_bytes(v, scale, codes);
    }
  }

  template <int BITS>
  static void decode_levels(const Codebook& book, float step, const std::uint8_t* codes, F* v) {
    const F factor = V::set(step);
    for (int i = 0; i < N; ++i) {
      I index = V::zero();
      for (int level = 0; level < BITS; ++level) index = V::load_plane(index, level, codes + level * 8 + i * (W / 8));
      v[i] = V::mul(V::template lookup<(1 << BITS)>(book.levels, index), factor);
    }
  }

  static void decode(const Rotated& codec, int bits, float step, const std::uint8_t* codes, F* v) {
    switch (bits) {
      case 1: return decode_levels<1>(codec.books[1], step, codes, v);
      case 2: return decode_levels<2>(codec.books[2], step, codes, v);
      case 3: return decode_levels<3>(codec.books[3], step, codes, v);
      case 4: return decode_levels<4>(codec.books[4], step, codes, v);
      case 5: return decode_levels<5>(codec.books[5], step, codes, v);
      case 6: return decode_levels<6>(codec.books[6], step, codes, v);
      default: break;
    }
    const F factor = V::set(step * (1.0f / 127.0f));
    for (int i = 0; i < N; ++i) v[i] = V::mul(V::load_bytes(codes + i * W), factor);
  }

  static float load_row(const void* values, bool half, std::size_t width, float* row) {
    F sums[N];
    for (int i = 0; i < N; ++i) sums[i] = V::set(0);
    for (std::size_t start = 0; start < width; start += kBlock) {
      const bool whole = start + kBlock <= width;
      if (!whole) load_tail(values, half, start, width, row);
      for (int i = 0; i < N; ++i) {
        const std::size_t at = start + static_cast<std::size_t>(i * W);
        F value;
        if (!whole)
          value = V::load(row + at);
        else
          value = half ? V::load_half(static_cast<const half_bits*>(values) + at)
                       : V::load(static_cast<const float*>(values) + at);
        V::store(row + at, value);
        sums[i] = V::add(sums[i], V::mul(value, value));
      }
    }
    return V::first(sum(sums));
  }

  static void load_tail(const void* values, bool half, std::size_t start, std::size_t width, float* row) {
    for (std::size_t i = start; i < start + kBlock; ++i) row[i] = 0;
    for (std::size_t i = start; i < width; ++i)
      row[i] = half ? half_to_float(static_cast<const half_bits*>(values)[i]) : static_cast<const float*>(values)[i];
  }

  static void store_row(const float* row, std::size_t width, void* values, bool half) {
    std::size_t i = 0;
    for (; i + W <= width; i += W) {
      if (half)
        V::store_half(static_cast<half_bits*>(values) + i, V::load(row + i));
      else
        V::store(static_cast<float*>(values) + i, V::load(row + i));
    }
    for (; i < width; ++i) {
      if (half)
        static_cast<half_bits*>(values)[i] = float_to_half(row[i]);
      else
        static_cast<float*>(values)[i] = row[i];
    }
  }

  static bool encode_row(const Rotated& codec, const float* row, float inverse_rms, float* scratch,
                         std::uint8_t* scales, std::uint8_t* codes) {
    const F inverse = V::set(inverse_rms);
    bool fits = true;
    for (const Block& block : codec.blocks) {
      if (!block.bits) continue;
      F v[N];
      for (int i = 0; i < N; ++i) {
        const std::size_t at = block.start + static_cast<std::size_t>(i * W);
        const F value = codec.order.empty() ? V::load(row + at) : V::gather(row, codec.order.data() + at);
        v[i] = V::mul(V::sub(V::mul(value, inverse), V::load(&codec.mean[at])), V::load(&codec.forward[at]));
      }
      if (block.size == kBlock) {
        hadamard(v);
        fits &= encode(codec, block.bits, v, scales++, codes);
      } else {
        for (int i = 0; i < N; ++i) V::store(scratch + i * W, v[i]);
        hyperlane::hadamard(scratch, block.size);
        fits &= encode_block(codec, block, scratch, scales++, codes);
      }
      codes += block.code_bytes;
    }
    return fits;
  }

  static void decode_row(const Rotated& codec, const std::uint8_t* scales, const std::uint8_t* codes, float rms,
                         float* scratch, float* row) {
    float* values = codec.order.empty() ? row : scratch;
    const F factor = V::set(rms);
    for (const Block& block : codec.blocks) {
      F v[N];
      for (int i = 0; i < N; ++i) v[i] = V::set(0);
      if (block.size == kBlock) {
        if (block.bits) decode(codec, block.bits, e4m3_step(*scales++), codes, v);
        hadamard(v);
      } else {
        alignas(64) float tail[kBlock] = {};
        if (block.bits) decode_block(codec, block, *scales++, codes, tail);
        hyperlane::hadamard(tail, block.size);
        for (int i = 0; i < N; ++i) v[i] = V::load(tail + i * W);
      }
      codes += block.code_bytes;
      for (int i = 0; i < N; ++i) {
        const std::size_t at = block.start + static_cast<std::size_t>(i * W);
        const F value = V::add(V::mul(v[i], V::load(&codec.backward[at])), V::load(&codec.mean[at]));
        V::store(values + at, V::mul(value, factor));
      }
    }
    if (codec.order.empty()) return;
    for (std::size_t at = 0; at < codec.width; at += W) V::store(row + at, V::gather(values, codec.place.data() + at));
  }

  static RotatedKernels kernels() { return {load_row, store_row, encode_row, decode_row}; }
};

}  // namespace
}  // namespace hyperlane
