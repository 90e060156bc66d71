// Rows on the device to a payload in pinned host memory, and back, for one end of a link. A small payload is
// written by the kernel itself, across the bus: a copy would cost more than it moves. A large one goes to
// device memory first, so that the kernel does not wait for the bus.
#pragma once
#include <atomic>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/codec.hpp"
#include "cuda/memory.hpp"

namespace hyperlane {

class HostPath {
 public:
  HostPath(std::shared_ptr<KernelCodec> codec, std::size_t max_rows)
      : codec_(std::move(codec)),
        max_rows_(max_rows),
        payload_(codec_->max_bytes(max_rows) + kSlack),
        positions_(4 * max_rows + kSlack),
        length_(kSlack),
        staged_(codec_->max_bytes(max_rows) + kSlack) {}

  // Queues nothing that outlives the call; returns the payload's bytes.
  std::size_t encode(const void* rows, bool half, std::size_t row_count, const unsigned* positions) {
    check_rows(row_count);
    std::memcpy(positions_.data(), positions, 4 * row_count);
    const bool direct = codec_->usual_bytes(row_count) <= kDirectBytes;
    auto* length = reinterpret_cast<volatile std::uint64_t*>(length_.data());
    *length = 0;
    codec_->encode(rows, half, row_count, reinterpret_cast<const unsigned*>(positions_.data()),
                   direct ? payload_.data() : staged_.data(), length_.data(), stream_.get());
    if (codec_->fixed())
      wait();
    else
      wait_for(length);  // it is written last: seeing it is quicker than asking for the stream's end
    const std::size_t bytes = codec_->fixed() ? codec_->usual_bytes(row_count) : *length;
    if (direct) return bytes;
    stream_.copy(payload_.address(), staged_.address(), bytes);
    stream_.synchronize();
    return bytes;
  }

  // Decodes the first `bytes` of the payload, whose length was checked; the rows are there when this returns.
  void decode(std::size_t bytes, std::size_t row_count, void* rows, bool half) {
    check_rows(row_count);
    const bool direct = bytes <= kDirectBytes;
    if (!direct) stream_.copy(staged_.address(), payload_.address(), bytes);
    codec_->decode(direct ? payload_.data() : staged_.data(), row_count, rows, half, stream_.get());
    wait();
  }

  PinnedBuffer& payload() { return payload_; }
  Stream& stream() { return stream_; }

 private:
  static constexpr std::size_t kSlack = 64;  // kernels read whole words
  static constexpr std::size_t kDirectBytes = 64 << 10;

  // Busily: what is waited for takes microseconds.
  void wait() {
    cudaError_t state = cudaErrorNotReady;
    while ((state = cudaStreamQuery(stream_.get())) == cudaErrorNotReady) {
    }
    check_cuda(state);
  }

  void wait_for(const volatile std::uint64_t* length) {
    constexpr int kTurns = 10000;  // then see whether the kernel failed
    while (*length == 0) {
      for (int turn = 0; turn < kTurns && *length == 0; ++turn) {
      }
      if (*length != 0) break;
      const cudaError_t state = cudaStreamQuery(stream_.get());
      if (state != cudaErrorNotReady) check_cuda(state);
      if (state == cudaSuccess && *length == 0) throw std::runtime_error("CUDA: a payload without a length");
    }
    std::atomic_thread_fence(std::memory_order_acquire);
  }

  void check_rows(std::size_t row_count) const {
    if (row_count > max_rows_)
      throw std::invalid_argument(std::to_string(row_count) + " rows, the path was made for " +
                                  std::to_string(max_rows_));
  }

  std::shared_ptr<KernelCodec> codec_;
  std::size_t max_rows_;
  PinnedBuffer payload_, positions_, length_;
  DeviceBuffer staged_;
  Stream stream_;
};

}  // namespace hyperlane
