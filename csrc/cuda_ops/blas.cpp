#include "cuda_ops/blas.hpp"

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

namespace hyperlane::cuda_ops {
namespace {

constexpr int kHalf = 2, kCompute32 = 68, kDefaultAlgorithm = -1,
              kPlain = 0;  // of library_types.h, cublas_api.h

using Create = int (*)(void**);
using SetStream = int (*)(void*, cudaStream_t);
using Multiply = int (*)(void* handle, int, int, int m, int n, int k, const void* alpha, const void* a, int,
                         int lda, const void* b, int, int ldb, const void* beta, void* c, int, int ldc,
                         int compute, int algorithm);

class Library {
 public:
  Library() {
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
      if (library_ == nullptr) library_ = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    }
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
      if (library_ == nullptr) library_ = dlopen(name, RTLD_LAZY);
    }
    if (library_ == nullptr)
      throw std::runtime_error("products of many rows need cuBLAS, which is not found");
    create_ = function<Create>("cublasCreate_v2");
    set_stream_ = function<SetStream>("cublasSetStream_v2");
    multiply_ = function<Multiply>("cublasGemmEx");
  }

  void run(const half* x, const half* weight, half* out, int rows, int K, int N, bool add,
           cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(mutex_);  // a handle is one thread's at a time
    void* handle = handle_of_device();
    check(set_stream_(handle, stream));
    const float one = 1, before = add ? 1 : 0;
    // Matrices of columns, as cuBLAS takes them: out^T = weight^T x^T.
    check(multiply_(handle, kPlain, kPlain, N, rows, K, &one, weight, kHalf, N, x, kHalf, K, &before, out,
                    kHalf, N, kCompute32, kDefaultAlgorithm));
  }

 private:
  template <typename Function>
  Function function(const char* name) const {
    void* found = dlsym(library_, name);
    if (found == nullptr) throw std::runtime_error(std::string("cuBLAS has no ") + name);
    return reinterpret_cast<Function>(found);
  }
  void* handle_of_device() {
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess) throw std::runtime_error("there is no current GPU");
    void*& handle = handles_[device];
    if (handle == nullptr) check(create_(&handle));
    return handle;
  }
  static void check(int status) {
    if (status != 0) throw std::runtime_error("cuBLAS: status " + std::to_string(status));
  }
  void* library_ = nullptr;
  Create create_ = nullptr;
  SetStream set_stream_ = nullptr;
  Multiply multiply_ = nullptr;
  std::map<int, void*> handles_;
  std::mutex mutex_;
};

}  // namespace

void multiply_many(const half* x, const half* weight, half* out, int rows, int K, int N, bool add,
                   cudaStream_t stream) {
  static Library library;  // as long as the process, like the library itself
  library.run(x, weight, out, rows, K, N, add, stream);
}

}  // namespace hyperlane::cuda_ops
