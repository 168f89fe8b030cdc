// CRC-32C on the processor's instruction where there is one, else on a table of 8 x 256.
//
// The instruction takes 8 bytes and has a latency of 3 cycles at a throughput of 1, so one chain leaves two thirds of it
// idle. From 6 x 8 bytes on, three chains run side by side over a third of the bytes each and are joined afterwards:
// appending n zero bytes to a message multiplies its remainder by x^8n, a carry-less multiplication and one more CRC
// instruction (which reduces). 152 bytes, the checksummed part of a frame with a payload of 128, take 7 + 2 links
// instead of 19.
//
// Where there are 512-bit carry-less multiplications (AVX-512 with VPCLMULQDQ), 64 bytes are multiplied at once instead:
// word w with n words behind it adds w x^(64n + 32) to the remainder, and is multiplied by x^(64n - 1) reduced, which the
// two closing CRC instructions (x^32) and the reflected product (x) make whole. No product waits for another, so that
// frames verified one behind the other overlap. 128 bytes are 4 multiplications and a sum.

#include "CWeir.h"

#include <string.h>

#include "frame_groups.h"

static uint32_t table[8][256];

static uint32_t crc32c_table(uint32_t seed, const uint8_t *bytes, size_t count) {
  uint32_t crc = ~seed;
  for (; count >= 8; count -= 8, bytes += 8) {
    uint32_t low = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    low ^= crc;
    crc = table[7][low & 0xFF] ^ table[6][(low >> 8) & 0xFF] ^ table[5][(low >> 16) & 0xFF] ^ table[4][low >> 24]
        ^ table[3][bytes[4]] ^ table[2][bytes[5]] ^ table[1][bytes[6]] ^ table[0][bytes[7]];
  }
  for (; count > 0; count--, bytes++) crc = (crc >> 8) ^ table[0][(crc ^ *bytes) & 0xFF];
  return ~crc;
}

static void put_word(uint8_t *to, uint64_t word) {
  for (int i = 0; i < 8; i++) to[i] = (uint8_t)(word >> 8 * i);
}

static uint32_t seal_table(uint64_t a, uint64_t b, uint64_t c, void *to, const void *from, size_t count) {
  uint8_t words[24];
  put_word(words, a);
  put_word(words + 8, b);
  put_word(words + 16, c);
  if (count > 0) memcpy(to, from, count);
  return crc32c_table(crc32c_table(0, words, sizeof words), to, count);
}

static __attribute__((noinline)) void write_head_table(
    uint8_t *to, uint32_t tag, uint64_t sizes, uint64_t entry_bytes, uint64_t receiver, uint64_t sender, uint64_t term,
    uint64_t commit, uint64_t log_term, uint64_t vote, uint64_t index, uint64_t context, uint64_t reject_hint) {
  const uint64_t words[] = {sizes, entry_bytes, receiver, sender, term, log_term, index, commit, vote, reject_hint, context};
  for (int i = 0; i < 4; i++) to[4 + i] = (uint8_t)(tag >> 8 * i);
  for (int i = 0; i < 11; i++) put_word(to + 8 + 8 * i, words[i]);
  const uint32_t checksum = crc32c_table(0, to + 4, 92);
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(checksum >> 8 * i);
}

#if defined(__x86_64__)
#include <immintrin.h>
#define CWEIR_HARDWARE 1
#define CWEIR_TARGET __attribute__((target("sse4.2,pclmul")))
#define CRC64(crc, word) _mm_crc32_u64(crc, word)
#define CRC32(crc, half) _mm_crc32_u32((uint32_t)(crc), half)
#define CRC8(crc, byte) _mm_crc32_u8((uint32_t)(crc), byte)

static int hardware_is_there(void) { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }

CWEIR_TARGET static inline uint64_t multiply(uint64_t crc, uint64_t constant) {
  return (uint64_t)_mm_cvtsi128_si64(
      _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)constant), 0));
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32) && defined(__ARM_FEATURE_AES) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#include <arm_acle.h>
#include <arm_neon.h>
#define CWEIR_HARDWARE 1
#define CWEIR_TARGET
#define CRC64(crc, word) __crc32cd((uint32_t)(crc), word)
#define CRC32(crc, half) __crc32cw((uint32_t)(crc), half)
#define CRC8(crc, byte) __crc32cb((uint32_t)(crc), byte)

static int hardware_is_there(void) { return 1; }

static inline uint64_t multiply(uint64_t crc, uint64_t constant) {
  return (uint64_t)vmull_p64((poly64_t)crc, (poly64_t)constant);
}
#endif

#if CWEIR_HARDWARE
static int is_hardware;

// shift_words[k] is what a remainder is multiplied by to append 8k zero bytes: x^(64k - 33) modulo the polynomial,
// reflected. 33 less, since the reflected product of two 32-bit numbers stands one bit lower and the reducing CRC
// instruction itself multiplies by x^32.
#define MAXIMUM_SHIFT 256
static uint32_t shift_words[MAXIMUM_SHIFT + 1];

static void make_shifts(void) {
  uint32_t power = 0x80000000u;  // x^0: in the reflected order the highest bit is the constant term
  uint32_t exponent = 0;
  for (uint32_t k = 1; k <= MAXIMUM_SHIFT; k++) {
    for (; exponent < 64 * k - 33; exponent++) power = (power >> 1) ^ ((power & 1) ? 0x82F63B78u : 0);
    shift_words[k] = power;
  }
}

static inline uint64_t load(const uint8_t *bytes) {
  uint64_t word;
  memcpy(&word, bytes, 8);
  return word;
}

static inline void store(uint8_t *bytes, uint64_t word) { memcpy(bytes, &word, 8); }

// Goes on from the raw (inverted) state `crc`; copies what it reads to `to` unless that is null.
CWEIR_TARGET static inline __attribute__((always_inline)) uint32_t
advance(uint64_t crc, uint8_t *to, const uint8_t *from, size_t count, int copies) {
  while (count >= 48) {
    size_t words = count / 24;
    if (words > MAXIMUM_SHIFT / 2) words = MAXIMUM_SHIFT / 2;
    const size_t third = 8 * words;
    uint64_t second = 0, last = 0;
    for (size_t i = 0; i < third; i += 8) {
      const uint64_t x = load(from + i), y = load(from + third + i), z = load(from + 2 * third + i);
      crc = CRC64(crc, x);
      second = CRC64(second, y);
      last = CRC64(last, z);
      if (copies) {
        store(to + i, x);
        store(to + third + i, y);
        store(to + 2 * third + i, z);
      }
    }
    const uint64_t joined = multiply(crc, shift_words[2 * words]) ^ multiply(second, shift_words[words]);
    crc = CRC64(0, joined) ^ last;
    from += 3 * third;
    if (copies) to += 3 * third;
    count -= 3 * third;
  }
  for (; count >= 8; count -= 8, from += 8) {
    const uint64_t word = load(from);
    crc = CRC64(crc, word);
    if (copies) {
      store(to, word);
      to += 8;
    }
  }
  if (count >= 4) {
    uint32_t half;
    memcpy(&half, from, 4);
    crc = CRC32(crc, half);
    if (copies) {
      memcpy(to, &half, 4);
      to += 4;
    }
    from += 4;
    count -= 4;
  }
  for (; count > 0; count--, from++) {
    crc = CRC8(crc, *from);
    if (copies) *to++ = *from;
  }
  return (uint32_t)crc;
}

CWEIR_TARGET static uint32_t crc32c_hardware(uint32_t seed, const uint8_t *bytes, size_t count) {
  return ~advance((uint32_t)~seed, NULL, bytes, count, 0);
}

CWEIR_TARGET static uint32_t
seal_hardware(uint64_t a, uint64_t b, uint64_t c, uint8_t *to, const uint8_t *from, size_t count) {
  uint64_t crc = 0xFFFFFFFFu;
  crc = CRC64(crc, a);
  crc = CRC64(crc, b);
  crc = CRC64(crc, c);
  return ~advance(crc, to, from, count, 1);
}

// The 92 bytes of a message's header: a half word and 11 words, in three chains of four links. They were often written
// word by word just before: read in wider pieces, they would have to wait until they are in the cache.
CWEIR_TARGET static inline __attribute__((always_inline)) uint32_t join_head(uint64_t first, uint64_t second, uint64_t last) {
  const uint64_t joined = multiply(first, shift_words[8]) ^ multiply(second, shift_words[4]);
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

#if defined(__x86_64__)
#define WIDE_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,vpclmulqdq,pclmul,sse4.2")))
#define WIDE_CHUNKS 16

static int wide_is_there(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")
      && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("vpclmulqdq");
}

static int is_wide;

// What the 8 words of a chunk are multiplied by, the last chunk of a block in the last row: x^(64n - 1) modulo the
// polynomial, reflected, in the upper half.
static _Alignas(64) uint64_t wide_factors[WIDE_CHUNKS][8];

static void make_wide_factors(void) {
  uint32_t power = 0xFFFFFFFFu & ((0x80000000u ^ 0x82F63B78u) << 1 | 1);  // x^-1: one step back from x^0
  for (int n = 0; n < 8 * WIDE_CHUNKS; n++) {
    wide_factors[WIDE_CHUNKS - 1 - n / 8][7 - n % 8] = (uint64_t)power << 32;
    for (int step = 0; step < 64; step++) power = (power >> 1) ^ ((power & 1) ? 0x82F63B78u : 0);
  }
}

// Goes on from the raw state `crc` over 1 to WIDE_CHUNKS chunks of 64 bytes.
WIDE_TARGET static inline __attribute__((always_inline)) uint32_t
advance_chunks(uint32_t crc, uint8_t *to, const uint8_t *from, size_t chunks, int copies) {
  const uint64_t(*factors)[8] = wide_factors + WIDE_CHUNKS - chunks;
  __m512i sum = _mm512_setzero_si512();
  // In the first word, or as if it lay there alone: where bytes are only read, what comes late out of a chain of CRC
  // instructions then keeps nothing else waiting. Where they are copied, a multiplication costs more than the wait.
  __m512i front = _mm512_setzero_si512();
  __m128i seed = _mm_cvtsi32_si128((int)crc);
  if (copies) front = _mm512_zextsi128_si512(seed);
  else seed = _mm_clmulepi64_si128(seed, _mm_loadl_epi64((const void *)factors[0]), 0x00);
#pragma clang loop unroll_count(2)
  for (size_t i = 0; i < chunks; i++) {
    const __m512i data = _mm512_loadu_si512(from + 64 * i);
    if (copies) _mm512_storeu_si512(to + 64 * i, data);
    const __m512i factor = _mm512_load_si512(factors[i]);
    const __m512i words = copies ? _mm512_xor_si512(data, front) : data;
    front = _mm512_setzero_si512();
    sum = _mm512_ternarylogic_epi64(
        sum, _mm512_clmulepi64_epi128(words, factor, 0x00), _mm512_clmulepi64_epi128(words, factor, 0x11), 0x96);
  }
  const __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
  __m128i quarter = _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  if (!copies) quarter = _mm_xor_si128(quarter, seed);
  const uint64_t state = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(quarter));
  return (uint32_t)_mm_crc32_u64(state, (uint64_t)_mm_extract_epi64(quarter, 1));
}

// `advance` of at least 64 bytes. What is no multiple of 64 goes first, so that the factors count from the end.
WIDE_TARGET static inline __attribute__((always_inline)) uint32_t
advance_wide(uint64_t crc, uint8_t *to, const uint8_t *from, size_t count, int copies) {
  size_t front = count & 63;
  count -= front;
#pragma clang loop unroll(disable) vectorize(disable)
  for (size_t words = front >> 3; words > 0; words--, from += 8) {
    uint64_t word;
    memcpy(&word, from, 8);
    crc = _mm_crc32_u64(crc, word);
    if (copies) {
      memcpy(to, &word, 8);
      to += 8;
    }
  }
  if (front & 4) {
    uint32_t half;
    memcpy(&half, from, 4);
    crc = _mm_crc32_u32((uint32_t)crc, half);
    if (copies) {
      memcpy(to, &half, 4);
      to += 4;
    }
    from += 4;
  }
#pragma clang loop unroll(disable) vectorize(disable)
  for (front &= 3; front > 0; front--, from++) {
    crc = _mm_crc32_u8((uint32_t)crc, *from);
    if (copies) *to++ = *from;
  }
  // Nearly all frames are that short: straight on, without a loop.
  if (count == 64) return advance_chunks((uint32_t)crc, to, from, 1, copies);
  if (count == 128) return advance_chunks((uint32_t)crc, to, from, 2, copies);
#pragma clang loop unroll(disable)
  while (count > 0) {
    const size_t chunks = count / 64 < WIDE_CHUNKS ? count / 64 : WIDE_CHUNKS;
    crc = advance_chunks((uint32_t)crc, to, from, chunks, copies);
    from += 64 * chunks;
    if (copies) to += 64 * chunks;
    count -= 64 * chunks;
  }
  return (uint32_t)crc;
}

WIDE_TARGET static uint32_t crc32c_wide(uint32_t seed, const uint8_t *bytes, size_t count) {
  return ~advance_wide((uint32_t)~seed, NULL, bytes, count, 0);
}

WIDE_TARGET static uint32_t
seal_wide(uint64_t a, uint64_t b, uint64_t c, uint8_t *to, const uint8_t *from, size_t count) {
  uint64_t crc = _mm_crc32_u64(0xFFFFFFFFu, a);
  crc = _mm_crc32_u64(crc, b);
  crc = _mm_crc32_u64(crc, c);
  return ~advance_wide(crc, to, from, count, 1);
}
#define WIDE_MINIMUM 64
#endif

#if CWEIR_HARDWARE
// Both forms of the loop over frames; see EntryFrame.swift for the layout.
#define VERIFY_FRAMES(LIMIT, PAYLOAD_CHECKSUM)                                                                 \
  size_t position = 0;                                                                                         \
  uint64_t index = run->index, term = run->term, kinds = run->kinds;                                           \
  size_t entries = run->entries;                                                                               \
  while (count - position >= 32 && entries < (LIMIT)) {                                                        \
    const uint8_t *frame = bytes + position;                                                                   \
    const uint64_t word = load(frame), frame_term = load(frame + 16), kind = load(frame + 24);                 \
    const size_t length = (uint32_t)word, occupied = (length + 7) & ~(size_t)7;                                \
    if (length < 32 || length > run->maximum_length || occupied > count - position) break;                     \
    if (load(frame + 8) != index || frame_term < term || frame_term > run->highest_term) break;                \
    if (kind > run->maximum_kind || index == UINT64_MAX) break;                                                \
    if ((length & 7) && load(frame + occupied - 8) >> 8 * (length & 7)) break;                                 \
    uint64_t crc = CRC64(0xFFFFFFFFu, index);                                                                  \
    crc = CRC64(CRC64(crc, frame_term), kind);                                                                 \
    const uint8_t *payload = frame + 32;                                                                       \
    const size_t size = length - 32;                                                                           \
    PAYLOAD_CHECKSUM                                                                                           \
    if (~(uint32_t)crc != (uint32_t)(word >> 32)) break;                                                       \
    term = frame_term;                                                                                         \
    kinds |= kind;                                                                                             \
    index += run->index_step;                                                                                  \
    entries += 1;                                                                                              \
    position += occupied;                                                                                      \
  }                                                                                                            \
  run->index = index;                                                                                          \
  run->term = term;                                                                                            \
  run->kinds = kinds;                                                                                          \
  run->entries = entries;                                                                                      \
  return position;

CWEIR_TARGET static size_t
verify_frames_hardware(const uint8_t *bytes, size_t count, struct cweir_frame_run *run) {
  VERIFY_FRAMES(run->maximum_entries, crc = advance(crc, NULL, payload, size, 0);)
}
#endif

#if defined(__x86_64__)
// Then there may be a run of alike ones again.
#define BETWEEN_GROUPS 8
#define WIDE_END (wide_factors[WIDE_CHUNKS - 1] + 8)

WIDE_TARGET static size_t
verify_few_frames_wide(const uint8_t *bytes, size_t count, struct cweir_frame_run *run) {
  const size_t left = run->maximum_entries - run->entries;
  const size_t limit = run->entries + (left < BETWEEN_GROUPS ? left : BETWEEN_GROUPS);
  VERIFY_FRAMES(
      limit,
      if (size == 128) crc = advance_chunks((uint32_t)crc, NULL, payload, 2, 0);
      else if (size >= WIDE_MINIMUM) crc = advance_wide(crc, NULL, payload, size, 0);
      else crc = advance(crc, NULL, payload, size, 0);)
}

static size_t verify_frames_wide(const uint8_t *bytes, size_t count, struct cweir_frame_run *run) {
  size_t position = 0;
  for (;;) {
    position += cweir_verify_frame_groups(bytes + position, count - position, run, WIDE_END);
    const size_t verified = verify_few_frames_wide(bytes + position, count - position, run);
    position += verified;
    // Most runs are one frame: they do not come back to see that nothing is left.
    if (verified == 0 || position == count) return position;
  }
}
#endif

// Before anything of the program runs: no flag to test and no lock to take on the way of every call.
__attribute__((constructor)) static void prepare(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
    table[0][i] = crc;
  }
  for (uint32_t i = 0; i < 256; i++)
    for (int slice = 1; slice < 8; slice++)
      table[slice][i] = (table[slice - 1][i] >> 8) ^ table[0][table[slice - 1][i] & 0xFF];
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
#if CWEIR_HARDWARE
  is_hardware = hardware_is_there();
  make_shifts();
#if defined(__x86_64__)
  is_wide = is_hardware && wide_is_there();
  make_wide_factors();
#endif
#endif
}

int cweir_crc32c_is_hardware(void) {
#if CWEIR_HARDWARE
  return is_hardware;
#else
  return 0;
#endif
}

uint32_t cweir_crc32c(uint32_t seed, const void *bytes, size_t count) {
#if defined(__x86_64__)
  if (count >= WIDE_MINIMUM && is_wide) return crc32c_wide(seed, bytes, count);
#endif
#if CWEIR_HARDWARE
  if (__builtin_expect(is_hardware, 1)) return crc32c_hardware(seed, bytes, count);
#endif
  return crc32c_table(seed, bytes, count);
}

uint32_t cweir_crc32c_copy(uint64_t a, uint64_t b, uint64_t c, void *to, const void *from, size_t count) {
#if defined(__x86_64__)
  if (count >= WIDE_MINIMUM && is_wide) return seal_wide(a, b, c, to, from, count);
#endif
#if CWEIR_HARDWARE
  if (__builtin_expect(is_hardware, 1)) return seal_hardware(a, b, c, to, from, count);
#endif
  return seal_table(a, b, c, to, from, count);
}

uint32_t cweir_crc32c_portable(uint32_t seed, const void *bytes, size_t count) {
  return crc32c_table(seed, bytes, count);
}

uint32_t cweir_crc32c_head(const void *bytes) {
#if CWEIR_HARDWARE
  if (__builtin_expect(is_hardware, 1)) return head_hardware(bytes);
#endif
  return crc32c_table(0, bytes, 92);
}

void cweir_write_message_head(
    void *to, uint32_t tag, uint64_t sizes, uint64_t entry_bytes, uint64_t receiver, uint64_t sender, uint64_t term,
    uint64_t commit, uint64_t log_term, uint64_t vote, uint64_t index, uint64_t context, uint64_t reject_hint) {
#if CWEIR_HARDWARE
  if (__builtin_expect(is_hardware, 1))
    return write_head_hardware(
        to, tag, sizes, entry_bytes, receiver, sender, term, commit, log_term, vote, index, context, reject_hint);
#endif
  write_head_table(
      to, tag, sizes, entry_bytes, receiver, sender, term, commit, log_term, vote, index, context, reject_hint);
}

size_t cweir_verify_frames(const void *bytes, size_t count, struct cweir_frame_run *run) {
  run->entries = 0;
#if defined(__x86_64__)
  if (is_wide) return verify_frames_wide(bytes, count, run);
#endif
#if CWEIR_HARDWARE
  if (__builtin_expect(is_hardware, 1)) return verify_frames_hardware(bytes, count, run);
#endif
  return 0;
}

uint64_t cweir_sum_frames(const void *bytes, size_t frames, size_t stride) {
#if defined(__x86_64__)
  if (is_wide) return cweir_sum_frame_groups(bytes, frames, stride, WIDE_END);
#endif
  uint64_t sum = 0;
  const uint8_t *frame = bytes;
  for (size_t i = 0; i < frames; i++) sum ^= cweir_crc32c(0, frame + i * stride + 8, stride - 8);
  return sum;
}
