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

#include "crc32c_advance.h"

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

#if CWEIR_HARDWARE
int cweir_is_hardware;
uint32_t cweir_shift_words[MAXIMUM_SHIFT + 1];

#if defined(__x86_64__)
static int hardware_is_there(void) { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }
#else
static int hardware_is_there(void) { return 1; }
#endif

static void make_shifts(void) {
  uint32_t power = 0x80000000u;  // x^0: in the reflected order the highest bit is the constant term
  uint32_t exponent = 0;
  for (uint32_t k = 1; k <= MAXIMUM_SHIFT; k++) {
    for (; exponent < 64 * k - 33; exponent++) power = (power >> 1) ^ ((power & 1) ? 0x82F63B78u : 0);
    cweir_shift_words[k] = power;
  }
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
#endif

#if defined(__x86_64__)
int cweir_is_wide;
_Alignas(64) uint64_t cweir_wide_factors[WIDE_CHUNKS][8];

static int wide_is_there(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")
      && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("vpclmulqdq");
}

static void make_wide_factors(void) {
  uint32_t power = 0xFFFFFFFFu & ((0x80000000u ^ 0x82F63B78u) << 1 | 1);  // x^-1: one step back from x^0
  for (int n = 0; n < 8 * WIDE_CHUNKS; n++) {
    cweir_wide_factors[WIDE_CHUNKS - 1 - n / 8][7 - n % 8] = (uint64_t)power << 32;
    for (int step = 0; step < 64; step++) power = (power >> 1) ^ ((power & 1) ? 0x82F63B78u : 0);
  }
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
  cweir_is_hardware = hardware_is_there();
  make_shifts();
#if defined(__x86_64__)
  cweir_is_wide = cweir_is_hardware && wide_is_there();
  make_wide_factors();
#endif
#endif
}

int cweir_crc32c_is_hardware(void) {
#if CWEIR_HARDWARE
  return cweir_is_hardware;
#else
  return 0;
#endif
}

uint32_t cweir_crc32c(uint32_t seed, const void *bytes, size_t count) {
#if defined(__x86_64__)
  if (count >= WIDE_MINIMUM && cweir_is_wide) return crc32c_wide(seed, bytes, count);
#endif
#if CWEIR_HARDWARE
  if (__builtin_expect(cweir_is_hardware, 1)) return crc32c_hardware(seed, bytes, count);
#endif
  return crc32c_table(seed, bytes, count);
}

uint32_t cweir_crc32c_copy(uint64_t a, uint64_t b, uint64_t c, void *to, const void *from, size_t count) {
#if defined(__x86_64__)
  if (count >= WIDE_MINIMUM && cweir_is_wide) return seal_wide(a, b, c, to, from, count);
#endif
#if CWEIR_HARDWARE
  if (__builtin_expect(cweir_is_hardware, 1)) return seal_hardware(a, b, c, to, from, count);
#endif
  return seal_table(a, b, c, to, from, count);
}

uint32_t cweir_crc32c_portable(uint32_t seed, const void *bytes, size_t count) {
  return crc32c_table(seed, bytes, count);
}
