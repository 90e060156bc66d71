#include "quant/entropy_decode.cuh"

namespace hyperlane {
namespace {

constexpr bool kAheadAsARule = true;

template <class T>
cudaError_t launch_rows(const EntropyView& view, const EntropyDecodeJob& job, T* rows, int processors,
                        int shared_bytes, cudaStream_t stream) {
  const std::size_t most = (job.row_count + view.string_rows - 1) / view.string_rows;
  const std::size_t even = (most + processors - 1) / processors;
  const std::size_t held = std::max(kWindowRows / view.string_rows, 1u);
  DecodeShape shape{static_cast<unsigned>(std::min({even, held, std::size_t{kMostStrings}})), kLeastRing};
  if (shape.strings == 1) shape.ring_bytes = 4 * kLeastRing;  // a row's string as a whole
  const auto blocks = static_cast<unsigned>((most + shape.strings - 1) / shape.strings);
  const unsigned bytes = DecodeRoom(view, shape).bytes;
  if (bytes + sizeof(Window) + sizeof(Layout) + 256 > static_cast<unsigned>(shared_bytes))
    return cudaErrorInvalidConfiguration;
  const bool aligned = on_bytes(rows, view.width * sizeof(T), 16);
  return launch(decode_strings<T, kAheadAsARule>, {blocks, kDecodeThreads, bytes}, stream, view, job, shape, rows,
                aligned);
}

}  // namespace

cudaError_t launch_entropy_decode(const EntropyView& view, const EntropyDecodeJob& job, void* rows, bool half,
                                  int processors, int shared_bytes, cudaStream_t stream) {
  if (half) return launch_rows(view, job, static_cast<__half*>(rows), processors, shared_bytes, stream);
  return launch_rows(view, job, static_cast<float*>(rows), processors, shared_bytes, stream);
}

}  // namespace hyperlane
