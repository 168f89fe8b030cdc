import Testing
import WeirCore

@testable import WeirStorage

@Suite("A log whose committed entries are taken while it is read")
struct LogFeedTests {
  private static let options = LogOptions.small(segmentBytes: 64 << 10, blockBytes: 512)

  /// A log of `count` entries in batches of 10, each batch telling that what was before it is committed; the first
  /// `compacted` are let go.
  private static func makeLog(_ disk: SimulatedFileSystem, count: UInt64, compacted: UInt64, payloadBytes: Int) throws {
    let opened = try openLog(disk, options)
    var index: UInt64 = 1
    while index <= count {
      opened.log.append(
        makeEntries(from: index, count: 10, term: 1 + index / 100, payloadBytes: payloadBytes),
        hardState: HardState(term: 1 + index / 100, vote: 1, commit: index - 1))
      if compacted > 0, index == compacted + 51 { opened.log.compact(through: compacted, term: term(compacted)) }
      try opened.log.commitBatch()
      index += 10
    }
    disk.kill()
  }

  /// The term of an entry of that log.
  private static func term(_ index: UInt64) -> UInt64 { index == 0 ? 0 : 1 + ((index - 1) / 10 * 10 + 1) / 100 }

  private final class Taken {
    var entries: [ModelEntry] = []

    func take(_ batch: EntryBatch) {
      batch.forEach { header, payload in
        entries.append(
          ModelEntry(index: header.index, term: header.term, payload: payload.withUnsafeBytes { Array($0) }))
      }
    }
  }

  @Test(
    "everything committed behind the snapshot comes once, in order; the rest, and the end of it, stays",
    arguments: [0, 70, 395, 1000] as [UInt64])
  func taken(snapshotIndex: UInt64) throws {
    let disk = SimulatedFileSystem()
    try Self.makeLog(disk, count: 1000, compacted: 0, payloadBytes: 16)
    let snapshot = SnapshotMetadata(index: snapshotIndex, term: Self.term(snapshotIndex))
    let taken = Taken()
    let feed = LogFeed(behind: snapshot, retainedBytes: 1 << 20) { taken.take($0) }
    let (_, recovered) = try WriteAheadLog.open(
      fileSystem: disk, directory: "/log", options: Self.options, snapshot: snapshotIndex == 0 ? nil : snapshot,
      feed: feed)
    // The last batch says that the one before it is committed.
    let last = max(snapshotIndex, 990)
    #expect(feed.takenIndex == last && feed.takenTerm == Self.term(last))
    #expect(taken.entries.map(\.index) == (snapshotIndex < 990 ? Array(snapshotIndex + 1...990) : []))
    #expect(taken.entries.allSatisfy { $0.payload == makePayload($0.index, $0.term, 16) })
    let log = recovered.takeLog()
    #expect(log.lastIndex == 1000 && log.anchorIndex <= snapshotIndex)
    #expect(recovered.report.lastIndex == 1000 && recovered.report.anchorIndex == 0)
  }

  @Test("no more than the end of a long log is in memory, whether it lies before the snapshot or behind it")
  func bounded() throws {
    let disk = SimulatedFileSystem()
    try Self.makeLog(disk, count: 20_000, compacted: 0, payloadBytes: 1000)
    for snapshotIndex in [0, 19_000] as [UInt64] {
      let copy = disk.copy()
      let snapshot = SnapshotMetadata(index: snapshotIndex, term: Self.term(snapshotIndex))
      let taken = Taken()
      let feed = LogFeed(behind: snapshot, retainedBytes: 1 << 20) { taken.take($0) }
      let (_, recovered) = try WriteAheadLog.open(
        fileSystem: copy, directory: "/log", options: Self.options, snapshot: snapshotIndex == 0 ? nil : snapshot,
        feed: feed)
      let log = recovered.takeLog()
      #expect(log.lastIndex == 20_000 && taken.entries.count == 19_990 - Int(snapshotIndex))
      // 20 MB were read.
      #expect(log.liveBytes >= 1 << 20 && log.liveBytes < 6 << 20)
    }
  }

  @Test("a log of many files is read through the memory that one takes")
  func windows() throws {
    try withTemporaryDirectory { directory in
      let options = LogOptions.small(segmentBytes: 3 << 20, sync: .off)
      let opened = try openLog(RealFileSystem(), options, at: directory)
      for index in stride(from: 1, to: 8001, by: 100) as StrideTo<UInt64> {
        opened.log.append(makeEntries(from: index, count: 100, term: 1, payloadBytes: 4096), hardState: nil)
        try opened.log.commitBatch()
      }
      try opened.log.close()
      let replay = LogReplay(fileSystem: RealFileSystem(), directory: directory, owner: 7)
      try replay.run()
      #expect(replay.report.entries == 8000 && replay.segments.count > 10)
      // 33 MB were read, through two windows that are read ahead by turns and a first one of each file.
      #expect(replay.memory.madeBytes < 5 << 20 + replay.segments.count * (1 << 16))
    }
  }

  @Test("a log that contradicts the snapshot is not taken from, and begins anew behind it")
  func contradiction() throws {
    let disk = SimulatedFileSystem()
    try Self.makeLog(disk, count: 300, compacted: 0, payloadBytes: 16)
    let taken = Taken()
    let snapshot = SnapshotMetadata(index: 100, term: 77)
    let feed = LogFeed(behind: snapshot, retainedBytes: 0) { taken.take($0) }
    let (_, recovered) = try WriteAheadLog.open(
      fileSystem: disk, directory: "/log", options: Self.options, snapshot: snapshot, feed: feed)
    let log = recovered.takeLog()
    #expect(taken.entries.isEmpty && feed.takenIndex == 100 && feed.takenTerm == 77)
    #expect(log.anchorIndex == 100 && log.anchorTerm == 77 && log.count == 0)
  }

  @Test("a log that begins behind the snapshot is refused, as without a feed")
  func missing() throws {
    let disk = SimulatedFileSystem()
    try Self.makeLog(disk, count: 300, compacted: 150, payloadBytes: 16)
    let snapshot = SnapshotMetadata(index: 100, term: Self.term(100))
    let feed = LogFeed(behind: snapshot, retainedBytes: 0) { _ in }
    #expect(throws: StorageError.snapshotMissing(anchorIndex: 150, newestSnapshotIndex: 100)) {
      try WriteAheadLog.open(
        fileSystem: disk, directory: "/log", options: Self.options, snapshot: snapshot, feed: feed)
    }
  }
}
