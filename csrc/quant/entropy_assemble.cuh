// The third pass of `int4`'s encoding: what the first two left becomes the payload.
#pragma once
#include "quant/entropy_rows.cuh"
#include "quant/entropy_window.cuh"

namespace hyperlane {
namespace {

// Bytes of global memory to anywhere; reads the whole words of four bytes that they touch.
__device__ __forceinline__ void copy_bytes(unsigned char* to, const unsigned char* from, unsigned bytes,
                                           unsigned id, unsigned threads) {
  const unsigned lead = min(static_cast<unsigned>(-reinterpret_cast<std::uintptr_t>(to) & 3), bytes);
  const unsigned words = (bytes - lead) / 4, rest = lead + 4 * words;
  const unsigned shift = 8 * (reinterpret_cast<std::uintptr_t>(from + lead) & 3);
  const auto* source = reinterpret_cast<const unsigned*>(from + lead - shift / 8);
  auto* out = reinterpret_cast<unsigned*>(to + lead);
  if (id < lead) to[id] = from[id];
#pragma unroll 4
  for (unsigned i = id; i < words; i += threads)
    out[i] = __funnelshift_r(source[i], shift ? source[i + 1] : 0, shift);
  if (rest + id < bytes) to[rest + id] = from[rest + id];
}

__device__ __forceinline__ void put_u32(unsigned char* to, unsigned value) {
  for (unsigned byte = 0; byte < 4; ++byte) to[byte] = static_cast<unsigned char>(value >> 8 * byte);
}

// Where the parts start.
struct Parts {
  std::size_t raw, heads, sizes, strings;
};

__device__ __forceinline__ std::size_t string_count(const EntropyView& view, std::size_t coded) {
  return (coded + view.string_rows - 1) / view.string_rows;
}

__device__ __forceinline__ Parts parts_of(const EntropyView& view, std::size_t row_count, std::size_t coded,
                                          std::size_t raw_bytes) {
  Parts parts;
  parts.raw = head_bytes(row_count);
  parts.heads = parts.raw + raw_bytes;
  parts.sizes = parts.heads + coded * view.head_bytes;
  parts.strings = parts.sizes + 4 * string_count(view, coded);
  return parts;
}

// Counts and patches of the window's coded rows; by a warp.
__device__ __forceinline__ void write_window_patches(const EntropyView& view, const EntropyJob& job,
                                                     const Window& window, unsigned rows, unsigned char* counts,
                                                     unsigned char* patches, unsigned lane) {
  const std::size_t pitch = kPatchBytes * view.most_patches;
  for (unsigned first = 0; first < rows; first += 32) {
    const unsigned row = first + lane < rows ? window.row[first + lane] : 0;
    const unsigned count = first + lane < rows ? job.scratch.counts[row] : 0;
    const unsigned patched = __ballot_sync(kAllLanes, count != 0);
    const unsigned through = inclusive_sum(count, lane);
    if (count) {
      counts[__popc(patched & ((1u << lane) - 1))] = static_cast<unsigned char>(count);
      const unsigned char* from = job.scratch.patches + row * pitch;
      unsigned char* to = patches + kPatchBytes * (through - count);
#pragma unroll 1
      for (unsigned i = 0; i < kPatchBytes * count; ++i) to[i] = from[i];
    }
    counts += __popc(patched);
    patches += kPatchBytes * __shfl_sync(kAllLanes, through, 31);
  }
}

// The part of the payload that belongs to `strings` strings' worth of rows from row and string `first_string` on;
// by a thread block. Returns where the payload ends.
template <class T>
__device__ __forceinline__ std::size_t assemble(const EntropyView& view, const EntropyJob& job, const T* rows,
                                                std::size_t first_string, unsigned strings, Window& window) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const WindowRange range{first_string * view.string_rows,
                          static_cast<std::size_t>(strings) * view.string_rows};
  const EntropyScratch& scratch = job.scratch;
  if (threadIdx.x < 4) window.sums[threadIdx.x] = 0;
  find_rows([&](std::size_t row) { return static_cast<unsigned>(scratch.states[row]); }, job.row_count,
            view.width, range, window);
  const std::size_t coded = window.coded, string_end = string_count(view, coded);
  const unsigned held = range.first < coded
                            ? static_cast<unsigned>(min(static_cast<unsigned long long>(range.count),
                                                        static_cast<unsigned long long>(coded - range.first)))
                            : 0;
  unsigned long long before = 0, total = 0, patches_before = 0, counts = 0;  // counts: all << 32 | before
  for (std::size_t s = threadIdx.x; s < string_end; s += blockDim.x) {
    total += scratch.sizes[s];
    before += s < first_string ? scratch.sizes[s] : 0;
  }
  const std::size_t first_row = held ? window.row[0] : job.row_count;
  unsigned long long all_patches = 0;
#pragma unroll 4
  for (std::size_t row = threadIdx.x; row < job.row_count; row += blockDim.x) {
    const unsigned count = scratch.counts[row];
    all_patches += count;
    patches_before += row < first_row ? count : 0;
    counts += count ? (1ull << 32) + (row < first_row) : 0;
  }
  add_to(&window.sums[0], before), add_to(&window.sums[1], total);
  add_to(&window.sums[2], patches_before << 32 | all_patches), add_to(&window.sums[3], counts);
  __syncthreads();
  before = window.sums[0], total = window.sums[1];
  all_patches = window.sums[2] & 0xFFFFFFFF, patches_before = window.sums[2] >> 32;
  const unsigned long long counts_before = window.sums[3] & 0xFFFFFFFF, all_counts = window.sums[3] >> 32;

  const Parts parts = parts_of(view, job.row_count, coded, window.raw);
  unsigned char* payload = job.payload;
  const std::size_t last_row = min(range.first + range.count, job.row_count);
  if (first_string == 0 && threadIdx.x < kIdBytes) payload[threadIdx.x] = view.id[threadIdx.x];
  for (std::size_t byte = (range.first + 3) / 4 + threadIdx.x; byte < (last_row + 3) / 4; byte += blockDim.x) {
    unsigned packed = 0;
    for (unsigned i = 0; i < 4 && 4 * byte + i < job.row_count; ++i)
      packed |= static_cast<unsigned>(scratch.states[4 * byte + i]) << 2 * i;
    payload[kIdBytes + byte] = static_cast<unsigned char>(packed);
  }
  for (std::size_t row = range.first + warp; row < last_row; row += warps)
    if (scratch.states[row] != kCoded)
      write_raw(rows + row * view.width, view.width, scratch.states[row],
                payload + parts.raw + window.raw_at[row - range.first], lane);
  for (unsigned i = warp; i < held; i += warps)
    copy_bytes(payload + parts.heads + (range.first + i) * view.head_bytes,
               scratch.heads + static_cast<std::size_t>(window.row[i]) * scratch.head_pitch, view.head_bytes, lane,
               32);
  for (unsigned i = threadIdx.x; i < strings && first_string + i < string_end; i += blockDim.x)
    put_u32(payload + parts.sizes + 4 * (first_string + i), scratch.sizes[first_string + i]);
  unsigned char* to = payload + parts.strings + before;
  for (unsigned i = 0; i < strings && first_string + i < string_end; ++i) {
    const unsigned size = scratch.sizes[first_string + i];
    copy_bytes(to, scratch.strings + (first_string + i + 1) * scratch.string_pitch - size, size, threadIdx.x,
               blockDim.x);
    to += size;
  }
  unsigned char* counts_at = payload + parts.strings + total;
  unsigned char* patches_at = counts_at + all_counts;
  if (warp == 0)
    write_window_patches(view, job, window, held, counts_at + counts_before,
                         patches_at + kPatchBytes * patches_before, lane);
  return parts.strings + total + all_counts + kPatchBytes * all_patches;
}

}  // namespace
}  // namespace hyperlane
