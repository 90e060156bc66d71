// One accepted connection: bytes in, whole and checked frames out.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transport/blocks.hpp"
#include "transport/frame.hpp"

namespace hyperlane {

class Connection {
 public:
  struct Limits {
    std::shared_ptr<FramePool> pool;
    std::size_t max_frame_bytes;
  };

  Connection(int fd, std::string peer, Limits limits);  // takes the socket
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int fd() const { return fd_; }
  const std::string& peer() const { return peer_; }
  std::uint64_t frames() const { return frames_; }
  const std::string& fault() const { return fault_; }  // why it cannot go on, or ""
  bool at_end() const { return at_end_; }              // the peer closed it between two frames

  // What is there, without waiting: some small frames, or up to the end of a large one.
  void read();

  void cut(std::string why) { fault_ = std::move(why); }

  // A whole frame of what was read, or null.
  std::unique_ptr<FrameBlock> next_frame();

 private:
  std::size_t staged() const { return staged_stop_ - staged_start_; }
  void read_staging();
  bool read_block();
  bool accept_bytes(long got);
  bool start_frame();
  void move_staged();
  void sum();
  std::unique_ptr<FrameBlock> finish_frame();

  const int fd_;
  const std::string peer_;
  const Limits limits_;
  std::vector<std::uint8_t> staging_;  // small frames come several to a read
  std::size_t staged_start_ = 0, staged_stop_ = 0;
  std::unique_ptr<FrameBlock> block_;  // the frame in progress
  std::size_t filled_ = 0, summed_ = 0;
  std::uint32_t crc_ = 0;
  std::uint64_t frames_ = 0;
  std::string fault_;
  bool at_end_ = false;
};

}  // namespace hyperlane
