// Decoding of `int4`, one launch: of a thread block's warps, some decode a string of rANS each, the others turn
// symbols into values, a part of a row behind them.
#pragma once
#include "quant/entropy_assemble.cuh"
#include "quant/entropy_symbols.cuh"
#include "quant/entropy_values.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kPartVectors = 64, kPartBytes = 32 * kPartVectors;
constexpr unsigned kMostStrings = 8;  // of a thread block
constexpr unsigned kValueWarps = 8, kDecodeThreads = 32 * (kMostStrings + kValueWarps);

struct DecodeShape {
  unsigned strings, ring_bytes;
};

// Beside the window, in shared memory.
struct DecodeRoom {
  unsigned slots, tables, channels, rings, symbols, bytes;  // offsets

  __host__ __device__ DecodeRoom(const EntropyView& view, const DecodeShape& shape) {
    slots = 0;
    tables = slots + 1024 * view.table_count;
    channels = tables + view.symbol_bytes / 8;
    rings = channels + view.symbol_bytes;
    symbols = rings + shape.strings * shape.ring_bytes;
    bytes = symbols + 2 * shape.strings * kPartBytes;
  }
};

// Vectors `first` to `end` of one row into `symbols`, by channel. `tables` are offsets of slots.
template <bool kAhead>
__device__ __forceinline__ void decode_part(const EntropyView& view, Decoder<kAhead>& decoder,
                                            const unsigned* slots, const unsigned* tables,
                                            const unsigned* channel_4, unsigned first, unsigned end,
                                            unsigned char* symbols, unsigned lane) {
  const unsigned last_lanes = view.width - 32 * (view.vector_count - 1);
  for (unsigned vector = first; vector < end; vector += 4) {
    decoder.refill();
    const unsigned channels = channel_4[8 * vector + lane];
    unsigned char* to = symbols + (vector - first) / 8 * kBlockChannels;
    // Where the next vectors' tables are; behind the last, the next row's first.
    const uint4 found = *reinterpret_cast<const uint4*>(tables + vector);
    const unsigned after = tables[vector + 4 < view.vector_count ? vector + 4 : 0];
    const unsigned next[4] = {found.y, found.z, found.w, after};
    if (vector + 4 < view.vector_count || (vector + 4 == view.vector_count && last_lanes == 32)) {
#pragma unroll
      for (unsigned i = 0; i < 4; ++i)
        to[channels >> (8 * i) & 0xFF] = static_cast<unsigned char>(decoder.take(slots + next[i]));
    } else {
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) {
        if (vector + i >= view.vector_count) break;
        const bool last = vector + i + 1 == view.vector_count, present = !last || lane < last_lanes;
        const unsigned word = decoder.take(slots + (last ? tables[0] : next[i]), present);
        if (present) to[channels >> (8 * i) & 0xFF] = static_cast<unsigned char>(word);
      }
    }
  }
}

// Where the strings and the patches of a payload are; shared by a thread block.
struct Layout {
  unsigned long long string_at[kMostStrings];
  unsigned size[kMostStrings];
  unsigned long long counts_at, patches_at;  // of the window's first patched row
};

__device__ __forceinline__ unsigned get_u32(const unsigned char* from) {
  return from[0] | from[1] << 8 | from[2] << 16 | static_cast<unsigned>(from[3]) << 24;
}

// By all threads; `window.sums` are 0 before.
__device__ __forceinline__ void find_strings(const EntropyView& view, const EntropyDecodeJob& job, const Parts& parts,
                                             std::size_t first_string, unsigned strings, Window& window,
                                             Layout& layout) {
  const std::size_t end = string_count(view, window.coded);
  unsigned long long before = 0, total = 0;
#pragma unroll 2
  for (std::size_t s = threadIdx.x; s < end; s += blockDim.x) {
    const unsigned size = get_u32(job.payload + parts.sizes + 4 * s);
    total += size;
    before += s < first_string ? size : 0;
    if (s - first_string < strings) layout.size[s - first_string] = size;
  }
  add_to(&window.sums[0], before), add_to(&window.sums[1], total);
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned long long at = parts.strings + window.sums[0];
    for (unsigned i = 0; i < strings && first_string + i < end; ++i) {
      layout.string_at[i] = at;
      at += layout.size[i];
    }
    layout.counts_at = parts.strings + window.sums[1];
  }
  __syncthreads();
}

// How many rows have patches, in all and before the window's, and how many patches those have; by `threads`
// threads that share barrier 1, of which this is number `id`.
__device__ __forceinline__ void find_patches(const EntropyView& view, const EntropyDecodeJob& job, const Parts& parts,
                                             std::size_t first_coded, unsigned id, unsigned threads, Window& window,
                                             Layout& layout) {
  unsigned long long rows = 0;
  const unsigned char* heads = job.payload + parts.heads + 1;
#pragma unroll 8
  for (std::size_t c = id; c < window.coded; c += threads)
    if (heads[c * view.head_bytes] & kPatched) rows += (1ull << 32) + (c < first_coded);
  add_to(&window.sums[2], rows);
  asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
  const unsigned before = static_cast<unsigned>(window.sums[2]);
  unsigned long long patches = 0;
#pragma unroll 4
  for (unsigned i = id; i < before; i += threads) patches += job.payload[layout.counts_at + i];
  add_to(&window.sums[3], patches);
  asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
  if (id == 0) {
    layout.patches_at = layout.counts_at + (window.sums[2] >> 32) + kPatchBytes * window.sums[3];
    layout.counts_at += before;
  }
}

template <class T>
__device__ __forceinline__ void apply_patch(const EntropyView& view, const unsigned char* patch,
                                            const RowScales& scales, T* row) {
  const unsigned channel = patch[0] | patch[1] << 8;
  if (channel >= view.width) return;
  const unsigned shift = view.info[channel] >> 16 & 7, pitch = (view.width + 1) / 2 * 2;
  unsigned k = static_cast<unsigned>(static_cast<int>(static_cast<signed char>(patch[2]))) << shift;
  for (unsigned bit = 0; bit < shift; ++bit)
    k |= low_bit(scales.low, view.low_at[bit * pitch + channel]) << bit;
  const float2 step_mean = view.step_mean[channel];
  narrow(value_of(static_cast<int>(k), scales, step_mean.x, step_mean.y), row + channel);
}

// The window's rows, by a warp each in turn; every warp walks the counts by itself.
template <class T>
__device__ __forceinline__ void apply_patches(const EntropyView& view, const EntropyDecodeJob& job,
                                              const unsigned char* heads, const Window& window, unsigned rows,
                                              const Layout& layout, T* out, unsigned lane) {
  const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const unsigned char *counts = job.payload + layout.counts_at, *patches = job.payload + layout.patches_at;
  for (unsigned first = 0; first < rows; first += 32) {
    const bool patched =
        first + lane < rows && heads[static_cast<std::size_t>(first + lane) * view.head_bytes + 1] & kPatched;
    const unsigned all = __ballot_sync(kAllLanes, patched);
    const unsigned count = patched ? counts[__popc(all & ((1u << lane) - 1))] : 0;
    const unsigned through = inclusive_sum(count, lane);
    for (unsigned i = warp; i < 32; i += warps) {
      const unsigned of_row = __shfl_sync(kAllLanes, count, i), end = __shfl_sync(kAllLanes, through, i);
      if (!of_row) continue;
      const RowScales scales = scales_of(heads + static_cast<std::size_t>(first + i) * view.head_bytes);
      T* row = out + static_cast<std::size_t>(window.row[first + i]) * view.width;
      for (unsigned p = lane; p < of_row; p += 32)
        apply_patch(view, patches + kPatchBytes * (end - of_row + p), scales, row);
    }
    counts += __popc(all);
    patches += kPatchBytes * __shfl_sync(kAllLanes, through, 31);
  }
}

template <class T>
__device__ __forceinline__ void read_raw(const unsigned char* from, unsigned state, T* to, unsigned width,
                                         unsigned lane) {
  for (unsigned i = lane; i < width; i += 32) {
    if (state == kHalf) {
      const auto bits = static_cast<unsigned short>(from[2 * i] | from[2 * i + 1] << 8);
      if constexpr (sizeof(T) == 2)
        memcpy(to + i, &bits, 2);
      else
        to[i] = __half2float(__ushort_as_half(bits));
    } else {
      narrow(state == kSingle ? __uint_as_float(get_u32(from + 4 * i)) : 0.0f, to + i);
    }
  }
}

template <class T, bool kAhead>
__global__ void __launch_bounds__(kDecodeThreads, 1)
    decode_strings(const __grid_constant__ EntropyView view, const __grid_constant__ EntropyDecodeJob job,
                   const __grid_constant__ DecodeShape shape, T* out, bool aligned) {
  extern __shared__ uint4 shared[];
  __shared__ Window window;
  __shared__ Layout layout;
  auto* memory = reinterpret_cast<unsigned char*>(shared);
  const DecodeRoom room(view, shape);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  auto* slots = reinterpret_cast<unsigned*>(memory + room.slots);
  auto* tables = reinterpret_cast<unsigned*>(memory + room.tables);
  auto* channel_4 = reinterpret_cast<unsigned*>(memory + room.channels);
  copy_table(reinterpret_cast<uint4*>(slots), view.slots, 1024 * view.table_count);
  copy_table(reinterpret_cast<uint4*>(channel_4), view.channel_4, view.symbol_bytes);
  for (unsigned v = threadIdx.x; v < view.symbol_bytes / 32; v += blockDim.x) tables[v] = 256 * view.table[v];
  if (threadIdx.x < 4) window.sums[threadIdx.x] = 0;

  const std::size_t first_string = std::size_t{blockIdx.x} * shape.strings;
  const WindowRange range{first_string * view.string_rows,
                          static_cast<std::size_t>(shape.strings) * view.string_rows};
  const unsigned char* states = job.payload + kIdBytes;
  const auto state_of = [&](std::size_t row) { return states[row / 4] >> (2 * (row % 4)) & 3u; };
  find_rows(state_of, job.row_count, view.width, range, window);
  const std::size_t coded = window.coded;
  const Parts parts = parts_of(view, job.row_count, coded, window.raw);
  const unsigned held = range.first < coded
                            ? static_cast<unsigned>(min(static_cast<unsigned long long>(range.count),
                                                        static_cast<unsigned long long>(coded - range.first)))
                            : 0;
  find_strings(view, job, parts, first_string, shape.strings, window, layout);
  const unsigned char* heads = job.payload + parts.heads + range.first * view.head_bytes;
  const unsigned row_parts = (view.vector_count + kPartVectors - 1) / kPartVectors;
  const unsigned turns = min(held, view.string_rows) * row_parts;
  const auto rows_of = [&](unsigned string) {
    const unsigned before = string * view.string_rows;
    return held > before ? min(held - before, view.string_rows) : 0;
  };
  unsigned char* buffers = memory + room.symbols;

  if (warp >= kValueWarps) {  // a string
    const unsigned string = warp - kValueWarps, rows = string < shape.strings ? rows_of(string) : 0;
    if (rows == 0) {
      for (unsigned turn = 0; turn <= turns; ++turn) __syncthreads();
    } else {
      Feed feed(memory + room.rings + string * shape.ring_bytes, shape.ring_bytes,
                job.payload + layout.string_at[string], layout.size[string], lane);
      Decoder<kAhead> decoder(feed, slots + tables[0], lane);
      unsigned part = 0, row = 0;
      for (unsigned turn = 0; turn <= turns; ++turn) {
        if (row < rows)
          decode_part(view, decoder, slots, tables, channel_4, part * kPartVectors,
                      min((part + 1) * kPartVectors, view.vector_count),
                      buffers + (turn % 2 * shape.strings + string) * kPartBytes, lane);
        if (++part == row_parts) part = 0, ++row;
        __syncthreads();
      }
    }
  } else {
    const std::size_t last_row = min(range.first + range.count, job.row_count);
    for (std::size_t row = range.first + warp; row < last_row; row += kValueWarps) {
      const unsigned state = state_of(row);
      if (state != kCoded)
        read_raw(job.payload + parts.raw + window.raw_at[row - range.first], state, out + row * view.width,
                 view.width, lane);
    }
    if (held)
      find_patches(view, job, parts, range.first, threadIdx.x, 32 * kValueWarps, window, layout);
    __syncthreads();
    for (unsigned turn = 0; turn < turns; ++turn) {
      const unsigned part = turn % row_parts, row = turn / row_parts;
      const unsigned first = part * 32 * kPartVectors + warp * kBlockChannels + lane * kLaneChannels;
      if (first - lane * kLaneChannels < view.width) {  // the same for all lanes
        const EightChannels of(view, first);
        // Read ahead, so that no string waits for another one's head.
        RowScales mine{};
        if (lane < shape.strings && row < rows_of(lane))
          mine = scales_of(heads + (static_cast<std::size_t>(lane) * view.string_rows + row) * view.head_bytes);
        const unsigned char* symbols = buffers + turn % 2 * shape.strings * kPartBytes + warp * kBlockChannels;
        for (unsigned string = 0; string < shape.strings && row < rows_of(string); ++string) {
          const unsigned index = string * view.string_rows + row;
          const RowScales scales{__shfl_sync(kAllLanes, mine.r, string), __shfl_sync(kAllLanes, mine.g, string),
                                 heads + static_cast<std::size_t>(index) * view.head_bytes + 2};
          const uint2 eight = reinterpret_cast<const uint2*>(symbols + string * kPartBytes)[lane];
          if (of.count)
            write_eight(view, of, first, eight, scales,
                        out + static_cast<std::size_t>(window.row[index]) * view.width + first, aligned);
        }
      }
      __syncthreads();
    }
  }
  if (held) apply_patches(view, job, heads, window, held, layout, out, lane);
}

}  // namespace
}  // namespace hyperlane
