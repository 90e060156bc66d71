// The first pass of `int4`'s encoding where a few rows are all there is: a thread block takes a row, so that
// only the two sums, whose order is given, are one warp's work.
#pragma once
#include "quant/entropy_rows.cuh"

namespace hyperlane {
namespace {

constexpr std::size_t kSingleRows = 4;  // up to so many, one after another

// Of the thread block.
struct SingleShared {
  unsigned rms_bits, patch_count, g;
  bool coded, holds;
};

__host__ __device__ inline unsigned single_bytes(const EntropyView& view) {  // the row's values
  return (4 * view.width + 15) / 16 * 16;
}

// The 64 running sums of `term` of values in shared memory; by a warp.
template <class Term>
__device__ __forceinline__ float sum_of(const float* values, unsigned width, unsigned lane, Term term) {
  float even = 0, odd = 0;
#pragma unroll 8
  for (unsigned at = 2 * lane; at < width; at += 64) {
    even = __fadd_rn(even, term(values[at]));
    odd = __fadd_rn(odd, at + 1 < width ? term(values[at + 1]) : 0.0f);
  }
  return halved(even, odd);
}

struct SingleRow {
  bool coded;
  unsigned r, g, patch_count;
  float rms;
};

// Symbols, low bits and patches to the room; by all threads, the same result for all.
template <class T>
__device__ __forceinline__ SingleRow quantize_single(const EntropyView& view, const EntropyJob& job,
                                                     const T* rows, std::size_t index, const RowRoom& room,
                                                     float* values, SingleShared& shared) {
  const T* row = rows + index * view.width;
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const unsigned position = job.positions[index];
#pragma unroll 4
  for (unsigned i = threadIdx.x; i < view.width; i += blockDim.x) values[i] = widen(row[i]);
  if (threadIdx.x == 0) shared.patch_count = 0, shared.holds = true;
  __syncthreads();
  if (warp == 0) {
    const float squares =
        sum_of(values, view.width, lane, [](float value) { return __fmul_rn(value, value); });
    if (lane == 0)
      shared.rms_bits = half_bits(__fsqrt_rn(__fdiv_rn(squares, static_cast<float>(view.width)))) & 0xFFFF;
  }
  __syncthreads();
  const unsigned rms_bits = shared.rms_bits, r = r_byte(rms_bits);
  const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits)));
  bool coded = position != 0 && rms <= view.limit && rms >= kSmallestRms && r <= kLargestR;
  if (coded) {
    const float inverse_r = __fdiv_rn(1.0f, r_value(r));
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < view.width; i += blockDim.x)
      values[i] = by_step(values[i], inverse_r, __ldg(view.mean_inverse + i));
    __syncthreads();
    if (warp == 0) {
      const float loudness = sum_of(values, view.width, lane, [](float value) { return fabsf(value); });
      const float sixteenfold = __fmul_rn(loudness, view.sixteenfold);
      if (lane == 0) shared.coded = sixteenfold <= kLargestScale, shared.g = e4m3_nearest(sixteenfold);
    }
    __syncthreads();
    coded = shared.coded;
  }
  if (coded) {
    const float inverse_g = inverse(e4m3_step(shared.g));
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < view.width; i += blockDim.x) {
      const uint2 info = __ldg(reinterpret_cast<const uint2*>(view.info + i));
      const Multiple found = multiple_of(values[i], inverse_g, info);
      room.symbols[symbol_at(info)] = static_cast<unsigned char>(found.symbol);
      put_low_bits(found.k, info, room.low);
      if (shift_of(info) > 2)
        put_more_bits(view.low_at + i, (view.width + 1) / 2 * 2, found.k, shift_of(info), room.low);
      if (!found.patched) continue;
      if (found.rest < -128 || found.rest > 127) shared.holds = false;
      const unsigned at = atomicAdd(&shared.patch_count, 1u);
      if (at < view.most_patches)
        room.patches[at] = {static_cast<unsigned short>(place_of(symbol_at(info))),
                            static_cast<unsigned char>(i), static_cast<signed char>(found.rest)};
    }
    __syncthreads();
    coded = shared.holds && shared.patch_count <= view.most_patches;
  }
  return {coded, r, shared.g, shared.patch_count, rms};
}

// The row to the scratch memory, for the passes that follow.
template <class T>
__device__ __forceinline__ void store_single(const EntropyView& view, const EntropyJob& job, const T* rows,
                                             std::size_t index, const RowRoom& room, const SingleRow& found) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (found.coded) {
    unsigned char* head = job.scratch.heads + index * job.scratch.head_pitch;
    if (threadIdx.x == 0) {
      head[0] = static_cast<unsigned char>(found.r);
      head[1] = static_cast<unsigned char>(found.g | (found.patch_count ? kPatched : 0));
    }
    if (warp == 1) write_low_bits(view, room.low, head + 2, lane);
    if (warp == 2 && found.patch_count)
      write_patches(room.patches, found.patch_count,
                    job.scratch.patches + index * kPatchBytes * view.most_patches, lane);
    auto* to = reinterpret_cast<uint4*>(job.scratch.symbols + index * view.symbol_bytes);
    for (unsigned i = threadIdx.x; i < view.symbol_bytes / 16; i += blockDim.x)
      to[i] = reinterpret_cast<const uint4*>(room.symbols)[i];
  }
  if (warp == 0) {
    const unsigned state =
        found.coded ? kCoded : raw_state(rows + index * view.width, view.width, found.rms, lane);
    if (lane == 0) {
      job.scratch.states[index] = static_cast<unsigned char>(state);
      job.scratch.counts[index] = static_cast<unsigned char>(found.coded ? found.patch_count : 0);
    }
  }
  __syncthreads();
}

}  // namespace
}  // namespace hyperlane
