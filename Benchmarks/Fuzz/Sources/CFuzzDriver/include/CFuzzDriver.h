#ifndef CFUZZDRIVER_H
#define CFUZZDRIVER_H

#include <stddef.h>
#include <stdint.h>

/// Runs libFuzzer with a program's arguments: `target` is called with one input after another and returns 0.
int cfuzz_run(int argc, char **argv, int (*target)(const uint8_t *bytes, size_t count));

// What goes over all bytes of an input many times more often than anything that is tested: without the fuzzer's
// instrumentation, of which an input of 5 KB would take a millisecond.

/// CRC-32C by the table of its definition: what the fuzzer seals with shares nothing with what it tests.
uint32_t cfuzz_crc32c(const void *bytes, size_t count);

/// Bytes that differ from their neighbours.
void cfuzz_fill(void *bytes, size_t count);

int cfuzz_are_equal(const void *a, const void *b, size_t count);

#endif
