// The fixed part of a frame and its checks; hyperlane/transport/frame.py is the specification.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace hyperlane {

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 40;
constexpr std::size_t kRunBytes = 10;
constexpr std::size_t kCrcBytes = 4;
enum FrameKind { kHello, kTokens, kHidden, kCandidates, kLogits, kError, kFork, kPlaced };

struct Header {
  std::uint8_t magic[4];
  std::uint8_t version, kind, codec, flags;
  std::uint32_t epoch;
  std::uint16_t lane, runs;
  std::uint64_t step;
  std::uint32_t rows, width;
  std::uint64_t payload_bytes;

  std::size_t prefix_bytes() const { return kHeaderBytes + runs * kRunBytes; }
  std::size_t frame_bytes() const { return prefix_bytes() + payload_bytes + kCrcBytes; }
};
static_assert(sizeof(Header) == kHeaderBytes && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the wire is this struct");

// An entry of the run table.
struct RunEntry {
  std::uint16_t slot, outputs;
  std::uint32_t position;
  std::uint16_t count;
};

RunEntry read_run(const std::uint8_t* entry);

// Both give why the bytes are no valid frame, or "".
std::string header_fault(const Header& header, std::size_t max_frame_bytes);
std::string runs_fault(const Header& header, const std::uint8_t* table);

}  // namespace hyperlane
