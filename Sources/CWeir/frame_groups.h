#ifndef CWEIR_FRAME_GROUPS_H
#define CWEIR_FRAME_GROUPS_H

#include "CWeir.h"

/// What `cweir_verify_frames` does, for the frames at the start of `bytes` that are alike: of one length, term and kind,
/// in groups of eight. Those behind them, and groups with anything wrong in them, it leaves alone. Needs AVX-512 with
/// VPCLMULQDQ.
/// `factors8`: what the words of a chunk of 64 bytes are multiplied by if nothing is behind it; aligned to 64.
/// Returns the size of the good ones in bytes, and adds them to `run`.
__attribute__((visibility("hidden"))) size_t cweir_verify_frame_groups(
    const uint8_t *bytes, size_t count, struct cweir_frame_run *run, const uint64_t *factors8);

#endif
