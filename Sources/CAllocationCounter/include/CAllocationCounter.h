#ifndef CALLOCATIONCOUNTER_H
#define CALLOCATIONCOUNTER_H

#include <stdint.h>

/// What the calling thread has asked of the allocator since it started. Exact: every malloc, calloc, realloc,
/// posix_memalign and aligned_alloc of the process passes through this target once it is linked into an executable.
typedef struct {
  uint64_t allocations;
  uint64_t bytes;
  uint64_t frees;
} callocation_counts;

callocation_counts callocation_counts_of_this_thread(void);

/// 1 if the counter serves this process (a build that lost it would otherwise report false zeros).
int callocation_counter_is_active(void);

#endif
