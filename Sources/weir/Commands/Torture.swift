import ArgumentParser
import Dispatch
import Foundation
import WeirCore
import WeirStorage

/// `weir wal torture`: writes to a log until it is killed, and says on standard output what it submitted and what it was
/// told is durable. Whoever kills it opens the log and compares (`TortureTests`).
///
/// Lines: `r LAST TERM` once the log is open, `s FIRST LAST TERM` before entries FIRST to LAST of TERM are submitted,
/// `a` when the oldest submission that was not yet acknowledged is.
struct Torture: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes to a log until it is killed; for tests of power cuts.", shouldDisplay: false)

  @Argument(help: "The log's directory.")
  var directory: String

  @Option(help: "What decides the sizes of batches, and where they replace the log.")
  var seed: UInt64 = 1

  @Flag(help: "Hold writes in memory until they are synced, so that a kill is a power cut.")
  var holdUntilSync = false

  @Flag(help: "Never sync: acknowledged entries are lost then, and the test has to find it.")
  var syncOff = false

  func run() throws {
    let fileSystem: any FileSystem = holdUntilSync ? HoldUntilSyncFileSystem(leakSeed: seed) : RealFileSystem()
    let options = LogOptions(
      owner: 1, segmentBytes: 256 << 10, sync: syncOff ? .off : .always,
      writeMode: seed % 3 == 0 ? .direct : .buffered, zeroFill: false)
    let (log, recovered) = try GroupCommitLog.open(fileSystem: fileSystem, directory: directory, options: options)
    let buffer = recovered.takeLog()
    let output = LineOutput()
    output.write("r \(buffer.lastIndex) \(buffer.lastTerm)")
    submitForEver(log, output, last: buffer.lastIndex, term: max(buffer.lastTerm, 1))
  }

  private func submitForEver(_ log: GroupCommitLog, _ output: LineOutput, last: LogIndex, term: Term) {
    var generator = Generator(state: seed &* 0x9E37_79B9 &+ last)
    var last = last
    var term = term
    let inFlight = DispatchSemaphore(value: 8)
    while true {
      inFlight.wait()
      var first = last + 1
      if generator.below(10) == 0, last > 0 {
        // A new leader replaces the end of the log.
        first = last - UInt64(generator.below(Int(min(last, 5))))
        term += 1
      }
      let count = 1 + generator.below(12)
      let batch = Self.entries(from: first, count: count, term: term, generator.below(600))
      last = first + UInt64(count) - 1
      output.write("s \(first) \(last) \(term)")
      log.submit(batch, hardState: HardState(term: term, vote: 1, commit: 0)) { result in
        if case .success = result { output.write("a") }
        inFlight.signal()
      }
    }
  }

  /// Entries whose payloads begin with their index and term.
  private static func entries(from first: LogIndex, count: Int, term: Term, _ extraBytes: Int) -> EntryBatch {
    var log = LogBuffer(configuration: .init(segmentBytes: 64 << 10), anchorIndex: first - 1, anchorTerm: 0)
    for index in first..<first + UInt64(count) {
      var payload: [UInt8] = []
      for value in [index, term] {
        for shift in stride(from: 0, to: 64, by: 8) {
          payload.append(UInt8(truncatingIfNeeded: value >> UInt64(shift)))
        }
      }
      payload.append(contentsOf: repeatElement(UInt8(truncatingIfNeeded: index), count: extraBytes))
      log.append(term: term, payload: payload.span.bytes)
    }
    return log.batch(from: first, through: first + UInt64(count) - 1)
  }

  private struct Generator {
    var state: UInt64

    mutating func below(_ limit: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int((state >> 33) % UInt64(limit))
    }
  }
}
