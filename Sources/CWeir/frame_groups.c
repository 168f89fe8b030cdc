// Frames of one length, four at a time.
//
// The two units that a checksum can be made with hardly stand in each other's way. Of each of four frames a region behind
// the header is multiplied, 64 bytes in 4 cycles, while the words behind the region go through four chains of CRC
// instructions, a word of each in turn: 8 bytes a cycle, but one that continues the last has to wait 3 (measured on an
// EPYC 9004). What the headers of four have in common is multiplied once, and their four indexes all together.
//
// The products of four frames are summed and lie in memory until the next four have gone through their chains: two CRC
// instructions more in the chain of each then reduce its sum. Where a round reduced the products it made itself, it
// waited for them (1.2 ns a frame).
//
// Index, term, kind and length lie in the first 32 bytes of a frame: four compares of 32 bytes with what they must be.
//
// Measured (2-core EPYC 9004, 64 frames of 160 bytes out of the first-level cache): 2.9 ns a frame; one behind the other
// 5.0. `cweir_sum_frame_groups` below is the units alone: 2.1 ns, where the instructions themselves, with all they need in
// registers, would take 1.8. Tried and not faster: the sums folded through memory or in halves of 256 bits, which do not take
// a moment of the multiplier as moves across a whole register do (3.1), and the sums added to the last two words of a frame
// in place of two words more (3.1).

#include "CWeir.h"
#include "frame_groups.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define GROUP_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,vpclmulqdq,pclmul,sse4.2")))
#define ALWAYS static inline __attribute__((always_inline))
#define UNROLLED _Pragma("clang loop unroll(full)")
#define EACH UNROLLED for (int i = 0; i < FRAMES; i++)
#define FRAMES 4
#define HEADER_WORDS 4
// Words behind the region that are always there, so that the multiplications are spread over them.
#define ROWS 4
// In words: of a header, the smallest region, and the rows.
#define MINIMUM_WORDS 16
#define MAXIMUM_WORDS 64
// Of fewer frames than that, one behind the other is faster.
#define MINIMUM_FRAMES 8

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

// Frames lie at one distance of each other: an address and two distances, which is what addressing modes need.
struct distances {
  size_t one, three;
};

ALWAYS const uint8_t *place(const uint8_t *first, struct distances distances, int frame) {
  switch (frame) {
    case 0: return first;
    case 1: return first + distances.one;
    case 2: return first + 2 * distances.one;
    default: return first + distances.three;
  }
}

// Without it the compiler keeps the addresses of all frames instead, for which there are not enough registers.
#define KEEP_DISTANCES __asm__ volatile("" : "+r"(distances.one), "+r"(distances.three))

// What is in front stays in front: compilers would put all multiplications together, and then each unit waits for the
// other (0.5 ns a frame).
#define KEEP_ORDER(product, state) __asm__ volatile("" : "+v"(product), "+r"(state))

// What the words of a region are multiplied by: those of its chunks of 64 bytes, and those of a half one behind them, of
// two frames side by side. In front of them, what belongs to the words of the header.
struct factors {
  __m512i chunks[3];
  __m512i halves;
  const uint64_t *region;
};

// `end` is one behind the factor of a word that nothing follows. Behind the region follow `rest` words, and the two by
// which a sum of products is reduced.
GROUP_TARGET ALWAYS struct factors make_factors(const uint64_t *end, size_t rest, int halves) {
  struct factors factors;
  factors.region = end - 2 - rest - 4 * (size_t)halves;
  UNROLLED for (int chunk = 0; chunk < halves / 2; chunk++)
    factors.chunks[chunk] = _mm512_loadu_si512(factors.region + 8 * chunk);
  factors.halves = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)(factors.region + 4 * (halves - 1))));
  return factors;
}

GROUP_TARGET ALWAYS __m128i word_product(uint64_t word, const uint64_t *factor) {
  return _mm_clmulepi64_si128(
      _mm_cvtsi64_si128((long long)word), _mm_loadl_epi64((const void *)factor), 0x00);
}

GROUP_TARGET ALWAYS __m512i product(__m512i words, __m512i factors) {
  return _mm512_xor_si512(
      _mm512_clmulepi64_epi128(words, factors, 0x00), _mm512_clmulepi64_epi128(words, factors, 0x11));
}

GROUP_TARGET ALWAYS __m512i plus_product(__m512i sum, __m512i words, __m512i factors) {
  return _mm512_ternarylogic_epi64(
      sum, _mm512_clmulepi64_epi128(words, factors, 0x00), _mm512_clmulepi64_epi128(words, factors, 0x11), 0x96);
}

// The whole chunks of a frame's region: four sums of 128 bits.
GROUP_TARGET ALWAYS __m512i chunks_of(const uint8_t *region, const struct factors *factors, int halves) {
  __m512i sum = product(_mm512_loadu_si512(region), factors->chunks[0]);
  UNROLLED for (int chunk = 1; chunk < halves / 2; chunk++)
    sum = plus_product(sum, _mm512_loadu_si512(region + 64 * chunk), factors->chunks[chunk]);
  return sum;
}

// Of two that hold sums of 128 bits: first those of `a`, two by two, then those of `b`.
GROUP_TARGET ALWAYS __m512i paired(__m512i a, __m512i b) {
  return _mm512_xor_si512(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
}

// The sums of two frames, and the half chunks that their regions may end with: two sums of 128 bits each.
GROUP_TARGET ALWAYS __m512i regions_of(
    __m512i sum_a, __m512i sum_b, const uint8_t *a, const uint8_t *b, const struct factors *factors, int halves) {
  const __m512i sum = paired(sum_a, sum_b);
  if (!(halves & 1)) return sum;
  const __m512i words = _mm512_inserti64x4(
      _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(a + 32 * (halves - 1)))),
      _mm256_loadu_si256((const void *)(b + 32 * (halves - 1))), 1);
  return plus_product(sum, words, factors->halves);
}

// The regions of four frames, and the first words behind them.
GROUP_TARGET ALWAYS void multiply_and_chain(
    const uint8_t *region, const uint8_t *behind, struct distances distances, const struct factors *factors, int halves,
    __m512i *pairs, uint64_t *states) {
  __m512i chunks[FRAMES];
  UNROLLED for (int row = 0; row < ROWS; row++) {
    if (row < 2) {
      UNROLLED for (int i = 2 * row; i < 2 * row + 2; i++) {
        chunks[i] = chunks_of(place(region, distances, i), factors, halves);
        KEEP_ORDER(chunks[i], states[FRAMES - 1]);
      }
    } else {
      const int i = 2 * (row - 2);
      pairs[row - 2] = regions_of(
          chunks[i], chunks[i + 1], place(region, distances, i), place(region, distances, i + 1), factors, halves);
      KEEP_ORDER(pairs[row - 2], states[FRAMES - 1]);
    }
    EACH states[i] = _mm_crc32_u64(states[i], word_at(place(behind, distances, i) + 8 * row));
  }
}

// The state after 1 to 7 zero bytes more.
GROUP_TARGET ALWAYS uint64_t after_zeros(uint64_t state, unsigned bytes) {
  return state >> 8 * bytes ^ _mm_crc32_u64(0, state << (64 - 8 * bytes));
}

// Four frames of which all but the sum is known: each is good if its state, continued over its two words of `sums`, is 0.
struct open_frames {
  _Alignas(64) uint64_t sums[2 * FRAMES];
  uint64_t states[FRAMES];
};

GROUP_TARGET ALWAYS int are_good(struct open_frames *open) {
  // From memory, where the CRC instruction takes them from, instead of one by one through the registers.
  __asm__ volatile("" : "+m"(open->sums));
  uint64_t states = 0;
  EACH states |= _mm_crc32_u64(_mm_crc32_u64(open->states[i], open->sums[2 * i]), open->sums[2 * i + 1]);
  return states == 0;
}

// `length` is what the first frames seem to have; `halves`, the size of the region in 32 bytes, and `has_tail` are
// constants, so that the common case has no code for the others.
GROUP_TARGET ALWAYS size_t verify_alike(
    const uint8_t *bytes, size_t count, struct cweir_frame_run *run, const uint64_t *end, size_t length, int halves, int has_tail) {
  const size_t stride = (length + 7) & ~(size_t)7;
  const unsigned tail = has_tail ? length & 7 : 0;
  const uint64_t term = word_at(bytes + 16), kind = word_at(bytes + 24);
  if (word_at(bytes + 8) != run->index || term < run->term || term > run->highest_term) return 0;
  if (kind > run->maximum_kind || length > run->maximum_length) return 0;
  const size_t left = run->maximum_entries - run->entries, fitting = count / (8 * MINIMUM_WORDS);
  const size_t most = (left < fitting ? left : fitting) / FRAMES;
  // The last index there is belongs to no entry.
  if (most == 0 || run->index > UINT64_MAX - FRAMES * most) return 0;
  const uint8_t *limit = bytes + (FRAMES * stride * most < count ? FRAMES * stride * most : count) - FRAMES * stride;

  const size_t rest = stride / 8 - HEADER_WORDS - 4 * (size_t)halves;
  const struct factors factors = make_factors(end, rest, halves);
  // What begins a checksum, and, where the last word is whole, what it is inverted by in the end.
  const __m128i ends = _mm_xor_si128(
      word_product(0xFFFFFFFF, factors.region - 3), word_product(tail == 0 ? 0xFFFFFFFF : 0, end - 2));
  const __m512i same = _mm512_broadcast_i64x2(_mm_ternarylogic_epi64(
      ends, word_product(term, factors.region - 2), word_product(kind, factors.region - 1), 0x96));
  const __m512i index_factors = _mm512_broadcast_i64x2(_mm_loadl_epi64((const void *)(factors.region - 3)));
  const long long first = (long long)run->index, one = (long long)run->index_step;
  __m512i indexes = _mm512_set_epi64(0, first + 3 * one, 0, first + 2 * one, 0, first + one, 0, first);
  const __m512i next = _mm512_set1_epi64(FRAMES * one);
  const __m256i step = _mm256_set_epi64x(0, 0, one, 0);
  __m256i expected = _mm256_set_epi64x((long long)kind, (long long)term, first, (long long)length);
  // Each has a checksum of its own.
  const __m256i compared = _mm256_set_epi64x(-1, -1, -1, 0xFFFFFFFF);

  // In front of the first four there are none, and they are good.
  struct open_frames open = {0};
  struct distances distances = {stride, 3 * stride};
  const uint8_t *group = bytes;
  size_t good = 0;
  int are_open_good = 1;
#pragma clang loop unroll(disable)
  while (group <= limit) {
    KEEP_DISTANCES;
    const uint8_t *region = group + 8 * HEADER_WORDS, *behind = region + 32 * halves;
    uint64_t states[FRAMES] = {0};
    __m512i pairs[FRAMES / 2];
    multiply_and_chain(region, behind, distances, &factors, halves, pairs, states);
    behind += 8 * ROWS;
#pragma clang loop unroll(disable)
    for (size_t words = rest - ROWS; words > 0; words--, behind += 8) {
      KEEP_DISTANCES;
      EACH states[i] = _mm_crc32_u64(states[i], word_at(place(behind, distances, i)));
    }
    __m256i differences = _mm256_setzero_si256();
    EACH {
      const __m256i header = _mm256_loadu_si256((const void *)place(group, distances, i));
      differences = _mm256_ternarylogic_epi64(differences, header, expected, 0xF6);
      expected = _mm256_add_epi64(expected, step);
    }
    if (!_mm256_testz_si256(differences, compared)) break;
    if (tail != 0) {
      uint64_t last = 0;
      EACH last |= word_at(place(behind, distances, i) - 8);
      if (last >> 8 * tail) break;
    }
    are_open_good = are_good(&open);
    if (!are_open_good) break;
    const __m512i regions = paired(pairs[0], pairs[1]);
    const __m512i of_indexes = _mm512_clmulepi64_epi128(indexes, index_factors, 0x00);
    _mm512_store_si512(open.sums, _mm512_ternarylogic_epi64(regions, same, of_indexes, 0x96));
    indexes = _mm512_add_epi64(indexes, next);
    if (tail == 0) {
      EACH open.states[i] = states[i] ^ half_at(place(group, distances, i) + 4);
    } else {
      // The chains took the padding for part of the frame: so does what they are held against.
      EACH open.states[i] = states[i] ^ after_zeros(~half_at(place(group, distances, i) + 4), 8 - tail);
    }
    group += FRAMES * stride;
    good += FRAMES;
  }
  // Whatever ended it, the last four that were opened are still to be closed, unless they were what ended it.
  if (are_open_good) are_open_good = are_good(&open);
  if (!are_open_good) good -= FRAMES;
  if (good == 0) return 0;
  run->entries += good;
  run->index += good * run->index_step;
  run->term = term;
  run->kinds |= kind;
  return good * stride;
}

#define VERIFY(halves)                                                                                         \
  GROUP_TARGET static __attribute__((noinline)) size_t verify_alike_##halves(                                  \
      const uint8_t *bytes, size_t count, struct cweir_frame_run *run, const uint64_t *end, size_t length) {   \
    if (length & 7) return verify_alike(bytes, count, run, end, length, halves, 1);                            \
    return verify_alike(bytes, count, run, end, length, halves, 0);                                            \
  }
VERIFY(2)
VERIFY(3)
VERIFY(4)
VERIFY(6)

size_t
cweir_verify_frame_groups(const uint8_t *bytes, size_t count, struct cweir_frame_run *run, const uint64_t *end) {
  if (count < MINIMUM_FRAMES * 8 * MINIMUM_WORDS) return 0;
  const size_t length = half_at(bytes), words = (length + 7) / 8, stride = 8 * words;
  if (words < MINIMUM_WORDS || words > MAXIMUM_WORDS || count < MINIMUM_FRAMES * stride) return 0;
  if (half_at(bytes + stride) != length || half_at(bytes + (MINIMUM_FRAMES - 1) * stride) != length) return 0;
  // About two thirds of the words to the multiplications: then both units end at about the same time.
  if (words < 20) return verify_alike_2(bytes, count, run, end, length);
  if (words < 24) return verify_alike_3(bytes, count, run, end, length);
  if (words < 32) return verify_alike_4(bytes, count, run, end, length);
  return verify_alike_6(bytes, count, run, end, length);
}

GROUP_TARGET uint64_t
cweir_sum_frame_groups(const uint8_t *bytes, size_t frames, size_t stride, const uint64_t *end) {
  enum { HALVES = 3 };
  const struct factors factors = make_factors(end, ROWS, HALVES);
  struct distances distances = {stride, 3 * stride};
  uint64_t result = 0;
  __m512i sums = _mm512_setzero_si512();
#pragma clang loop unroll(disable)
  for (; frames >= FRAMES; frames -= FRAMES, bytes += FRAMES * stride) {
    KEEP_DISTANCES;
    const uint8_t *region = bytes + 8 * HEADER_WORDS, *behind = region + 32 * HALVES;
    uint64_t states[FRAMES] = {0};
    __m512i pairs[FRAMES / 2];
    multiply_and_chain(region, behind, distances, &factors, HALVES, pairs, states);
    UNROLLED for (int word = 0; word < 2; word++)
      EACH states[i] = _mm_crc32_u64(states[i], word_at(place(bytes, distances, i) + 8 * word));
    sums = _mm512_ternarylogic_epi64(sums, pairs[0], pairs[1], 0x96);
    EACH result ^= states[i];
  }
  return result ^ (uint64_t)_mm512_reduce_add_epi64(sums);
}
#endif
