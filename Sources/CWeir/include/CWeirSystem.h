#ifndef CWEIR_SYSTEM_H
#define CWEIR_SYSTEM_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Linux calls that Swift's Glibc module does not have. Each returns -1 and sets errno where it fails.

/// Begins to fetch the cache line at `address`, which is about to be written. Any address will do: nothing is read.
static inline void cweir_prefetch_for_write(uintptr_t address) { __builtin_prefetch((const void *)address, 1, 3); }

/// Begins to fetch the cache line at `address`, to be read only.
static inline void cweir_prefetch(uintptr_t address) { __builtin_prefetch((const void *)address, 0, 3); }

/// Whether two ranges of `count` bytes are equal.
static inline bool cweir_bytes_are_equal(const void *a, const void *b, size_t count) {
  return memcmp(a, b, count) == 0;
}

/// Nanoseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps: what leases are counted in.
uint64_t cweir_boottime_nanoseconds(void);

/// One readiness event: what was given with the descriptor, and which of the bits below are set.
struct cweir_event {
  uint64_t data;
  uint32_t events;
};

enum {
  CWEIR_READABLE = 1,
  CWEIR_WRITABLE = 2,
  CWEIR_FAILED = 4,
  CWEIR_EDGE_TRIGGERED = 8,
};

int cweir_epoll_create(void);
int cweir_epoll_add(int epoll, int descriptor, uint32_t events, uint64_t data);
int cweir_epoll_change(int epoll, int descriptor, uint32_t events, uint64_t data);
int cweir_epoll_remove(int epoll, int descriptor);

/// Waits for events. `timeout_nanoseconds` below 0: for ever. Returns how many there are; 0 also if interrupted.
int cweir_epoll_wait(int epoll, struct cweir_event *events, int capacity, int64_t timeout_nanoseconds);

/// poll(2) with a timeout in nanoseconds, below 0: for ever. Returns how many are ready; 0 also if interrupted.
int cweir_poll(struct pollfd *descriptors, size_t count, int64_t timeout_nanoseconds);

/// A non-blocking eventfd, and a wake-up through it.
int cweir_eventfd(void);
void cweir_eventfd_notify(int descriptor);

/// The next connection on a listener, non-blocking and closed on exec.
int cweir_accept(int listener);

/// Sleeps while `*word` is `expected`, until woken or `timeout_nanoseconds` have passed. May return early.
void cweir_futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_nanoseconds);
/// Wakes one thread that sleeps on `word`.
void cweir_futex_wake(const uint32_t *word);

/// Has the calling process killed when its parent ends, and says whether the parent is still `parent`.
int cweir_end_with_parent(int parent);

#endif
