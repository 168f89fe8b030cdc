#ifndef CWEIR_H
#define CWEIR_H

#include <stddef.h>
#include <stdint.h>

#include "CWeirSystem.h"

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) of `count` bytes at `bytes`, continued from `seed`
/// (0 to start). Uses the processor's CRC instruction where there is one, else a table.
uint32_t cweir_crc32c(uint32_t seed, const void *bytes, size_t count);

/// CRC-32C of the 24 bytes of three little-endian words followed by `count` bytes at `from`, which are copied to `to` on
/// the way: framing reads each byte once. The regions do not overlap.
uint32_t cweir_crc32c_copy(uint64_t a, uint64_t b, uint64_t c, void *to, const void *from, size_t count);

/// `cweir_crc32c` on the table, whatever the processor can do: what it is checked against.
uint32_t cweir_crc32c_portable(uint32_t seed, const void *bytes, size_t count);

/// 1 if `cweir_crc32c` runs on the processor's CRC instruction, 0 if on a table.
int cweir_crc32c_is_hardware(void);

/// Nanoseconds of CLOCK_MONOTONIC.
uint64_t cweir_monotonic_nanoseconds(void);

/// Nanoseconds of user and system time that this process has used so far (CLOCK_PROCESS_CPUTIME_ID).
uint64_t cweir_process_cpu_nanoseconds(void);

/// Nanoseconds of user and system time that the calling thread has used so far (CLOCK_THREAD_CPUTIME_ID).
uint64_t cweir_thread_cpu_nanoseconds(void);

/// How late the kernel may wake the calling thread from a timed sleep. The default of 50 microseconds is what a load
/// generator would otherwise add to every operation that it waits for.
void cweir_set_timer_slack_nanoseconds(uint64_t nanoseconds);

/// Sleeps until CLOCK_MONOTONIC reads `nanoseconds`; returns at once where it already does.
void cweir_sleep_until_nanoseconds(uint64_t nanoseconds);

/// Whether jemalloc serves this process, asked at run time (so a preloaded one is found too). Where it does,
/// writes its version, cut to `capacity` bytes and ended by a zero byte, into `version`.
int cweir_jemalloc_version(char *version, size_t capacity);

#endif
