// CRC32C (Castagnoli); hyperlane/transport/crc32c.py is the specification.
#pragma once
#include <cstddef>
#include <cstdint>

namespace hyperlane {

// The CRC32C of `bytes`, or of what gave `crc` followed by them.
std::uint32_t crc32c(const void* data, std::size_t bytes, std::uint32_t crc = 0);

}  // namespace hyperlane
