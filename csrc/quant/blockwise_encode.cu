#include "quant/blockwise_encode.cuh"
#include "quant/rotated_launch.cuh"

namespace hyperlane {
namespace {

template <DeviceQuantizer kQuantizer, class T>
cudaError_t launch_rows(const RotatedView& view, const EncodeJob& job, const T* rows, const Device& device,
                        cudaStream_t stream) {
  const unsigned image_bytes = kQuantizer == DeviceQuantizer::levels ? kCodeBytes : 0;
  const LaunchShape shape = launch_shape(job.row_count, image_bytes + 2 * block_table_bytes(view),
                                         blockwise_warp_bytes<T>(view), kBlockwiseWarps, device);
  const bool aligned = on_bytes(rows, view.width * sizeof(T), 16);
  return launch(encode_blockwise<kQuantizer, T>, shape, stream, view, job, rows, aligned);
}

template <class T>
cudaError_t launch_any(const RotatedView& view, const EncodeJob& job, const T* rows, const Device& device,
                       cudaStream_t stream) {
  if (view.quantizer == DeviceQuantizer::bytes)
    return launch_rows<DeviceQuantizer::bytes>(view, job, rows, device, stream);
  return launch_rows<DeviceQuantizer::levels>(view, job, rows, device, stream);
}

}  // namespace

cudaError_t launch_blockwise_encode(const RotatedView& view, const EncodeJob& job, const void* rows,
                                    bool half, const Device& device, cudaStream_t stream) {
  if (half) return launch_any(view, job, static_cast<const __half*>(rows), device, stream);
  return launch_any(view, job, static_cast<const float*>(rows), device, stream);
}

}  // namespace hyperlane
