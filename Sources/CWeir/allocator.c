#include "CWeir.h"

#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

// Weak: null unless jemalloc is linked or preloaded, which is how the question "who serves malloc?" is asked of
// the running process instead of being assumed from the build.
extern int mallctl(const char *name, void *old_value, size_t *old_length, void *new_value, size_t new_length)
    __attribute__((weak));

int cweir_jemalloc_version(char *version, size_t capacity) {
  if (!mallctl || capacity == 0) return 0;
  const char *text = NULL;
  size_t length = sizeof text;
  if (mallctl("version", &text, &length, NULL, 0) != 0 || !text) return 0;
  strncpy(version, text, capacity - 1);
  version[capacity - 1] = 0;
  return 1;
}

void cweir_share_malloc_arena(void) {
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, 1);
#endif
}

void cweir_release_free_memory(void) {
  // 4096 stands for all arenas (MALLCTL_ARENAS_ALL).
  if (mallctl) {
    mallctl("arena.4096.purge", NULL, NULL, NULL, 0);
    return;
  }
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}
