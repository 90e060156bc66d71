// How long this thread may compute before the kernel looks whether another one waits.
#include <pybind11/pybind11.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace {

constexpr std::uint64_t kSliceNs = 100000;

struct Attributes {  // sched_attr of sched_setattr(2), its first version; the C library has no name for it
  std::uint32_t size, policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime, deadline, period;
};
static_assert(sizeof(Attributes) == 48);

// Whoever asks for shorter slices than the thread that runs takes its core at once when it wakes
// (Linux 6.12), and gets no more time in all. Older kernels take no notice, others refuse: either way all
// stays as it was.
void ask_for_short_slices() {
#if defined(__linux__) && defined(SYS_sched_setattr)
  Attributes attributes{};
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0 || attributes.policy != 0) return;
  attributes.runtime = kSliceNs;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
#endif
}

}  // namespace

void bind_slices(pybind11::module_& module) {
  module.def("ask_for_short_slices", &ask_for_short_slices, "Of the calling thread.");
}
