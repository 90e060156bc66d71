// Counters in memory that two processes share. Streams wait for them and write them, without the host: what a
// stream of one process queued after a wait starts once the other process's stream has written.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/memory.hpp"

namespace hyperlane {

// The driver's own functions, found at run time: the extension is not linked against it.
template <class Function>
Function driver_function(const char* name) {
  constexpr unsigned kSince = 12000;
  void* found = nullptr;
  cudaDriverEntryPointQueryResult state{};
  check_cuda(cudaGetDriverEntryPointByVersion(name, &found, kSince, cudaEnableDefault, &state));
  if (found == nullptr) throw std::runtime_error(std::string("CUDA: the driver has no ") + name);
  return reinterpret_cast<Function>(found);
}

class SharedCounters {
 public:
  // `bytes` mapped at a page's beginning, which stay mapped for as long as this lives.
  SharedCounters(std::uintptr_t address, std::size_t bytes)
      : host_(reinterpret_cast<void*>(address)),
        wait_(driver_function<Operation>("cuStreamWaitValue64")),
        write_(driver_function<Operation>("cuStreamWriteValue64")) {
    check_cuda(cudaHostRegister(host_, bytes, cudaHostRegisterMapped | cudaHostRegisterPortable));
    const cudaError_t state = cudaHostGetDevicePointer(&device_, host_, 0);
    if (state != cudaSuccess) cudaHostUnregister(host_);
    check_cuda(state);
  }
  ~SharedCounters() { cudaHostUnregister(host_); }
  SharedCounters(const SharedCounters&) = delete;
  SharedCounters& operator=(const SharedCounters&) = delete;

  // What is queued from now on starts once counter `index` is at least `value`.
  void wait(const Stream& stream, std::size_t index, std::uint64_t value) {
    check(wait_(stream.get(), address(index), value, CU_STREAM_WAIT_VALUE_GEQ));
  }
  // Waits here, busily, until counter `index` is at least `value`; false where that takes too long.
  bool hold(std::size_t index, std::uint64_t value, double timeout_s) const {
    const auto* word = static_cast<const std::uint64_t*>(host_) + index;
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    constexpr int kTurns = 256;  // between two looks at the clock
    for (int turn = 0; __atomic_load_n(word, __ATOMIC_ACQUIRE) < value; ++turn)
      if (turn % kTurns == kTurns - 1 && std::chrono::steady_clock::now() > until) return false;
    return true;
  }
  // Once all that was queued before is done, and seen by every device.
  void write(const Stream& stream, std::size_t index, std::uint64_t value) {
    check(write_(stream.get(), address(index), value, CU_STREAM_WRITE_VALUE_DEFAULT));
  }

 private:
  using Operation = CUresult (*)(CUstream, CUdeviceptr, cuuint64_t, unsigned);

  CUdeviceptr address(std::size_t index) const {
    return reinterpret_cast<CUdeviceptr>(device_) + index * sizeof(std::uint64_t);
  }
  static void check(CUresult code) {
    if (code != CUDA_SUCCESS)
      throw std::runtime_error("CUDA: a stream's memory operation failed with " + std::to_string(code));
  }

  void* host_;
  void* device_ = nullptr;
  Operation wait_, write_;
};

}  // namespace hyperlane
