#include "transport/blocks.hpp"

#include <cstdlib>
#include <new>

namespace hyperlane {
namespace {

constexpr std::size_t kAlign = 64;

std::size_t capacity_for(std::size_t bytes) {
  std::size_t capacity = 4096;
  while (capacity < bytes + kAlign) capacity *= 2;
  return capacity;
}

}  // namespace

FrameBlock::FrameBlock(std::shared_ptr<FramePool> pool, std::uint8_t* memory, std::size_t capacity)
    : pool_(std::move(pool)), memory_(memory), capacity_(capacity) {}

FrameBlock::~FrameBlock() { pool_->give_back({memory_, capacity_}); }

FramePool::~FramePool() {
  for (const Free& free : free_) std::free(free.memory);
}

std::unique_ptr<FrameBlock> FramePool::take(std::size_t bytes, std::size_t payload_offset) {
  const std::size_t capacity = capacity_for(bytes);
  std::uint8_t* memory = reuse(capacity);
  if (!memory) memory = static_cast<std::uint8_t*>(std::aligned_alloc(kAlign, capacity));
  if (!memory) throw std::bad_alloc();
  auto block = std::make_unique<FrameBlock>(shared_from_this(), memory, capacity);
  block->start_ = (kAlign - payload_offset % kAlign) % kAlign;
  block->bytes_ = bytes;
  return block;
}

std::uint8_t* FramePool::reuse(std::size_t capacity) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto free = free_.rbegin(); free != free_.rend(); ++free) {  // the latest is in the cache
    if (free->capacity != capacity) continue;
    std::uint8_t* memory = free->memory;
    free_.erase(std::next(free).base());
    return memory;
  }
  return nullptr;
}

void FramePool::give_back(Free free) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (free_.size() == keep_) {  // the oldest goes, so that sizes no longer asked for do not stay
    std::free(free_.front().memory);
    free_.erase(free_.begin());
  }
  free_.push_back(free);
}

}  // namespace hyperlane
