// DeviceCodec: the memory that the kernels of the rotated codecs share, and their launches.
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "quant/rotated.cuh"
#include "quant/rotated_launch.cuh"
#include "quant/rotated_place.cuh"

namespace hyperlane {
namespace {

void check(cudaError_t code) {
  if (code != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(code));
}

constexpr std::size_t kCounterBytes = 16;  // two counters and the end

std::size_t group_count(std::size_t rows) { return rows / kPlaceRows + 1; }
std::size_t scratch_bytes(std::size_t rows) { return kCounterBytes + 8 * group_count(rows) + rows; }

PlaceScratch scratch_of(void* memory, std::size_t max_rows) {
  auto* counters = static_cast<unsigned*>(memory);
  auto* groups = reinterpret_cast<unsigned long long*>(counters + kCounterBytes / 4);
  auto* end = reinterpret_cast<unsigned long long*>(counters + 2);
  return {counters, counters + 1, end, groups,
          reinterpret_cast<unsigned char*>(groups + group_count(max_rows))};
}

// A payload of no rows.
__global__ void write_empty(const __grid_constant__ RotatedView view, unsigned char* payload,
                            unsigned long long* payload_bytes) {
  if (threadIdx.x < kIdBytes) payload[threadIdx.x] = view.id[threadIdx.x];
  if (threadIdx.x == 0) *payload_bytes = kIdBytes;
}

}  // namespace

cudaError_t allow_shared_bytes(const void* kernel, unsigned bytes) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, unsigned> told;
  int device = 0;
  const cudaError_t found = cudaGetDevice(&device);
  if (found != cudaSuccess) return found;
  const std::lock_guard<std::mutex> locked(mutex);
  unsigned& most = told[{kernel, device}];
  if (bytes <= most) return cudaSuccess;
  const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (allowed == cudaSuccess) most = bytes;
  return allowed;
}

DeviceCodec::DeviceCodec(const RotatedParts& parts, std::size_t max_rows, std::size_t few_rows)
    : tables_(parts), max_rows_(max_rows), few_rows_(few_rows) {
  int device = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device));
  check(cudaDeviceGetAttribute(&shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  if (few_rows == kTwiceTheProcessors) few_rows_ = 2 * static_cast<std::size_t>(processors_);
  check(cudaMalloc(&scratch_, scratch_bytes(max_rows)));
  const cudaError_t cleared = cudaMemset(scratch_, 0, scratch_bytes(max_rows));
  // Streams that don't wait for the default one must find all of it there.
  const cudaError_t there = cleared == cudaSuccess ? cudaDeviceSynchronize() : cleared;
  if (there != cudaSuccess) cudaFree(scratch_);
  check(there);
}

DeviceCodec::~DeviceCodec() { cudaFree(scratch_); }

std::size_t DeviceCodec::max_bytes(std::size_t rows) const {
  return head_bytes(rows) + 4 * rows * (tables_.view().width + 2);
}

void DeviceCodec::encode(const void* rows, bool half, std::size_t row_count, const unsigned* positions,
                         void* payload, void* payload_bytes, cudaStream_t stream) {
  if (row_count > max_rows_)
    throw std::invalid_argument(std::to_string(row_count) + " rows, the codec was made for " +
                                std::to_string(max_rows_));
  const RotatedView& view = tables_.view();
  auto* out = static_cast<unsigned char*>(payload);
  auto* bytes = static_cast<unsigned long long*>(payload_bytes);
  if (row_count == 0) {
    write_empty<<<1, 32, 0, stream>>>(view, out, bytes);
    return check(cudaGetLastError());
  }
  const EncodeJob job{row_count, positions, out, bytes, scratch_of(scratch_, max_rows_)};
  const Device device{processors_, shared_bytes_};
  const LaunchShape small = small_encode_shape(view, row_count, device);
  if (row_count > few_rows_ || !small.threads) {
    const cudaError_t many = launch_blockwise_encode(view, job, rows, half, device, stream);
    if (many != cudaErrorInvalidConfiguration) return check(many);
  }
  check_width(small);
  check(launch_small_encode(view, job, rows, half, small, stream));
}

void DeviceCodec::decode(const void* payload, std::size_t row_count, void* rows, bool half,
                         cudaStream_t stream) const {
  if (row_count == 0) return;
  const DecodeJob job{row_count, static_cast<const unsigned char*>(payload)};
  const Device device{processors_, shared_bytes_};
  const RotatedView& view = tables_.view();
  const LaunchShape small = small_decode_shape(view, row_count, half, device);
  if (row_count > few_rows_ || !small.threads) {
    const cudaError_t many = launch_decode(view, job, rows, half, device, stream);
    if (many != cudaErrorInvalidConfiguration) return check(many);
  }
  check_width(small);
  check(launch_small_decode(view, job, rows, half, small, stream));
}

void DeviceCodec::check_width(const LaunchShape& shape) const {
  if (!shape.threads)
    throw std::invalid_argument("rows of width " + std::to_string(tables_.view().width) +
                                " do not fit the GPU's shared memory of " + std::to_string(shared_bytes_) +
                                " bytes");
}

}  // namespace hyperlane
