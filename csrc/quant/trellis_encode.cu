#include "quant/trellis_encode.cuh"

#include "quant/rotated_launch.cuh"

namespace hyperlane {
namespace {

template <class T, bool kShared>
cudaError_t launch_with(const RotatedView& view, const EncodeJob& job, const T* rows, const LaunchShape& shape,
                        cudaStream_t stream) {
  if (on_bytes(rows, view.width * sizeof(T), 4 * sizeof(T)))
    return launch(encode_trellis<T, true, kShared>, shape, stream, view, job, rows);
  return launch(encode_trellis<T, false, kShared>, shape, stream, view, job, rows);
}

template <class T>
cudaError_t launch_rows(const RotatedView& view, const EncodeJob& job, const T* rows, const Device& device,
                        cudaStream_t stream) {
  const std::size_t pairs = (job.row_count + 1) / 2;
  const unsigned warp_bytes = trellis_warp_bytes<T>(view), table_bytes = 2 * lane_table_bytes(view);
  const LaunchShape shape = launch_shape(pairs, kSearchBytes + table_bytes, warp_bytes, kTrellisWarps, device);
  if (shape.threads) return launch_with<T, true>(view, job, rows, shape, stream);
  return launch_with<T, false>(view, job, rows,
                               launch_shape(pairs, kSearchBytes, warp_bytes, kTrellisWarps, device), stream);
}

}  // namespace

cudaError_t launch_trellis_encode(const RotatedView& view, const EncodeJob& job, const void* rows, bool half,
                                  const Device& device, cudaStream_t stream) {
  if (half) return launch_rows(view, job, static_cast<const __half*>(rows), device, stream);
  return launch_rows(view, job, static_cast<const float*>(rows), device, stream);
}

}  // namespace hyperlane
