// Raw TCP from C: the loops of an End on a blocking socket. Each returns 0, or -1 where the connection failed.
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define ACK_BYTES 64

static int send_all(int fd, const char* data, long size) {
  while (size > 0) {
    const long sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent <= 0) return -1;
    data += sent, size -= sent;
  }
  return 0;
}

static int recv_all(int fd, char* data, long size) {
  while (size > 0) {
    const long got = recv(fd, data, size, 0);
    if (got <= 0) return -1;
    data += got, size -= got;
  }
  return 0;
}

static double now_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

int ping(int fd, char* data, long size, long count, double* times_s) {
  for (long i = 0; i < count; ++i) {
    const double start_s = now_s();
    if (send_all(fd, data, size) || recv_all(fd, data, size)) return -1;
    times_s[i] = now_s() - start_s;
  }
  return 0;
}

int pong(int fd, char* data, long size, long count) {
  for (long i = 0; i < count; ++i)
    if (recv_all(fd, data, size) || send_all(fd, data, size)) return -1;
  return 0;
}

int push(int fd, char* data, long size, long count, double* time_s) {
  const double start_s = now_s();
  for (long i = 0; i < count; ++i)
    if (send_all(fd, data, size)) return -1;
  if (recv_all(fd, data, ACK_BYTES)) return -1;
  *time_s = now_s() - start_s;
  return 0;
}

int drain(int fd, char* data, long size, long count) {
  for (long i = 0; i < count; ++i)
    if (recv_all(fd, data, size)) return -1;
  return send_all(fd, data, ACK_BYTES);
}
