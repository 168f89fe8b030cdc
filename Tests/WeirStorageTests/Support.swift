import Foundation
import Testing
import WeirCore

@testable import WeirStorage

/// Entries of a model log: what a test thinks that a log holds.
struct ModelEntry: Hashable, Sendable, CustomStringConvertible {
  var index: LogIndex
  var term: Term
  var payload: [UInt8]

  var description: String { "\(index)@\(term):\(payload.count)" }
}

/// A batch of entries `first ...` of one term, whose payloads tell their index and term.
func makeEntries(from first: LogIndex, count: Int, term: Term, payloadBytes: Int = 16) -> EntryBatch {
  var log = LogBuffer(anchorIndex: first - 1, anchorTerm: 0)
  for offset in 0..<count {
    let payload = makePayload(first + UInt64(offset), term, payloadBytes)
    log.append(term: term, payload: payload.span.bytes)
  }
  return count == 0 ? EntryBatch() : log.batch(from: first, through: first + UInt64(count) - 1)
}

func makePayload(_ index: LogIndex, _ term: Term, _ byteCount: Int) -> [UInt8] {
  (0..<byteCount).map { UInt8(truncatingIfNeeded: Int(index) &* 31 &+ Int(term) &* 7 &+ $0) }
}

/// What a recovered log holds.
func entries(of log: borrowing LogBuffer) -> [ModelEntry] {
  var result: [ModelEntry] = []
  guard log.count > 0 else { return [] }
  log.batch(from: log.firstIndex, through: log.lastIndex).forEach { header, payload in
    result.append(
      ModelEntry(index: header.index, term: header.term, payload: payload.withUnsafeBytes { Array($0) }))
  }
  return result
}

/// A log and what it held when it was opened, as values that tests compare.
struct OpenedLog {
  var log: WriteAheadLog
  var hardState: HardState
  var anchorIndex: LogIndex
  var anchorTerm: Term
  var entries: [ModelEntry]
  var report: RecoveryReport
}

func openLog(
  _ fileSystem: any FileSystem, _ options: LogOptions, at directory: String = "/log",
  snapshot: SnapshotMetadata? = nil
) throws(StorageError) -> OpenedLog {
  let (log, recovered) = try WriteAheadLog.open(
    fileSystem: fileSystem, directory: directory, options: options, snapshot: snapshot)
  let buffer = recovered.takeLog()
  return OpenedLog(
    log: log, hardState: recovered.hardState, anchorIndex: buffer.anchorIndex, anchorTerm: buffer.anchorTerm,
    entries: entries(of: buffer), report: recovered.report)
}

extension LogOptions {
  /// Small segments and blocks, nothing filled.
  static func small(
    segmentBytes: Int = 16 << 10, blockBytes: Int = 512, sync: SyncPolicy = .always, mode: WriteMode = .buffered
  ) -> LogOptions {
    LogOptions(
      owner: 7, segmentBytes: segmentBytes, blockBytes: blockBytes, sync: sync, writeMode: mode, zeroFill: false,
      memorySegmentBytes: 4096)
  }
}

/// A folder that is gone when the test is over.
func withTemporaryDirectory<Value>(_ body: (String) throws -> Value) throws -> Value {
  let path = NSTemporaryDirectory() + "weir-storage-" + UUID().uuidString
  defer { try? FileManager.default.removeItem(atPath: path) }
  return try body(path)
}

/// As above, for bodies that wait.
func withTemporaryDirectory<Value>(_ body: (String) async throws -> Value) async throws -> Value {
  let path = NSTemporaryDirectory() + "weir-storage-" + UUID().uuidString
  defer { try? FileManager.default.removeItem(atPath: path) }
  return try await body(path)
}

var isLongRun: Bool { ProcessInfo.processInfo.environment["WEIR_LONG_TESTS"] == "1" }

/// Cycles of killing, in place of what the usual and the long run have: `WEIR_KILL_CYCLES`, for machines on which a
/// thousand take too long.
var cycleLimit: Int? { ProcessInfo.processInfo.environment["WEIR_KILL_CYCLES"].flatMap { Int($0) } }
