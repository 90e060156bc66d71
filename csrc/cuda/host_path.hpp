// Rows on the device to a payload in pinned host memory, and back, for one end of a link. A small payload is
// written by the kernel itself, across the bus: a copy would cost more than it moves. A large one goes to
// device memory first, so that the kernel does not wait for the bus.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/codec.hpp"
#include "cuda/memory.hpp"

namespace hyperlane {

class HostPath {
 public:
  // `depth` payloads stand side by side, each until as many others came after it.
  HostPath(std::shared_ptr<KernelCodec> codec, std::size_t max_rows, std::size_t depth = 1)
      : codec_(std::move(codec)),
        max_rows_(max_rows),
        slots_(std::max<std::size_t>(depth, 1)),
        positions_(4 * max_rows + kSlack),
        length_(kSlack),
        staged_(codec_->max_bytes(max_rows) + kSlack) {
    for (Slot& slot : slots_)
      slot.payload = std::make_unique<PinnedBuffer>(codec_->max_bytes(max_rows) + kSlack);
  }

  // Into the next payload, whose bytes are returned; the rows are read once `after` has come.
  std::size_t encode(const void* rows, bool half, std::size_t row_count, const unsigned* positions,
                     const Event* after = nullptr) {
    check_rows(row_count);
    turn_ = (turn_ + 1) % slots_.size();
    if (after != nullptr) stream_.wait(*after);
    std::memcpy(positions_.data(), positions, 4 * row_count);
    const bool direct = codec_->usual_bytes(row_count) <= kDirectBytes;
    auto* length = reinterpret_cast<volatile std::uint64_t*>(length_.data());
    *length = 0;
    codec_->encode(rows, half, row_count, reinterpret_cast<const unsigned*>(positions_.data()),
                   direct ? payload().data() : staged_.data(), length_.data(), stream_.get());
    if (codec_->fixed())
      wait();
    else
      wait_for(length);  // it is written last: seeing it is quicker than asking for the stream's end
    const std::size_t bytes = codec_->fixed() ? codec_->usual_bytes(row_count) : *length;
    if (direct) return bytes;
    stream_.copy(payload().address(), staged_.address(), bytes);
    wait();
    return bytes;
  }

  // Queues the decoding of a payload in any host memory, which may be dropped at once: `done` comes when the
  // rows are there. They are written once `free` has come. False for bytes that are no payload of such rows.
  bool take(const std::uint8_t* data, std::size_t bytes, std::size_t row_count, void* rows, bool half,
            const Event& free, Event& done) {
    check_rows(row_count);
    if (!codec_->fits(data, bytes, row_count)) return false;
    turn_ = (turn_ + 1) % slots_.size();
    Slot& slot = slots_[turn_];
    slot.read.synchronize();
    std::memcpy(slot.payload->data(), data, bytes);
    stream_.wait(free);
    queue_decoding(bytes, row_count, rows, half);
    slot.read.record(stream_);
    done.record(stream_);
    return true;
  }

  // Decodes the first `bytes` of the payload, whose length was checked; the rows are there when this returns.
  void decode(std::size_t bytes, std::size_t row_count, void* rows, bool half) {
    check_rows(row_count);
    queue_decoding(bytes, row_count, rows, half);
    wait();
  }

  PinnedBuffer& payload() { return *slots_[turn_].payload; }
  std::size_t max_rows() const { return max_rows_; }

 private:
  static constexpr std::size_t kSlack = 64;               // kernels read whole words
  static constexpr std::size_t kDirectBytes = 128 << 10;  // as many as 32 rows of 7B models take

  struct Slot {
    std::unique_ptr<PinnedBuffer> payload;
    Event read;
  };

  void queue_decoding(std::size_t bytes, std::size_t row_count, void* rows, bool half) {
    const bool direct = bytes <= kDirectBytes;
    if (!direct) stream_.copy(staged_.address(), payload().address(), bytes);
    codec_->decode(direct ? payload().data() : staged_.data(), row_count, rows, half, stream_.get());
  }

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
  std::size_t max_rows_, turn_ = 0;
  std::vector<Slot> slots_;
  PinnedBuffer positions_, length_;
  DeviceBuffer staged_;
  Stream stream_;
};

}  // namespace hyperlane
