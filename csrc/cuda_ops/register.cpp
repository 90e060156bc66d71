#ifdef HYPERLANE_CUDA
#include "cuda_ops/register.hpp"

#include <iterator>
#include <stdexcept>

#include "cuda/memory.hpp"
#include "cuda_ops/attention.hpp"
#include "cuda_ops/product.hpp"
#include "ops/describe.hpp"

namespace hyperlane::cuda_ops {
namespace {

using namespace hyperlane::ort;
using ops::Shape;
using ops::shape_of;

cudaStream_t stream_of(const Runtime& runtime, const KernelContext* context) {
  return static_cast<cudaStream_t>(runtime.stream(context));
}

// x [.., K], weight [K, N], up [K, N]?, norm [K]?, residual [.., N]? -> [.., N], and scratch memory
class LinearKernel {
 public:
  static constexpr const char* kName = "HalfLinear";
  static constexpr const char* kProvider = "CUDAExecutionProvider";
  static constexpr ElementType kInputs[] = {kFloat16, kFloat16, kFloat16, kFloat16, kFloat16};
  static constexpr size_t kRequiredInputs = 2;
  static constexpr ElementType kOutputs[] = {kFloat16, kFloat16};

  LinearKernel(const Api* api, const KernelInfo* info)
      : runtime_(api), epsilon_(runtime_.real(info, "epsilon")) {}

  void compute(KernelContext* context) const {
    Shape shape = shape_of(runtime_, runtime_.input(context, 0));
    const Shape weight = shape_of(runtime_, runtime_.input(context, 1));
    if (weight.rank != 2 || !product_fits(weight.dims[0], weight.dims[1]) ||
        shape.dims[shape.rank - 1] != weight.dims[0])
      throw std::invalid_argument("HalfLinear: the weight is not one of these rows, or not of whole tiles");
    const Product product{halves(context, 0),
                          halves(context, 1),
                          halves(context, 2),
                          halves(context, 3),
                          halves(context, 4),
                          out_of(context, shape, weight.dims[1]),
                          static_cast<int>(shape.rows()),
                          static_cast<int>(weight.dims[0]),
                          static_cast<int>(weight.dims[1]),
                          epsilon_};
    const int64_t wanted[] = {static_cast<int64_t>(scratch_halves(product))};
    half* scratch = runtime_.data<half>(runtime_.output(context, 1, wanted, 1));
    if (product.M > 0) multiply_rows(product, scratch, stream_of(runtime_, context));
  }

 private:
  half* out_of(KernelContext* context, Shape shape, int64_t N) const {
    shape.dims[shape.rank - 1] = N;
    return runtime_.data<half>(runtime_.output(context, 0, shape.dims, shape.rank));
  }
  const half* halves(const KernelContext* context, size_t i) const {
    return runtime_.data<const half>(runtime_.input(context, i));
  }
  Runtime runtime_;
  float epsilon_;
};

// Queries, keys and values side by side [B, S, ..], keys and values [B, kv_heads, L, head], positions [B, S],
// cosines and sines [L, head / 2] -> rows [B, S, heads * head], and the cache, written to where it is
class AttentionKernel {
 public:
  static constexpr const char* kName = "HalfAttention";
  static constexpr const char* kProvider = "CUDAExecutionProvider";
  static constexpr ElementType kInputs[] = {kFloat16, kFloat16, kFloat16, kInt64, kFloat16, kFloat16};
  static constexpr size_t kRequiredInputs = 6;
  static constexpr ElementType kOutputs[] = {kFloat16, kFloat16, kFloat16};

  AttentionKernel(const Api* api, const KernelInfo* info)
      : runtime_(api),
        heads_(static_cast<int>(runtime_.integer(info, "heads"))),
        scale_(runtime_.real(info, "scale")) {}

  void compute(KernelContext* context) const {
    const Shape rows = shape_of(runtime_, runtime_.input(context, 0));
    const Shape cache = shape_of(runtime_, runtime_.input(context, 1));
    const Shape table = shape_of(runtime_, runtime_.input(context, 4));
    if (rows.rank != 3 || cache.rank != 4 || table.rank != 2 || cache.dims[0] != rows.dims[0])
      throw std::invalid_argument("HalfAttention: rows, cache and tables are not of the same slots");
    Attention p{};
    p.slots = static_cast<int>(rows.dims[0]), p.rows = static_cast<int>(rows.dims[1]);
    p.heads = heads_, p.kv_heads = static_cast<int>(cache.dims[1]);
    p.length = static_cast<int>(cache.dims[2]), p.head = static_cast<int>(cache.dims[3]);
    p.scale = scale_;
    if (!attention_fits(p.head, p.heads, p.kv_heads) || table.dims[1] * 2 != p.head ||
        table.dims[0] < p.length || rows.dims[2] != static_cast<int64_t>(p.heads + 2 * p.kv_heads) * p.head)
      throw std::invalid_argument("HalfAttention: heads do not fit the rows, the cache or the tables");
    half* caches[2];
    for (size_t i = 0; i < 2; ++i) {
      caches[i] = runtime_.data<half>(runtime_.input(context, 1 + i));
      const half* present = runtime_.data<half>(runtime_.output(context, 1 + i, cache.dims, cache.rank));
      if (present != caches[i])
        throw std::invalid_argument("HalfAttention: past and present must be one place");
    }
    p.keys = caches[0], p.values = caches[1];
    p.packed = runtime_.data<const half>(runtime_.input(context, 0));
    p.positions = runtime_.data<const int64_t>(runtime_.input(context, 3));
    p.cos = runtime_.data<const half>(runtime_.input(context, 4));
    p.sin = runtime_.data<const half>(runtime_.input(context, 5));
    const int64_t dims[] = {rows.dims[0], rows.dims[1], static_cast<int64_t>(p.heads) * p.head};
    p.out = runtime_.data<half>(runtime_.output(context, 0, dims, 3));
    const cudaStream_t stream = stream_of(runtime_, context);
    check_cuda(p.rows == 1 ? attend_one(p, stream) : attend_many(p, stream));
  }

 private:
  Runtime runtime_;
  int heads_;
  float scale_;
};

const CustomOp kLinear = ops::describe<LinearKernel>(), kAttention = ops::describe<AttentionKernel>();

}  // namespace

void add_operators(const Runtime& runtime, Domain* domain) {
  runtime.add(domain, &kLinear);
  runtime.add(domain, &kAttention);
}

}  // namespace hyperlane::cuda_ops
#endif
