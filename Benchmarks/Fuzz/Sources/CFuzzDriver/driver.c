#include "CFuzzDriver.h"

#include <string.h>

// From libFuzzer's runtime, which the linker brings in with -sanitize=fuzzer.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*target)(const uint8_t *bytes, size_t count));

int cfuzz_run(int argc, char **argv, int (*target)(const uint8_t *bytes, size_t count)) {
  return LLVMFuzzerRunDriver(&argc, &argv, target);
}

static uint32_t table[256];

__attribute__((constructor)) static void make_table(void) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
    table[byte] = crc;
  }
}

uint32_t cfuzz_crc32c(const void *bytes, size_t count) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const uint8_t *byte = bytes; count > 0; count--, byte++) crc = (crc >> 8) ^ table[(crc ^ *byte) & 0xFF];
  return ~crc;
}

void cfuzz_fill(void *bytes, size_t count) {
  uint8_t *to = bytes;
  for (size_t i = 0; i < count; i++) to[i] = (uint8_t)(i * 167);
}

int cfuzz_are_equal(const void *a, const void *b, size_t count) { return count == 0 || memcmp(a, b, count) == 0; }
