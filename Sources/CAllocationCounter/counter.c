#define _GNU_SOURCE
#include "CAllocationCounter.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdalign.h>
#include <stddef.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define WITHOUT_COUNTER 1
#endif
#endif

#ifdef WITHOUT_COUNTER

// A sanitizer has a malloc family of its own, which has to be the first in the lookup order, and whose start-up ends in
// a crash where instrumented code stands in front of it.
callocation_counts callocation_counts_of_this_thread(void) { return (callocation_counts){0, 0, 0}; }
int callocation_counter_is_active(void) { return 0; }

#else

// The executable's own malloc family: counts, then forwards to the next one in the lookup order (jemalloc where it
// is linked, else the C library). Libraries' constructors allocate before anything of the executable has run, and
// dlsym itself may allocate, so the first requests are served from a small arena that is never given back.

static alignas(16) char boot_arena[64 * 1024];
static size_t boot_used;
static int resolving;

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void *(*next_aligned_alloc)(size_t, size_t);
static void (*next_free)(void *);

static __thread callocation_counts counts __attribute__((tls_model("initial-exec")));

static void *boot_alloc(size_t size) {
  size_t start = (boot_used + 15) & ~(size_t)15;
  if (start + size + 16 > sizeof boot_arena) return NULL;
  boot_used = start + size + 16;
  memcpy(boot_arena + start, &size, sizeof size);
  return boot_arena + start + 16;
}

static int is_boot(const void *pointer) {
  return (const char *)pointer >= boot_arena && (const char *)pointer < boot_arena + sizeof boot_arena;
}

static int resolve(void) {
  if (next_malloc) return 1;
  if (resolving) return 0;
  resolving = 1;
  next_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
  next_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
  next_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
  next_posix_memalign = (int (*)(void **, size_t, size_t))dlsym(RTLD_NEXT, "posix_memalign");
  next_aligned_alloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "aligned_alloc");
  next_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
  resolving = 0;
  return next_malloc != NULL;
}

static inline void count(size_t size) {
  counts.allocations += 1;
  counts.bytes += size;
}

void *malloc(size_t size) {
  count(size);
  return resolve() ? next_malloc(size) : boot_alloc(size);
}

void *calloc(size_t number, size_t size) {
  count(number * size);
  if (resolve()) return next_calloc(number, size);
  return boot_alloc(number * size);  // the arena is zero and its bytes are never used twice
}

void *realloc(void *pointer, size_t size) {
  if (is_boot(pointer)) {
    size_t old_size;
    memcpy(&old_size, (char *)pointer - 16, sizeof old_size);
    void *fresh = malloc(size);
    if (fresh) memcpy(fresh, pointer, old_size < size ? old_size : size);
    return fresh;
  }
  count(size);
  return resolve() ? next_realloc(pointer, size) : boot_alloc(size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
  count(size);
  if (resolve()) return next_posix_memalign(result, alignment, size);
  return ENOMEM;
}

void *aligned_alloc(size_t alignment, size_t size) {
  count(size);
  return resolve() ? next_aligned_alloc(alignment, size) : NULL;
}

void free(void *pointer) {
  if (!pointer || is_boot(pointer)) return;
  counts.frees += 1;
  if (resolve()) next_free(pointer);
}

callocation_counts callocation_counts_of_this_thread(void) { return counts; }

int callocation_counter_is_active(void) {
  callocation_counts before = counts;
  void *volatile probe = malloc(1);
  free(probe);
  return counts.allocations == before.allocations + 1;
}

#endif
