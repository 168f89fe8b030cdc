import Testing
import WeirCore

@testable import WeirStorage

/// Bytes that a second implementation made from the documented layouts (`LogFormat`, `SyncMark`, `SnapshotFormat`):
/// whoever changes the format changes the version, and these. Zeros at the end are left out.
enum Golden {
  /// Two batches in a segment of 1024 bytes with blocks of 256, owner 7: entries 1 and 2 of term 3, then entry 2 of
  /// term 4 in place of the other.
  static let segment = bytes(
    """
    5745495257414c31e98908d7010000000001000000000000070000000000000001000000000000000000000000000000
    000400000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    0000000000000000000000000000000057424154e9742a55000100000000000000010000000000000700000000000000
    4800000004b4e36c0200000000000000e98908d700000000030000000000000002000000000000000000000000000000
    00000000000000000000000000000000230000009cfecb3c010000000000000003000000000000000000000000000000
    6f6e65000000000020000000d7024caf0200000000000000030000000000000001000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    0000000000000000000000000000000000000000000000000000000000000000574241549d8577750002000000000000
    0002000000000000070000000000000028000000bb03dd990100000000000000e9742a55000000000400000000000000
    010000000000000001000000000000000000000000000000000000000000000024000000aef284120200000000000000
    0400000000000000000000000000000074776f21
    """, count: 1024)

  /// The mark behind it.
  static let mark = bytes(
    """
    574d524b8cf9f8680200000000000000070000000000000000030000000000009d857775000000000002000000000000
    020000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
    0000000000000000000000000000000000000000000000000000000000000000574d524b7360af0e0100000000000000
    07000000000000000001000000000000e98908d7
    """, count: 1024)

  /// Entry 5 of term 2, voters 1, 2 and 3, learner 4, left automatically; parts 00 01 02 03 04 and 09 09.
  static let snapshot = bytes(
    """
    57454952534e50311ff114bd010000005800000001000000050000000000000002000000000000000300000000000000
    01000000000000000100000000000000020000000000000003000000000000000400000000000000050000002f47d949
    000102030402000000a02e260a090900000000399f53d0020000000000000007
    """, count: 135)

  private static func bytes(_ text: String, count: Int) -> [UInt8] {
    let digits = text.utf8.filter { $0 != 10 && $0 != 32 }.map { $0 < 58 ? $0 - 48 : $0 - 87 }
    let bytes = stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    return bytes + [UInt8](repeating: 0, count: count - bytes.count)
  }
}

@Suite("Golden files")
struct GoldenTests {
  private let options = LogOptions.small(segmentBytes: 1024, blockBytes: 256)

  private func batch(_ entries: [(index: LogIndex, term: Term, kind: EntryKind, payload: String)]) -> EntryBatch {
    var log = LogBuffer(configuration: .init(segmentBytes: 4096), anchorIndex: entries[0].index - 1, anchorTerm: 0)
    for entry in entries {
      log.append(term: entry.term, kind: entry.kind, payload: Array(entry.payload.utf8).span.bytes)
    }
    return log.batch(from: entries[0].index, through: log.lastIndex)
  }

  @Test("a log is written as documented, byte for byte")
  func writesLog() throws {
    let disk = SimulatedFileSystem()
    let opened = try openLog(disk, options)
    opened.log.append(
      batch([(1, 3, .normal, "one"), (2, 3, .configurationChange, "")]), hardState: HardState(term: 3, vote: 2))
    try opened.log.commitBatch()
    opened.log.append(batch([(2, 4, .normal, "two!")]), hardState: HardState(term: 4, vote: 1, commit: 1))
    try opened.log.close()
    #expect(disk.contents(of: "/log/0000000000000001.wal") == Golden.segment)
    #expect(disk.contents(of: "/log/synced") == Golden.mark)
  }

  @Test("a log as documented is read")
  func readsLog() throws {
    let disk = SimulatedFileSystem()
    try disk.createDirectory("/log")
    disk.setContents(of: "/log/0000000000000001.wal", to: Golden.segment)
    disk.setContents(of: "/log/synced", to: Golden.mark)
    let opened = try openLog(disk, options)
    #expect(opened.hardState == HardState(term: 4, vote: 1, commit: 1))
    #expect(
      opened.entries == [
        ModelEntry(index: 1, term: 3, payload: Array("one".utf8)),
        ModelEntry(index: 2, term: 4, payload: Array("two!".utf8)),
      ])
  }

  @Test("a snapshot is written and read as documented")
  func snapshot() throws {
    let disk = SimulatedFileSystem()
    let store = try SnapshotStore.open(fileSystem: disk, directory: "/s")
    let metadata = SnapshotMetadata(
      index: 5, term: 2, configuration: .init(voters: [1, 2, 3], learners: [4], autoLeave: true))
    let writer = try store.create(metadata)
    let parts: [[UInt8]] = [[0, 1, 2, 3, 4], [9, 9]]
    for part in parts { try writer.append(part.span.bytes) }
    let stored = try writer.finish()
    #expect(stored.path == "/s/0000000000000005-0000000000000002.snapshot")
    #expect(disk.contents(of: stored.path) == Golden.snapshot)
    #expect(try store.newest()?.metadata == metadata)
  }

  @Test("the log prints as a person can read it")
  func dump() throws {
    let disk = SimulatedFileSystem()
    try disk.createDirectory("/log")
    disk.setContents(of: "/log/0000000000000001.wal", to: Golden.segment)
    var lines: [String] = []
    let report = try LogInspector.inspect(fileSystem: disk, directory: "/log") { lines.append($0.description) }
    #expect(report.entries == 3)
    #expect(lines.count == 6)
    #expect(lines[2] == "    entry 1 at 352: term 3, normal, 3 bytes")
    #expect(lines[4].hasPrefix("  batch at 512: 1 entries, 40 bytes, synced 512, term 4, vote 1, commit 1, anchor 0"))
  }
}
