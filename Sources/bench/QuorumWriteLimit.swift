import CWeir
import Foundation
import Measure
import Synchronization

/// What a disk takes until a quorum of nodes that share it can each have one small write durable there: as many threads as
/// nodes write a block of 4 KiB at the same time, each to a file of its own, and nothing else. No write of a cluster with
/// its logs on one disk is through earlier, whatever the cluster does.
///
/// The nodes of a cluster usually have a disk each. Here they share one, and a disk flushes its cache once at a time: a
/// flush that is asked for while another is under way waits for it and then for its own, so the second of three writes
/// takes nearly twice as long as a lone one.
struct QuorumWriteLimit {
  /// From the start of the first write until a quorum's are durable.
  var quorum = LatencyHistogram()

  /// Runs rounds for `seconds`.
  /// - Throws: if the files cannot be made or written.
  static func measure(nodes: Int, in directory: String?, seconds: Double) throws -> QuorumWriteLimit {
    let folder = try TemporaryFolder(in: directory)
    defer { folder.remove() }
    let writers = try (1...nodes).map { try Writer(ProbeFile("\(folder.path)/node-\($0)", wanted: .direct)) }
    defer { for writer in writers { writer.end() } }
    var limit = QuorumWriteLimit()
    let end = cweir_monotonic_nanoseconds() + UInt64(seconds * 1e9)
    var round = 0
    repeat {
      for writer in writers { writer.begin(block: round) }
      let spans = try writers.map { try $0.finish() }
      let start = spans.map(\.start).min() ?? 0
      limit.quorum.record(spans.map(\.end).sorted()[nodes / 2] - start)
      round += 1
    } while cweir_monotonic_nanoseconds() < end
    return limit
  }

  /// A thread that sleeps until it is told to write, as a node sleeps until a message comes.
  private final class Writer: Sendable {
    private let work = DispatchSemaphore(value: 0)
    private let done = DispatchSemaphore(value: 0)
    /// The block to write; nil: the thread ends.
    private let block = Mutex<Int?>(nil)
    private let span = Mutex<Result<(start: UInt64, end: UInt64), any Error>>(.success((0, 0)))

    init(_ file: ProbeFile) {
      // Handed over: only this thread uses the file from here on.
      nonisolated(unsafe) let file = file
      Thread { [self] in
        while true {
          work.wait()
          guard let number = block.withLock({ $0 }) else { return }
          let start = cweir_monotonic_nanoseconds()
          let result = Result {
            try file.writeDurably(block: number)
            return (start: start, end: cweir_monotonic_nanoseconds())
          }
          span.withLock { $0 = result }
          done.signal()
        }
      }.start()
    }

    func begin(block number: Int) {
      block.withLock { $0 = number }
      work.signal()
    }

    func finish() throws -> (start: UInt64, end: UInt64) {
      done.wait()
      return try span.withLock { try $0.get() }
    }

    func end() {
      block.withLock { $0 = nil }
      work.signal()
    }
  }
}
