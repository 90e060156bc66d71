// Rows of a payload with tables that are not coded; hyperlane/transport/codec/rows.py is the specification.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/half.hpp"

namespace hyperlane {

enum State : std::uint8_t { kCoded, kHalf, kSingle, kZero };

constexpr std::size_t kIdBytes = 8;
constexpr float kSmallestRms = 0x1p-14f;

inline std::size_t states_end(std::size_t rows) { return kIdBytes + (rows + 3) / 4; }

inline State state_of(const std::uint8_t* states, std::size_t row) {
  return static_cast<State>((states[row / 4] >> (2 * (row % 4))) & 3);
}

inline void set_state(std::uint8_t* states, std::size_t row, State state) {
  states[row / 4] = static_cast<std::uint8_t>(states[row / 4] | state << (2 * (row % 4)));
}

// What a row that is not coded takes.
inline std::size_t raw_bytes(State state, std::size_t width) {
  return state == kHalf ? 2 * width : state == kSingle ? 4 * width : 0;
}

inline float value_at(const void* values, bool half, std::size_t i) {
  if (!half) return static_cast<const float*>(values)[i];
  return half_to_float(static_cast<const half_bits*>(values)[i]);
}

// What a row goes as if it is not coded.
inline State raw_state(const void* values, bool half, std::size_t width, float rms) {
  bool zero = true, holds = rms >= kSmallestRms;
  for (std::size_t i = 0; i < width; ++i) {
    const float value = value_at(values, half, i);
    zero &= value == 0;
    holds &= std::fabs(value) <= kHalfMax;
  }
  if (zero) return kZero;
  return half || holds ? kHalf : kSingle;
}

// Returns where the row ends.
inline std::uint8_t* write_raw(const void* values, bool half, std::size_t width, State state,
                               std::uint8_t* out) {
  if (half || state == kSingle) {
    std::memcpy(out, values, raw_bytes(state, width));
  } else if (state == kHalf) {
    for (std::size_t i = 0; i < width; ++i) {
      const half_bits bits = float_to_half(static_cast<const float*>(values)[i]);
      std::memcpy(out + 2 * i, &bits, 2);
    }
  }
  return out + raw_bytes(state, width);
}

inline void read_raw(const std::uint8_t* in, State state, std::size_t width, void* values, bool half) {
  auto* out = static_cast<std::uint8_t*>(values);
  if (state == kZero) {
    std::memset(out, 0, width * (half ? 2 : 4));
  } else if ((state == kHalf) == half) {
    std::memcpy(out, in, raw_bytes(state, width));
  } else if (half) {
    for (std::size_t i = 0; i < width; ++i) {
      float value;
      std::memcpy(&value, in + 4 * i, 4);
      static_cast<half_bits*>(values)[i] = float_to_half(value);
    }
  } else {
    for (std::size_t i = 0; i < width; ++i) {
      half_bits bits;
      std::memcpy(&bits, in + 2 * i, 2);
      static_cast<float*>(values)[i] = half_to_float(bits);
    }
  }
}

}  // namespace hyperlane
