import Foundation
import Testing
import WeirCore

@testable import WeirStorage

@Suite("weir wal, the command")
struct WALCommandTests {
  /// A closed log of 30 batches in a folder, and the path of its first segment.
  private func makeLog(in directory: String) throws -> String {
    let opened = try openLog(RealFileSystem(), .small(segmentBytes: 64 << 10), at: directory)
    for number in 0..<30 {
      opened.log.append(
        makeEntries(from: UInt64(number * 3 + 1), count: 3, term: 4),
        hardState: HardState(term: 4, vote: 2, commit: UInt64(number)))
      try opened.log.commitBatch()
    }
    try opened.log.close()
    return directory + "/0000000000000001.wal"
  }

  @Test("dump prints every record, verify their sum, both with exit code 0")
  func sound() throws {
    try withTemporaryDirectory { directory in
      _ = try makeLog(in: directory)
      let dump = try WeirExecutable.run(["wal", "dump", directory])
      #expect(dump.status == 0 && dump.errors.isEmpty)
      for index in 1...90 { #expect(dump.output.contains("entry \(index) "), "entry \(index)") }
      let verify = try WeirExecutable.run(["wal", "verify", directory])
      #expect(verify.status == 0 && verify.errors.isEmpty)
      #expect(verify.output.contains("90 entries") && verify.output.contains("holds entries 1 to 90"))
      #expect(dump.output.hasSuffix(verify.output))
    }
  }

  @Test("both end with another exit code at the first record that does not hold, and name file and offset")
  func damaged() throws {
    try withTemporaryDirectory { directory in
      let segment = try makeLog(in: directory)
      var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: segment)))
      bytes[512 * 5 + 100] ^= 4
      try Data(bytes).write(to: URL(fileURLWithPath: segment))
      for command in ["dump", "verify"] {
        let result = try WeirExecutable.run(["wal", command, directory])
        #expect(result.status == 1)
        #expect(result.errors.contains(segment) && result.errors.contains("\(512 * 5)"), "\(result.errors)")
        #expect(!result.output.contains("entry 90 "))
      }
    }
  }

  @Test("a log in files that were used before: read to its end, and refused at the first byte that changed")
  func recycled() throws {
    try withTemporaryDirectory { directory in
      let opened = try openLog(RealFileSystem(), .small(segmentBytes: 8 << 10), at: directory)
      for index in 1...100 as ClosedRange<LogIndex> {
        opened.log.append(makeEntries(from: index, count: 1, term: 1, payloadBytes: 300))
        if index > 5 { opened.log.compact(through: index - 5, term: 1) }
        try opened.log.commitBatch()
      }
      #expect(opened.log.counters.recycledSegments > 3)
      try opened.log.close()
      let dump = try WeirExecutable.run(["wal", "dump", directory])
      #expect(dump.status == 0 && dump.output.contains(", recycled"))
      let verify = try WeirExecutable.run(["wal", "verify", directory])
      #expect(verify.status == 0 && verify.errors.isEmpty)
      #expect(verify.output.contains("in files used before") && verify.output.contains("holds entries 96 to 100"))
      #expect(!verify.output.contains("torn tail"))
      let name = try #require(try RealFileSystem().list(directory).last { $0.hasSuffix(".wal") })
      let segment = directory + "/" + name
      var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: segment)))
      bytes[512 + 100] ^= 4
      try Data(bytes).write(to: URL(fileURLWithPath: segment))
      let damaged = try WeirExecutable.run(["wal", "verify", directory])
      #expect(damaged.status == 1 && damaged.errors.contains(segment), "\(damaged.errors)")
    }
  }

  @Test("a folder without a log is refused")
  func missing() throws {
    for directory in ["/nowhere/at/all", "/proc/self/fdinfo"] {
      let result = try WeirExecutable.run(["wal", "verify", directory])
      #expect(result.status != 0 && !result.errors.isEmpty && result.output.isEmpty, "\(directory)")
    }
  }

  @Test("in the folder of a node, its log is looked into")
  func ofNode() throws {
    try withTemporaryDirectory { directory in
      let segment = try makeLog(in: directory + "/log")
      let sound = try WeirExecutable.run(["wal", "verify", directory])
      #expect(sound.status == 0 && sound.output.contains("holds entries 1 to 90"))
      var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: segment)))
      bytes[512 * 5 + 100] ^= 4
      try Data(bytes).write(to: URL(fileURLWithPath: segment))
      #expect(try WeirExecutable.run(["wal", "verify", directory]).status == 1)
    }
  }
}
