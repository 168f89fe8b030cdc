// Frames of one length, eight at a time.
//
// The two units that a checksum can be made with do not stand in each other's way: the 512-bit multiplications take 64
// bytes in 4 cycles, the CRC instruction 8 bytes in 0.4 (measured on an EPYC 9005: it starts more than two a cycle),
// but one that continues the last has to wait 3 cycles for it. So of each of eight frames the first 64 bytes are
// multiplied, while the rest of the eight frames in front goes through eight chains of CRC instructions, a word of each
// in turn. What the multiplications left starts the chains of the next round.
//
// Index, term, kind and length lie in the first 32 bytes of a frame: eight compares of 32 bytes with what they must be.

#include "CWeir.h"
#include "frame_groups.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define GROUP_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,vpclmulqdq,pclmul,sse4.2")))
#define ALWAYS static inline __attribute__((always_inline))
#define UNROLLED _Pragma("clang loop unroll(full)")
#define EACH UNROLLED for (int i = 0; i < FRAMES; i++)
#define FRAMES 8
// Header, the 64 bytes that are multiplied less the 24 of them that belong to the header, and a first block of 8 words.
#define MINIMUM_WORDS 17
// Of longer frames most goes through the chains, and one at a time they are faster: all of them is multiplied there.
#define MAXIMUM_WORDS 40

ALWAYS uint64_t word_at(const uint8_t *bytes) {
  uint64_t word;
  memcpy(&word, bytes, 8);
  return word;
}

ALWAYS uint32_t half_at(const uint8_t *bytes) {
  uint32_t half;
  memcpy(&half, bytes, 4);
  return half;
}

// Eight frames lie at one distance of each other: two addresses and two distances, which is what addressing modes need.
struct distances {
  size_t one, three;
};

ALWAYS const uint8_t *place(const uint8_t *first, const uint8_t *fifth, struct distances distances, int frame) {
  const uint8_t *base = frame < 4 ? first : fifth;
  switch (frame & 3) {
    case 0: return base;
    case 1: return base + distances.one;
    case 2: return base + 2 * distances.one;
    default: return base + distances.three;
  }
}

// Without it the compiler keeps the addresses of all eight frames instead, for which there are not enough registers.
#define KEEP_DISTANCES __asm__ volatile("" : "+r"(distances.one), "+r"(distances.three))

// 64 bytes as four products of 128 bits, whose sum two CRC instructions reduce. `start` is the state in front of them.
GROUP_TARGET ALWAYS __m512i products(const uint8_t *bytes, __m512i start, __m512i factors) {
  const __m512i words = _mm512_xor_si512(start, _mm512_loadu_si512(bytes));
  return _mm512_xor_si512(
      _mm512_clmulepi64_epi128(words, factors, 0x00), _mm512_clmulepi64_epi128(words, factors, 0x11));
}

// The sums of the four products of four frames, side by side.
GROUP_TARGET ALWAYS __m512i four_sums(const __m512i *products) {
  const __m512i front = _mm512_xor_si512(
      _mm512_shuffle_i64x2(products[0], products[1], 0x88), _mm512_shuffle_i64x2(products[0], products[1], 0xDD));
  const __m512i back = _mm512_xor_si512(
      _mm512_shuffle_i64x2(products[2], products[3], 0x88), _mm512_shuffle_i64x2(products[2], products[3], 0xDD));
  return _mm512_xor_si512(_mm512_shuffle_i64x2(front, back, 0x88), _mm512_shuffle_i64x2(front, back, 0xDD));
}

GROUP_TARGET ALWAYS void store_sums(uint64_t *sums, const __m512i *products) {
  _mm512_store_si512(sums, four_sums(products));
  _mm512_store_si512(sums + 8, four_sums(products + 4));
}

// What lies behind the last whole word: up to 7 bytes under the checksum, then zeros.
GROUP_TARGET static int finish_tails(const uint8_t *rest, size_t stride, size_t bytes, uint64_t *states) {
  uint64_t padding = 0;
  for (int i = 0; i < FRAMES; i++, rest += stride) {
    padding |= word_at(rest) >> 8 * bytes;
    size_t position = 0;
    if (bytes & 4) {
      states[i] = _mm_crc32_u32((uint32_t)states[i], half_at(rest));
      position = 4;
    }
    for (; position < bytes; position++) states[i] = _mm_crc32_u8((uint32_t)states[i], rest[position]);
  }
  return padding == 0;
}

// The length of the frames that lie in front of `bytes` if eight of them seem to have the same; else 0.
ALWAYS size_t common_length(const uint8_t *bytes, size_t count) {
  const size_t length = half_at(bytes), stride = (length + 7) & ~(size_t)7;
  if (length < 8 * MINIMUM_WORDS || length > 8 * MAXIMUM_WORDS || count < FRAMES * stride) return 0;
  return half_at(bytes + stride) == length && half_at(bytes + 7 * stride) == length ? length : 0;
}

// `length` is what the first frames seem to have; `has_tail` is a constant, so that the common case has no code for tails.
GROUP_TARGET ALWAYS size_t verify_alike(
    const uint8_t *bytes, size_t count, struct cweir_frame_run *run, const uint64_t *factors8, size_t length,
    int has_tail) {
  const size_t stride = (length + 7) & ~(size_t)7;
  const uint64_t term = word_at(bytes + 16), kind = word_at(bytes + 24);
  if (word_at(bytes + 8) != run->index || term < run->term || term > run->highest_term) return 0;
  if (kind > run->maximum_kind || length > run->maximum_length) return 0;
  size_t groups = count / (FRAMES * stride);
  if (groups > (run->maximum_entries - run->entries) / FRAMES) groups = (run->maximum_entries - run->entries) / FRAMES;
  // The last index there is belongs to no entry.
  if (groups == 0 || run->index > UINT64_MAX - FRAMES * groups) return 0;

  const __m512i start = _mm512_zextsi128_si512(_mm_cvtsi64_si128(0xFFFFFFFFll)), factors = _mm512_load_si512(factors8);
  const __m256i step = _mm256_set_epi64x(0, 0, (long long)run->index_step, 0);
  __m256i expected = _mm256_set_epi64x((long long)kind, (long long)term, (long long)run->index, (long long)length);
  // Each has a checksum of its own.
  const __m256i compared = _mm256_set_epi64x(-1, -1, -1, 0xFFFFFFFF);
  _Alignas(64) uint64_t sums[2 * FRAMES];
  __m512i parts[FRAMES];
  struct distances distances = {stride, 3 * stride};
  const uint8_t *group = bytes;
  EACH parts[i] = products(place(group, group + 4 * stride, distances, i) + 8, start, factors);
  store_sums(sums, parts);
  size_t good = 0;
#pragma clang loop unroll(disable)
  for (;;) {
    const uint8_t *x = group, *y = group + 4 * stride;
    __m256i differences = _mm256_setzero_si256();
    KEEP_DISTANCES;
    EACH {
      const __m256i header = _mm256_loadu_si256((const void *)place(x, y, distances, i));
      differences = _mm256_ternarylogic_epi64(differences, header, expected, 0xF6);
      expected = _mm256_add_epi64(expected, step);
    }
    if (!_mm256_testz_si256(differences, compared)) break;
    // Behind the last group there is nothing to multiply, so it is that one again.
    const uint8_t *u = groups > 1 ? group + FRAMES * stride : group, *v = u + 4 * stride;
    uint64_t states[FRAMES];
    // From memory, where the CRC instruction takes them from, instead of one by one through the registers.
    __asm__ volatile("" : "+m"(sums));
    EACH states[i] = _mm_crc32_u64(_mm_crc32_u64(0, sums[2 * i]), sums[2 * i + 1]);
    x += 72;
    y += 72;
    UNROLLED for (int block = 0; block < FRAMES; block++) {
      EACH states[i] = _mm_crc32_u64(states[i], word_at(place(x, y, distances, i) + 8 * block));
      parts[block] = products(place(u, v, distances, block) + 8, start, factors);
      // In this order: compilers would put the multiplications together, and then both units wait for each other.
      __asm__ volatile("" : "+v"(parts[block]), "+r"(states[FRAMES - 1]));
    }
    x += 64;
    y += 64;
#pragma clang loop unroll(disable)
    for (size_t left = length / 8 - MINIMUM_WORDS; left > 0; left--, x += 8, y += 8) {
      KEEP_DISTANCES;
      EACH states[i] = _mm_crc32_u64(states[i], word_at(place(x, y, distances, i)));
    }
    if (has_tail) {
      // A copy: what has an address is kept in memory all along.
      uint64_t finished[FRAMES];
      EACH finished[i] = states[i];
      if (!finish_tails(x, stride, length & 7, finished)) break;
      EACH states[i] = finished[i];
    }
    store_sums(sums, parts);
    x = group;
    y = group + 4 * stride;
    uint64_t equal = 0xFFFFFFFFu;
    EACH equal &= states[i] ^ half_at(place(x, y, distances, i) + 4);
    if (equal != 0xFFFFFFFFu) break;
    group += FRAMES * stride;
    good += FRAMES;
    if (--groups == 0) break;
  }
  if (good > 0) {
    run->entries += good;
    run->index += good * run->index_step;
    run->term = term;
    run->kinds |= kind;
  }
  return good * stride;
}

GROUP_TARGET size_t
cweir_verify_frame_groups(const uint8_t *bytes, size_t count, struct cweir_frame_run *run, const uint64_t *factors8) {
  const size_t length = count < 32 ? 0 : common_length(bytes, count);
  if (length == 0) return 0;
  if (length & 7) return verify_alike(bytes, count, run, factors8, length, 1);
  return verify_alike(bytes, count, run, factors8, length, 0);
}
#endif
