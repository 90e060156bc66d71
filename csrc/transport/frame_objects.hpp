// Frames as Python has them (the Frame and Run of hyperlane/transport/frame.py, both named tuples) and as
// bytes.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <string>

#include "transport/blocks.hpp"

namespace hyperlane {

// The payload of a Frame, borrowed.
PyObject* payload_of(const pybind11::tuple& frame);

// Header and run table. Throws ValueError where the frame would not be valid.
std::string pack_prefix(const pybind11::tuple& frame, std::size_t payload_bytes);

// A received frame; its payload is a view that keeps the block. `types` are Frame, Run and the tuple of
// kinds.
pybind11::object unpack_frame(std::unique_ptr<FrameBlock> block, const pybind11::tuple& types);

}  // namespace hyperlane
