// The part of ONNX Runtime's C ABI that custom operators need. ONNX Runtime promises to only append to it,
// and its Python packages ship no header; so each entry of the function table is named here by its place.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace hyperlane::ort {

struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct ShapeInfo;

using Function = void (*)();
struct Api {
  Function table[512];
};
struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*version)();
};

enum ElementType : int { kFloat = 1, kUint8 = 2, kInt64 = 7, kFloat16 = 10 };
enum Presence : int { kRequired = 0, kOptional = 1 };

// What describes an operator, as of ABI version 8, the first with optional inputs and outputs.
constexpr uint32_t kOpVersion = 8;
struct CustomOp {
  uint32_t version;
  void* (*create)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  ElementType (*input_type)(const CustomOp*, size_t);
  size_t (*input_count)(const CustomOp*);
  ElementType (*output_type)(const CustomOp*, size_t);
  size_t (*output_count)(const CustomOp*);
  void (*compute)(void* kernel, KernelContext*);
  void (*destroy)(void* kernel);
  Presence (*input_presence)(const CustomOp*, size_t);
  Presence (*output_presence)(const CustomOp*, size_t);
};

// Typed calls of the table. A failure becomes an exception, which ONNX Runtime reports as the node's.
class Runtime {
 public:
  explicit Runtime(const Api* api) : api_(api) {}

  Domain* new_domain(const char* name) const {
    Domain* domain = nullptr;
    check(at<Status*(const char*, Domain**)>(26)(name, &domain));
    return domain;
  }
  void add(Domain* domain, const CustomOp* op) const {
    check(at<Status*(Domain*, const CustomOp*)>(27)(domain, op));
  }
  void add(SessionOptions* options, Domain* domain) const {
    check(at<Status*(SessionOptions*, Domain*)>(28)(options, domain));
  }
  int64_t integer(const KernelInfo* info, const char* name) const {
    int64_t value = 0;
    check(at<Status*(const KernelInfo*, const char*, int64_t*)>(86)(info, name, &value));
    return value;
  }
  float real(const KernelInfo* info, const char* name) const {
    float value = 0;
    check(at<Status*(const KernelInfo*, const char*, float*)>(85)(info, name, &value));
    return value;
  }
  const Value* input(const KernelContext* context,
                     size_t index) const {  // null where an optional one is left out
    const Value* value = nullptr;
    check(at<Status*(const KernelContext*, size_t, const Value**)>(90)(context, index, &value));
    return value;
  }
  Value* output(KernelContext* context, size_t index, const int64_t* dims, size_t rank) const {
    Value* value = nullptr;
    check(at<Status*(KernelContext*, size_t, const int64_t*, size_t, Value**)>(91)(context, index, dims, rank,
                                                                                   &value));
    return value;
  }
  // On which a GPU's operator queues its work; null on a CPU.
  void* stream(const KernelContext* context) const {
    void* stream = nullptr;
    check(at<Status*(const KernelContext*, void**)>(193)(context, &stream));
    return stream;
  }
  template <typename T>
  T* data(const Value* value) const {
    void* data = nullptr;
    if (value != nullptr) check(at<Status*(Value*, void**)>(51)(const_cast<Value*>(value), &data));
    return static_cast<T*>(data);
  }
  // Writes up to `most` dimensions and returns how many there are.
  size_t shape(const Value* value, int64_t* dims, size_t most) const {
    ShapeInfo* info = nullptr;
    check(at<Status*(const Value*, ShapeInfo**)>(65)(value, &info));
    size_t rank = 0;
    check(at<Status*(const ShapeInfo*, size_t*)>(61)(info, &rank));
    if (rank <= most) check(at<Status*(const ShapeInfo*, int64_t*, size_t)>(62)(info, dims, rank));
    at<void(ShapeInfo*)>(99)(info);
    if (rank > most) throw std::invalid_argument("a tensor has too many dimensions");
    return rank;
  }
  // Calls job(argument, i) for i below `count` on the session's threads.
  void parallel(const KernelContext* context, void (*job)(void*, size_t), size_t count,
                void* argument) const {
    check(at<Status*(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*)>(274)(
        context, job, count, 0, argument));
  }

 private:
  template <typename F>
  F* at(int place) const {
    return reinterpret_cast<F*>(api_->table[place]);
  }
  void check(Status* status) const {
    if (status == nullptr) return;
    std::runtime_error error(at<const char*(const Status*)>(2)(status));
    at<void(Status*)>(93)(status);
    throw error;
  }
  const Api* api_;
};

}  // namespace hyperlane::ort
