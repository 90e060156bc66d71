// What a codec's kernels are to what moves payloads. Pointers are device or pinned host memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cuda/entropy_payload.hpp"
#include "cuda/memory.hpp"
#include "quant/entropy.cuh"
#include "quant/int4_plain.cuh"
#include "quant/rotated.cuh"

namespace hyperlane {

class KernelCodec {
 public:
  virtual ~KernelCodec() = default;
  // The most that `rows` rows take, and what they take as a rule.
  virtual std::size_t max_bytes(std::size_t rows) const = 0;
  virtual std::size_t usual_bytes(std::size_t rows) const = 0;
  // Whether rows always take that, so that `encode` tells no length.
  virtual bool fixed() const = 0;
  // Whether a payload in host memory is one of so many rows, made with these tables.
  virtual bool fits(const std::uint8_t* payload, std::size_t bytes, std::size_t rows) const = 0;
  // Queue: the payload, and its length to `payload_bytes` (u64).
  virtual void encode(const void* rows, bool half, std::size_t row_count, const unsigned* positions,
                      void* payload, void* payload_bytes, cudaStream_t stream) = 0;
  virtual void decode(const void* payload, std::size_t row_count, void* rows, bool half,
                      cudaStream_t stream) = 0;
};

class PlainKernels : public KernelCodec {
 public:
  explicit PlainKernels(std::size_t width) : width_(width) {}

  std::size_t max_bytes(std::size_t rows) const override {
    return rows * (width_ / 64 * 34 + (width_ % 64 ? 2 + (width_ % 64 + 1) / 2 : 0));
  }
  std::size_t usual_bytes(std::size_t rows) const override { return max_bytes(rows); }
  bool fixed() const override { return true; }
  bool fits(const std::uint8_t*, std::size_t bytes, std::size_t rows) const override {
    return bytes == max_bytes(rows);
  }
  void encode(const void* rows, bool half, std::size_t row_count, const unsigned*, void* payload, void*,
              cudaStream_t stream) override {
    check_cuda(int4_plain_encode(rows, half, row_count, width_, payload, stream));
  }
  void decode(const void* payload, std::size_t row_count, void* rows, bool half,
              cudaStream_t stream) override {
    check_cuda(int4_plain_decode(payload, row_count, width_, rows, half, stream));
  }

 private:
  std::size_t width_;
};

// Rows as they are: copies.
class RawKernels : public KernelCodec {
 public:
  explicit RawKernels(std::size_t row_bytes) : row_bytes_(row_bytes) {}

  std::size_t max_bytes(std::size_t rows) const override { return rows * row_bytes_; }
  std::size_t usual_bytes(std::size_t rows) const override { return max_bytes(rows); }
  bool fixed() const override { return true; }
  bool fits(const std::uint8_t*, std::size_t bytes, std::size_t rows) const override {
    return bytes == max_bytes(rows);
  }
  void encode(const void* rows, bool, std::size_t row_count, const unsigned*, void* payload, void*,
              cudaStream_t stream) override {
    check_cuda(cudaMemcpyAsync(payload, rows, max_bytes(row_count), cudaMemcpyDefault, stream));
  }
  void decode(const void* payload, std::size_t row_count, void* rows, bool, cudaStream_t stream) override {
    check_cuda(cudaMemcpyAsync(rows, payload, max_bytes(row_count), cudaMemcpyDefault, stream));
  }

 private:
  std::size_t row_bytes_;
};

// A codec with tables, whose payloads' lengths vary: what launches its kernels is a Device.
template <class Device>
class TabledKernels : public KernelCodec {
 public:
  template <class Parts>
  TabledKernels(const Parts& parts, std::size_t max_rows, std::size_t few_rows)
      : codec_(parts, max_rows, few_rows) {}

  std::size_t max_bytes(std::size_t rows) const override { return codec_.max_bytes(rows); }
  bool fixed() const override { return false; }
  void encode(const void* rows, bool half, std::size_t row_count, const unsigned* positions, void* payload,
              void* payload_bytes, cudaStream_t stream) override {
    codec_.encode(rows, half, row_count, positions, payload, payload_bytes, stream);
  }
  void decode(const void* payload, std::size_t row_count, void* rows, bool half,
              cudaStream_t stream) override {
    codec_.decode(payload, row_count, rows, half, stream);
  }

 protected:
  Device codec_;
};

class RotatedDeviceCodec : public TabledKernels<DeviceCodec> {
 public:
  RotatedDeviceCodec(const RotatedParts& parts, std::size_t max_rows, std::size_t few_rows)
      : TabledKernels(parts, max_rows, few_rows), id_(parts.id), width_(parts.mean.size()) {}

  std::size_t usual_bytes(std::size_t rows) const override { return 8 + rows * (codec_.row_bytes() + 1); }
  bool fits(const std::uint8_t* payload, std::size_t bytes, std::size_t rows) const override {
    const std::size_t head = id_.size() + (rows + 3) / 4;
    if (bytes < head || std::memcmp(payload, id_.data(), id_.size()) != 0) return false;
    const std::size_t lengths[] = {codec_.row_bytes(), 2 * width_, 4 * width_, 0};  // by the row's state
    std::size_t expected = head;
    for (std::size_t row = 0; row < rows; ++row)
      expected += lengths[payload[id_.size() + row / 4] >> 2 * (row % 4) & 3];
    return bytes == expected;
  }

 private:
  decltype(RotatedParts::id) id_;
  std::size_t width_;
};

class EntropyDeviceKernels : public TabledKernels<DeviceEntropyCodec> {
 public:
  using TabledKernels::TabledKernels;

  // Half a byte a value; its tables are made for a little less.
  std::size_t usual_bytes(std::size_t rows) const override {
    return 8 + rows * (codec_.view().width / 2 + 81);
  }
  bool fits(const std::uint8_t* payload, std::size_t bytes, std::size_t rows) const override {
    return EntropyPayload(codec_.view(), payload, bytes).fits(rows);
  }
};

}  // namespace hyperlane
