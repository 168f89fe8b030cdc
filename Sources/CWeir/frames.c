// Runs of log frames, checked one behind the other; see EntryFrame.swift for the layout.

#include "CWeir.h"

#include "crc32c_advance.h"
#include "frame_groups.h"

#if CWEIR_HARDWARE
// What a frame says about itself; see EntryFrame.swift for the layout.
struct frame {
  uint64_t term, kind;
  // Of header and payload, and with the padding.
  size_t length, occupied;
  uint32_t checksum;
};

// Reads the frame at `bytes`, of at least 32, and whether it holds but for its checksum.
static inline __attribute__((always_inline)) int read_frame(
    struct frame *frame, const uint8_t *bytes, size_t available, uint64_t index, uint64_t lowest_term,
    uint64_t highest_term, uint64_t maximum_kind, size_t maximum_length) {
  const uint64_t word = load(bytes);
  frame->term = load(bytes + 16);
  frame->kind = load(bytes + 24);
  frame->length = (uint32_t)word;
  frame->occupied = (frame->length + 7) & ~(size_t)7;
  frame->checksum = (uint32_t)(word >> 32);
  if (frame->length < 32 || frame->length > maximum_length || frame->occupied > available) return 0;
  if (load(bytes + 8) != index || frame->term < lowest_term || frame->term > highest_term) return 0;
  if (frame->kind > maximum_kind || index == UINT64_MAX) return 0;
  return (frame->length & 7) == 0 || load(bytes + frame->occupied - 8) >> 8 * (frame->length & 7) == 0;
}

CWEIR_TARGET static inline __attribute__((always_inline)) uint32_t
sum_hardware(uint64_t index, const struct frame *frame, const uint8_t *payload) {
  const uint64_t crc = CRC64(CRC64(CRC64(0xFFFFFFFFu, index), frame->term), frame->kind);
  return ~advance(crc, NULL, payload, frame->length - 32, 0);
}

// Both forms of the loop over frames.
#define VERIFY_FRAMES(LIMIT, SUM)                                                                              \
  size_t position = 0;                                                                                         \
  uint64_t index = run->index, term = run->term, kinds = run->kinds;                                           \
  size_t entries = run->entries;                                                                               \
  while (count - position >= 32 && entries < (LIMIT)) {                                                        \
    struct frame frame;                                                                                        \
    if (!read_frame(                                                                                           \
            &frame, bytes + position, count - position, index, term, run->highest_term, run->maximum_kind,     \
            run->maximum_length))                                                                              \
      break;                                                                                                   \
    if (SUM(index, &frame, bytes + position + 32) != frame.checksum) break;                                    \
    term = frame.term;                                                                                         \
    kinds |= frame.kind;                                                                                       \
    index += run->index_step;                                                                                  \
    entries += 1;                                                                                              \
    position += frame.occupied;                                                                                \
  }                                                                                                            \
  run->index = index;                                                                                          \
  run->term = term;                                                                                            \
  run->kinds = kinds;                                                                                          \
  run->entries = entries;                                                                                      \
  return position;

// Both forms of one frame alone.
#define VERIFY_FRAME(SUM)                                                                                      \
  struct frame frame;                                                                                          \
  if (!read_frame(&frame, bytes, count, index, lowest_term, highest_term, maximum_kind, maximum_length)) return -1; \
  if (frame.occupied != count || SUM(index, &frame, bytes + 32) != frame.checksum) return -1;                  \
  return (int)frame.kind;

CWEIR_TARGET static size_t
verify_frames_hardware(const uint8_t *bytes, size_t count, struct cweir_frame_run *run) {
  VERIFY_FRAMES(run->maximum_entries, sum_hardware)
}

CWEIR_TARGET static int verify_frame_hardware(
    const uint8_t *bytes, size_t count, uint64_t index, uint64_t lowest_term, uint64_t highest_term,
    uint64_t maximum_kind, size_t maximum_length) {
  VERIFY_FRAME(sum_hardware)
}
#endif

#if defined(__x86_64__)
// Then there may be a run of alike ones again.
#define BETWEEN_GROUPS 8

WIDE_TARGET static inline __attribute__((always_inline)) uint32_t
sum_wide(uint64_t index, const struct frame *frame, const uint8_t *payload) {
  const uint64_t crc = CRC64(CRC64(CRC64(0xFFFFFFFFu, index), frame->term), frame->kind);
  const size_t size = frame->length - 32;
  if (size == 128) return ~advance_chunks((uint32_t)crc, NULL, payload, 2, 0);
  return ~(size >= WIDE_MINIMUM ? advance_wide(crc, NULL, payload, size, 0) : advance(crc, NULL, payload, size, 0));
}

WIDE_TARGET static size_t
verify_few_frames_wide(const uint8_t *bytes, size_t count, struct cweir_frame_run *run) {
  const size_t left = run->maximum_entries - run->entries;
  const size_t limit = run->entries + (left < BETWEEN_GROUPS ? left : BETWEEN_GROUPS);
  VERIFY_FRAMES(limit, sum_wide)
}

WIDE_TARGET static int verify_frame_wide(
    const uint8_t *bytes, size_t count, uint64_t index, uint64_t lowest_term, uint64_t highest_term,
    uint64_t maximum_kind, size_t maximum_length) {
  VERIFY_FRAME(sum_wide)
}

static size_t verify_frames_wide(const uint8_t *bytes, size_t count, struct cweir_frame_run *run) {
  size_t position = 0;
  for (;;) {
    position += cweir_verify_frame_groups(bytes + position, count - position, run, WIDE_END);
    const size_t verified = verify_few_frames_wide(bytes + position, count - position, run);
    position += verified;
    // Most runs are short: they do not come back to see that nothing is left.
    if (verified == 0 || position == count) return position;
  }
}
#endif

size_t cweir_verify_frames(const void *bytes, size_t count, struct cweir_frame_run *run) {
  run->entries = 0;
#if defined(__x86_64__)
  if (cweir_is_wide) return verify_frames_wide(bytes, count, run);
#endif
#if CWEIR_HARDWARE
  if (__builtin_expect(cweir_is_hardware, 1)) return verify_frames_hardware(bytes, count, run);
#endif
  return 0;
}

int cweir_verify_frame(
    const void *bytes, size_t count, uint64_t index, uint64_t lowest_term, uint64_t highest_term,
    uint64_t maximum_kind, size_t maximum_length) {
  if (count < 32) return -1;
#if defined(__x86_64__)
  if (cweir_is_wide)
    return verify_frame_wide(bytes, count, index, lowest_term, highest_term, maximum_kind, maximum_length);
#endif
#if CWEIR_HARDWARE
  if (__builtin_expect(cweir_is_hardware, 1))
    return verify_frame_hardware(bytes, count, index, lowest_term, highest_term, maximum_kind, maximum_length);
#endif
  return -1;
}

uint64_t cweir_sum_frames(const void *bytes, size_t frames, size_t stride) {
#if defined(__x86_64__)
  if (cweir_is_wide) return cweir_sum_frame_groups(bytes, frames, stride, WIDE_END);
#endif
  uint64_t sum = 0;
  const uint8_t *frame = bytes;
  for (size_t i = 0; i < frames; i++) sum ^= cweir_crc32c(0, frame + i * stride + 8, stride - 8);
  return sum;
}
