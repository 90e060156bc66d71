// The kernels of `int4`'s encoding: three launches, or one of a single thread block where rows are few.
#include "quant/entropy_assemble.cuh"
#include "quant/entropy_rows.cuh"
#include "quant/entropy_strings.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kRowWarps = 8, kStringWarps = 4, kAssembleThreads = 256, kFewThreads = 512;

__device__ __forceinline__ void clear_room(unsigned char* room, unsigned bytes) {
  for (unsigned i = threadIdx.x; i < bytes / 4; i += blockDim.x) reinterpret_cast<unsigned*>(room)[i] = 0;
  __syncthreads();
}

// Symbols' codes and vectors' tables to shared memory.
__device__ __forceinline__ void copy_codes(const EntropyView& view, unsigned char* to) {
  copy_table(reinterpret_cast<uint4*>(to), view.codes, code_bytes(view));
  copy_table(reinterpret_cast<uint4*>(to + code_bytes(view)), view.table, table_bytes(view));
}

// By the last of `workers` threads that come here, once the payload is whole.
__device__ __forceinline__ void tell_length(const EntropyJob& job, std::size_t bytes, unsigned workers) {
  __threadfence_system();  // the payload may be the host's memory
  if (workers > 1) {
    if (atomicAdd(job.scratch.done, 1u) + 1 != workers) return;
    *job.scratch.done = 0;
    __threadfence_system();
  }
  *const_cast<volatile unsigned long long*>(job.payload_bytes) = bytes;
}

template <class T>
__global__ void __launch_bounds__(32 * kRowWarps, 3)
    quantize_rows(const __grid_constant__ EntropyView view, const __grid_constant__ EntropyJob job, const T* rows) {
  extern __shared__ uint4 shared[];
  auto* memory = reinterpret_cast<unsigned char*>(shared);
  const unsigned bytes = row_room_bytes(view), warps = blockDim.x / 32, warp = threadIdx.x / 32;
  clear_room(memory, warps * bytes);
  const RowRoom room = row_room(view, memory + warp * bytes);
  for (std::size_t row = blockIdx.x * std::size_t{warps} + warp; row < job.row_count;
       row += std::size_t{gridDim.x} * warps)
    quantize_row(view, job, rows, row, room, threadIdx.x % 32);
}

__global__ void __launch_bounds__(32 * kStringWarps)
    encode_strings(const __grid_constant__ EntropyView view, const __grid_constant__ EntropyJob job,
                   unsigned strings) {
  extern __shared__ uint4 shared[];
  __shared__ Window window;
  auto* memory = reinterpret_cast<unsigned char*>(shared);
  copy_codes(view, memory);
  const std::size_t first = std::size_t{blockIdx.x} * strings;
  find_rows([&](std::size_t row) { return static_cast<unsigned>(job.scratch.states[row]); }, job.row_count,
            view.width, {first * view.string_rows, static_cast<std::size_t>(strings) * view.string_rows}, window);
  const unsigned warp = threadIdx.x / 32;
  const std::size_t from = (first + warp) * view.string_rows;
  if (warp >= strings || from >= window.coded) return;
  const auto rows = static_cast<unsigned>(
      min(static_cast<unsigned long long>(view.string_rows), static_cast<unsigned long long>(window.coded - from)));
  encode_string(view, job.scratch, first + warp, window.row + warp * view.string_rows, rows,
                reinterpret_cast<const uint2*>(memory),
                reinterpret_cast<const unsigned*>(memory + code_bytes(view)), threadIdx.x % 32);
}

template <class T>
__global__ void __launch_bounds__(kAssembleThreads)
    assemble_payload(const __grid_constant__ EntropyView view, const __grid_constant__ EntropyJob job,
                     const T* rows) {
  __shared__ Window window;
  const std::size_t bytes = assemble(view, job, rows, blockIdx.x, 1, window);
  __syncthreads();
  if (threadIdx.x == 0) tell_length(job, bytes, gridDim.x);
}

// One string's rows or less.
template <class T>
__global__ void __launch_bounds__(kFewThreads)
    encode_few(const __grid_constant__ EntropyView view, const __grid_constant__ EntropyJob job, const T* rows) {
  extern __shared__ uint4 shared[];
  __shared__ Window window;
  auto* memory = reinterpret_cast<unsigned char*>(shared);
  const unsigned warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned room_bytes = row_room_bytes(view), rooms = min(warps, static_cast<unsigned>(job.row_count));
  unsigned char* codes = memory + rooms * room_bytes;
  copy_codes(view, codes);
  clear_room(memory, rooms * room_bytes);
  if (warp < rooms)
    for (std::size_t row = warp; row < job.row_count; row += rooms)
      quantize_row(view, job, rows, row, row_room(view, memory + warp * room_bytes), lane);
  __syncthreads();
  find_rows([&](std::size_t row) { return static_cast<unsigned>(job.scratch.states[row]); }, job.row_count,
            view.width, {0, view.string_rows}, window);
  if (warp == 0 && window.coded)
    encode_string(view, job.scratch, 0, window.row, window.coded, reinterpret_cast<const uint2*>(codes),
                  reinterpret_cast<const unsigned*>(codes + code_bytes(view)), lane);
  __syncthreads();
  const std::size_t bytes = assemble(view, job, rows, 0, 1, window);
  __syncthreads();
  if (threadIdx.x == 0) tell_length(job, bytes, 1);
}

unsigned ceil_div(std::size_t count, std::size_t by) { return static_cast<unsigned>((count + by - 1) / by); }

template <class T>
cudaError_t launch_rows(const EntropyView& view, const EntropyJob& job, const T* rows, int shared_bytes, bool few,
                        cudaStream_t stream) {
  constexpr unsigned kStaticBytes = 32 << 10;
  const unsigned room = static_cast<unsigned>(shared_bytes), row_bytes = row_room_bytes(view);
  const unsigned tables = code_bytes(view) + table_bytes(view);
  if (row_bytes > room || tables + kStaticBytes > room) return cudaErrorInvalidConfiguration;
  const unsigned most = ceil_div(job.row_count, view.string_rows);
  if (few && most == 1) {
    const auto rooms = static_cast<unsigned>(std::min<std::size_t>(kFewThreads / 32, job.row_count));
    const unsigned bytes = rooms * row_bytes + tables;
    if (bytes + kStaticBytes <= room) return launch(encode_few<T>, {1, kFewThreads, bytes}, stream, view, job, rows);
  }
  const unsigned warps = std::min(kRowWarps, room / row_bytes);
  cudaError_t code = launch(quantize_rows<T>, {ceil_div(job.row_count, warps), 32 * warps, warps * row_bytes}, stream,
                            view, job, rows);
  if (code != cudaSuccess) return code;
  const unsigned strings = std::max(std::min(kStringWarps, kWindowRows / view.string_rows), 1u);
  code = launch(encode_strings, {ceil_div(most, strings), 32 * kStringWarps, tables}, stream, view, job, strings);
  if (code != cudaSuccess) return code;
  return launch(assemble_payload<T>, {most, kAssembleThreads, 0}, stream, view, job, rows);
}

}  // namespace

cudaError_t launch_entropy_encode(const EntropyView& view, const EntropyJob& job, const void* rows, bool half,
                                  int shared_bytes, bool few, cudaStream_t stream) {
  if (half) return launch_rows(view, job, static_cast<const __half*>(rows), shared_bytes, few, stream);
  return launch_rows(view, job, static_cast<const float*>(rows), shared_bytes, few, stream);
}

}  // namespace hyperlane
