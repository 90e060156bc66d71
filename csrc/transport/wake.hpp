// What wakes a thread that waits in poll: a call from another thread, or a time that has come.
#pragma once
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

namespace hyperlane {

class Wake {
 public:
  Wake() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  }
  ~Wake() { close(fd_); }
  Wake(const Wake&) = delete;
  Wake& operator=(const Wake&) = delete;

  void signal() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = write(fd_, &one, sizeof one);  // full means that it is set
  }
  void clear() {
    std::uint64_t count;
    [[maybe_unused]] const auto got = read(fd_, &count, sizeof count);
  }
  pollfd entry() const { return {fd_, POLLIN, 0}; }

 private:
  int fd_;
};

// Setting it costs a system call and wakes nobody until it is due.
class Timer {
 public:
  Timer() : fd_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "timerfd");
  }
  ~Timer() { close(fd_); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  void set(long delay_ns) {
    const itimerspec when{{0, 0}, {0, delay_ns}};
    timerfd_settime(fd_, 0, &when, nullptr);
  }
  bool clear() {  // whether it was due
    std::uint64_t count;
    return read(fd_, &count, sizeof count) > 0;
  }
  pollfd entry() const { return {fd_, POLLIN, 0}; }

 private:
  int fd_;
};

}  // namespace hyperlane
