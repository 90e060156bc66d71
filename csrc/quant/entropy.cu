// DeviceEntropyCodec: the memory that the kernels of `int4` share, and their launches.
#include "quant/entropy.cuh"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "quant/entropy_launch.cuh"

namespace hyperlane {
namespace {

constexpr std::size_t kIdBytes = 8, kPatchBytes = 3;

void check(cudaError_t code) {
  if (code == cudaErrorInvalidConfiguration)
    throw std::invalid_argument("the tables do not fit the GPU's shared memory");
  if (code != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(code));
}

std::size_t up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

// The scratch memory's parts from `memory` on; returns where they end.
std::size_t lay_out(const EntropyView& view, std::size_t rows, unsigned char* memory, EntropyScratch& scratch) {
  std::size_t end = 0;
  const auto take = [&](std::size_t bytes) {
    unsigned char* at = memory + end;
    end += up(bytes + 16);
    return at;
  };
  const std::size_t strings = (rows + view.string_rows - 1) / view.string_rows;
  scratch.head_pitch = (view.head_bytes + 15) / 16 * 16;
  scratch.string_pitch = kStatesBytes + std::size_t{32} * view.vector_count * view.string_rows;
  scratch.done = reinterpret_cast<unsigned*>(take(4));
  scratch.states = take(rows);
  scratch.counts = take(rows);
  scratch.sizes = reinterpret_cast<unsigned*>(take(4 * strings));
  scratch.heads = take(rows * scratch.head_pitch);
  scratch.patches = take(rows * kPatchBytes * view.most_patches);
  scratch.symbols = take(rows * view.symbol_bytes);
  scratch.strings = take(strings * scratch.string_pitch);
  return end;
}

// A payload of no rows.
__global__ void write_empty(const __grid_constant__ EntropyView view, unsigned char* payload,
                            unsigned long long* payload_bytes) {
  if (threadIdx.x < kIdBytes) payload[threadIdx.x] = view.id[threadIdx.x];
  if (threadIdx.x == 0) *payload_bytes = kIdBytes;
}

}  // namespace

DeviceEntropyCodec::DeviceEntropyCodec(const EntropyDeviceParts& parts, std::size_t max_rows, std::size_t few_rows)
    : tables_(parts), max_rows_(max_rows), few_rows_(few_rows) {
  int device = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device));
  check(cudaDeviceGetAttribute(&shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  if (few_rows == kTwiceTheProcessors) few_rows_ = 2 * static_cast<std::size_t>(processors_);
  EntropyScratch scratch{};
  check(cudaMalloc(&scratch_, lay_out(tables_.view(), max_rows, nullptr, scratch)));
  const cudaError_t cleared = cudaMemset(scratch_, 0, 256);  // the counter
  // Streams that don't wait for the default one must find it there.
  const cudaError_t there = cleared == cudaSuccess ? cudaDeviceSynchronize() : cleared;
  if (there != cudaSuccess) cudaFree(scratch_);
  check(there);
}

DeviceEntropyCodec::~DeviceEntropyCodec() { cudaFree(scratch_); }

std::size_t DeviceEntropyCodec::max_bytes(std::size_t rows) const {
  const EntropyView& view = tables_.view();
  const std::size_t coded =
      view.head_bytes + 4 + kStatesBytes + 32 * view.vector_count + 1 + kPatchBytes * view.most_patches;
  return kIdBytes + (rows + 3) / 4 + rows * std::max<std::size_t>(4 * view.width, coded);
}

void DeviceEntropyCodec::encode(const void* rows, bool half, std::size_t row_count, const unsigned* positions,
                                void* payload, void* payload_bytes, cudaStream_t stream) {
  if (row_count > max_rows_)
    throw std::invalid_argument(std::to_string(row_count) + " rows, the codec was made for " +
                                std::to_string(max_rows_));
  auto* out = static_cast<unsigned char*>(payload);
  auto* bytes = static_cast<unsigned long long*>(payload_bytes);
  if (row_count == 0) {
    write_empty<<<1, 32, 0, stream>>>(tables_.view(), out, bytes);
    return check(cudaGetLastError());
  }
  EntropyJob job{row_count, positions, out, bytes, {}};
  lay_out(tables_.view(), max_rows_, static_cast<unsigned char*>(scratch_), job.scratch);
  check(launch_entropy_encode(tables_.view(), job, rows, half, shared_bytes_, row_count <= few_rows_, stream));
}

void DeviceEntropyCodec::decode(const void* payload, std::size_t row_count, void* rows, bool half,
                                cudaStream_t stream) const {
  if (row_count == 0) return;
  const EntropyDecodeJob job{row_count, static_cast<const unsigned char*>(payload)};
  check(launch_entropy_decode(tables_.view(), job, rows, half, processors_, shared_bytes_, stream));
}

}  // namespace hyperlane
