#include <algorithm>

#include "cuda_ops/rows.hpp"
#include "cuda_ops/vectors.cuh"

namespace hyperlane::cuda_ops {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    norm(const half* x, const half* weight, half* out, int K, float epsilon) {
  let_next_start();
  await_previous();
  const half* row = x + static_cast<size_t>(blockIdx.x) * K;
  half* target = out + static_cast<size_t>(blockIdx.x) * K;
  __shared__ float parts[kThreads / 32];
  float sum = 0, values[8], weights[8];
#pragma unroll 2
  for (int i = threadIdx.x * 8; i < K; i += kThreads * 8) {
    widen_at(row + i, values);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += values[j] * values[j];
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) sum += parts[i];
  const float scale = rsqrtf(sum / static_cast<float>(K) + epsilon);
#pragma unroll 2
  for (int i = threadIdx.x * 8; i < K; i += kThreads * 8) {
    widen_at(row + i, values);
    widen_at(weight + i, weights);
#pragma unroll
    for (int j = 0; j < 8; ++j) values[j] *= scale * weights[j];
    *reinterpret_cast<uint4*>(target + i) = narrow(values);
  }
}

__global__ void __launch_bounds__(kThreads)
    gate_eights(const half* gate, const half* up, half* out, std::size_t count) {
  for (std::size_t i = (blockIdx.x * static_cast<std::size_t>(kThreads) + threadIdx.x) * 8; i < count;
       i += static_cast<std::size_t>(gridDim.x) * kThreads * 8) {
    float gates[8], values[8];
    widen_at(gate + i, gates);
    widen_at(up + i, values);
#pragma unroll
    for (int j = 0; j < 8; ++j) values[j] *= gates[j] / (1.f + __expf(-gates[j]));
    *reinterpret_cast<uint4*>(out + i) = narrow(values);
  }
}

}  // namespace

cudaError_t norm_rows(const half* x, const half* weight, half* out, int rows, int K, float epsilon,
                      cudaStream_t stream) {
  return launch(norm, {dim3(static_cast<unsigned>(rows)), kThreads, 0, 1, stream}, x, weight, out, K,
                epsilon);
}

cudaError_t gate_rows(const half* gate, const half* up, half* out, std::size_t count, cudaStream_t stream) {
  const std::size_t blocks = std::min<std::size_t>((count / 8 + kThreads - 1) / kThreads, 2048);
  gate_eights<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(gate, up, out, count);
  return cudaGetLastError();
}

}  // namespace hyperlane::cuda_ops
