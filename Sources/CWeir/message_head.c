// The fixed header of a message, and its checksum: 92 bytes in three chains of CRC instructions.

#include "CWeir.h"

#include "crc32c_advance.h"

static void put_word(uint8_t *to, uint64_t word) {
  for (int i = 0; i < 8; i++) to[i] = (uint8_t)(word >> 8 * i);
}

static __attribute__((noinline)) void write_head_table(
    uint8_t *to, uint32_t tag, uint64_t sizes, uint64_t entry_bytes, uint64_t receiver, uint64_t sender, uint64_t term,
    uint64_t commit, uint64_t log_term, uint64_t vote, uint64_t index, uint64_t context, uint64_t reject_hint) {
  const uint64_t words[] = {sizes, entry_bytes, receiver, sender, term, log_term, index, commit, vote, reject_hint, context};
  for (int i = 0; i < 4; i++) to[4 + i] = (uint8_t)(tag >> 8 * i);
  for (int i = 0; i < 11; i++) put_word(to + 8 + 8 * i, words[i]);
  const uint32_t checksum = cweir_crc32c_portable(0, to + 4, 92);
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(checksum >> 8 * i);
}

#if CWEIR_HARDWARE
// The 92 bytes of a message's header: a half word and 11 words, in three chains of four links. They were often written
// word by word just before: read in wider pieces, they would have to wait until they are in the cache.
CWEIR_TARGET static inline __attribute__((always_inline)) uint32_t join_head(uint64_t first, uint64_t second, uint64_t last) {
  const uint64_t joined = multiply(first, cweir_shift_words[8]) ^ multiply(second, cweir_shift_words[4]);
  return ~(uint32_t)(CRC64(0, joined) ^ last);
}

CWEIR_TARGET static uint32_t head_hardware(const uint8_t *bytes) {
  uint32_t half;
  memcpy(&half, bytes, 4);
  const uint8_t *words = bytes + 4;
  uint64_t first = CRC32(0xFFFFFFFFu, half), second = 0, last = 0;
  for (int i = 0; i < 3; i++) first = CRC64(first, load(words + 8 * i));
  for (int i = 3; i < 7; i++) second = CRC64(second, load(words + 8 * i));
  for (int i = 7; i < 11; i++) last = CRC64(last, load(words + 8 * i));
  return join_head(first, second, last);
}

// A word on its way from one place to another, through a register of its own: see above.
CWEIR_TARGET static inline __attribute__((always_inline)) uint64_t carry(uint64_t crc, uint8_t *to, uint64_t word) {
  __asm__("" : "+r"(word));
  store(to, word);
  return CRC64(crc, word);
}

CWEIR_TARGET static void write_head_hardware(
    uint8_t *to, uint32_t tag, uint64_t sizes, uint64_t entry_bytes, uint64_t receiver, uint64_t sender, uint64_t term,
    uint64_t commit, uint64_t log_term, uint64_t vote, uint64_t index, uint64_t context, uint64_t reject_hint) {
  memcpy(to + 4, &tag, 4);
  uint64_t first = CRC32(0xFFFFFFFFu, tag), second = 0, last = 0;
  first = carry(first, to + 8, sizes);
  first = carry(first, to + 16, entry_bytes);
  first = carry(first, to + 24, receiver);
  second = carry(second, to + 32, sender);
  second = carry(second, to + 40, term);
  second = carry(second, to + 48, log_term);
  second = carry(second, to + 56, index);
  last = carry(last, to + 64, commit);
  last = carry(last, to + 72, vote);
  last = carry(last, to + 80, reject_hint);
  last = carry(last, to + 88, context);
  const uint32_t checksum = join_head(first, second, last);
  memcpy(to, &checksum, 4);
}
#endif

uint32_t cweir_crc32c_head(const void *bytes) {
#if CWEIR_HARDWARE
  if (__builtin_expect(cweir_is_hardware, 1)) return head_hardware(bytes);
#endif
  return cweir_crc32c_portable(0, bytes, 92);
}

void cweir_write_message_head(
    void *to, uint32_t tag, uint64_t sizes, uint64_t entry_bytes, uint64_t receiver, uint64_t sender, uint64_t term,
    uint64_t commit, uint64_t log_term, uint64_t vote, uint64_t index, uint64_t context, uint64_t reject_hint) {
#if CWEIR_HARDWARE
  if (__builtin_expect(cweir_is_hardware, 1))
    return write_head_hardware(
        to, tag, sizes, entry_bytes, receiver, sender, term, commit, log_term, vote, index, context, reject_hint);
#endif
  write_head_table(
      to, tag, sizes, entry_bytes, receiver, sender, term, commit, log_term, vote, index, context, reject_hint);
}
