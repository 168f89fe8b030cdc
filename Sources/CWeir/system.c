#define _GNU_SOURCE
#include "CWeirSystem.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

uint64_t cweir_boottime_nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int cweir_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

static int control(int epoll, int operation, int descriptor, uint32_t events, uint64_t data) {
  struct epoll_event event;
  event.events = ((events & CWEIR_READABLE) ? EPOLLIN : 0) | ((events & CWEIR_WRITABLE) ? EPOLLOUT : 0)
      | ((events & CWEIR_EDGE_TRIGGERED) ? EPOLLET : 0);
  event.data.u64 = data;
  return epoll_ctl(epoll, operation, descriptor, &event);
}

int cweir_epoll_add(int epoll, int descriptor, uint32_t events, uint64_t data) {
  return control(epoll, EPOLL_CTL_ADD, descriptor, events, data);
}

int cweir_epoll_change(int epoll, int descriptor, uint32_t events, uint64_t data) {
  return control(epoll, EPOLL_CTL_MOD, descriptor, events, data);
}

int cweir_epoll_remove(int epoll, int descriptor) { return control(epoll, EPOLL_CTL_DEL, descriptor, 0, 0); }

int cweir_epoll_wait(int epoll, struct cweir_event *events, int capacity, int64_t timeout_nanoseconds) {
  struct epoll_event raw[64];
  if (capacity > 64) capacity = 64;
  // Rounded up: a millisecond too early would have the caller spin through the rest of it.
  int milliseconds = -1;
  if (timeout_nanoseconds >= 0) {
    int64_t rounded = timeout_nanoseconds / 1000000 + (timeout_nanoseconds % 1000000 != 0);
    milliseconds = rounded > 60000 ? 60000 : (int)rounded;
  }
  int count = epoll_wait(epoll, raw, capacity, milliseconds);
  if (count < 0) return errno == EINTR ? 0 : -1;
  for (int i = 0; i < count; i++) {
    uint32_t bits = raw[i].events;
    events[i].data = raw[i].data.u64;
    events[i].events = ((bits & EPOLLIN) ? CWEIR_READABLE : 0) | ((bits & EPOLLOUT) ? CWEIR_WRITABLE : 0)
        | ((bits & (EPOLLERR | EPOLLHUP)) ? CWEIR_FAILED : 0);
  }
  return count;
}

int cweir_poll(struct pollfd *descriptors, size_t count, int64_t timeout_nanoseconds) {
  struct timespec timeout;
  timeout.tv_sec = (time_t)(timeout_nanoseconds / 1000000000);
  timeout.tv_nsec = (long)(timeout_nanoseconds % 1000000000);
  int ready = ppoll(descriptors, (nfds_t)count, timeout_nanoseconds < 0 ? NULL : &timeout, NULL);
  return ready < 0 && errno == EINTR ? 0 : ready;
}

int cweir_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

void cweir_eventfd_notify(int descriptor) {
  uint64_t one = 1;
  ssize_t ignored = write(descriptor, &one, sizeof one);
  (void)ignored;
}

int cweir_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }

void cweir_futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_nanoseconds) {
  struct timespec timeout;
  timeout.tv_sec = (time_t)(timeout_nanoseconds / 1000000000u);
  timeout.tv_nsec = (long)(timeout_nanoseconds % 1000000000u);
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, &timeout, NULL, 0);
}

void cweir_futex_wake(const uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

int cweir_end_with_parent(int parent) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return -1;
  return getppid() == parent;
}
