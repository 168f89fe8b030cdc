#ifndef CWEIR_FRAME_GROUPS_H
#define CWEIR_FRAME_GROUPS_H

#include "CWeir.h"

/// What `cweir_verify_frames` does, for the frames at the start of `bytes` that are alike: of one length, term and kind,
/// in groups of four, from eight frames on. Those behind them, and groups with anything wrong in them, it leaves alone.
/// Needs AVX-512 with VPCLMULQDQ.
/// `end`: one behind the factor of a word that nothing follows; the factors in front of it are those of words with one
/// word more behind them each, 128 in all.
/// Returns the size of the good ones in bytes, and adds them to `run`.
__attribute__((visibility("hidden"))) size_t cweir_verify_frame_groups(
    const uint8_t *bytes, size_t count, struct cweir_frame_run *run, const uint64_t *end);

/// The multiplications and CRC instructions that `cweir_verify_frame_groups` takes for frames of 160 bytes, on their words,
/// and nothing else: neither headers nor sums are looked at.
__attribute__((visibility("hidden"))) uint64_t cweir_sum_frame_groups(
    const uint8_t *bytes, size_t frames, size_t stride, const uint64_t *end);

#endif
