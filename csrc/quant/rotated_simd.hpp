// The rotated codecs on vectors of V::W floats. Include it after V and under the target's options; all is
// internal.
#pragma once
#include "quant/levels_simd.hpp"
#include "quant/rotated_block.hpp"

namespace hyperlane {
namespace {

template <class V>
struct Simd {
  using F = typename V::F;  // W floats
  using I = typename V::I;  // W 32-bit integers
  static constexpr int W = V::W;
  static constexpr int N = static_cast<int>(kBlock) / W;  // registers a block
  static constexpr int kAtOnce = W == 16 ? 2 : 1;         // blocks whose transforms run side by side
  static constexpr int kDecodedAtOnce = W == 16 ? 4 : 1;  // where decoding them takes few registers
  using Levels = LevelSearch<V>;

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

  template <int H>
  static F sum_lanes(F v) {
    v = V::add(v, V::template swap<H>(v));
    if constexpr (H > 1) return sum_lanes<H / 2>(v);
    return v;
  }

  // The halving sum of a block. Overwrites `v`.
  static float sum(F* v) { return V::first(sum_lanes<W / 2>(Levels::fold(v))); }

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

  static bool encode_bytes(const F* v, std::uint8_t* scale, std::uint8_t* codes) {
    const float most = absmax(v) * 16.0f;
    const std::uint32_t code = byte_scale(most);
    const F inverse = V::set(e4m3_inverse(code) * 127.0f);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) V::store_bytes(V::mul(v[i], inverse), codes + i * W);
    *scale = static_cast<std::uint8_t>(code);
    return most <= kLargestScale;
  }

  static void decode_nf4(const Codebook& book, float step, const std::uint8_t* codes, F* v) {
    alignas(64) float levels[16];
    for (int i = 0; i < 16; i += W) V::store(levels + i, V::mul(V::load(book.levels + i), V::set(step)));
    I code[N];
    V::template load_planes<4>(codes, code);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::template lookup<16>(levels, code[i]);
  }

  static void decode_bytes(float step, const std::uint8_t* codes, F* v) {
    const F factor = V::set(step * (1.0f / 127.0f));
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::mul(V::load_bytes(codes + i * W), factor);
  }

  static float load_row(const void* values, bool half, std::size_t width, float* row) {
    F sums[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) sums[i] = V::set(0);
    for (std::size_t start = 0; start < width; start += kBlock) {
      const bool whole = start + kBlock <= width;
      if (!whole) load_tail(values, half, start, width, row);
#pragma GCC unroll 8
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
    return sum(sums);
  }

  static void load_tail(const void* values, bool half, std::size_t start, std::size_t width, float* row) {
    for (std::size_t i = start; i < start + kBlock; ++i) row[i] = 0;
    for (std::size_t i = start; i < width; ++i)
      row[i] = half ? half_to_float(static_cast<const half_bits*>(values)[i])
                    : static_cast<const float*>(values)[i];
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

  // Centres, scales and turns a block of a row, or several whole ones.
  template <int BLOCKS = 1>
  static void rotate(const Rotated& codec, const Block& block, const float* row, F inverse_rms, F* v) {
#pragma GCC unroll 16
    for (int i = 0; i < BLOCKS * N; ++i) {
      const std::size_t at = block.start + static_cast<std::size_t>(i * W);
      const F unit = V::mul(V::load(row + at), inverse_rms);
      v[i] = V::mul(V::sub(unit, V::load(&codec.mean[at])), V::load(&codec.forward[at]));
    }
    if (block.size == kBlock) hadamard<BLOCKS>(v);
  }

  static void write(const F* v, float* values) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) V::store(values + i * W, v[i]);
  }

  static void read(const float* values, F* v) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) v[i] = V::load(values + i * W);
  }

  // One stage for all blocks before the next, so that blocks overlap in the pipeline instead of waiting on
  // sums.
  static bool encode_row(const Rotated& codec, const float* row, float inverse_rms, float* room,
                         std::uint8_t* scales, std::uint8_t* codes) {
    const std::size_t count = codec.blocks.size();
    float *values = room, *gains = room + codec.mean.size(), *work = gains + count;
    const std::size_t whole = codec.width / kBlock;
    std::size_t b = 0;
    for (; b + kAtOnce <= whole; b += kAtOnce)
      rotate_blocks<kAtOnce>(codec, codec.blocks[b], row, V::set(inverse_rms), values, gains + b);
    for (; b < count; ++b)
      rotate_blocks<1>(codec, codec.blocks[b], row, V::set(inverse_rms), values, gains + b);
    if (codec.quantizer == Quantizer::bytes) return encode_bytes_row(codec, values, scales, codes);
    return encode_levels_row(codec, values, gains, work, scales, codes);
  }

  template <int BLOCKS>
  static void rotate_blocks(const Rotated& codec, const Block& block, const float* row, F inverse_rms,
                            float* values, float* gains) {
    F v[BLOCKS * N];
    rotate<BLOCKS>(codec, block, row, inverse_rms, v);
#pragma GCC unroll 2
    for (int b = 0; b < BLOCKS; ++b) {
      write(v + b * N, values + block.start + static_cast<std::size_t>(b) * kBlock);
      gains[b] = block.size == kBlock ? absmax(v + b * N) : 0;
    }
  }

  static bool encode_levels_row(const Rotated& codec, const float* values, const float* gains, float* work,
                                std::uint8_t* scales, std::uint8_t* codes) {
    const std::size_t count = codec.blocks.size();
    const typename Levels::Trial trial = Levels::room(work, count);
    try_scales(codec, count, gains, trial.scale_codes, trial.steps, trial.inverses);
    Levels::run(codec.nf4, values, codec.width / kBlock, trial);
    bool fits = true;
    for (std::size_t b = 0; b < count; ++b) {
      const Block& block = codec.blocks[b];
      if (block.size == kBlock) {
        const std::size_t best = 4 * b + least(trial.errors + 4 * b, codec.trials.size());
        V::template store_planes<4>(trial.codes + kBlock * best, codes);
        *scales++ = static_cast<std::uint8_t>(static_cast<std::int32_t>(trial.scale_codes[best]));
        fits &= gains[b] * codec.trials.back() <= kLargestScale;
      } else {
        fits &= encode_tail(codec, block, values, scales++, codes);
      }
      codes += block.code_bytes;
    }
    return fits;
  }

  static std::size_t least(const float* errors, std::size_t count) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < count; ++i) best = errors[i] < errors[best] ? i : best;
    return best;
  }

  // Four for each block: scale codes (as floats), what they stand for, and its inverse.
  static void try_scales(const Rotated& codec, std::size_t count, const float* gains, float* codes,
                         float* steps, float* inverses) {
    float factors[4] = {};
    std::copy(codec.trials.begin(), codec.trials.end(), factors);
    for (std::size_t b = 0; b < count; ++b)
      for (std::size_t trial = 0; trial < 4; ++trial) codes[4 * b + trial] = gains[b] * factors[trial];
    for (std::size_t i = 0; i < 4 * count; ++i) {
      const std::uint32_t code = e4m3_nearest(codes[i]);
      const float step = e4m3_step(code), inverse = 1.0f / step;
      codes[i] = static_cast<float>(static_cast<std::int32_t>(code));
      steps[i] = step;
      inverses[i] = bits_to_float(pick(code != 0, float_to_bits(inverse), 0));
    }
  }

  static bool encode_bytes_row(const Rotated& codec, const float* values, std::uint8_t* scales,
                               std::uint8_t* codes) {
    bool fits = true;
    for (const Block& block : codec.blocks) {
      F v[N];
      read(values + block.start, v);
      fits &= block.size == kBlock ? encode_bytes(v, scales++, codes)
                                   : encode_tail(codec, block, values, scales++, codes);
      codes += block.code_bytes;
    }
    return fits;
  }

  static bool encode_tail(const Rotated& codec, const Block& block, const float* values, std::uint8_t* scale,
                          std::uint8_t* codes) {
    float tail[kBlock];
    std::copy(values + block.start, values + block.start + block.size, tail);
    hyperlane::hadamard(tail, block.size);
    return encode_block(codec, block, tail, scale, codes);
  }

  static void decode(const Rotated& codec, float step, const std::uint8_t* codes, F* v) {
    return codec.quantizer == Quantizer::nf4 ? decode_nf4(codec.nf4, step, codes, v)
                                             : decode_bytes(step, codes, v);
  }

  template <int BLOCKS>
  static void decode_blocks(const Rotated& codec, const Block* block, const std::uint8_t*& scales,
                            const std::uint8_t*& codes, F factor, float* values, half_bits* halves) {
    F v[BLOCKS * N];
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) {
      decode(codec, e4m3_step(*scales++), codes, v + b * N);
      codes += block[b].code_bytes;
    }
    hadamard<BLOCKS>(v);
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) finish(codec, block[b], v + b * N, factor, values, halves);
  }

  // Undoes scale, mean and RMS of one block; `halves`, where it is not null, takes the result.
  static void finish(const Rotated& codec, const Block& block, const F* v, F factor, float* values,
                     half_bits* halves) {
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const std::size_t at = block.start + static_cast<std::size_t>(i * W);
      const F value = V::add(V::mul(v[i], V::load(&codec.backward[at])), V::load(&codec.mean[at]));
      if (halves)
        V::store_half(halves + at, V::mul(value, factor));
      else
        V::store(values + at, V::mul(value, factor));
    }
  }

  static void decode_row(const Rotated& codec, const std::uint8_t* scales, const std::uint8_t* codes,
                         float rms, float* row, half_bits* halves) {
    const F factor = V::set(rms);
    const std::size_t whole = codec.width / kBlock;
    std::size_t b = 0;
    for (; b + kDecodedAtOnce <= whole; b += kDecodedAtOnce)
      decode_blocks<kDecodedAtOnce>(codec, &codec.blocks[b], scales, codes, factor, row, halves);
    for (; b < whole; ++b) decode_blocks<1>(codec, &codec.blocks[b], scales, codes, factor, row, halves);
    for (; b < codec.blocks.size(); ++b) {
      const Block& block = codec.blocks[b];
      alignas(64) float tail[kBlock] = {};
      F v[N];
      decode_block(codec, block, *scales++, codes, tail);
      hyperlane::hadamard(tail, block.size);
      codes += block.code_bytes;
      read(tail, v);
      finish(codec, block, v, factor, row, nullptr);
      if (halves) store_row(row + block.start, block.size, halves + block.start, true);
    }
  }

  static RotatedKernels kernels() { return {load_row, store_row, encode_row, decode_row}; }
};

}  // namespace
}  // namespace hyperlane
