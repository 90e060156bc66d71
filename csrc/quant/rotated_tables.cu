// Makes and uploads the tables of rotated_tables.cuh. One allocation holds them all.
#include <cuda_fp16.h>

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
    view.coded_values += bits > 0 ? static_cast<unsigned>(size) : 0;
  }
  if (next != view.width) throw std::invalid_argument("blocks do not fill the width");
  if (view.quantizer == DeviceQuantizer::trellis) scales = 1;
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

std::vector<std::uint16_t> order_by_block(const std::vector<unsigned>& order, unsigned whole_count) {
  std::vector<std::uint16_t> result(64 * whole_count);
  for (unsigned part = 0; part < 8; ++part)
    for (unsigned block = 0; block < whole_count; ++block)
      for (unsigned i = 0; i < 8; ++i)
        result[(part * whole_count + block) * 8 + i] =
            static_cast<std::uint16_t>(order[block * kBlockSize + 8 * part + i]);
  return result;
}

// Values l, 16 + l, 32 + l and 48 + l of a block together; zeros where it is shorter.
std::vector<float> by_lane(const std::vector<float>& values, const std::vector<DeviceBlock>& blocks) {
  std::vector<float> result(blocks.size() * kBlockSize, 0.0f);
  for (std::size_t b = 0; b < blocks.size(); ++b)
    for (unsigned i = 0; i < blocks[b].size; ++i)
      result[b * kBlockSize + 4 * (i % kTrellisLanes) + i / kTrellisLanes] = values[blocks[b].start + i];
  return result;
}

std::vector<unsigned> make_slots(const std::vector<unsigned>& order, const std::vector<DeviceBlock>& blocks) {
  std::vector<unsigned> slots(order.size());
  for (std::size_t b = 0; b < blocks.size(); ++b)
    for (unsigned i = 0; i < blocks[b].size; ++i)
      slots[order[blocks[b].start + i]] =
          static_cast<unsigned>(b * kBlockSize + 4 * (i % kTrellisLanes) + i / kTrellisLanes);
  return slots;
}

std::vector<float> thresholds_of(const std::vector<float>& levels) {
  std::vector<float> thresholds;
  for (std::size_t i = 4; i < levels.size(); ++i) thresholds.push_back((levels[i - 4] + levels[i]) * 0.5f);
  return thresholds;
}

// As the kernel computes it.
unsigned bucket_of(float value, unsigned bits) {
  const float part = std::min(std::max(std::fma(value, search_spread(bits), 0.5f), 0.0f), 1.0f);
  const float last = static_cast<float>(search_buckets(bits) - 1);
  return static_cast<unsigned>(std::fma(part, last, kIntegerAbove) - kIntegerAbove);
}

void fill_nearest(std::vector<std::uint8_t>& image, const std::vector<float>& levels, unsigned bits) {
  for (unsigned w = 0; w < nearest_count(bits); ++w) {
    float nearest[4];
    for (unsigned level = w; level < w + 4; ++level) nearest[level % 4] = levels[level];
    const unsigned copies = bits <= kCopiedBits ? 8 : 1;
    for (unsigned copy = 0; copy < copies; ++copy)
      std::memcpy(&image[nearest_start(bits) + nearest_stride(bits) * w + 16 * copy], nearest, 16);
  }
}

void fill_search(std::vector<std::uint8_t>& image, const std::vector<float>& levels, unsigned bits) {
  const std::vector<float> thresholds = thresholds_of(levels);
  const unsigned buckets = search_buckets(bits), copies = bits <= kCopiedBits ? 16 : 1;
  for (unsigned bucket = 0; bucket < buckets; ++bucket) {
    unsigned below = 0, inside = 0;
    float threshold = INFINITY;
    for (float each : thresholds) {
      below += bucket_of(each, bits) < bucket;
      if (bucket_of(each, bits) != bucket) continue;
      threshold = each;
      ++inside;
    }
    if (inside > 1) throw std::invalid_argument("levels lie too close to each other for the GPU's search");
    for (unsigned copy = 0; copy < copies; ++copy) {
      const std::uint32_t nearest =
          bits <= kCopiedBits ? nearest_start(bits) + nearest_stride(bits) * below + 16 * (copy % 8) : below;
      const SearchEntry entry{threshold, nearest};
      std::memcpy(&image[search_start(bits) + search_stride(bits) * bucket + 8 * copy], &entry, 8);
    }
  }
}

std::vector<std::uint8_t> search_image(const std::vector<std::vector<float>>& books) {
  std::vector<std::uint8_t> image(kSearchBytes, 0);
  for (unsigned bits = 1; bits <= 6; ++bits) {
    fill_nearest(image, books[bits], bits);
    if (bits > 1) fill_search(image, books[bits], bits);
  }
  return image;
}

std::vector<float> level_image(const std::vector<std::vector<float>>& books) {
  std::vector<float> image(256 * 32, 0.0f);
  for (unsigned bits = 1; bits <= 6; ++bits)
    for (unsigned level = 0; level < 2u << bits; ++level)
      std::fill_n(&image[((2u << bits) + level) * 32], 32, books[bits][level]);
  return image;
}

// As codebooks.py has it: what the code leaves of a unit Gaussian, by bits.
constexpr float kDistortion[] = {1.0f, 0.3183f, 0.08879f, 0.02421f, 0.006624f, 0.001775f, 0.0004541f};

void check_books(const RotatedParts& parts) {
  const auto& books = parts.books;
  bool sound = true;
  if (parts.quantizer == DeviceQuantizer::nf4) sound = books.size() > 4 && books[4].size() == 16;
  if (parts.quantizer == DeviceQuantizer::trellis) {
    sound = books.size() == 7;
    for (unsigned bits = 1; sound && bits <= 6; ++bits) sound = books[bits].size() == 2u << bits;
  }
  if (!sound) throw std::invalid_argument("not the levels of a rotated codec");
}

// Offsets of a view's arrays in the image, set into the view once the image's address is known.
struct Placed {
  const void** pointer;
  std::size_t at;
};

}  // namespace

RotatedTables::RotatedTables(const RotatedParts& parts) {
  const std::size_t width = parts.mean.size();
  if (width == 0 || width > 65535 || parts.forward.size() != width || parts.backward.size() != width ||
      parts.trials.size() > 4 || (!parts.order.empty() && parts.order.size() != width))
    throw std::invalid_argument("not the parts of a rotated codec");
  check_books(parts);
  view_.quantizer = parts.quantizer;
  view_.width = static_cast<unsigned>(width);
  view_.limit = parts.limit;
  view_.trial_count = static_cast<unsigned>(parts.trials.size());
  // Kernels try all four; the last one again is never better.
  std::fill_n(view_.trials, 4, parts.trials.empty() ? 0.0f : parts.trials.back());
  std::copy(parts.trials.begin(), parts.trials.end(), view_.trials);
  std::copy(parts.id.begin(), parts.id.end(), view_.id);
  const std::vector<DeviceBlock> blocks = make_blocks(parts, view_);
  std::vector<unsigned> order = parts.order;
  for (unsigned i = 0; parts.order.empty() && i < width; ++i) order.push_back(i);
  for (unsigned channel : order)
    if (channel >= width) throw std::invalid_argument("the order names a channel that is not there");

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
  put(view_.order, order);
  put(view_.mean_by_block, by_block(parts.mean, view_.whole_count));
  put(view_.forward_by_block, by_block(parts.forward, view_.whole_count));
  put(view_.backward_by_block, by_block(parts.backward, view_.whole_count));
  if (parts.quantizer == DeviceQuantizer::nf4) {
    std::copy_n(parts.books[4].begin(), 16, view_.nf4);
    for (int code = 0; code < 15; ++code)
      view_.nf4_midpoints[code] = (view_.nf4[code] + view_.nf4[code + 1]) * 0.5f;
  }
  if (parts.quantizer == DeviceQuantizer::trellis) {
    put(view_.order_by_block, order_by_block(order, view_.whole_count));
    std::vector<unsigned> block_before;
    for (unsigned b = 0, last = 0; b < view_.whole_count; ++b) {
      block_before.push_back(last);
      if (blocks[b].bits) last = blocks[b].code_at;
    }
    put(view_.block_before, block_before);
    put(view_.mean_by_lane, by_lane(parts.mean, blocks));
    put(view_.forward_by_lane, by_lane(parts.forward, blocks));
    put(view_.slot, make_slots(order, blocks));
    std::vector<std::uint16_t> coded;
    std::vector<BlockRun> runs;
    std::vector<StepPlace> steps;
    std::vector<unsigned> first_step;
    std::vector<StepInfo> infos;
    float left = 0;  // of a lane's values, as squared error
    const auto add_step = [&](std::size_t b, unsigned step) {
      const DeviceBlock& block = blocks[b];
      const unsigned first = step * kTrellisLanes, count = std::min(block.size - first, kTrellisLanes);
      steps.push_back(static_cast<StepPlace>(4 * b + step));
      infos.push_back(
          {block.start + first, static_cast<std::uint16_t>(block.bits), static_cast<std::uint16_t>(count)});
    };
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      const DeviceBlock& block = blocks[b];
      if (block.bits > 6) throw std::invalid_argument("int4 has blocks of at most 6 bits");
      first_step.push_back(static_cast<unsigned>(steps.size()));
      if (!block.bits) continue;
      left += kDistortion[block.bits] * static_cast<float>(block.size) / kTrellisLanes;
      for (unsigned step = 0; step < (block.size + kTrellisLanes - 1) / kTrellisLanes; ++step)
        add_step(b, step);
      if (block.size < kBlockSize) continue;
      coded.push_back(static_cast<std::uint16_t>(b));
      if (runs.empty() || runs.back().bits != block.bits || runs.back().first + runs.back().count != b)
        runs.push_back({block.bits, static_cast<unsigned>(b), 0});
      ++runs.back().count;
    }
    view_.guessable = left < kLoudError / 3;
    view_.coded_count = static_cast<unsigned>(coded.size());
    view_.run_count = static_cast<unsigned>(runs.size());
    view_.step_count = static_cast<unsigned>(steps.size());
    put(view_.coded, coded);
    put(view_.runs, runs);
    put(view_.steps, steps);
    put(view_.first_step, first_step);
    put(view_.step_infos, infos);
    put(view_.search, search_image(parts.books));
    put(view_.levels, level_image(parts.books));
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
