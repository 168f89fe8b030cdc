import CWeir
import Dispatch
import Foundation
import Measure
import Synchronization
import WeirCore
import WeirStorage

/// One cell of `bench wal`: a log, or the bare disk, at one number of waiting entries.
struct LogCell: Codable, Sendable {
  /// "log", or "bare": a loop that writes and syncs as many bytes as the log's average write had.
  var subject: String
  /// "buffered": pwrite, then fdatasync. "direct": O_DIRECT and O_DSYNC.
  var mode: String
  /// Entries under way at a time.
  var waiting: Int
  var seconds: Double
  var entries: Int
  var entriesPerSecond: Double
  var megabytesPerSecond: Double
  var syncs: Int
  var entriesPerSync: Double
  var bytesPerWrite: Int
  /// From submitting an entry until it is durable, in nanoseconds; of a write and its sync for "bare".
  var commit: LatencySummary
  var cpuMicrosecondsPerEntry: Double
  /// Segments begun in a file that held an earlier one; nil for "bare".
  var recycledSegments: Int?
  /// Segments whose file was filled with zeros before, so that each of their bytes was written twice; nil for "bare".
  var zeroFilledSegments: Int?
}

/// Drives a log as a node does: whatever was acknowledged since is replaced by as many new entries, in one batch.
struct LogBenchmark {
  var directory: String
  var valueBytes: Int
  var seconds: Double
  var sync: SyncPolicy

  /// Batches and entries that the log's queue reports, for the thread that submits.
  private final class Acknowledgements: Sendable {
    private let state = Mutex<(entries: Int, error: StorageError?, histogram: LatencyHistogram)>((0, nil, .init()))
    private let signal = DispatchSemaphore(value: 0)

    func completion(entries: Int, submitted: UInt64) -> GroupCommitLog.Completion {
      { result in
        let latency = cweir_monotonic_nanoseconds() - submitted
        self.state.withLock { state in
          state.entries += entries
          state.histogram.record(latency, count: UInt64(entries))
          if case .failure(let error) = result { state.error = error }
        }
        self.signal.signal()
      }
    }

    /// Waits until there is news.
    func take() throws -> Int {
      signal.wait()
      return try state.withLock { state in
        if let error = state.error { throw error }
        defer { state.entries = 0 }
        return state.entries
      }
    }

    func histogram() -> LatencyHistogram { state.withLock { $0.histogram } }
  }

  /// Runs the log.
  func runLog(mode: WriteMode, waiting: Int) throws -> LogCell {
    let path = directory + "/log-\(mode.rawValue)-\(waiting)"
    defer { try? FileManager.default.removeItem(atPath: path) }
    let (log, _) = try GroupCommitLog.open(
      fileSystem: RealFileSystem(), directory: path, options: LogOptions(sync: sync, writeMode: mode))
    var buffer = LogBuffer()
    let payload = [UInt8](repeating: 0x5A, count: valueBytes)
    try warmUp(log, &buffer, payload)
    let base = buffer.lastIndex
    let before = log.counters
    let acknowledgements = Acknowledgements()
    let cpu = cweir_process_cpu_nanoseconds()
    let begin = cweir_monotonic_nanoseconds()
    let end = begin + UInt64(seconds * 1e9)
    var outstanding = waiting
    submitAll(waiting, to: log, &buffer, payload, acknowledgements)
    var acknowledged = 0
    var compacted = 0
    while outstanding > 0 {
      let done = try acknowledgements.take()
      guard done > 0 else { continue }
      outstanding -= done
      acknowledged += done
      if acknowledged - compacted > 100_000 {
        compacted = acknowledged
        buffer.releasePrefix(through: base + LogIndex(acknowledged))
        log.compact(through: base + LogIndex(acknowledged), term: 1)
      }
      if cweir_monotonic_nanoseconds() < end {
        submitAll(done, to: log, &buffer, payload, acknowledgements)
        outstanding += done
      }
    }
    let elapsed = Double(cweir_monotonic_nanoseconds() - begin) / 1e9
    let used = cweir_process_cpu_nanoseconds() - cpu
    let counters = log.counters
    try log.closeAndWait()
    let bytes = counters.bytes - before.bytes
    let syncs = counters.syncs - before.syncs
    return LogCell(
      subject: "log", mode: mode.rawValue, waiting: waiting, seconds: elapsed, entries: acknowledged,
      entriesPerSecond: Double(acknowledged) / elapsed,
      megabytesPerSecond: Double(bytes) / elapsed / 1e6, syncs: syncs,
      entriesPerSync: Double(acknowledged) / Double(max(syncs, 1)),
      bytesPerWrite: bytes / max(counters.writes - before.writes, 1),
      commit: LatencySummary(acknowledgements.histogram()),
      cpuMicrosecondsPerEntry: Double(used) / 1e3 / Double(max(acknowledged, 1)),
      recycledSegments: counters.recycledSegments - before.recycledSegments,
      zeroFilledSegments: counters.zeroFilledSegments - before.zeroFilledSegments)
  }

  /// Writes without being measured until segments come in files that were used before, as they do in a node that has run
  /// for a while: filling new ones with zeros shares the disk with the writing, and the bare loop has no part in that.
  private func warmUp(_ log: GroupCommitLog, _ buffer: inout LogBuffer, _ payload: [UInt8]) throws {
    let acknowledgements = Acknowledgements()
    let most = log.counters.bytes + 8 * log.options.segmentBytes
    while log.counters.recycledSegments < 2, log.counters.bytes < most {
      let last = buffer.lastIndex
      submitAll(Self.entriesPerWarmUp, to: log, &buffer, payload, acknowledgements)
      var done = 0
      while done < Self.entriesPerWarmUp { done += try acknowledgements.take() }
      buffer.releasePrefix(through: last)
      log.compact(through: last, term: 1)
    }
  }

  private static let entriesPerWarmUp = 8192

  /// A node's queue takes in what has come, submits it and looks again, so many entries are submitted in several pieces:
  /// the log writes what is there while the rest is made.
  private func submitAll(
    _ count: Int, to log: GroupCommitLog, _ buffer: inout LogBuffer, _ payload: [UInt8],
    _ acknowledgements: Acknowledgements
  ) {
    var left = count
    while left > 0 {
      let piece = min(left, Self.entriesPerSubmission)
      submit(piece, to: log, &buffer, payload, acknowledgements)
      left -= piece
    }
  }

  private static let entriesPerSubmission = 256

  private func submit(
    _ count: Int, to log: GroupCommitLog, _ buffer: inout LogBuffer, _ payload: [UInt8],
    _ acknowledgements: Acknowledgements
  ) {
    let now = cweir_monotonic_nanoseconds()
    let first = buffer.lastIndex + 1
    for _ in 0..<count { buffer.append(term: 1, payload: payload.span.bytes) }
    log.submit(
      buffer.batch(from: first, through: buffer.lastIndex),
      completion: acknowledgements.completion(entries: count, submitted: now))
  }

  /// Runs the loop that no log can beat: write, sync, in a file of zeros, with nothing else in between.
  func runBare(mode: WriteMode, like cell: LogCell) throws -> LogCell {
    let fileSystem = RealFileSystem()
    let path = directory + "/bare-\(mode.rawValue)"
    defer { try? fileSystem.remove(path) }
    let file = try fileSystem.create(path, mode: mode)
    let fileBytes = 64 << 20
    let bytes = AlignedBytes(count: 1 << 20)
    for offset in stride(from: 0, to: fileBytes, by: 1 << 20) { try bytes.write(1 << 20, to: file, at: offset) }
    try file.synchronizeData()
    let size = min(max(cell.bytesPerWrite / 4096, 1) * 4096, 1 << 20)
    var histogram = LatencyHistogram()
    var offset = 0
    var writes = 0
    let cpu = cweir_process_cpu_nanoseconds()
    let begin = cweir_monotonic_nanoseconds()
    let end = begin + UInt64(seconds * 1e9)
    var now = begin
    while now < end {
      if offset + size > fileBytes { offset = 0 }
      try bytes.write(size, to: file, at: offset)
      if mode != .direct, sync == .always { try file.synchronizeData() }
      offset += size
      writes += 1
      let later = cweir_monotonic_nanoseconds()
      histogram.record(later - now)
      now = later
    }
    let elapsed = Double(now - begin) / 1e9
    let used = cweir_process_cpu_nanoseconds() - cpu
    let entriesPerWrite = max(cell.entriesPerSync, 1)
    let entries = Double(writes) * entriesPerWrite * Double(size) / Double(max(cell.bytesPerWrite, 1))
    return LogCell(
      subject: "bare", mode: mode.rawValue, waiting: cell.waiting, seconds: elapsed, entries: Int(entries),
      entriesPerSecond: entries / elapsed, megabytesPerSecond: Double(writes) * Double(size) / elapsed / 1e6,
      syncs: sync == .always ? writes : 0, entriesPerSync: entriesPerWrite, bytesPerWrite: size,
      commit: LatencySummary(histogram), cpuMicrosecondsPerEntry: Double(used) / 1e3 / max(entries, 1))
  }

  /// How fast a log of many entries is opened, in entries and bytes per second.
  func runRecovery(entries: Int) throws -> LogRecovery {
    let path = directory + "/recovery"
    defer { try? FileManager.default.removeItem(atPath: path) }
    let options = LogOptions(sync: .off, zeroFill: false)
    let payload = [UInt8](repeating: 0x5A, count: valueBytes)
    do {
      let (log, _) = try WriteAheadLog.open(fileSystem: RealFileSystem(), directory: path, options: options)
      var buffer = LogBuffer()
      while Int(buffer.lastIndex) < entries {
        let first = buffer.lastIndex + 1
        for _ in 0..<min(1000, entries - Int(buffer.lastIndex)) { buffer.append(term: 1, payload: payload.span.bytes) }
        log.append(buffer.batch(from: first, through: buffer.lastIndex))
        try log.commitBatch()
        buffer.releasePrefix(through: buffer.lastIndex)
      }
      try log.close()
    }
    let cpu = cweir_process_cpu_nanoseconds()
    let begin = cweir_monotonic_nanoseconds()
    let (_, recovered) = try WriteAheadLog.open(fileSystem: RealFileSystem(), directory: path, options: options)
    let elapsed = Double(cweir_monotonic_nanoseconds() - begin) / 1e9
    let used = Double(cweir_process_cpu_nanoseconds() - cpu) / 1e9
    return LogRecovery(
      entries: recovered.report.entries, bytes: recovered.report.bytes, seconds: elapsed, cpuSeconds: used,
      entriesPerSecond: Double(recovered.report.entries) / elapsed,
      megabytesPerSecond: Double(recovered.report.bytes) / elapsed / 1e6)
  }
}

/// How long opening a log took, with its bytes in the cache.
struct LogRecovery: Codable, Sendable {
  var entries: Int
  var bytes: Int
  var seconds: Double
  var cpuSeconds: Double
  var entriesPerSecond: Double
  var megabytesPerSecond: Double
}
