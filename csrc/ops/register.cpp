// The operators of the domain "hyperlane" for ONNX Runtime, which loads this module as a library of custom
// operators.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "ops/attention.hpp"
#include "ops/candidates.hpp"
#include "ops/describe.hpp"
#include "ops/linear.hpp"
#include "ops/ort_abi.hpp"
#ifdef HYPERLANE_CUDA
#include "cuda_ops/register.hpp"
#endif

namespace hyperlane::ops {
namespace {

using namespace hyperlane::ort;

constexpr const char* kDomain = "hyperlane";
// The weight in the three inputs from `first` on: codes, scales, minima.
Weights weights_of(const Runtime& runtime, const KernelContext* context, size_t first, int bits) {
  const Value* scales = runtime.input(context, first + 1);
  const Shape shape = shape_of(runtime, scales);
  return {bits,
          shape.dims[0],
          shape.dims[1],
          runtime.data<const uint8_t>(runtime.input(context, first)),
          runtime.data<const uint16_t>(scales),
          runtime.data<const uint16_t>(runtime.input(context, first + 2))};
}

void each(const Runtime& runtime, const KernelContext* context, int64_t count,
          const std::function<void(int64_t)>& job) {
  using Job = const std::function<void(int64_t)>;
  runtime.parallel(
      context, [](void* given, size_t i) { (*static_cast<Job*>(given))(static_cast<int64_t>(i)); },
      static_cast<size_t>(count), const_cast<void*>(static_cast<const void*>(&job)));
}

// x, codes, scales, minima?, norm?, bias?, residual? -> up to three outputs
class LinearKernel {
 public:
  static constexpr const char* kName = "Linear";
  static constexpr const char* kProvider = nullptr;
  static constexpr ElementType kInputs[] = {kFloat, kUint8, kFloat16, kFloat16, kFloat, kFloat, kFloat};
  static constexpr size_t kRequiredInputs = 3;
  static constexpr ElementType kOutputs[] = {kFloat, kFloat, kFloat};

  LinearKernel(const Api* api, const KernelInfo* info)
      : runtime_(api),
        bits_(static_cast<int>(runtime_.integer(info, "bits"))),
        gated_(runtime_.integer(info, "gated") != 0),
        epsilon_(runtime_.real(info, "epsilon")),
        sizes_{runtime_.integer(info, "size0"), runtime_.integer(info, "size1"),
               runtime_.integer(info, "size2")},
        kernels_(kernels(best_ops_isa())) {}

  void compute(KernelContext* context) const {
    const Value* x = runtime_.input(context, 0);
    Shape shape = shape_of(runtime_, x);
    Linear linear{weights_of(runtime_, context, 1, bits_),
                  shape.dims[shape.rank - 1],
                  {sizes_[0], sizes_[1], sizes_[2]},
                  gated_,
                  epsilon_,
                  runtime_.data<const float>(runtime_.input(context, 4)),
                  runtime_.data<const float>(runtime_.input(context, 5)),
                  runtime_.data<const float>(runtime_.input(context, 6))};
    float* outputs[kMostOutputs] = {};
    for (size_t i = 0; i < kMostOutputs && sizes_[i] > 0; ++i) {
      shape.dims[shape.rank - 1] = sizes_[i];
      outputs[i] = runtime_.data<float>(runtime_.output(context, i, shape.dims, shape.rank));
    }
    linear.run(
        runtime_.data<const float>(x), shape.rows(), outputs, kernels_,
        [&](int64_t count, const std::function<void(int64_t)>& job) { each(runtime_, context, count, job); });
  }

 private:
  Runtime runtime_;
  int bits_;
  bool gated_;
  float epsilon_;
  int64_t sizes_[kMostOutputs];
  const Kernels& kernels_;
};

// indices, codes, scales, minima? -> rows of the weight
class EmbedKernel {
 public:
  static constexpr const char* kName = "Embed";
  static constexpr const char* kProvider = nullptr;
  static constexpr ElementType kInputs[] = {kInt64, kUint8, kFloat16, kFloat16};
  static constexpr size_t kRequiredInputs = 3;
  static constexpr ElementType kOutputs[] = {kFloat};

  EmbedKernel(const Api* api, const KernelInfo* info)
      : runtime_(api),
        bits_(static_cast<int>(runtime_.integer(info, "bits"))),
        rows_(runtime_.integer(info, "rows")),
        width_(runtime_.integer(info, "width")) {}

  void compute(KernelContext* context) const {
    const Value* ids = runtime_.input(context, 0);
    Shape shape = shape_of(runtime_, ids);
    if (shape.rank == kMostDims) throw std::invalid_argument("Embed: the indices have too many dimensions");
    shape.dims[shape.rank++] = width_;
    float* out = runtime_.data<float>(runtime_.output(context, 0, shape.dims, shape.rank));
    const int64_t* indices = runtime_.data<const int64_t>(ids);
    const Weights weights = weights_of(runtime_, context, 1, bits_);
    for (int64_t i = 0; i < shape.rows(); ++i) {
      if (indices[i] < 0 || indices[i] >= rows_)
        throw std::invalid_argument("token " + std::to_string(indices[i]) +
                                    " is not among the vocabulary's " + std::to_string(rows_));
      embed(weights, indices[i], width_, out + i * width_);
    }
  }

 private:
  Runtime runtime_;
  int bits_;
  int64_t rows_, width_;
};

// q, k, v [.., rows, heads * head_dim], keys and values [slots, kv_heads, length, bytes a position],
// positions and slots of the rows, cos?, sin? and rotary_rows? -> rows as q, and the cache, written to where
// it is
class AttentionKernel {
 public:
  static constexpr const char* kName = "Attention";
  static constexpr const char* kProvider = nullptr;
  static constexpr ElementType kInputs[] = {kFloat, kFloat, kFloat, kUint8, kUint8,
                                            kInt64, kInt64, kFloat, kFloat, kInt64};
  static constexpr size_t kRequiredInputs = 7;
  static constexpr ElementType kOutputs[] = {kFloat, kUint8, kUint8};

  AttentionKernel(const Api* api, const KernelInfo* info) : runtime_(api), isa_(best_ops_isa()) {
    layer_.heads = runtime_.integer(info, "heads");
    layer_.kv_heads = runtime_.integer(info, "kv_heads");
    layer_.kind = static_cast<CacheKind>(runtime_.integer(info, "bits"));
    layer_.scale = runtime_.real(info, "scale");
    layer_.window = runtime_.integer(info, "window");
    layer_.softcap = runtime_.real(info, "softcap");
    if (layer_.heads < 1 || layer_.kv_heads < 1) throw std::invalid_argument("Attention: there are no heads");
  }

  void compute(KernelContext* context) const {
    const Shape shape = shape_of(runtime_, runtime_.input(context, 0));
    const Shape cache = shape_of(runtime_, runtime_.input(context, 3));
    Attention layer = layer_;
    layer.head_dim = shape.dims[shape.rank - 1] / layer.heads;
    layer.slots = cache.dims[0], layer.length = cache.dims[2];
    if (shape.dims[shape.rank - 1] % layer.heads || layer.heads % layer.kv_heads ||
        count(context, 1) != shape.rows() * layer.kv_heads * layer.head_dim ||
        count(context, 2) != count(context, 1) || count(context, 5) != shape.rows() ||
        count(context, 6) != shape.rows() || count(context, 3) != count(context, 4))
      throw std::invalid_argument(
          "Attention: queries, keys, values, positions and slots are not of the same rows");
    if (cache.rank != 4 || layer.length % kPositions || cache.dims[1] != layer.kv_heads ||
        cache.dims[3] != position_bytes(layer.kind, layer.head_dim))
      throw std::invalid_argument("Attention: the cache does not have the shape of its kind");
    if (const Value* cos = runtime_.input(context, 7)) {
      const Shape table = shape_of(runtime_, cos);
      layer.rotary = 2 * table.dims[table.rank - 1];
      layer.cos = runtime_.data<const float>(cos);
      layer.sin = runtime_.data<const float>(runtime_.input(context, 8));
      layer.rotary_rows = integers(context, 9);
      const int64_t tables = count(context, 7) / std::max<int64_t>(1, layer.rotary / 2);
      const bool fits = layer.sin && layer.rotary_rows && count(context, 8) == count(context, 7) &&
                        count(context, 9) == shape.rows() && layer.rotary <= layer.head_dim;
      const auto outside = [&](int64_t row) { return row < 0 || row >= tables; };
      if (!fits || std::any_of(layer.rotary_rows, layer.rotary_rows + shape.rows(), outside))
        throw std::invalid_argument("Attention: the rotary tables do not fit the rows");
    }
    uint8_t* caches[2];
    for (size_t i = 0; i < 2; ++i) {
      caches[i] = runtime_.data<uint8_t>(runtime_.input(context, 3 + i));
      const uint8_t* present =
          runtime_.data<uint8_t>(runtime_.output(context, 1 + i, cache.dims, cache.rank));
      if (present != caches[i]) throw std::invalid_argument("Attention: past and present must be one place");
    }
    float* out = runtime_.data<float>(runtime_.output(context, 0, shape.dims, shape.rank));
    layer.run(
        floats(context, 0), floats(context, 1), floats(context, 2), integers(context, 6),
        integers(context, 5), shape.rows(), caches[0], caches[1], out, isa_,
        [&](int64_t count, const std::function<void(int64_t)>& job) { each(runtime_, context, count, job); });
  }

 private:
  int64_t count(const KernelContext* context, size_t i) const {  // of a tensor's elements
    const Value* value = runtime_.input(context, i);
    if (value == nullptr) return 0;
    const Shape shape = shape_of(runtime_, value);
    return shape.rank ? shape.rows() * shape.dims[shape.rank - 1] : 1;
  }
  const float* floats(const KernelContext* context, size_t i) const {
    return runtime_.data<const float>(runtime_.input(context, i));
  }
  const int64_t* integers(const KernelContext* context, size_t i) const {
    return runtime_.data<const int64_t>(runtime_.input(context, i));
  }
  Runtime runtime_;
  Isa isa_;
  Attention layer_{};
};

// logits [N, V] -> ids [N, K], their logits [N, K], logsumexp [N]
class CandidatesKernel {
 public:
  static constexpr const char* kName = "Candidates";
  static constexpr const char* kProvider = nullptr;
  static constexpr ElementType kInputs[] = {kFloat};
  static constexpr size_t kRequiredInputs = 1;
  static constexpr ElementType kOutputs[] = {kInt64, kFloat, kFloat};

  CandidatesKernel(const Api* api, const KernelInfo* info)
      : runtime_(api), count_(runtime_.integer(info, "count")), kernels_(kernels(best_ops_isa())) {}

  void compute(KernelContext* context) const {
    const Value* given = runtime_.input(context, 0);
    const Shape shape = shape_of(runtime_, given);
    if (shape.rank != 2) throw std::invalid_argument("Candidates: logits need two dimensions");
    const int64_t rows = shape.dims[0], width = shape.dims[1], count = std::min(count_, width);
    const int64_t dims[] = {rows, count};
    struct Job {
      const float* x;
      int64_t width, count;
      const Kernels& kernels;
      int64_t* ids;
      float *logits, *sums;
    } job{runtime_.data<const float>(given),
          width,
          count,
          kernels_,
          runtime_.data<int64_t>(runtime_.output(context, 0, dims, 2)),
          runtime_.data<float>(runtime_.output(context, 1, dims, 2)),
          runtime_.data<float>(runtime_.output(context, 2, dims, 1))};
    const auto one = [](void* given_job, size_t row) {
      const Job& work = *static_cast<Job*>(given_job);
      const int64_t r = static_cast<int64_t>(row), at = r * work.count;
      work.sums[r] = candidates(work.x + r * work.width, work.width, work.count, work.kernels, work.ids + at,
                                work.logits + at);
    };
    runtime_.parallel(context, one, static_cast<size_t>(rows), &job);
  }

 private:
  Runtime runtime_;
  int64_t count_;
  const Kernels& kernels_;
};

const CustomOp kLinear = describe<LinearKernel>(), kEmbed = describe<EmbedKernel>(),
               kAttention = describe<AttentionKernel>(), kCandidates = describe<CandidatesKernel>();

}  // namespace
}  // namespace hyperlane::ops

extern "C" __attribute__((visibility("default"))) hyperlane::ort::Status* RegisterCustomOps(
    hyperlane::ort::SessionOptions* options, const hyperlane::ort::ApiBase* base) {
  using namespace hyperlane;
  const ort::Runtime runtime(base->get_api(17));  // 17: the first with a parallel loop for operators
  ort::Domain* domain =
      runtime.new_domain(ops::kDomain);  // lives as long as the process, as its operators do
  runtime.add(domain, &ops::kLinear);
  runtime.add(domain, &ops::kEmbed);
  runtime.add(domain, &ops::kAttention);
  runtime.add(domain, &ops::kCandidates);
#ifdef HYPERLANE_CUDA
  cuda_ops::add_operators(runtime, domain);
#endif
  runtime.add(options, domain);
  return nullptr;
}
