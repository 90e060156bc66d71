#include "quant/rotated_launch.cuh"
#include "quant/trellis_encode.cuh"

namespace hyperlane {
namespace {

template <class T>
cudaError_t launch_rows(const RotatedView& view, const EncodeJob& job, const T* rows, const Device& device,
                        cudaStream_t stream) {
  if (!on_bytes(rows, view.width * sizeof(T), 4 * sizeof(T))) return cudaErrorInvalidConfiguration;
  const LaunchShape shape = launch_shape((job.row_count + 1) / 2, kSearchBytes + 2 * lane_table_bytes(view),
                                         trellis_warp_bytes<T>(view), kTrellisWarps, device);
  return launch(encode_trellis<T>, shape, stream, view, job, rows);
}

}  // namespace

cudaError_t launch_trellis_encode(const RotatedView& view, const EncodeJob& job, const void* rows, bool half,
                                  const Device& device, cudaStream_t stream) {
  if (half) return launch_rows(view, job, static_cast<const __half*>(rows), device, stream);
  return launch_rows(view, job, static_cast<const float*>(rows), device, stream);
}

}  // namespace hyperlane
