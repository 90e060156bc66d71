#include <algorithm>

#include "cuda_ops/attention.hpp"
#include "cuda_ops/decode_kernel.cuh"
#include "cuda_ops/prompt_kernel.cuh"

namespace hyperlane::cuda_ops {
namespace {

constexpr int kFewBlocks = 128;  // below so many the positions are shared out

template <int kHead, int kGroup, int kAtOnce>
cudaError_t decode(const Attention& p, cudaStream_t stream) {
  const int groups = p.heads / kGroup;
  int shares = 1;
  while (shares < 4 && 2 * shares * groups * p.slots <= kFewBlocks) shares *= 2;
  return launch(decode_attention<kHead, kGroup, kAtOnce>,
                {dim3(shares, groups, p.slots), kDecodeThreads, 0, static_cast<unsigned>(shares), stream}, p);
}

template <int kHead>
cudaError_t decode(const Attention& p, cudaStream_t stream) {
  const int group = p.heads / p.kv_heads;
  if (group % 8 == 0) return decode<kHead, 8, 4>(p, stream);
  if (group % 4 == 0) return decode<kHead, 4, 4>(p, stream);
  if (group % 2 == 0) return decode<kHead, 2, 8>(p, stream);
  return p.slots > 4 ? decode<kHead, 1, 8>(p, stream) : decode<kHead, 1, 12>(p, stream);
}

template <int kHead>
cudaError_t prompt(const Attention& p, cudaStream_t stream) {
  const int items = p.slots * p.rows * p.kv_heads * (kHead / 8);
  append<kHead><<<std::min((items + 255) / 256, 1024), 256, 0, stream>>>(p);
  constexpr int kBytes = prompt_bytes<kHead>();
  const cudaError_t state =
      cudaFuncSetAttribute(prompt_attention<kHead>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (state != cudaSuccess) return state;
  const unsigned tiles = static_cast<unsigned>((p.rows + kPromptTile - 1) / kPromptTile);
  prompt_attention<kHead><<<dim3(tiles, p.heads, p.slots), kPromptThreads, kBytes, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace

bool attention_fits(int head, int heads, int kv_heads) {
  return (head == 64 || head == 128) && kv_heads > 0 && heads % kv_heads == 0;
}

cudaError_t attend_one(const Attention& p, cudaStream_t stream) {
  return p.head == 128 ? decode<128>(p, stream) : decode<64>(p, stream);
}

cudaError_t attend_many(const Attention& p, cudaStream_t stream) {
  return p.head == 128 ? prompt<128>(p, stream) : prompt<64>(p, stream);
}

}  // namespace hyperlane::cuda_ops
