// The rotated codecs on the GPU: a thread block takes a row, its warps the row's blocks. Coded rows first go
// to scratch, since a row's place in the payload depends on how those before it are sent.
#include <cuda_fp16.h>

#include "quant/rotated.cuh"
#include "quant/rotated_device.cuh"

namespace hyperlane {
namespace {

enum State : unsigned char { kCoded, kHalf, kSingle, kZero };

constexpr int kThreads = 256;
constexpr int kScanThreads = 1024;
constexpr float kSmallestRms = 0x1p-14f;
constexpr float kHalfMax = 65504.0f;

__device__ float widen(float value) { return value; }
__device__ float widen(__half value) { return __half2float(value); }
__device__ void narrow(float value, float* out) { *out = value; }
__device__ void narrow(float value, __half* out) { *out = __float2half_rn(value); }

struct Tables {
  const float *mean, *forward, *backward;
  const unsigned* order;
  const PlanBlock* blocks;
};

__device__ Tables tables_of(const RotatedPlan* plan) {
  const float* arrays = reinterpret_cast<const float*>(plan + 1);
  const unsigned* order = reinterpret_cast<const unsigned*>(arrays + 3 * plan->width);
  return {arrays, arrays + plan->width, arrays + 2 * plan->width, order,
          reinterpret_cast<const PlanBlock*>(order + plan->width)};
}

__device__ size_t head_bytes(size_t rows) { return 8 + (rows + 3) / 4; }

__device__ size_t state_bytes(unsigned state, size_t width, size_t row_bytes) {
  return state == kCoded ? row_bytes : state == kHalf ? 2 * width : state == kSingle ? 4 * width : 0;
}

// The row's mean square in the reference's order, for all threads.
template <class T>
__device__ float mean_square(const T* row, unsigned width) {
  __shared__ float sums[64], result;
  if (threadIdx.x < 64) {
    float sum = 0;
    for (unsigned i = threadIdx.x; i < width; i += 64) sum += widen(row[i]) * widen(row[i]);
    sums[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    const float sum = halving_sum({sums[threadIdx.x], sums[32 + threadIdx.x]});
    if (threadIdx.x == 0) result = __fdiv_rn(sum, static_cast<float>(width));
  }
  __syncthreads();
  return result;
}

template <class T>
__device__ bool encode_row(const RotatedPlan* plan, const T* row, float rms, unsigned char* out) {
  const Tables tables = tables_of(plan);
  const int lane = threadIdx.x % 32;
  const float back = __fdiv_rn(1.0f, rms);
  bool fits = true;
  for (unsigned b = threadIdx.x / 32; b < plan->block_count; b += kThreads / 32) {
    const PlanBlock block = tables.blocks[b];
    if (!block.bits) continue;
    const auto value = [&](unsigned i) {
      return (widen(row[tables.order[i]]) * back - tables.mean[i]) * tables.forward[i];
    };
    Pair v = {has_low(block, lane) ? value(block.start + lane) : 0,
              has_high(block) ? value(block.start + 32 + lane) : 0};
    v = hadamard(v, block.size, lane);
    fits &=
        plan->quantizer == 2 ? encode_bytes(block, v, lane, out) : encode_levels(*plan, block, v, lane, out);
  }
  return __syncthreads_and(fits);
}

template <class T>
__device__ State raw_state(const T* row, unsigned width, float rms) {
  bool zero = true, holds = rms >= kSmallestRms;
  for (unsigned i = threadIdx.x; i < width; i += kThreads) {
    zero &= widen(row[i]) == 0;
    holds &= fabsf(widen(row[i])) <= kHalfMax;
  }
  zero = __syncthreads_and(zero);
  holds = __syncthreads_and(holds);
  return zero ? kZero : sizeof(T) == 2 || holds ? kHalf : kSingle;
}

template <class T>
__global__ void encode_rows(const RotatedPlan* plan, const T* rows, const unsigned* positions,
                            unsigned char* coded, unsigned char* states) {
  const T* row = rows + static_cast<size_t>(blockIdx.x) * plan->width;
  unsigned char* out = coded + static_cast<size_t>(blockIdx.x) * plan->row_bytes;
  const __half rms_half = __float2half_rn(__fsqrt_rn(mean_square(row, plan->width)));
  const float rms = __half2float(rms_half);
  State state = kZero;
  const bool sane = positions[blockIdx.x] != 0 && rms <= plan->limit && rms >= kSmallestRms;
  if (sane && encode_row(plan, row, rms, out)) {
    state = kCoded;
    if (threadIdx.x < 2) out[threadIdx.x] = __half_as_ushort(rms_half) >> (8 * threadIdx.x);
  } else {
    state = raw_state(row, plan->width, rms);
  }
  if (threadIdx.x == 0) states[blockIdx.x] = state;
}

// Where each row starts in the payload, and at [rows] its end. `state_of(row)` tells how a row is sent.
template <class StateOf>
__device__ void scan(StateOf state_of, size_t rows, size_t width, size_t row_bytes,
                     unsigned long long* starts) {
  __shared__ unsigned long long sums[kScanThreads];
  const size_t each = (rows + kScanThreads - 1) / kScanThreads;
  const size_t first = threadIdx.x * each, last = min(first + each, rows);
  unsigned long long sum = 0;
  for (size_t i = first; i < last; ++i) sum += state_bytes(state_of(i), width, row_bytes);
  sums[threadIdx.x] = sum;
  __syncthreads();
  unsigned long long start = head_bytes(rows);
  for (unsigned i = 0; i < threadIdx.x; ++i) start += sums[i];
  for (size_t i = first; i < last; ++i) {
    starts[i] = start;
    start += state_bytes(state_of(i), width, row_bytes);
  }
  if (threadIdx.x == kScanThreads - 1) starts[rows] = start;
}

__global__ void place_encoded(const RotatedPlan* plan, const unsigned char* states, size_t rows,
                              unsigned long long* starts, unsigned char* payload,
                              unsigned long long* payload_bytes) {
  scan([&](size_t row) { return states[row]; }, rows, plan->width, plan->row_bytes, starts);
  for (size_t byte = threadIdx.x; byte < (rows + 3) / 4; byte += kScanThreads) {
    unsigned packed = 0;
    for (size_t i = 0; i < 4 && 4 * byte + i < rows; ++i) packed |= states[4 * byte + i] << (2 * i);
    payload[8 + byte] = packed;
  }
  if (threadIdx.x < 8) payload[threadIdx.x] = plan->id[threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) *payload_bytes = starts[rows];
}

__device__ unsigned packed_state(const unsigned char* payload, size_t row) {
  return payload[8 + row / 4] >> (2 * (row % 4)) & 3;
}

__global__ void place_coded(const unsigned char* payload, size_t width, size_t row_bytes, size_t rows,
                            unsigned long long* starts) {
  scan([&](size_t row) { return packed_state(payload, row); }, rows, width, row_bytes, starts);
}

template <class T>
__global__ void write_rows(const RotatedPlan* plan, const T* rows, const unsigned char* coded,
                           const unsigned char* states, const unsigned long long* starts,
                           unsigned char* payload) {
  const T* row = rows + static_cast<size_t>(blockIdx.x) * plan->width;
  unsigned char* out = payload + starts[blockIdx.x];
  const unsigned state = states[blockIdx.x];
  const unsigned char* record = coded + static_cast<size_t>(blockIdx.x) * plan->row_bytes;
  const auto* bytes = reinterpret_cast<const unsigned char*>(row);
  const bool as_is = state == kSingle || (state == kHalf && sizeof(T) == 2);
  const size_t count = starts[blockIdx.x + 1] - starts[blockIdx.x];
  for (size_t i = threadIdx.x; i < count; i += kThreads) {
    if (state == kCoded || as_is)
      out[i] = state == kCoded ? record[i] : bytes[i];
    else
      out[i] = __half_as_ushort(__float2half_rn(widen(row[i / 2]))) >> (8 * (i % 2));
  }
}

template <class T>
__global__ void decode_rows(const RotatedPlan* plan, const unsigned char* payload,
                            const unsigned long long* starts, T* rows) {
  const Tables tables = tables_of(plan);
  const unsigned char* in = payload + starts[blockIdx.x];
  T* row = rows + static_cast<size_t>(blockIdx.x) * plan->width;
  const unsigned state = packed_state(payload, blockIdx.x);
  if (state != kCoded) {
    for (unsigned i = threadIdx.x; i < plan->width; i += kThreads) {
      unsigned bits = 0;
      const unsigned size = state == kHalf ? 2 : state == kSingle ? 4 : 0;
      for (unsigned byte = 0; byte < size; ++byte) bits |= in[size * i + byte] << (8 * byte);
      narrow(size == 2 ? __half2float(__ushort_as_half(bits)) : __uint_as_float(bits), row + i);
    }
    return;
  }
  const float rms = __half2float(__ushort_as_half(in[0] | in[1] << 8));
  const int lane = threadIdx.x % 32;
  for (unsigned b = threadIdx.x / 32; b < plan->block_count; b += kThreads / 32) {
    const PlanBlock block = tables.blocks[b];
    const Pair v = hadamard(decode_block(*plan, block, lane, in), block.size, lane);
    const auto put = [&](unsigned i, float value) {
      narrow((value * tables.backward[i] + tables.mean[i]) * rms, row + tables.order[i]);
    };
    if (has_low(block, lane)) put(block.start + lane, v.low);
    if (has_high(block)) put(block.start + 32 + lane, v.high);
  }
}

template <class T>
void queue_encode(const RotatedPlan* plan, const T* rows, size_t count, const unsigned* positions,
                  unsigned long long* starts, unsigned char* coded, unsigned char* states,
                  unsigned char* payload, unsigned long long* payload_bytes, cudaStream_t stream) {
  const auto grid = static_cast<unsigned>(count);
  if (count) encode_rows<<<grid, kThreads, 0, stream>>>(plan, rows, positions, coded, states);
  place_encoded<<<1, kScanThreads, 0, stream>>>(plan, states, count, starts, payload, payload_bytes);
  if (count) write_rows<<<grid, kThreads, 0, stream>>>(plan, rows, coded, states, starts, payload);
}

}  // namespace

cudaError_t rotated_encode(const void* plan, std::size_t row_bytes, const void* rows, bool half,
                           std::size_t row_count, const void* positions, void* scratch, void* payload,
                           void* payload_bytes, cudaStream_t stream) {
  auto* starts = static_cast<unsigned long long*>(scratch);
  auto* coded = reinterpret_cast<unsigned char*>(starts + row_count + 1);
  unsigned char* states = coded + row_count * row_bytes;
  const auto* tables = static_cast<const RotatedPlan*>(plan);
  const auto* at = static_cast<const unsigned*>(positions);
  auto* out = static_cast<unsigned char*>(payload);
  auto* bytes = static_cast<unsigned long long*>(payload_bytes);
  if (half)
    queue_encode(tables, static_cast<const __half*>(rows), row_count, at, starts, coded, states, out, bytes,
                 stream);
  else
    queue_encode(tables, static_cast<const float*>(rows), row_count, at, starts, coded, states, out, bytes,
                 stream);
  return cudaGetLastError();
}

cudaError_t rotated_decode(const void* plan, std::size_t width, std::size_t row_bytes, const void* payload,
                           std::size_t row_count, void* scratch, void* rows, bool half, cudaStream_t stream) {
  if (row_count == 0) return cudaSuccess;
  const auto* tables = static_cast<const RotatedPlan*>(plan);
  const auto* in = static_cast<const unsigned char*>(payload);
  auto* starts = static_cast<unsigned long long*>(scratch);
  const auto grid = static_cast<unsigned>(row_count);
  place_coded<<<1, kScanThreads, 0, stream>>>(in, width, row_bytes, row_count, starts);
  if (half)
    decode_rows<<<grid, kThreads, 0, stream>>>(tables, in, starts, static_cast<__half*>(rows));
  else
    decode_rows<<<grid, kThreads, 0, stream>>>(tables, in, starts, static_cast<float*>(rows));
  return cudaGetLastError();
}

}  // namespace hyperlane
