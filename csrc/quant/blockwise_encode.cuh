// h4's and h8's encoding on the GPU: a warp takes a row into shared memory, a thread each of its blocks.
#pragma once
#include "quant/rotated_block.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kBlockwiseWarps = 16;

// What the code of a whole number k, -128 to 127, adds to a block's planes: bit 3 - i of it in byte i.
// Copies, so that threads don't meet in a bank.
constexpr unsigned kCodeCopies = 16, kCodeBytes = 256 * kCodeCopies * 4;

__device__ __forceinline__ unsigned spread_code(
    unsigned code) {  // the most significant bit in the first byte
  return (code >> 3 & 1) | (code >> 2 & 1) << 8 | (code >> 1 & 1) << 16 | (code & 1) << 24;
}

// By all threads of a thread block.
__device__ inline void fill_codes(const RotatedView& view, unsigned char* image) {
  for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) {
    const float k = static_cast<float>(static_cast<int>(i) - 128);
    unsigned code = 0;
    for (unsigned j = 0; j < 15; ++j) code += k > view.midpoints[j];
    for (unsigned copy = 0; copy < kCodeCopies; ++copy)
      reinterpret_cast<unsigned*>(image)[i * kCodeCopies + copy] = spread_code(code);
  }
}

__device__ __forceinline__ unsigned level_code(const unsigned char* image, float value, float back,
                                               unsigned lane) {
  constexpr float kRounder = 12582912.0f + 128.0f;  // even, so that ties go as without it
  constexpr unsigned kStride = 4 * kCodeCopies, kBias = 0x4B400000u * kStride;
  const float k = fminf(fmaxf(value * back, -128.0f), 127.0f);
  const unsigned at = __float_as_uint(k + kRounder) * kStride + (4 * (lane % kCodeCopies) - kBias);
  return *reinterpret_cast<const unsigned*>(image + at);
}

__device__ __forceinline__ float highest64(const float* v, float sign) {
  float most[4] = {};
#pragma unroll
  for (int i = 0; i < 64; ++i) most[i % 4] = fmaxf(most[i % 4], sign * v[i]);
  return fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]));
}

// A block's scale byte and codes (on 16 bytes); false where the scale cannot hold it.
__device__ __forceinline__ bool encode_levels64(const unsigned char* image, const float* v, unsigned lane,
                                                unsigned char* scale_byte, uint4* codes) {
  const float high = highest64(v, 1), low = highest64(v, -1), sixteenfold = fabsf(fmaxf(high, low)) * 16.0f;
  const unsigned scale = e4m3_nearest(sixteenfold);
  const float back = inverse(e4m3_step(scale)) * (low > high ? -128.0f : 128.0f);
  *scale_byte = static_cast<unsigned char>(scale | (low > high ? kNegative : 0));
  unsigned bytes[8];  // byte k of word i: plane k of values 8 i to 8 i + 7
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    unsigned word = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) word += level_code(image, v[8 * i + j], back, lane) << j;
    bytes[i] = word;
  }
  unsigned planes[8];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const unsigned* w = bytes + 4 * half;
    const unsigned a = __byte_perm(w[0], w[1], 0x5140), c = __byte_perm(w[2], w[3], 0x5140);
    const unsigned d = __byte_perm(w[0], w[1], 0x7362), e = __byte_perm(w[2], w[3], 0x7362);
    planes[half] = __byte_perm(a, c, 0x5410), planes[2 + half] = __byte_perm(a, c, 0x7632);
    planes[4 + half] = __byte_perm(d, e, 0x5410), planes[6 + half] = __byte_perm(d, e, 0x7632);
  }
  codes[0] = make_uint4(planes[0], planes[1], planes[2], planes[3]);
  codes[1] = make_uint4(planes[4], planes[5], planes[6], planes[7]);
  return sixteenfold <= kLargestScale;
}

__device__ __forceinline__ bool encode_bytes64(const float* v, unsigned char* scale_byte, uint4* codes) {
  const float sixteenfold = fabsf(fmaxf(highest64(v, 1), highest64(v, -1))) * 16.0f;
  unsigned scale = e4m3_nearest(sixteenfold);
  scale += e4m3_step(scale) * 16.0f < sixteenfold && scale < 126;
  const float back = inverse(e4m3_step(scale)) * 127.0f;
  *scale_byte = static_cast<unsigned char>(scale);
  constexpr float kRounder = 12582912.0f;
#pragma unroll
  for (int chunk = 0; chunk < 4; ++chunk) {
    unsigned words[4];
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      unsigned bytes[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float steps = fminf(fmaxf(v[16 * chunk + 4 * word + i] * back, -127.0f), 127.0f);
        bytes[i] = __float_as_uint(steps + kRounder);
      }
      words[word] = __byte_perm(__byte_perm(bytes[0], bytes[1], 0x0040),
                                __byte_perm(bytes[2], bytes[3], 0x0040), 0x5410);
    }
    codes[chunk] = make_uint4(words[0], words[1], words[2], words[3]);
  }
  return sixteenfold <= kLargestScale;
}

template <class T>
__device__ __forceinline__ void stage_row(const T* row, unsigned width, bool aligned, unsigned char* stage,
                                          unsigned lane) {
  const unsigned whole = width / kBlockSize, chunks = whole * (kBlockSize * sizeof(T) / 16);
  if (aligned) {
#pragma unroll 4
    for (unsigned chunk = lane; chunk < chunks; chunk += 32) {
      const auto to = static_cast<unsigned>(__cvta_generic_to_shared(staged_chunk<T>(stage, chunk)));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to),
                   "l"(reinterpret_cast<const uint4*>(row) + chunk)
                   : "memory");
    }
    asm volatile("cp.async.wait_all;" ::: "memory");
  } else {
    constexpr unsigned kValues = 16 / sizeof(T);
    for (unsigned i = lane; i < whole * kBlockSize; i += 32)
      reinterpret_cast<T*>(staged_chunk<T>(stage, i / kValues))[i % kValues] = row[i];
  }
  for (unsigned i = whole * kBlockSize + lane; i < width; i += 32)
    staged_tail<T>(stage, whole)[i - whole * kBlockSize] = row[i];
  __syncwarp();
}

// Two neighbouring values.
__device__ __forceinline__ float2 read2(const __half* from) {
  return __half22float2(*reinterpret_cast<const __half2*>(from));
}
__device__ __forceinline__ float2 read2(const float* from) { return *reinterpret_cast<const float2*>(from); }

// The sum of a staged row's squares as the reference sums: lane l has the running sums 2 l and 2 l + 1.
template <class T>
__device__ __forceinline__ float sum_squares(unsigned char* stage, unsigned width, unsigned lane) {
  float first = 0, second = 0;
  const unsigned whole = width / kBlockSize, rest = width % kBlockSize;
#pragma unroll 8
  for (unsigned block = 0; block < whole; ++block) {
    const float2 two = read2(reinterpret_cast<const T*>(stage + block * kBlockStride<T>) + 2 * lane);
    first = add_square(first, two.x, T());
    second = add_square(second, two.y, T());
  }
  const T* tail = staged_tail<T>(stage, whole);
  if (2 * lane < rest) first = add_square(first, widen(tail[2 * lane]), T());
  if (2 * lane + 1 < rest) second = add_square(second, widen(tail[2 * lane + 1]), T());
#pragma unroll
  for (int step = 16; step; step /= 2) {
    first += __shfl_xor_sync(kAllLanes, first, step);
    second += __shfl_xor_sync(kAllLanes, second, step);
  }
  return first + second;
}

// A block of less than 64, by the warp.
template <class T>
__device__ inline bool encode_short(const RotatedView& view, const DeviceBlock& block, const T* values,
                                    float inverse_rms, unsigned lane, unsigned char* record) {
  const int at = static_cast<int>(lane);
  Pair v{0, 0};
  if (has_low(block, at)) {
    const unsigned i = block.start + lane;
    v.low = (widen(values[lane]) * inverse_rms - view.mean[i]) * view.forward[i];
  }
  v = hadamard(v, block.size, at);
  if (!has_low(block, at)) v.low = 0;
  return view.quantizer == DeviceQuantizer::bytes ? encode_bytes(block, v, at, record)
                                                  : encode_levels(view.midpoints, block, v, at, record);
}

template <DeviceQuantizer kQuantizer, class T>
__device__ __forceinline__ bool encode_row(const RotatedView& view, const BlockTables& tables,
                                           const unsigned char* image, unsigned char* stage,
                                           float inverse_rms, unsigned lane, unsigned char* record) {
  bool fits = true;
  for (unsigned b = lane; b < view.whole_count; b += 32) {
    float v[64];
    rotate_block<T>(tables, view.whole_count, stage, b, inverse_rms, v);
    unsigned char* scale = record + 2 + b;
    auto* codes = reinterpret_cast<uint4*>(record + 2 + view.scale_count);
    if constexpr (kQuantizer == DeviceQuantizer::levels)
      fits = encode_levels64(image, v, lane, scale, codes + 2 * b) && fits;
    else
      fits = encode_bytes64(v, scale, codes + 4 * b) && fits;
  }
  const T* tail = staged_tail<T>(stage, view.whole_count);
  for (unsigned b = view.whole_count; b < view.block_count; ++b) {
    const DeviceBlock block = view.blocks[b];
    fits = encode_short(view, block, tail + block.start % kBlockSize, inverse_rms, lane, record) && fits;
  }
  return __all_sync(kAllLanes, fits);
}

template <class T>
unsigned blockwise_warp_bytes(const RotatedView& view) {
  return staged_bytes<T>(view.width) + record_bytes(view.row_bytes, view.scale_count);
}

template <DeviceQuantizer kQuantizer, class T>
__global__ void __launch_bounds__(32 * kBlockwiseWarps, 1)
    encode_blockwise(const __grid_constant__ RotatedView view, const __grid_constant__ EncodeJob job,
                     const T* rows, bool aligned) {
  extern __shared__ uint4 shared[];
  auto* image = reinterpret_cast<unsigned char*>(shared);
  constexpr unsigned kImageBytes = kQuantizer == DeviceQuantizer::levels ? kCodeBytes : 0;
  const unsigned table_bytes = block_table_bytes(view);
  auto* mean = reinterpret_cast<uint4*>(image + kImageBytes);
  auto* forward = reinterpret_cast<uint4*>(image + kImageBytes + table_bytes);
  copy_table(mean, view.mean_by_block, table_bytes);
  copy_table(forward, view.forward_by_block, table_bytes);
  const BlockTables tables{reinterpret_cast<const float4*>(mean), reinterpret_cast<const float4*>(forward)};
  if constexpr (kQuantizer == DeviceQuantizer::levels) fill_codes(view, image);
  __syncthreads();
  const unsigned lane = threadIdx.x % 32, staged = staged_bytes<T>(view.width);
  unsigned char* stage = image + kImageBytes + 2 * table_bytes +
                         threadIdx.x / 32 * (staged + record_bytes(view.row_bytes, view.scale_count));
  unsigned char* record = stage + staged + record_pad(view.scale_count);
  for (;;) {
    const std::size_t index = take_rows(job.scratch, 1, lane);
    if (__all_sync(kAllLanes, index >= job.row_count)) break;
    const T* row = rows + index * view.width;
    stage_row(row, view.width, aligned, stage, lane);
    const float mean_square =
        __fdiv_rn(sum_squares<T>(stage, view.width, lane), static_cast<float>(view.width));
    const unsigned rms_bits = half_bits(__fsqrt_rn(mean_square));
    const float rms = __half2float(__ushort_as_half(static_cast<unsigned short>(rms_bits)));
    const bool sane = job.positions[index] != 0 && rms <= view.limit && rms >= kSmallestRms;
    const bool coded =
        sane && encode_row<kQuantizer, T>(view, tables, image, stage, __fdiv_rn(1.0f, rms), lane, record);
    const unsigned state = coded ? kCoded : raw_state(row, view.width, rms, lane);
    if (lane == 0) publish(job.scratch, index, state, view);
    if (lane < 2) record[lane] = static_cast<unsigned char>(rms_bits >> (8 * lane));
    __syncwarp();
    const std::size_t at = row_start(job, index, view, lane);
    if (coded)
      copy_out(job.payload + at, record, view.row_bytes, lane);
    else
      write_raw(row, view.width, state, job.payload + at, lane);
    if (index + 1 == job.row_count && lane == 0) *job.scratch.end = at + state_bytes(state, view);
    __syncwarp();
  }
  finish(job, view, lane, gridDim.x * (blockDim.x / 32));
}

}  // namespace
}  // namespace hyperlane
