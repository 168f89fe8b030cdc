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

/// CRC-32C of the 92 bytes at `bytes`: of a message's header.
uint32_t cweir_crc32c_head(const void *bytes);

/// Writes the 96 bytes of a message's header to `to`, little-endian: the checksum of the rest, `tag`, `sizes`,
/// `entry_bytes` and nine fields. Not in the order of the layout: a compiler that finds neighbours side by side moves them
/// two at a time, and a field that was just written, as the commit index mostly was, can be read alone at once, but as
/// half of a pair only when it has reached the cache (9 ns).
void cweir_write_message_head(
    void *to, uint32_t tag, uint64_t sizes, uint64_t entry_bytes, uint64_t receiver, uint64_t sender, uint64_t term,
    uint64_t commit, uint64_t log_term, uint64_t vote, uint64_t index, uint64_t context, uint64_t reject_hint);

/// What must hold along a run of log frames, and what was found.
struct cweir_frame_run {
  /// The first frame's index; afterwards, the index that the next one must have.
  uint64_t index;
  /// 1, or 0 for proposals, which have no indexes.
  uint64_t index_step;
  /// The lowest term that the first frame may have; afterwards, the last one's.
  uint64_t term;
  uint64_t highest_term;
  /// All kinds that occur, or-ed.
  uint64_t kinds;
  uint64_t maximum_kind;
  /// Of header and payload.
  size_t maximum_length;
  size_t maximum_entries;
  /// How many frames were found good.
  size_t entries;
};

/// Checks frames that lie one behind the other, within `count` bytes, all of it: length, checksum, index, term, kind,
/// padding. Stops in front of the first that is not good, or that it leaves to the caller to judge.
/// Returns the size of the good ones in bytes.
size_t cweir_verify_frames(const void *bytes, size_t count, struct cweir_frame_run *run);

/// The same for bytes that are one frame with an index and nothing else, as most messages carry: a third faster, with
/// nothing to be laid out in memory first. `maximum_length`: of header and payload. Returns its kind; -1: it is not good, or
/// left to the caller to judge.
int cweir_verify_frame(
    const void *bytes, size_t count, uint64_t index, uint64_t lowest_term, uint64_t highest_term,
    uint64_t maximum_kind, size_t maximum_length);

/// What the checksums of `frames` frames of 160 bytes, `stride` apart, take of the processor and nothing else: the same
/// instructions on the same words, none of whose results is looked at. For whoever measures how much of
/// `cweir_verify_frames` that is. Returns something that depends on all of them.
uint64_t cweir_sum_frames(const void *bytes, size_t frames, size_t stride);

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

/// Has glibc's malloc serve every thread of this process from one arena; without effect under another allocator. For a
/// process that is a node, before it starts threads. glibc gives threads arenas of their own, and what one of them
/// allocated is used again from its arena only: the records that a starting node reads, on one thread, are free memory that
/// stays resident once the thread that applies has written all of them anew (438 MiB for 137 MiB of keys and values, 304
/// with one arena: `bench memory`).
void cweir_share_malloc_arena(void);

/// Has the allocator give memory that is free back to the system at once. For who has let go of much that other threads had
/// allocated, and is about to allocate as much: glibc and jemalloc serve each thread from an arena of its own, where they
/// keep what is free for a while, so both would be resident (a node of 137 MiB of keys and values that was sent another
/// state had 458 MiB, of which 334 are its bound: `bench memory`). glibc takes about as long for it as for freeing them (30 ms
/// beside a million free records, 0.35 s beside ten million), and who has to allocate from its arena waits meanwhile.
void cweir_release_free_memory(void);

#endif
