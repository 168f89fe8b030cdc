import WeirCore

/// How many entries a batch has, and how long a payload is: the commands the suite drives the cluster with.
enum Shape {
  static let batch = 64
  static let payloadBytes = 128
  static let frameBytes = EntryFrame.occupiedBytes(payloadBytes: payloadBytes)

  static func payload(_ number: Int) -> [UInt8] {
    (0..<payloadBytes).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number &* 7) }
  }

  /// A batch of proposals.
  static func proposals(_ count: Int = batch) -> EntryBatch {
    var builder = EntryBatchBuilder()
    for number in 0..<count { builder.append(payload: payload(number)) }
    return builder.finish()
  }
}

extension HotPaths {
  static let logAppend: [HotPath] = [
    HotPath(
      name: "log-append-128B", suite: .logAppend, operation: "frame and append one entry, in batches of 64",
      payloadBytes: Shape.payloadBytes,
      reference: .init(name: "memcpy of the frames") { CopyFrames(perEntry: true) },
      makeWorkload: { AppendProposals() }),
    HotPath(
      name: "log-append-single-128B", suite: .logAppend, operation: "frame and append one entry, one call each",
      payloadBytes: Shape.payloadBytes,
      reference: .init(name: "memcpy of the frames") { CopyFrames(perEntry: true) },
      makeWorkload: { AppendSingle() }),
    HotPath(
      name: "log-append-received-128B", suite: .logAppend,
      operation: "append one of 64 entries that a leader framed and the decoder verified",
      payloadBytes: Shape.payloadBytes,
      reference: .init(name: "memcpy of the batch") { CopyFrames(perEntry: false) },
      makeWorkload: { AppendReceived() }),
    HotPath(
      name: "log-batch-by-reference", suite: .logAppend, operation: "hand out 64 entries for a vectored write",
      payloadBytes: 0,
      reference: .init(name: "copying the 64 frames into a [UInt8]") { CopyOut() }, makeWorkload: { HandOut() }),
    HotPath(
      name: "log-term-lookup", suite: .logAppend, operation: "term of a random entry among 64 terms", payloadBytes: 0,
      reference: .init(name: "array of terms") { TermArray() }, makeWorkload: { TermLookup() }),
  ]
}

/// Keeps the log at a steady length, as compaction does.
private func trim(_ log: inout LogBuffer) {
  if log.count >= 1 << 15 { log.releasePrefix(through: log.firstIndex + 1 << 14) }
}

private final class AppendProposals: Workload {
  let operationsPerStep = Shape.batch
  private var log = LogBuffer()
  private let proposals = Shape.proposals()

  func step() {
    log.append(proposals: proposals, term: 1)
    trim(&log)
  }
}

private final class AppendSingle: Workload {
  let operationsPerStep = Shape.batch
  private var log = LogBuffer()
  private let payload = Shape.payload(1)

  func step() {
    Self.append(payload, to: &log)
    trim(&log)
  }

  private static func append(_ payload: [UInt8], to log: inout LogBuffer) {
    for _ in 0..<Shape.batch { log.append(term: 1, payload: payload.span.bytes) }
  }
}

private final class AppendReceived: Workload {
  let operationsPerStep = Shape.batch
  private var log = LogBuffer(anchorIndex: 0, anchorTerm: 1)
  private let batch: EntryBatch

  init() {
    var leader = LogBuffer(anchorIndex: 0, anchorTerm: 1)
    leader.append(proposals: Shape.proposals(), term: 1)
    batch = leader.batch(from: 1, through: leader.lastIndex)
  }

  func step() {
    // The same 64 entries over and over: the log starts again in front of them, in the memory that it has.
    log.append(batch, from: 1)
    log.reset(anchorIndex: 0, anchorTerm: 1)
  }
}

/// The limit: the same bytes moved to the same kind of memory, with nothing else done.
private final class CopyFrames: Workload {
  let operationsPerStep = Shape.batch
  private let perEntry: Bool
  private let source = [UInt8](repeating: 7, count: Shape.batch * Shape.frameBytes)
  private let target = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
  private var offset = 0

  init(perEntry: Bool) {
    self.perEntry = perEntry
    target.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { target.deallocate() }

  func step() {
    let size = perEntry ? Shape.frameBytes : Shape.batch * Shape.frameBytes
    source.withUnsafeBytes { bytes in
      var position = 0
      while position < bytes.count {
        if offset + size > target.count { offset = 0 }
        UnsafeMutableRawBufferPointer(rebasing: target[offset..<offset + size])
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[position..<position + size]))
        offset += size
        position += size
      }
    }
  }
}

/// A log of 10,000 entries to read from.
private func readableLog(terms: Int) -> LogBuffer {
  var log = LogBuffer()
  let payload = Shape.payload(1)
  for number in 0..<10_000 { log.append(term: UInt64(1 + number * terms / 10_000), payload: payload.span.bytes) }
  return log
}

private final class HandOut: Workload {
  let operationsPerStep = 100
  private let log = readableLog(terms: 1)
  private var first: LogIndex = 1
  private(set) var sink = 0

  func step() {
    for _ in 0..<operationsPerStep {
      let batch = log.batch(from: first, through: first + UInt64(Shape.batch - 1))
      batch.forEachSlice { sink &+= $0.offset &+ $0.byteCount }
      first = first % 9_900 + 1
    }
  }
}

private final class CopyOut: Workload {
  let operationsPerStep = 100
  private let source = [UInt8](repeating: 7, count: Shape.batch * Shape.frameBytes)
  private var target: [UInt8] = []

  func step() {
    for _ in 0..<operationsPerStep {
      target.removeAll(keepingCapacity: true)
      target.append(contentsOf: source)
    }
  }
}

private final class TermLookup: Workload {
  let operationsPerStep = 1000
  private let log = readableLog(terms: 64)
  private var state: UInt64 = 1
  private(set) var sink: Term = 0

  func step() {
    var state = state
    var sum: Term = 0
    for _ in 0..<operationsPerStep {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      sum &+= log.term(at: 1 + (state >> 33) % 10_000) ?? 0
    }
    self.state = state
    sink &+= sum
  }
}

private final class TermArray: Workload {
  let operationsPerStep = 1000
  private let terms = (0..<10_000).map { UInt64(1 + $0 * 64 / 10_000) }
  private var state: UInt64 = 1
  private(set) var sink: Term = 0

  func step() {
    var state = state
    var sum: Term = 0
    for _ in 0..<operationsPerStep {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      sum &+= terms[Int((state >> 33) % 10_000)]
    }
    self.state = state
    sink &+= sum
  }
}
