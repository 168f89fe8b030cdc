import CWeir
import Testing
import WeirCore

/// Frames that are alike are verified four at a time, by other code than single ones: both must say the same.
@Suite struct FrameGroupTests {
  /// A log's frames, all with payloads of one size.
  private func frames(_ count: Int, payloadBytes: Int, seed: UInt64, term: Term = 3) -> [UInt8] {
    var random = SplitMix64(seed: seed)
    var log = LogBuffer()
    for _ in 0..<count {
      let payload = (0..<payloadBytes).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      append(payload, term: term, to: &log)
    }
    var result: [UInt8] = []
    log.batch(from: 1, through: log.lastIndex).forEachSlice {
      result += $0.slab.bytes(in: $0.offset..<$0.offset + $0.byteCount)
    }
    return result
  }

  private func append(_ payload: [UInt8], term: Term, to log: inout LogBuffer) {
    log.append(term: term, payload: payload.span.bytes)
  }

  private func verified(_ bytes: [UInt8]) -> Result<EntryBatch, EntryRunError> {
    Result { () throws(EntryRunError) in
      try EntryBatch.verifying(slab: slab(of: bytes), range: 0..<bytes.count, firstIndex: 1)
    }
  }

  /// Which entry is said to be broken; nil if none is.
  private func brokenEntry(of slab: Slab, byteCount: Int) -> Int? {
    do throws(EntryRunError) {
      _ = try EntryBatch.verifying(slab: slab, range: 0..<byteCount, firstIndex: 1)
      return nil
    } catch {
      return error.entry
    }
  }

  /// The checksum that a frame in `bytes` should have, by the table.
  private func reseal(_ bytes: inout [UInt8], at offset: Int, length: Int) {
    let checksum = bytes.withUnsafeBytes { all in
      all.baseAddress.map { cweir_crc32c_portable(0, $0 + offset + 8, length - 8) } ?? 0
    }
    withUnsafeBytes(of: checksum.littleEndian) { bytes.replaceSubrange(offset + 4..<offset + 8, with: $0) }
  }

  @Test func goodFramesOfEverySizeAreTaken() throws {
    for payloadBytes in Array(0...530) + [1000, 4064] {
      for count in [1, 8, 11, 23] {
        let batch = try verified(frames(count, payloadBytes: payloadBytes, seed: UInt64(payloadBytes))).get()
        #expect(batch.count == count && batch.lastIndex == UInt64(count))
        #expect(batch.terms == (3, 3) && batch.isKnownNormal)
      }
    }
  }

  /// One changed bit, anywhere, is found, and it is said in which frame; those in front of it are not blamed.
  @Test(arguments: [64, 96, 97, 103, 127, 128, 131, 160, 161, 200, 224, 229, 288, 480, 481])
  func everyChangedByteIsFound(payloadBytes: Int) throws {
    let stride = EntryFrame.occupiedBytes(payloadBytes: payloadBytes)
    let good = frames(24, payloadBytes: payloadBytes, seed: 9)
    let target = slab(of: good)
    var random = SplitMix64(seed: UInt64(payloadBytes))
    // Counted first, since a macro for each of 100,000 bytes takes its time.
    var missed: [Int] = []
    for position in good.indices {
      target.bytes[position] ^= 1 << UInt8(random.below(8))
      if brokenEntry(of: target, byteCount: good.count) != position / stride { missed.append(position) }
      target.bytes[position] = good[position]
    }
    #expect(missed.isEmpty)
    #expect(try EntryBatch.verifying(slab: target, range: 0..<good.count, firstIndex: 1).count == 24)
  }

  /// Fields that are wrong under a right checksum, in every place of a group.
  @Test func wrongFieldsUnderRightChecksumsAreFound() throws {
    let payloadBytes = 128
    let length = EntryFrame.headerBytes + payloadBytes
    let good = frames(24, payloadBytes: payloadBytes, seed: 5)
    for entry in 0..<24 {
      let offset = entry * length
      var bytes = good
      bytes[offset + 8] &+= 1
      reseal(&bytes, at: offset, length: length)
      let index = UInt64(entry + 1)
      #expect(
        throws: EntryRunError(
          entry: entry, byteOffset: offset,
          reason: .indexNotConsecutive(expected: index, found: UInt64(bytes[offset + 8])))
      ) { try verified(bytes).get() }

      bytes = good
      bytes[offset + 24] = 9
      reseal(&bytes, at: offset, length: length)
      #expect(throws: EntryRunError(entry: entry, byteOffset: offset, reason: .frame(.invalidKind(9)))) {
        try verified(bytes).get()
      }

      // A term that falls behind one that rose.
      bytes = good
      bytes[offset + 16] = 4
      reseal(&bytes, at: offset, length: length)
      if entry < 23 {
        #expect(
          throws: EntryRunError(
            entry: entry + 1, byteOffset: offset + length, reason: .termBelowPrevious(previous: 4, found: 3))
        ) { try verified(bytes).get() }
      } else {
        #expect(try verified(bytes).get().terms == (3, 4))
      }

      // A change of the membership amid normal entries.
      bytes = good
      bytes[offset + 24] = EntryKind.configurationChange.rawValue
      reseal(&bytes, at: offset, length: length)
      #expect(try !verified(bytes).get().isKnownNormal)
    }
  }

  /// Runs of like frames with others in between, terms that rise, and announced counts that end amid a group.
  @Test func mixedRunsAreTaken() throws {
    var random = SplitMix64(seed: 11)
    for _ in 0..<300 {
      var log = LogBuffer()
      var term: Term = 1
      for _ in 0..<random.below(12) {
        if random.chance(40) { term += 1 }
        let payload = [UInt8](repeating: 7, count: random.below(300))
        for _ in 0..<random.below(30) { append(payload, term: term, to: &log) }
      }
      if log.count == 0 { continue }
      var bytes: [UInt8] = []
      log.batch(from: 1, through: log.lastIndex).forEachSlice {
        bytes += $0.slab.bytes(in: $0.offset..<$0.offset + $0.byteCount)
      }
      let batch = try verified(bytes).get()
      #expect(batch.count == Int(log.count) && batch.lastIndex == log.lastIndex)
      #expect(batch.terms.last == log.lastTerm)
    }
  }

  /// A frame alone is verified by other code than a run: both must say the same, whatever is changed in it, with its checksum
  /// made right or not.
  @Test func aFrameAloneIsVerifiedAsARunIs() {
    var random = SplitMix64(seed: 3)
    var taken = 0
    var different: [Int] = []
    for round in 0..<60_000 {
      var bytes = frames(1, payloadBytes: round % 400, seed: UInt64(round))
      let length = EntryFrame.headerBytes + round % 400
      // Most of the first 32 bytes matter: index, term, kind and length; then anything, padding included.
      for _ in 0..<random.below(3) {
        bytes[random.below(random.chance(50) ? 32 : bytes.count)] ^= 1 << UInt8(random.below(8))
      }
      if random.chance(70) { reseal(&bytes, at: 0, length: length) }
      if random.chance(5) { bytes.append(contentsOf: [UInt8](repeating: 0, count: 8)) }
      if random.chance(5) { bytes.removeLast(8) }
      let single = kindOfFrame(bytes)
      if single >= 0 { taken += 1 }
      if single != kindOfRun(bytes) { different.append(round) }
    }
    #expect(different.isEmpty)
    #expect(taken > 10_000 && taken < 50_000)
  }

  private static let limits = (
    lowestTerm: Term(2), highestTerm: Term(5), maximumKind: UInt64(2), maximumLength: 16 << 20
  )

  private func kindOfFrame(_ bytes: [UInt8]) -> Int {
    let limits = Self.limits
    return bytes.withUnsafeBytes { all in
      Int(
        cweir_verify_frame(
          all.baseAddress, all.count, 1, limits.lowestTerm, limits.highestTerm, limits.maximumKind,
          limits.maximumLength))
    }
  }

  /// The kind of the only frame; -1 if the bytes are not one that is good.
  private func kindOfRun(_ bytes: [UInt8]) -> Int {
    var run = cweir_frame_run()
    run.index = 1
    run.index_step = 1
    run.term = Self.limits.lowestTerm
    run.highest_term = Self.limits.highestTerm
    run.maximum_kind = Self.limits.maximumKind
    run.maximum_length = Self.limits.maximumLength
    run.maximum_entries = 1
    let verified = bytes.withUnsafeBytes { cweir_verify_frames($0.baseAddress, $0.count, &run) }
    return verified == bytes.count && run.entries == 1 ? Int(run.kinds) : -1
  }

  /// The last number there is belongs to no entry, whether it would come first or last in a group.
  @Test func indexesEndBeforeTheLastNumber() throws {
    for count in [7, 8, 9, 16] {
      for distance in UInt64(0)...18 {
        let first = UInt64.max - distance
        guard first > 0 else { continue }
        var bytes = frames(count, payloadBytes: 128, seed: 1)
        for entry in 0..<count {
          let index = first &+ UInt64(entry)
          withUnsafeBytes(of: index.littleEndian) {
            bytes.replaceSubrange(entry * 160 + 8..<entry * 160 + 16, with: $0)
          }
          reseal(&bytes, at: entry * 160, length: 160)
        }
        let result = Result { () throws(EntryRunError) in
          try EntryBatch.verifying(slab: slab(of: bytes), range: 0..<bytes.count, firstIndex: first)
        }
        if UInt64(count) <= distance {
          #expect(try result.get().lastIndex == first + UInt64(count) - 1)
        } else {
          #expect(throws: EntryRunError.self) { try result.get() }
        }
      }
    }
  }
}
