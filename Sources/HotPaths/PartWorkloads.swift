import CWeir
@_spi(Parts) import WeirCore

extension HotPaths {
  /// What the hot paths are made of, each part alone: the figures at the head of the core's files. `bench hot-paths
  /// --parts` measures them.
  public static let parts: [HotPath] =
    CorePart.allCases.map { part in
      HotPath(
        name: part.rawValue, suite: part.suite, operation: part.operation, payloadBytes: 0, reference: nil,
        makeWorkload: { Part(part) })
    } + [
      path("part-splitmix64", .broadcastQueue, "draw a number") { Draw() },
      path(
        "part-quorum-acknowledgements", .quorumCommit, "read one acknowledgement, as the suite does, and no more"
      ) { ReadAcknowledgements() },
      path(
        "part-checksums-64x128B", .messageEncoding,
        "the instructions that the checksums of 64 entries of 128 bytes take, and nothing else"
      ) { Checksums() },
      path("part-quorum-by-id", .quorumCommit, "commit index of 3 voters, looked up by id") { QuorumByID() },
      path("part-slab-reference", .logAppend, "count the references of two slabs, one up and one down") { Reference() },
      path("part-message-copy", .messageEncoding, "copy a message with an entry over another") { CopyOfMessage() },
      path("part-attachment", .messageEncoding, "encode and decode a snapshot of 3 voters", isAllocationFree: false) {
        Attachment()
      },
      path("part-slab-fresh", .logAppend, "make and free a slab of 1 MiB", isAllocationFree: false) { FreshSlab() },
    ]

  private static func path(
    _ name: String, _ suite: HotPathSuite, _ operation: String, isAllocationFree: Bool = true,
    _ make: @escaping @Sendable () -> any Workload
  ) -> HotPath {
    HotPath(
      name: name, suite: suite, operation: operation, payloadBytes: 0, isAllocationFree: isAllocationFree,
      reference: nil, makeWorkload: make)
  }
}

extension CorePart {
  fileprivate var suite: HotPathSuite {
    switch self {
    case .upperMedian4, .upperMedian8: .quorumCommit
    case .ring, .segments: .logAppend
    default: .broadcastQueue
    }
  }
}

private final class Part: Workload {
  let operationsPerStep = 1000
  private let loop: PartLoop
  private(set) var sink: UInt64 = 0

  init(_ part: CorePart) { loop = part.makeLoop() }

  func step() { sink &+= loop.run(operationsPerStep) }
}

private final class Draw: Workload {
  let operationsPerStep = 1000
  private var generator = SplitMix64(seed: 1)
  private(set) var sink: UInt64 = 0

  func step() {
    var generator = generator
    var sum: UInt64 = 0
    for _ in 0..<operationsPerStep { sum &+= generator.next() }
    self.generator = generator
    sink &+= sum
  }
}

private final class QuorumByID: Workload {
  let operationsPerStep = 1000
  private let configuration = QuorumConfiguration(voters: [1, 2, 3])
  private(set) var sink: UInt64 = 0

  func step() {
    var sum: UInt64 = 0
    for number in 0..<UInt64(operationsPerStep) {
      sum &+= configuration.committedIndex { id in (number &* 31 &+ id &* 17) & 63 }
    }
    sink &+= sum
  }
}

private final class Checksums: Workload {
  let operationsPerStep = 100
  private let slab: Slab
  private let byteCount: Int
  private(set) var sink: UInt64 = 0

  init() { (slab, byteCount) = HotPaths.received(HotPaths.appendMessage(entries: Shape.batch)) }

  func step() {
    let frames = UnsafeRawBufferPointer(slab.bytes(in: MessageCodec.fixedHeaderBytes..<byteCount))
    for _ in 0..<operationsPerStep { sink &+= cweir_sum_frames(frames.baseAddress, Shape.batch, Shape.frameBytes) }
  }
}

private final class Reference: Workload {
  let operationsPerStep = 1000
  private let slabs = [Slab(capacity: 64), Slab(capacity: 64)]
  private var held: Slab?

  func step() { for number in 0..<operationsPerStep { held = slabs[number & 1] } }
}

private final class CopyOfMessage: Workload {
  let operationsPerStep = 1000
  private let sources = [HotPaths.appendMessage(entries: 1), HotPaths.appendMessage(entries: 1)]
  private var target = Message(type: .hup)

  func step() { for number in 0..<operationsPerStep { target = sources[number & 1] } }
}

private final class Attachment: Workload {
  let operationsPerStep = 100
  private let slab: Slab
  private let message: Message
  private let byteCount: Int
  private(set) var sink = 0

  init() {
    var message = Message(type: .snapshot, to: 2, from: 1, term: 5)
    let metadata = SnapshotMetadata(index: 9, term: 4, configuration: ConfigurationState(voters: [1, 2, 3]))
    message.attachment = MessageAttachment(snapshot: Snapshot(metadata: metadata))
    self.message = message
    (slab, byteCount) = HotPaths.received(message)
  }

  func step() {
    for _ in 0..<operationsPerStep {
      sink &+= MessageCodec.encodeHeader(of: message, into: slab.bytes)
      do throws(MessageDecodingError) {
        sink &+= try MessageCodec.decode(slab: slab, offset: 0, byteCount: byteCount).snapshot == nil ? 0 : 1
      } catch {
        preconditionFailure("what was encoded is decoded: \(error)")
      }
    }
  }
}

private final class FreshSlab: Workload {
  let operationsPerStep = 1
  private(set) var sink = 0

  func step() { sink &+= Slab(capacity: 1 << 20).capacity }
}
