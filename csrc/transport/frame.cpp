#include "transport/frame.hpp"

#include <cstring>

namespace hyperlane {
namespace {

constexpr std::uint8_t kKnownFlags = 1;
constexpr std::size_t kMaxTextBytes = 4096;
constexpr std::size_t kForkBytes = 4;
constexpr std::size_t kTicketBytes = 16;

// 128 bits: rows and width are whatever a peer wrote, and their product must not wrap.
bool payload_fits(const Header& header) {
  using Wide = unsigned __int128;
  const Wide rows = header.rows, width = header.width, bytes = header.payload_bytes;
  switch (header.kind) {
    case kTokens:
      return width == 1 && bytes == 4 * rows;
    case kHidden:
      return rows * width <= 8 * bytes;
    case kPlaced:
      return bytes == kTicketBytes;
    case kCandidates:
      return bytes == rows * (8 * width + 4);
    default:
      return bytes == 4 * rows * width;
  }
}

std::string sizes(const Header& header) {
  return "a frame of kind " + std::to_string(header.kind) + " with " + std::to_string(header.runs) +
         " runs and " + std::to_string(header.payload_bytes) + " bytes for " + std::to_string(header.rows) +
         " rows of " + std::to_string(header.width);
}

}  // namespace

RunEntry read_run(const std::uint8_t* entry) {
  RunEntry run;
  std::memcpy(&run.slot, entry, 2);
  std::memcpy(&run.outputs, entry + 2, 2);
  std::memcpy(&run.position, entry + 4, 4);
  std::memcpy(&run.count, entry + 8, 2);
  return run;
}

std::string header_fault(const Header& header, std::size_t max_frame_bytes) {
  if (std::memcmp(header.magic, "HYPL", 4) != 0)
    return "this is no Hyperlane peer: a frame starts with 'HYPL'";
  if (header.version != kVersion)
    return "a frame of version " + std::to_string(header.version) + ", this is 1; run one release everywhere";
  if (header.kind > kPlaced) return "a frame of unknown kind " + std::to_string(header.kind);
  if (header.flags & ~kKnownFlags) return "a frame with unknown flags " + std::to_string(header.flags);
  if (header.codec && header.kind != kHidden) return "a codec in " + sizes(header);
  if (header.kind == kHello || header.kind == kError) {
    if (header.rows || header.width || header.runs || header.payload_bytes > kMaxTextBytes)
      return sizes(header);
  } else if (header.kind == kFork) {
    if (header.rows == 0 || header.width || header.runs || header.payload_bytes != kForkBytes)
      return sizes(header);
  } else if (header.runs == 0 || header.width == 0 || !payload_fits(header)) {
    return sizes(header);
  }
  if (header.payload_bytes > max_frame_bytes || header.frame_bytes() > max_frame_bytes)
    return sizes(header) + ", over the limit of " + std::to_string(max_frame_bytes) + " bytes";
  return "";
}

std::string runs_fault(const Header& header, const std::uint8_t* table) {
  if (header.kind == kFork) return "";  // its rows are positions that it copies
  std::uint64_t rows = 0, outputs = 0;
  for (std::size_t i = 0; i < header.runs; ++i) {
    const RunEntry run = read_run(table + i * kRunBytes);
    if (run.count == 0 || run.outputs > run.count || std::uint64_t{run.position} + run.count > 1ull << 32)
      return "run " + std::to_string(i) + " of step " + std::to_string(header.step) +
             " is empty or wants more than it has";
    rows += run.count, outputs += run.outputs;
  }
  const bool whole = header.kind == kTokens || header.kind == kHidden || header.kind == kPlaced;
  const std::uint64_t stated = whole ? rows : outputs;
  if (stated == header.rows) return "";
  return "the runs of step " + std::to_string(header.step) + " make " + std::to_string(stated) +
         " rows, its header says " + std::to_string(header.rows);
}

}  // namespace hyperlane
