// Makes and uploads the tables of rotated_tables.cuh. One allocation holds them all.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "quant/rotated_tables.cuh"

namespace hyperlane {
namespace {

// Pieces of memory laid out one behind another, each on 256 bytes.
class Image {
 public:
  template <class T>
  std::size_t add(const std::vector<T>& values) {
    const std::size_t at = (bytes_.size() + 255) / 256 * 256;
    bytes_.resize(at + std::max<std::size_t>(values.size() * sizeof(T), 1));
    if (!values.empty()) std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
    return at;
  }
  const std::vector<std::uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<std::uint8_t> bytes_;
};

void check(cudaError_t code) {
  if (code != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(code));
}

std::vector<DeviceBlock> make_blocks(const RotatedParts& parts, RotatedView& view) {
  std::vector<DeviceBlock> blocks;
  unsigned next = 0, scales = 0;
  for (const auto& [start, size, bits] : parts.blocks) {
    if (start != next || size == 0 || size > kBlockSize || (size & (size - 1)) || bits > 8)
      throw std::invalid_argument("blocks do not follow each other");
    next += static_cast<unsigned>(size);
    blocks.push_back({static_cast<unsigned>(start), static_cast<unsigned>(size), static_cast<unsigned>(bits),
                      0, 0, static_cast<unsigned>((size * bits + 7) / 8)});
    scales += bits > 0;
    view.whole_count += size == kBlockSize;
  }
  if (next != view.width) throw std::invalid_argument("blocks do not fill the width");
  unsigned scale_at = 2, code_at = 2 + scales;
  for (DeviceBlock& block : blocks) {
    block.scale_at = scale_at, block.code_at = code_at;
    scale_at += block.bits > 0;
    code_at += block.code_bytes;
  }
  view.block_count = static_cast<unsigned>(blocks.size());
  view.scale_count = scales;
  view.row_bytes = code_at;
  return blocks;
}

std::vector<float4> by_block(const std::vector<float>& values, unsigned whole_count) {
  std::vector<float4> result(16 * whole_count);
  for (unsigned part = 0; part < 16; ++part)
    for (unsigned block = 0; block < whole_count; ++block)
      std::memcpy(&result[part * whole_count + block], &values[block * kBlockSize + 4 * part], 16);
  return result;
}

void check_levels(const RotatedParts& parts) {
  if (parts.quantizer == DeviceQuantizer::levels && parts.levels.size() != 16)
    throw std::invalid_argument("not the levels of a rotated codec");
}

// Offsets of a view's arrays in the image, set into the view once the image's address is known.
struct Placed {
  const void** pointer;
  std::size_t at;
};

}  // namespace

RotatedTables::RotatedTables(const RotatedParts& parts) {
  const std::size_t width = parts.mean.size();
  if (width == 0 || width > 65535 || parts.forward.size() != width || parts.backward.size() != width)
    throw std::invalid_argument("not the parts of a rotated codec");
  check_levels(parts);
  view_.quantizer = parts.quantizer;
  view_.width = static_cast<unsigned>(width);
  view_.limit = parts.limit;
  std::copy(parts.id.begin(), parts.id.end(), view_.id);
  const std::vector<DeviceBlock> blocks = make_blocks(parts, view_);

  Image image;
  std::vector<Placed> placed;
  const auto put = [&](auto& pointer, const auto& values) {
    placed.push_back(
        {const_cast<const void**>(reinterpret_cast<const void* const*>(&pointer)), image.add(values)});
  };
  put(view_.blocks, blocks);
  put(view_.mean, parts.mean);
  put(view_.forward, parts.forward);
  put(view_.backward, parts.backward);
  put(view_.mean_by_block, by_block(parts.mean, view_.whole_count));
  put(view_.forward_by_block, by_block(parts.forward, view_.whole_count));
  put(view_.backward_by_block, by_block(parts.backward, view_.whole_count));
  std::fill_n(view_.midpoints, 16, INFINITY);
  if (parts.quantizer == DeviceQuantizer::levels) {
    std::copy_n(parts.levels.begin(), 16, view_.levels);
    for (int code = 0; code < 15; ++code)
      view_.midpoints[code] = (view_.levels[code] + view_.levels[code + 1]) * 0.5f;
  }
  check(cudaMalloc(&memory_, image.bytes().size()));
  const cudaError_t copied =
      cudaMemcpy(memory_, image.bytes().data(), image.bytes().size(), cudaMemcpyHostToDevice);
  if (copied != cudaSuccess) cudaFree(memory_);
  check(copied);
  for (const Placed& part : placed) *part.pointer = static_cast<const std::uint8_t*>(memory_) + part.at;
}

RotatedTables::~RotatedTables() { cudaFree(memory_); }

}  // namespace hyperlane
