// Makes and uploads the tables of entropy_tables.cuh. One allocation holds them all.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "quant/entropy_tables.cuh"

namespace hyperlane {
namespace {

void check(cudaError_t code) {
  if (code != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(code));
}

[[noreturn]] void refuse() { throw std::invalid_argument("not the parts of an entropy codec"); }

void check_parts(const EntropyDeviceParts& parts) {
  const std::size_t width = parts.mean.size(), vectors = (width + 31) / 32;
  const std::size_t tables = parts.frequency.size() / kSymbols;
  if (width == 0 || width > 65535 || parts.step.size() != width || parts.order.size() != width ||
      parts.shift.size() != width || parts.table.size() != vectors || tables == 0 ||
      parts.frequency.size() != tables * kSymbols)
    refuse();
  std::vector<bool> seen(width, false);
  for (std::size_t place = 0; place < width; ++place) {
    const unsigned channel = parts.order[place];
    if (channel >= width || channel / 256 != place / 256 || seen[channel] || parts.shift[place] > kMostShift)
      refuse();
    seen[channel] = true;
  }
  for (std::uint8_t table : parts.table)
    if (table >= tables) refuse();
  for (std::size_t table = 0; table < tables; ++table) {
    unsigned sum = 0;
    for (unsigned k = 0; k < kSymbols; ++k) sum += parts.frequency[table * kSymbols + k];
    if (sum != 256) refuse();
  }
}

// Pieces of memory laid out one behind another, each on 256 bytes.
class Pieces {
 public:
  template <class T, class Pointer>
  void put(Pointer& pointer, const std::vector<T>& values) {
    const std::size_t at = (bytes_.size() + 255) / 256 * 256;
    bytes_.resize(at + values.size() * sizeof(T) + 16);
    std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
    places_.push_back({const_cast<const void**>(reinterpret_cast<const void* const*>(&pointer)), at});
  }
  void* upload() const {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes_.size()));
    const cudaError_t copied = cudaMemcpy(memory, bytes_.data(), bytes_.size(), cudaMemcpyHostToDevice);
    if (copied != cudaSuccess) cudaFree(memory);
    check(copied);
    for (const auto& [pointer, at] : places_) *pointer = static_cast<const std::uint8_t*>(memory) + at;
    return memory;
  }

 private:
  std::vector<std::uint8_t> bytes_;
  std::vector<std::pair<const void**, std::size_t>> places_;
};

unsigned symbol_at(std::size_t place) {
  const std::size_t vector = place / 32, lane = place % 32;
  return static_cast<unsigned>(128 * (vector / 4) + 4 * lane + vector % 4);
}

std::vector<unsigned> infos(const EntropyDeviceParts& parts) {
  std::vector<unsigned> info(parts.mean.size());
  for (std::size_t place = 0; place < info.size(); ++place) {
    const std::uint8_t* frequency = &parts.frequency[parts.table[place / 32] * std::size_t{kSymbols}];
    unsigned lowest = 0, highest = kSymbols - 1;
    while (!frequency[lowest]) ++lowest;
    while (!frequency[highest]) --highest;
    const unsigned channel = parts.order[place];
    info[channel] =
        symbol_at(place) | unsigned{parts.shift[channel]} << 16 | lowest << 19 | highest << 24;
  }
  return info;
}

// Where each bit stands that goes as it is, and their number.
std::vector<unsigned> low_places(const EntropyDeviceParts& parts, unsigned& count) {
  const std::size_t width = parts.mean.size(), pitch = (width + 1) / 2 * 2;
  std::vector<unsigned> at(kMostShift * pitch, 0);
  count = 0;
  for (std::size_t start = 0; start < width; start += 32)
    for (unsigned bit = 0; bit < kMostShift; ++bit)
      for (std::size_t place = start; place < std::min(start + 32, width); ++place)
        if (parts.shift[parts.order[place]] > bit) at[bit * pitch + parts.order[place]] = count++;
  return at;
}

std::vector<SymbolCode> symbol_codes(const EntropyDeviceParts& parts) {
  std::vector<SymbolCode> codes(parts.frequency.size());
  unsigned start = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const unsigned frequency = parts.frequency[i];
    if (i % kSymbols == 0) start = 0;
    // By 1: umulhi(x, 2^32 - 1) is x - 1, and what lacks, 255, goes into the start.
    const std::uint32_t inverse =
        frequency > 1 ? static_cast<std::uint32_t>((std::uint64_t{1} << 32) / frequency + 1) : 0xFFFFFFFFu;
    codes[i] = {inverse, frequency << 24 | (256 - std::max(frequency, 1u)) << 16 |
                             (start + (frequency == 1 ? 255 : 0))};
    start += frequency;
  }
  return codes;
}

std::vector<unsigned> slots_of(const EntropyDeviceParts& parts) {
  std::vector<unsigned> slots;
  for (std::size_t i = 0; i < parts.frequency.size(); ++i) {
    const unsigned symbol = (static_cast<unsigned>(i % kSymbols) - kMiddle) & 255;
    const unsigned frequency = parts.frequency[i];
    for (unsigned rest = 0; rest < frequency; ++rest)
      slots.push_back(symbol | frequency << 8 | rest << 16 | static_cast<unsigned>(slots.size() % 256) << 24);
  }
  return slots;
}

}  // namespace

EntropyDeviceTables::EntropyDeviceTables(const EntropyDeviceParts& parts) {
  check_parts(parts);
  const std::size_t width = parts.mean.size(), vectors = (width + 31) / 32, fours = (vectors + 3) / 4;
  unsigned low_count = 0;
  const std::vector<unsigned> low_at = low_places(parts, low_count);
  view_.width = static_cast<unsigned>(width);
  view_.vector_count = static_cast<unsigned>(vectors);
  view_.table_count = static_cast<unsigned>(parts.frequency.size() / kSymbols);
  view_.string_rows = std::max(kStringValues / (32 * view_.vector_count), 1u);
  view_.head_bytes = 2 + (low_count + 7) / 8;
  view_.low_words = (low_count + 31) / 32;
  view_.most_patches = std::min(view_.width / 32, 255u);
  view_.symbol_bytes = static_cast<unsigned>(128 * fours);
  view_.limit = parts.limit, view_.sixteenfold = parts.sixteenfold;
  std::copy(parts.id.begin(), parts.id.end(), view_.id);

  std::vector<float2> mean_inverse, step_mean;
  for (std::size_t channel = 0; channel < width; ++channel) {
    mean_inverse.push_back({parts.mean[channel], 1.0f / parts.step[channel]});
    step_mean.push_back({parts.step[channel], parts.mean[channel]});
  }
  std::vector<unsigned> table(4 * fours, 0), channel_4(32 * fours, 0);
  std::copy(parts.table.begin(), parts.table.end(), table.begin());
  for (std::size_t place = 0; place < width; ++place)
    channel_4[32 * (place / 128) + place % 32] |= (parts.order[place] & 255) << 8 * (place / 32 % 4);
  Pieces pieces;
  pieces.put(view_.mean_inverse, mean_inverse);
  pieces.put(view_.step_mean, step_mean);
  pieces.put(view_.info, infos(parts));
  pieces.put(view_.low_at, low_at);
  pieces.put(view_.table, table);
  pieces.put(view_.channel_4, channel_4);
  pieces.put(view_.codes, symbol_codes(parts));
  pieces.put(view_.slots, slots_of(parts));
  memory_ = pieces.upload();
}

EntropyDeviceTables::~EntropyDeviceTables() { cudaFree(memory_); }

}  // namespace hyperlane
