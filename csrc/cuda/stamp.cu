#include "cuda/stamp.cuh"

namespace hyperlane {
namespace {

__global__ void write_time(unsigned long long* place) {
  unsigned long long now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  *place = now;
}

}  // namespace

cudaError_t stamp(std::uint64_t* place, cudaStream_t stream) {
  write_time<<<1, 1, 0, stream>>>(reinterpret_cast<unsigned long long*>(place));
  return cudaGetLastError();
}

}  // namespace hyperlane
