// The rotated codecs' decoding on the GPU: a warp takes a row, a thread each of its blocks.
#pragma once
#include "quant/rotated_block.cuh"
#include "quant/rotated_launch.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kDecodeWarps = 16;
constexpr unsigned kLevelBytes = 16 * 32 * 4;

__device__ __forceinline__ unsigned packed_state(const unsigned char* payload, std::size_t row) {
  return payload[kIdBytes + row / 4] >> (2 * (row % 4)) & 3;
}

// How many bytes rows `first` to `stop` (half-open) take in the payload, by their states; for the whole warp.
// Reads whole words of the states.
__device__ __forceinline__ std::size_t coded_bytes(const DecodeJob& job, std::size_t first, std::size_t stop,
                                                   const RotatedView& view, unsigned lane) {
  unsigned counts[4] = {};
  const unsigned char* states = job.payload + kIdBytes;
  if ((reinterpret_cast<std::uintptr_t>(states) & 3) == 0) {
#pragma unroll 4
    for (std::size_t i = first / 16 + lane; 16 * i < stop; i += 32) {
      unsigned word = __ldg(reinterpret_cast<const unsigned*>(states) + i);
      if (16 * i < first) word &= kAllLanes << (2 * (first - 16 * i));
      if (16 * (i + 1) > stop) word &= ~(kAllLanes << (2 * (stop - 16 * i)));
      const unsigned low = word & 0x55555555u, high = word >> 1 & 0x55555555u;
      counts[1] += __popc(low & ~high), counts[2] += __popc(high & ~low), counts[3] += __popc(low & high);
    }
  } else {
    for (std::size_t row = first + lane; row < stop; row += 32) {
      const unsigned state = packed_state(job.payload, row);
      counts[1] += state == 1, counts[2] += state == 2, counts[3] += state == 3;
    }
  }
#pragma unroll
  for (int state = 1; state < 4; ++state) counts[state] = __reduce_add_sync(kAllLanes, counts[state]);
  const std::size_t coded = stop - first - counts[1] - counts[2] - counts[3];
  return coded * view.row_bytes +
         (static_cast<std::size_t>(counts[1]) * 2 + static_cast<std::size_t>(counts[2]) * 4) * view.width;
}

// `bytes` bytes from anywhere to shared memory, by `threads` threads of which this is number `id`. Reads and
// writes the whole words of four bytes that they touch, so that up to three bytes before `to` and behind its
// end are lost.
__device__ __forceinline__ void copy_in(unsigned char* to, const unsigned char* from, unsigned bytes,
                                        unsigned id, unsigned threads = 32) {
  const unsigned lead = reinterpret_cast<std::uintptr_t>(to) & 3;
  from -= lead;
  auto* out = reinterpret_cast<unsigned*>(to - lead);
  const unsigned shift = reinterpret_cast<std::uintptr_t>(from) & 3;
  const auto* words = reinterpret_cast<const unsigned*>(from - shift);
  const unsigned count = (bytes + lead + 3) / 4, last = (bytes + lead + shift - 1) / 4;
#pragma unroll 4
  for (unsigned i = id; i < count; i += threads)
    out[i] = __funnelshift_r(words[i], words[min(i + 1, last)], 8 * shift);
}

// Starts copying the words that a record touches; returns where in them it starts.
__device__ __forceinline__ unsigned fetch(unsigned char* to, const unsigned char* from, unsigned bytes,
                                          unsigned lane) {
  const unsigned shift = reinterpret_cast<std::uintptr_t>(from) & 3, count = (bytes + shift + 3) / 4;
  const auto* words = reinterpret_cast<const unsigned*>(from - shift);
  const auto at = static_cast<unsigned>(__cvta_generic_to_shared(to));
#pragma unroll 4
  for (unsigned i = lane; i < count; i += 32)
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at + 4 * i), "l"(words + i) : "memory");
  return shift;
}

__device__ __forceinline__ void await_fetched() {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncwarp();
}

// ---- levels of a block

__device__ __forceinline__ void decode_levels(const unsigned char* levels, const uint4* codes, unsigned lane,
                                              float* v) {
  const uint4 most = codes[0], rest = codes[1];
  const unsigned planes[4][2] = {{rest.z, rest.w}, {rest.x, rest.y}, {most.z, most.w}, {most.x, most.y}};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    unsigned nibbles[4] = {planes[0][half], planes[1][half], planes[2][half], planes[3][half]};
    planes_to_nibbles(nibbles);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int shift = 4 * (i / 4) - 7;  // a level takes 128 bytes
      const unsigned word = nibbles[i % 4];
      const unsigned at = ((shift < 0 ? word << -shift : word >> shift) & 0x780u) | 4 * lane;
      v[32 * half + i] = *reinterpret_cast<const float*>(levels + at);
    }
  }
}

__device__ __forceinline__ void decode_bytes64(const uint4* codes, float* v) {
#pragma unroll
  for (int chunk = 0; chunk < 4; ++chunk) {
    const uint4 four = codes[chunk];
    const unsigned words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      // The code plus 128 in the low bits of 2^23.
      const unsigned bits = __byte_perm(words[i / 4] ^ 0x80808080u, 0x4B000000u, 0x7650 | i % 4);
      v[16 * chunk + i] = __uint_as_float(bits) - (kIntegerAbove + 128.0f);
    }
  }
}

// ---- rows

__device__ __forceinline__ void store16(unsigned char* to, const float* v, __half) {  // 8 values
  __half2 halves[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) halves[i] = __floats2half2_rn(v[2 * i], v[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<uint4*>(halves);
}
__device__ __forceinline__ void store16(unsigned char* to, const float* v, float) {  // 4 values
  *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
}

template <class T>
__device__ __forceinline__ void put_block(const BlockTables& tables, unsigned whole_count, unsigned b,
                                          float* v, float rms, unsigned char* stage) {
#pragma unroll
  for (int part = 0; part < 16; ++part) {
    const float4 mean = tables.mean[part * whole_count + b];
    const float4 backward = tables.factor[part * whole_count + b];
    float* four = v + 4 * part;
    four[0] = (four[0] * backward.x + mean.x) * rms;
    four[1] = (four[1] * backward.y + mean.y) * rms;
    four[2] = (four[2] * backward.z + mean.z) * rms;
    four[3] = (four[3] * backward.w + mean.w) * rms;
  }
  constexpr int kValues = 16 / sizeof(T);
#pragma unroll
  for (int chunk = 0; chunk < 64 / kValues; ++chunk)
    store16(stage + b * kBlockStride<T> + 16 * chunk, v + kValues * chunk, T());
}

// Blocks of less than 64, by the warp.
template <class T>
__device__ __noinline__ void decode_tail(const RotatedView& view, const unsigned char* record, float rms,
                                         unsigned lane, unsigned char* stage) {
  T* tail = staged_tail<T>(stage, view.whole_count);
  for (unsigned b = view.whole_count; b < view.block_count; ++b) {
    const DeviceBlock block = view.blocks[b];
    const int at = static_cast<int>(lane);
    const Pair v = decode_block(view, view.levels, block, at, record);
    const unsigned place = block.start + lane;
    if (has_low(block, at))
      narrow((v.low * view.backward[place] + view.mean[place]) * rms,
             tail + place - view.whole_count * kBlockSize);
  }
}

template <DeviceQuantizer kQuantizer, class T>
__device__ __forceinline__ void decode_row(const RotatedView& view, const BlockTables& tables,
                                           const unsigned char* levels, const unsigned char* record,
                                           unsigned lane, unsigned char* stage) {
  const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(record[0] | record[1] << 8)));
  const unsigned char* codes = record + 2 + view.scale_count;
  for (unsigned b = lane; b < view.whole_count; b += 32) {
    float v[64];
    constexpr bool kLevels = kQuantizer == DeviceQuantizer::levels;
    if constexpr (kLevels)
      decode_levels(levels, reinterpret_cast<const uint4*>(codes) + 2 * b, lane, v);
    else
      decode_bytes64(reinterpret_cast<const uint4*>(codes) + 4 * b, v);
    hadamard64(v);  // exact
    const float step = kLevels ? level_step(record[2 + b]) : byte_step(record[2 + b]);
#pragma unroll
    for (int i = 0; i < 64; ++i) v[i] *= step;
    put_block<T>(tables, view.whole_count, b, v, rms, stage);
  }
  if (view.whole_count < view.block_count) decode_tail<T>(view, record, rms, lane, stage);
  __syncwarp();
}

template <class T>
__device__ __forceinline__ void unstage(const RotatedView& view, unsigned char* stage, T* row, bool aligned,
                                        unsigned id, unsigned threads = 32) {
  constexpr unsigned kValues = 16 / sizeof(T);
  const unsigned whole = view.whole_count * kBlockSize;
  if (aligned) {
#pragma unroll 4
    for (unsigned chunk = id; chunk < whole / kValues; chunk += threads) {
      const unsigned char* from = staged_chunk<T>(stage, chunk);
      __stcs(reinterpret_cast<uint4*>(row) + chunk, *reinterpret_cast<const uint4*>(from));
    }
  } else {
    for (unsigned i = id; i < whole; i += threads)
      row[i] = reinterpret_cast<const T*>(staged_chunk<T>(stage, i / kValues))[i % kValues];
  }
  const T* tail = staged_tail<T>(stage, view.whole_count);
  for (unsigned i = whole + id; i < view.width; i += threads) row[i] = tail[i - whole];
}

template <unsigned kBytes>
__device__ __forceinline__ unsigned read_bytes(const unsigned char* from) {
  unsigned bits = 0;
#pragma unroll
  for (unsigned byte = 0; byte < kBytes; ++byte) bits |= static_cast<unsigned>(from[byte]) << (8 * byte);
  return bits;
}

__device__ __forceinline__ void put_half(unsigned bits, __half* to) {
  *reinterpret_cast<unsigned short*>(to) = static_cast<unsigned short>(bits);
}
__device__ __forceinline__ void put_half(unsigned bits, float* to) {
  *to = __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

// A row that was not coded; by a warp.
template <class T>
__device__ __noinline__ void read_raw(const unsigned char* from, unsigned state, unsigned width, T* row,
                                      unsigned lane) {
  if (state == kHalf) {
    for (unsigned i = lane; i < width; i += 32) put_half(read_bytes<2>(from + 2 * i), row + i);
  } else if (state == kSingle) {
    for (unsigned i = lane; i < width; i += 32) narrow(__uint_as_float(read_bytes<4>(from + 4 * i)), row + i);
  } else {
    for (unsigned i = lane; i < width; i += 32) put_half(0, row + i);
  }
}

template <DeviceQuantizer kQuantizer>
__host__ __device__ constexpr unsigned level_bytes() {
  return kQuantizer == DeviceQuantizer::levels ? kLevelBytes : 0;
}

// Of a warp: its row, and the records of this row and the next.
template <class T>
__host__ __device__ inline unsigned decode_warp_bytes(const RotatedView& view) {
  return staged_bytes<T>(view.width) + 2 * record_bytes(view.row_bytes, view.scale_count);
}

template <DeviceQuantizer kQuantizer, class T>
__global__ void __launch_bounds__(32 * kDecodeWarps, 1)
    decode_rotated(const __grid_constant__ RotatedView view, const __grid_constant__ DecodeJob job, T* rows,
                   bool aligned) {
  extern __shared__ uint4 shared[];
  auto* levels = reinterpret_cast<unsigned char*>(shared);
  if constexpr (kQuantizer == DeviceQuantizer::levels) {
    for (unsigned i = threadIdx.x; i < kLevelBytes / 4; i += blockDim.x)
      reinterpret_cast<float*>(shared)[i] = view.levels[i / 32];
  }
  const unsigned table_bytes = block_table_bytes(view);
  unsigned char* free = levels + level_bytes<kQuantizer>();
  auto *mean = reinterpret_cast<uint4*>(free), *backward = reinterpret_cast<uint4*>(free + table_bytes);
  copy_table(mean, view.mean_by_block, table_bytes);
  copy_table(backward, view.backward_by_block, table_bytes);
  const BlockTables tables{reinterpret_cast<const float4*>(mean), reinterpret_cast<const float4*>(backward)};
  __syncthreads();
  const unsigned lane = threadIdx.x % 32, record_size = record_bytes(view.row_bytes, view.scale_count);
  unsigned char* stage = free + 2 * table_bytes + threadIdx.x / 32 * decode_warp_bytes<T>(view);
  unsigned char* fetched = stage + staged_bytes<T>(view.width);
  unsigned char* record = fetched + record_size + record_pad(view.scale_count);
  const std::size_t step = static_cast<std::size_t>(gridDim.x) * (blockDim.x / 32);
  std::size_t index = blockIdx.x + static_cast<std::size_t>(gridDim.x) * (threadIdx.x / 32);
  if (index >= job.row_count) return;
  std::size_t at = head_bytes(job.row_count) + coded_bytes(job, 0, index, view, lane);
  unsigned state = packed_state(job.payload, index), shift = 0;
  if (state == kCoded) shift = fetch(fetched, job.payload + at, view.row_bytes, lane);
  for (;;) {
    const bool coded = state == kCoded;
    if (coded) {
      await_fetched();
      copy_in(record, fetched + shift, view.row_bytes, lane);
      __syncwarp();
    } else {
      read_raw(job.payload + at, state, view.width, rows + index * view.width, lane);
    }
    const std::size_t next = index + step;
    const bool more = next < job.row_count;
    if (more) {
      at += coded_bytes(job, index, next, view, lane);
      state = packed_state(job.payload, next);
      if (state == kCoded) shift = fetch(fetched, job.payload + at, view.row_bytes, lane);
    }
    if (coded) {
      decode_row<kQuantizer, T>(view, tables, levels, record, lane, stage);
      unstage(view, stage, rows + index * view.width, aligned, lane);
    }
    if (!more) return;
    __syncwarp();
    index = next;
  }
}

}  // namespace
}  // namespace hyperlane
