#include "quant/rotated_launch.cuh"
#include "quant/rotated_small.cuh"

namespace hyperlane {
namespace {

constexpr unsigned kStaticBytes = 256;  // of the kernels' own

template <DeviceQuantizer kQuantizer, class T>
cudaError_t encode_with(const RotatedView& view, const EncodeJob& job, const T* rows,
                        const LaunchShape& shape, cudaStream_t stream) {
  return launch(encode_small<kQuantizer, T>, shape, stream, view, job, rows);
}

template <class T>
cudaError_t encode_any(const RotatedView& view, const EncodeJob& job, const T* rows, const LaunchShape& shape,
                       cudaStream_t stream) {
  if (view.quantizer == DeviceQuantizer::bytes)
    return encode_with<DeviceQuantizer::bytes>(view, job, rows, shape, stream);
  return encode_with<DeviceQuantizer::levels>(view, job, rows, shape, stream);
}

template <class T>
cudaError_t decode_any(const RotatedView& view, const DecodeJob& job, T* rows, const LaunchShape& shape,
                       bool aligned, cudaStream_t stream) {
  if (view.quantizer == DeviceQuantizer::bytes)
    return launch(decode_small<DeviceQuantizer::bytes, T>, shape, stream, view, job, rows, aligned);
  return launch(decode_small<DeviceQuantizer::levels, T>, shape, stream, view, job, rows, aligned);
}

LaunchShape shape_of(std::size_t rows, unsigned bytes, const Device& device) {
  if (bytes + kStaticBytes > static_cast<unsigned>(device.shared_bytes)) return {0, 0, 0};
  return {static_cast<unsigned>(rows), kSmallThreads, bytes};
}

}  // namespace

LaunchShape small_encode_shape(const RotatedView& view, std::size_t rows, const Device& device) {
  return shape_of(rows, SmallRoom(view).bytes, device);
}

LaunchShape small_decode_shape(const RotatedView& view, std::size_t rows, bool half, const Device& device) {
  const unsigned staged = half ? staged_bytes<__half>(view.width) : staged_bytes<float>(view.width);
  return shape_of(rows, staged + record_bytes(view.row_bytes, view.scale_count), device);
}

cudaError_t launch_small_encode(const RotatedView& view, const EncodeJob& job, const void* rows, bool half,
                                const LaunchShape& shape, cudaStream_t stream) {
  if (half) return encode_any(view, job, static_cast<const __half*>(rows), shape, stream);
  return encode_any(view, job, static_cast<const float*>(rows), shape, stream);
}

cudaError_t launch_small_decode(const RotatedView& view, const DecodeJob& job, void* rows, bool half,
                                const LaunchShape& shape, cudaStream_t stream) {
  const bool aligned = on_bytes(rows, view.width * (half ? 2 : 4), 16);
  if (half) return decode_any(view, job, static_cast<__half*>(rows), shape, aligned, stream);
  return decode_any(view, job, static_cast<float*>(rows), shape, aligned, stream);
}

}  // namespace hyperlane
