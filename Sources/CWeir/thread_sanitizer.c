// What the thread sanitizer cannot see by itself.
//
// Swift's `Mutex` takes an uncontended lock inline, which is instrumented, and leaves a contended one to the library of the
// toolchain, which is not: without a hint, everything that a contended lock protects is reported as a race. The
// functions below have the names of the library's and are found before them; each does what the library's does, and says
// what that means for the order of memory.

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>

extern void __tsan_acquire(void *address);
extern void __tsan_release(void *address);

#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define TRY_LOCK_SLOW "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context))

typedef SWIFT void (*lock_function)(uint32_t thread, SELF void *handle);
typedef SWIFT bool (*try_lock_function)(SELF void *handle);
typedef SWIFT void (*unlock_function)(SELF void *handle);

SWIFT void cweir_lock_slow(uint32_t thread, SELF void *handle) __asm__(LOCK_SLOW);
SWIFT bool cweir_try_lock_slow(SELF void *handle) __asm__(TRY_LOCK_SLOW);
SWIFT void cweir_unlock_slow(SELF void *handle) __asm__(UNLOCK_SLOW);

static void *next(void **cache, const char *name) {
  void *found = __atomic_load_n(cache, __ATOMIC_ACQUIRE);
  if (!found) {
    found = dlsym(RTLD_NEXT, name);
    __atomic_store_n(cache, found, __ATOMIC_RELEASE);
  }
  return found;
}

SWIFT void cweir_lock_slow(uint32_t thread, SELF void *handle) {
  static void *cache;
  ((lock_function)next(&cache, LOCK_SLOW))(thread, handle);
  __tsan_acquire(handle);
}

SWIFT bool cweir_try_lock_slow(SELF void *handle) {
  static void *cache;
  bool is_taken = ((try_lock_function)next(&cache, TRY_LOCK_SLOW))(handle);
  if (is_taken) __tsan_acquire(handle);
  return is_taken;
}

SWIFT void cweir_unlock_slow(SELF void *handle) {
  static void *cache;
  __tsan_release(handle);
  ((unlock_function)next(&cache, UNLOCK_SLOW))(handle);
}

#endif
#endif
