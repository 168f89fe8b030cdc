#ifndef CFUZZDRIVER_H
#define CFUZZDRIVER_H

#include <stddef.h>
#include <stdint.h>

/// Runs libFuzzer with a program's arguments: `target` is called with one input after another and returns 0.
int cfuzz_run(int argc, char **argv, int (*target)(const uint8_t *bytes, size_t count));

#endif
