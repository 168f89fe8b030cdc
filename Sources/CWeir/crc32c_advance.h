#ifndef CWEIR_CRC32C_ADVANCE_H
#define CWEIR_CRC32C_ADVANCE_H

// The steps of a CRC-32C on the processor's instructions, to be inlined into what reads or writes on the way. What is
// declared here belongs to crc32c.c, which explains it.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CWEIR_HIDDEN __attribute__((visibility("hidden")))

#if defined(__x86_64__)
#include <immintrin.h>
#define CWEIR_HARDWARE 1
#define CWEIR_TARGET __attribute__((target("sse4.2,pclmul")))
#define CRC64(crc, word) _mm_crc32_u64(crc, word)
#define CRC32(crc, half) _mm_crc32_u32((uint32_t)(crc), half)
#define CRC8(crc, byte) _mm_crc32_u8((uint32_t)(crc), byte)

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

static inline uint64_t multiply(uint64_t crc, uint64_t constant) {
  return (uint64_t)vmull_p64((poly64_t)crc, (poly64_t)constant);
}
#endif

#if CWEIR_HARDWARE
// Whether this processor has the instructions.
extern CWEIR_HIDDEN int cweir_is_hardware;

// [k] is what a remainder is multiplied by to append 8k zero bytes: x^(64k - 33) modulo the polynomial, reflected. 33 less,
// since the reflected product of two 32-bit numbers stands one bit lower and the reducing CRC instruction itself multiplies
// by x^32.
#define MAXIMUM_SHIFT 256
extern CWEIR_HIDDEN uint32_t cweir_shift_words[MAXIMUM_SHIFT + 1];

static inline uint64_t load(const uint8_t *bytes) {
  uint64_t word;
  memcpy(&word, bytes, 8);
  return word;
}

static inline void store(uint8_t *bytes, uint64_t word) { memcpy(bytes, &word, 8); }

// What of `count` bytes is no whole word: up to 7 bytes, behind which both places are left.
CWEIR_TARGET static inline __attribute__((always_inline)) uint64_t
advance_below_word(uint64_t crc, uint8_t **to, const uint8_t **from, size_t count, int copies) {
  if (count & 4) {
    uint32_t half;
    memcpy(&half, *from, 4);
    crc = CRC32(crc, half);
    if (copies) {
      memcpy(*to, &half, 4);
      *to += 4;
    }
    *from += 4;
  }
#pragma clang loop unroll(disable) vectorize(disable)
  for (count &= 3; count > 0; count--, ++*from) {
    crc = CRC8(crc, **from);
    if (copies) *(*to)++ = **from;
  }
  return crc;
}

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
    const uint64_t joined = multiply(crc, cweir_shift_words[2 * words]) ^ multiply(second, cweir_shift_words[words]);
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
  return (uint32_t)advance_below_word(crc, &to, &from, count, copies);
}
#endif

#if defined(__x86_64__)
#define WIDE_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,vpclmulqdq,pclmul,sse4.2")))
#define WIDE_CHUNKS 16
#define WIDE_MINIMUM 64

// Whether this processor has 512-bit carry-less multiplications.
extern CWEIR_HIDDEN int cweir_is_wide;

// What the 8 words of a chunk are multiplied by, the last chunk of a block in the last row: x^(64n - 1) modulo the
// polynomial, reflected, in the upper half.
extern CWEIR_HIDDEN uint64_t cweir_wide_factors[WIDE_CHUNKS][8];
#define WIDE_END (cweir_wide_factors[WIDE_CHUNKS - 1] + 8)

// Goes on from the raw state `crc` over 1 to WIDE_CHUNKS chunks of 64 bytes.
WIDE_TARGET static inline __attribute__((always_inline)) uint32_t
advance_chunks(uint32_t crc, uint8_t *to, const uint8_t *from, size_t chunks, int copies) {
  const uint64_t(*factors)[8] = cweir_wide_factors + WIDE_CHUNKS - chunks;
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
  crc = advance_below_word(crc, &to, &from, front, copies);
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
#endif

#endif
