import Testing
import WeirCore

@testable import WeirStorage

@Suite("Write-ahead log")
struct WriteAheadLogTests {
  @Test("a new log is empty, and what is committed is there after a power cut", arguments: WriteMode.allCases)
  func committedSurvives(mode: WriteMode) throws {
    let disk = SimulatedFileSystem(seed: 1)
    let options = LogOptions.small(blockBytes: 4096, mode: mode)
    var opened = try openLog(disk, options)
    #expect(opened.entries.isEmpty)
    #expect(opened.hardState == HardState())
    let hardState = HardState(term: 3, vote: 2, commit: 4)
    opened.log.append(makeEntries(from: 1, count: 5, term: 3), hardState: hardState)
    #expect(opened.log.hasStaged)
    try opened.log.commitBatch()
    #expect(opened.log.counters.entries == 5)
    #expect(opened.log.counters.syncs == 1)
    opened.log.append(makeEntries(from: 6, count: 2, term: 3))  // Staged, never written.
    disk.crash(survivalPerMille: 0)
    opened = try openLog(disk, options)
    #expect(opened.entries.map(\.index) == [1, 2, 3, 4, 5])
    #expect(opened.entries.map(\.payload) == (1...5).map { makePayload($0, 3, 16) })
    #expect(opened.hardState == hardState)
    #expect(opened.report.cut == nil)
  }

  @Test("later entries replace the log from their first index on, also within one batch")
  func suffixReplaced() throws {
    let disk = SimulatedFileSystem()
    var opened = try openLog(disk, .small())
    opened.log.append(makeEntries(from: 1, count: 6, term: 1))
    opened.log.append(makeEntries(from: 4, count: 1, term: 2))
    try opened.log.commitBatch()
    opened.log.append(makeEntries(from: 3, count: 1, term: 3), hardState: HardState(term: 3, vote: 1, commit: 2))
    try opened.log.commitBatch()
    disk.crash()
    opened = try openLog(disk, .small())
    #expect(opened.entries.map(\.index) == [1, 2, 3])
    #expect(opened.entries.map(\.term) == [1, 1, 3])
    #expect(opened.log.lastIndex == 3)
  }

  @Test("segments follow each other, and those behind the anchor are dropped and used again")
  func segmentsRoll() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 8 << 10)
    var opened = try openLog(disk, options)
    for round in 0..<100 {
      opened.log.append(makeEntries(from: UInt64(round * 3 + 1), count: 3, term: 1, payloadBytes: 300))
      try opened.log.commitBatch()
    }
    #expect(opened.log.counters.segments > 10)
    let before = try disk.list("/log").filter { $0.hasSuffix(".wal") }.count
    opened.log.compact(through: 250, term: 1)
    try opened.log.commitBatch()
    let after = try disk.list("/log").filter { $0.hasSuffix(".wal") }.count
    #expect(after < before / 2)
    #expect(try disk.list("/log").contains { $0.hasPrefix("spare-") })
    for round in 100..<140 {
      opened.log.append(makeEntries(from: UInt64(round * 3 + 1), count: 3, term: 1, payloadBytes: 300))
      try opened.log.commitBatch()
    }
    disk.crash()
    opened = try openLog(disk, options, snapshot: SnapshotMetadata(index: 260, term: 1))
    #expect(opened.anchorIndex == 250)
    #expect(opened.anchorTerm == 1)
    #expect(opened.entries.map(\.index) == Array(251...420))
    #expect(opened.entries.allSatisfy { $0.payload == makePayload($0.index, 1, 300) })
  }

  @Test("a batch larger than a segment gets one of its own")
  func oversizedBatch() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 4 << 10)
    var opened = try openLog(disk, options)
    opened.log.append(makeEntries(from: 1, count: 3, term: 1, payloadBytes: 50_000))
    try opened.log.commitBatch()
    opened.log.append(makeEntries(from: 4, count: 1, term: 1))
    try opened.log.commitBatch()
    disk.crash()
    opened = try openLog(disk, options)
    #expect(opened.entries.map(\.payload.count) == [50_000, 50_000, 50_000, 16])
  }

  @Test("a received snapshot empties the log, and what was staged before stays before it")
  func snapshotResets() throws {
    let disk = SimulatedFileSystem()
    var opened = try openLog(disk, .small())
    opened.log.append(makeEntries(from: 1, count: 7, term: 1))
    opened.log.reset(anchorIndex: 6, anchorTerm: 2)
    opened.log.append(makeEntries(from: 7, count: 2, term: 2))
    opened.log.compact(through: 7, term: 2)
    opened.log.append(makeEntries(from: 9, count: 1, term: 3))
    try opened.log.commitBatch()
    #expect(opened.log.counters.batches == 3)
    #expect(opened.log.counters.writes == 1)
    disk.crash()
    opened = try openLog(disk, .small(), snapshot: SnapshotMetadata(index: 7, term: 2))
    #expect(opened.anchorIndex == 7)
    #expect(opened.anchorTerm == 2)
    #expect(opened.entries.map(\.term) == [2, 3])
  }

  @Test("a snapshot that the log does not know of: the log goes on behind it")
  func snapshotAheadOfLog() throws {
    let disk = SimulatedFileSystem()
    var opened = try openLog(disk, .small())
    opened.log.append(makeEntries(from: 1, count: 389, term: 1), hardState: HardState(term: 1, vote: 1, commit: 389))
    try opened.log.commitBatch()
    disk.crash()
    let snapshot = SnapshotMetadata(index: 345_408, term: 4)
    opened = try openLog(disk, .small(), snapshot: snapshot)
    #expect(opened.entries.isEmpty)
    #expect(opened.anchorIndex == 345_408)
    #expect(opened.hardState.commit == 345_408)
    opened.log.append(makeEntries(from: 345_409, count: 2, term: 4))
    try opened.log.commitBatch()
    disk.crash()
    opened = try openLog(disk, .small(), snapshot: snapshot)
    #expect(opened.entries.map(\.index) == [345_409, 345_410])
    // Without the snapshot the state machine cannot be rebuilt.
    opened = OpenedLog(
      log: opened.log, hardState: .init(), anchorIndex: 0, anchorTerm: 0, entries: [], report: .init())
    disk.crash()
    #expect(throws: StorageError.snapshotMissing(anchorIndex: 345_408, newestSnapshotIndex: 12)) {
      try openLog(disk, .small(), snapshot: SnapshotMetadata(index: 12, term: 1))
    }
  }

  @Test("a snapshot that contradicts the log wins")
  func snapshotContradictsLog() throws {
    let disk = SimulatedFileSystem()
    var opened = try openLog(disk, .small())
    opened.log.append(makeEntries(from: 1, count: 20, term: 1))
    try opened.log.commitBatch()
    disk.crash()
    opened = try openLog(disk, .small(), snapshot: SnapshotMetadata(index: 10, term: 2))
    #expect(opened.entries.isEmpty)
    #expect(opened.anchorIndex == 10)
    #expect(opened.anchorTerm == 2)
  }

  /// etcd-io/etcd issue 22442: replay skipped overwritten entries at or below the snapshot, and so revived what had
  /// followed the ones they replaced.
  @Test("entries that an overwrite below the anchor truncated stay gone")
  func truncatedEntriesStayGone() throws {
    let disk = SimulatedFileSystem()
    let options = LogOptions.small(segmentBytes: 4 << 10)
    var opened = try openLog(disk, options)
    opened.log.append(makeEntries(from: 1, count: 10, term: 1, payloadBytes: 200))
    try opened.log.commitBatch()
    opened.log.append(makeEntries(from: 7, count: 2, term: 2, payloadBytes: 200))
    try opened.log.commitBatch()
    opened.log.compact(through: 8, term: 2)
    try opened.log.commitBatch()
    let snapshot = SnapshotMetadata(index: 8, term: 2)
    for round in 0..<3 {
      disk.crash()
      opened = try openLog(disk, options, snapshot: snapshot)
      #expect(opened.entries.count == round)
      #expect(opened.anchorIndex == 8)
      #expect(opened.anchorTerm == 2)
      opened.log.append(makeEntries(from: UInt64(9 + round), count: 1, term: 3))
      try opened.log.commitBatch()
    }
  }

  @Test("a commit index goes with the next batch and is never ahead of the entries")
  func commitIndex() throws {
    let disk = SimulatedFileSystem()
    var opened = try openLog(disk, .small())
    opened.log.updateCommit(5)
    #expect(!opened.log.hasStaged)
    opened.log.append(makeEntries(from: 1, count: 3, term: 1))
    try opened.log.commitBatch()
    disk.crash()
    opened = try openLog(disk, .small())
    #expect(opened.hardState.commit == 3)
  }

  @Test("the log of another node, and one that is open already, are refused")
  func ownership() throws {
    let disk = SimulatedFileSystem()
    let opened = try openLog(disk, .small())
    #expect(throws: StorageError.locked(path: "/log")) { try openLog(disk, .small()) }
    try opened.log.close()
    disk.kill()
    var other = LogOptions.small()
    other.owner = 8
    #expect(throws: StorageError.wrongOwner(path: "/log/synced", expected: 8, found: 7)) { try openLog(disk, other) }
  }

  @Test("block size and segment size may change between two openings")
  func changedSizes() throws {
    let disk = SimulatedFileSystem()
    var next: LogIndex = 1
    for (block, segment) in [(512, 4096), (4096, 65536), (256, 8192), (1024, 4096)] {
      let opened = try openLog(disk, .small(segmentBytes: segment, blockBytes: block))
      #expect(opened.entries.count == Int(next) - 1)
      for _ in 0..<20 {
        opened.log.append(makeEntries(from: next, count: 2, term: 1, payloadBytes: 100))
        try opened.log.commitBatch()
        next += 2
      }
      disk.crash()
    }
    #expect(try openLog(disk, .small()).entries.map(\.index) == Array(1..<next))
  }

  @Test("on real files, in both modes", arguments: WriteMode.allCases)
  func realFiles(mode: WriteMode) throws {
    try withTemporaryDirectory { directory in
      let options = LogOptions(owner: 1, segmentBytes: 64 << 10, writeMode: mode)
      for round in 0..<4 {
        let opened = try openLog(RealFileSystem(), options, at: directory)
        #expect(opened.entries.count == round * 30)
        for step in 0..<10 {
          opened.log.append(
            makeEntries(from: UInt64(round * 30 + step * 3 + 1), count: 3, term: 1, payloadBytes: 1000))
          try opened.log.commitBatch()
        }
        if round % 2 == 0 { try opened.log.close() }
      }
      let opened = try openLog(RealFileSystem(), options, at: directory)
      #expect(opened.entries.count == 120)
      #expect(opened.entries.allSatisfy { $0.payload == makePayload($0.index, 1, 1000) })
    }
  }
}
