// Pinned host memory, streams and events: RAII over the CUDA runtime. Failures are thrown.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace hyperlane {

inline void check_cuda(cudaError_t code) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // it is told here, not to whoever calls CUDA next
  throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(code));
}

class Stream;

class PinnedBuffer {
 public:
  explicit PinnedBuffer(std::size_t bytes) : bytes_(bytes) { check_cuda(cudaMallocHost(&data_, bytes)); }
  ~PinnedBuffer() { cudaFreeHost(data_); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  std::uint8_t* data() const { return static_cast<std::uint8_t*>(data_); }
  std::size_t bytes() const { return bytes_; }
  std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(data_); }

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::size_t bytes) : bytes_(bytes) { check_cuda(cudaMalloc(&data_, bytes)); }
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  std::uint8_t* data() const { return static_cast<std::uint8_t*>(data_); }
  std::size_t bytes() const { return bytes_; }
  std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(data_); }

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

class Event {
 public:
  Event() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(const Stream& stream);
  void synchronize() { check_cuda(cudaEventSynchronize(event_)); }
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class Stream {
 public:
  Stream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void copy(std::uintptr_t target, std::uintptr_t source, std::size_t bytes) {
    check_cuda(cudaMemcpyAsync(reinterpret_cast<void*>(target), reinterpret_cast<const void*>(source), bytes,
                               cudaMemcpyDefault, stream_));
  }
  // `count` rows of `bytes` each, `pitch` bytes apart on both sides.
  void copy_rows(std::uintptr_t target, std::uintptr_t source, std::size_t pitch, std::size_t bytes,
                 std::size_t count) {
    check_cuda(cudaMemcpy2DAsync(reinterpret_cast<void*>(target), pitch,
                                 reinterpret_cast<const void*>(source), pitch, bytes, count,
                                 cudaMemcpyDefault, stream_));
  }
  void zero(std::uintptr_t target, std::size_t bytes) {
    check_cuda(cudaMemsetAsync(reinterpret_cast<void*>(target), 0, bytes, stream_));
  }
  void wait(const Event& event) { check_cuda(cudaStreamWaitEvent(stream_, event.get(), 0)); }
  void synchronize() { check_cuda(cudaStreamSynchronize(stream_)); }
  std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(stream_); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

inline void Event::record(const Stream& stream) { check_cuda(cudaEventRecord(event_, stream.get())); }

}  // namespace hyperlane
