#include "CWeir.h"

#include <pthread.h>
#include <string.h>

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void make_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
    table[0][i] = crc;
  }
  for (uint32_t i = 0; i < 256; i++)
    for (int slice = 1; slice < 8; slice++)
      table[slice][i] = (table[slice - 1][i] >> 8) ^ table[0][table[slice - 1][i] & 0xFF];
}

static uint32_t crc32c_table(uint32_t seed, const uint8_t *bytes, size_t count) {
  pthread_once(&table_once, make_table);
  uint32_t crc = ~seed;
  for (; count >= 8; count -= 8, bytes += 8) {
    uint32_t low, high;
    memcpy(&low, bytes, 4);
    memcpy(&high, bytes + 4, 4);
    low ^= crc;
    crc = table[7][low & 0xFF] ^ table[6][(low >> 8) & 0xFF] ^ table[5][(low >> 16) & 0xFF] ^ table[4][low >> 24]
        ^ table[3][high & 0xFF] ^ table[2][(high >> 8) & 0xFF] ^ table[1][(high >> 16) & 0xFF] ^ table[0][high >> 24];
  }
  for (; count > 0; count--, bytes++) crc = (crc >> 8) ^ table[0][(crc ^ *bytes) & 0xFF];
  return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc32c_hardware(uint32_t seed, const uint8_t *bytes, size_t count) {
  uint64_t crc = ~seed;
  for (; count >= 8; count -= 8, bytes += 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    crc = _mm_crc32_u64(crc, word);
  }
  uint32_t narrow = (uint32_t)crc;
  for (; count > 0; count--, bytes++) narrow = _mm_crc32_u8(narrow, *bytes);
  return ~narrow;
}

int cweir_crc32c_is_hardware(void) { return __builtin_cpu_supports("sse4.2") ? 1 : 0; }

uint32_t cweir_crc32c(uint32_t seed, const void *bytes, size_t count) {
  return cweir_crc32c_is_hardware() ? crc32c_hardware(seed, bytes, count) : crc32c_table(seed, bytes, count);
}
#else
int cweir_crc32c_is_hardware(void) { return 0; }

uint32_t cweir_crc32c(uint32_t seed, const void *bytes, size_t count) { return crc32c_table(seed, bytes, count); }
#endif
