// Memory that frames are received into, used again once Python drops the frame.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace hyperlane {

class FramePool;

// Room for one frame, its payload on a 64-byte boundary.
class FrameBlock {
 public:
  FrameBlock(std::shared_ptr<FramePool> pool, std::uint8_t* memory, std::size_t capacity);
  ~FrameBlock();
  FrameBlock(const FrameBlock&) = delete;
  FrameBlock& operator=(const FrameBlock&) = delete;

  std::uint8_t* data() const { return memory_ + start_; }
  std::size_t bytes() const { return bytes_; }

  std::size_t payload_start = 0, payload_bytes = 0;  // set once the frame is whole
  std::int64_t arrived_ns = 0;                       // its last byte was read then, on the steady clock

 private:
  friend class FramePool;
  std::shared_ptr<FramePool> pool_;
  std::uint8_t* memory_;
  std::size_t capacity_, start_ = 0, bytes_ = 0;
};

class FramePool : public std::enable_shared_from_this<FramePool> {
 public:
  explicit FramePool(std::size_t keep) : keep_(keep) {}
  ~FramePool();

  // Memory is reserved, not touched: a frame that never comes costs no pages.
  std::unique_ptr<FrameBlock> take(std::size_t bytes, std::size_t payload_offset);

 private:
  friend class FrameBlock;
  struct Free {
    std::uint8_t* memory;
    std::size_t capacity;
  };
  std::uint8_t* reuse(std::size_t capacity);
  void give_back(Free free);

  std::mutex mutex_;
  std::vector<Free> free_;
  const std::size_t keep_;
};

}  // namespace hyperlane
