#include "quant/rotated_decode.cuh"
#include "quant/rotated_launch.cuh"

namespace hyperlane {
namespace {

template <DeviceQuantizer kQuantizer, class T>
cudaError_t launch_rows(const RotatedView& view, const DecodeJob& job, T* rows, const Device& device,
                        cudaStream_t stream) {
  const unsigned warp_bytes = decode_warp_bytes<T>(view), level_size = level_bytes<kQuantizer>();
  const unsigned table_bytes = 2 * block_table_bytes(view);
  const bool aligned = on_bytes(rows, view.width * sizeof(T), 16);
  const LaunchShape shape =
      launch_shape(job.row_count, level_size + table_bytes, warp_bytes, kDecodeWarps, device);
  return launch(decode_rotated<kQuantizer, T>, shape, stream, view, job, rows, aligned);
}

template <class T>
cudaError_t launch_any(const RotatedView& view, const DecodeJob& job, T* rows, const Device& device,
                       cudaStream_t stream) {
  if (view.quantizer == DeviceQuantizer::bytes)
    return launch_rows<DeviceQuantizer::bytes>(view, job, rows, device, stream);
  return launch_rows<DeviceQuantizer::levels>(view, job, rows, device, stream);
}

}  // namespace

cudaError_t launch_decode(const RotatedView& view, const DecodeJob& job, void* rows, bool half,
                          const Device& device, cudaStream_t stream) {
  if (half) return launch_any(view, job, static_cast<__half*>(rows), device, stream);
  return launch_any(view, job, static_cast<float*>(rows), device, stream);
}

}  // namespace hyperlane
