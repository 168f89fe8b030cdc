#include "CFuzzDriver.h"

// From libFuzzer's runtime, which the linker brings in with -sanitize=fuzzer.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*target)(const uint8_t *bytes, size_t count));

int cfuzz_run(int argc, char **argv, int (*target)(const uint8_t *bytes, size_t count)) {
  return LLVMFuzzerRunDriver(&argc, &argv, target);
}
