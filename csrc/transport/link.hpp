// What sender and receiver share: how they fail and how long they wait.
#pragma once
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>

namespace hyperlane {

struct LinkBroken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct TimedOut : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Clock = std::chrono::steady_clock;

inline Clock::time_point deadline_after(double seconds) {
  const double bounded = seconds < 0 ? 0 : seconds < 1e6 ? seconds : 1e6;
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(bounded));
}

inline std::string error_text(int code) { return std::strerror(code); }

// Bytes handled at a time: summed and copied while they are in the cache.
constexpr std::size_t kChunkBytes = 256 << 10;

}  // namespace hyperlane
