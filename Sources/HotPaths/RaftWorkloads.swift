import Raft
import WeirCore

// Cost of a single proposal, replicated to two nodes: 8 messages (2 appends with the entry, 2 that tell of the commit, and
// their 4 acknowledgements), each written once into an outbox and handled where it lies, 120 bytes a time; one frame
// sealed and copied twice; two references counted up and down, one for each append that carries the entry.
//
// Where the time of a single proposal goes (sampled): a quarter into `RawNode.step` of appends and acknowledgements, an
// eighth into making appends, as much into counting the references of their entries (half in making them, half in
// dropping them), 9 % into the quorum, 7 % into checksums and copies of entries. What it took to get there from 1.3
// million a second, in the order of what it gave:
// - messages that are iterated, reversed, moved or passed by value are copied field by field, and their references
//   counted each time: `step(_: inout Message)` takes them where they lie, and the entries are put into a message that
//   lies in the outbox already;
// - a batch of entries had three references and a message four: now one and two, and 120 bytes instead of 176;
// - the log was copied onto the stack (232 bytes) for each look at it: `InMemory` keeps it where it is;
// - proposals had a checksum made that was thrown away once the log gave them an index: they have none until then.
//
// Measured (2-core EPYC 9005, CPU time of all three nodes together, no allocation in any): single 3.6 to 3.8 million a
// second, batched 35, encoded and decoded 21 to 25, reads by a round 88, by the lease 118.

/// Operations under way at a time in the suite of the Raft core.
private let outstanding = 256

extension HotPaths {
  /// Three nodes on one thread that hand each other their messages, pre-vote and quorum checks on: the setting in which
  /// etcd/raft (v3.6.0, Go) does 351,000 single and 3.2 million batched proposals, 1.0 million reads by a round and 9
  /// million by its lease in a second of CPU time.
  public static let raftCore: [HotPath] = [
    path(
      .single, "raft-single-128B",
      "one command proposed alone, \(outstanding) before the others answer, replicated to two nodes, committed and applied"
    ),
    path(
      .batched, "raft-batched-128B", "one of \(outstanding) commands proposed together, committed and applied by all"),
    path(.encoded, "raft-encoded-128B", "the same with each message encoded and decoded on its way"),
    path(.readIndexSafe, "raft-read-safe", "one of \(outstanding) reads confirmed by one heartbeat round"),
    path(.readIndexLease, "raft-read-lease", "one read under the lease"),
  ]

  private static func path(_ kind: RaftWorkload.Kind, _ name: String, _ operation: String) -> HotPath {
    HotPath(
      name: name, suite: .raftCore, operation: operation, payloadBytes: kind.isRead ? 0 : Shape.payloadBytes,
      reference: nil, makeWorkload: { RaftWorkload(kind) })
  }
}

/// A round of operations through three nodes, all of whose work is in it: every step ends with all of them having applied
/// everything, and everything but the last few thousand entries compacted away.
private final class RaftWorkload: Workload {
  enum Kind {
    case single, batched, encoded, readIndexSafe, readIndexLease

    var isRead: Bool { self == .readIndexSafe || self == .readIndexLease }
  }

  let operationsPerStep = outstanding
  private let kind: Kind
  private var nodes: ThreeNodes
  private let payload = Shape.payload(1)

  init(_ kind: Kind) {
    self.kind = kind
    do {
      nodes = try ThreeNodes(readMode: kind == .readIndexLease ? .leaseBased : .safe, encodes: kind == .encoded)
      try nodes.elect()
    } catch {
      preconditionFailure("three nodes elect the first of them: \(error)")
    }
  }

  func step() {
    do {
      switch kind {
      case .single: try nodes.proposeSingly(payload, count: outstanding)
      case .batched, .encoded: try nodes.proposeTogether(payload, count: outstanding)
      case .readIndexSafe, .readIndexLease: try nodes.read(count: outstanding)
      }
    } catch {
      preconditionFailure("what the leader is asked for is done: \(error)")
    }
  }
}

/// Three nodes whose messages go from one straight into the others.
private struct ThreeNodes: ~Copyable {
  private var nodes: [3 of RawNode]
  private var ready = Ready()
  private let encodes: Bool
  private var builder = EntryBatchBuilder(capacity: 1 << 20)
  private var wire = Wire()
  private var readsAsked: UInt64 = 0
  private var readsAnswered: UInt64 = 0

  init(readMode: ReadMode, encodes: Bool) throws {
    self.encodes = encodes
    nodes = [
      try Self.node(1, readMode: readMode), try Self.node(2, readMode: readMode), try Self.node(3, readMode: readMode),
    ]
  }

  private static func node(_ id: NodeID, readMode: ReadMode) throws -> RawNode {
    var configuration = RaftConfiguration(id: id)
    configuration.preVote = true
    configuration.checkQuorum = true
    configuration.maximumMessageBytes = 1 << 20
    configuration.maximumInflightMessages = 2 * outstanding
    configuration.maximumPendingReads = 1 << 20
    configuration.refuseVotesWithinLease = readMode == .leaseBased
    configuration.readMode = readMode
    configuration.randomSeed = id
    var node = try RawNode(
      configuration: configuration, log: LogBuffer(), configurationState: ConfigurationState(voters: [1, 2, 3]))
    node.nowNanoseconds = 1
    return node
  }

  mutating func elect() throws {
    try nodes[0].campaign()
    try settle()
    precondition(nodes[0].role == .leader && nodes[0].commit > 0, "who campaigns alone is elected")
    for _ in 0..<2 {
      nodes[0].tick()
      try settle()
    }
  }

  mutating func proposeSingly(_ payload: [UInt8], count: Int) throws {
    let bytes = payload.span.bytes
    for _ in 0..<count { try nodes[0].propose(payload: bytes) }
    try finish()
  }

  mutating func proposeTogether(_ payload: [UInt8], count: Int) throws {
    let bytes = payload.span.bytes
    for _ in 0..<count { builder.append(payload: bytes) }
    try nodes[0].propose(builder.finish())
    try finish()
  }

  mutating func read(count: Int) throws {
    for _ in 0..<count {
      readsAsked += 1
      nodes[0].readIndex(context: readsAsked)
    }
    try settle()
    precondition(readsAnswered == readsAsked, "every read is answered")
  }

  /// Lets everything be stored, committed and applied everywhere, and drops what is no longer needed.
  private mutating func finish() throws {
    let last = nodes[0].lastIndex
    try settle()
    for position in 0..<3 {
      precondition(nodes[position].applied == last, "what was proposed is applied everywhere")
      if last > 4096 { nodes[position].compact(through: last - 4096) }
    }
  }

  /// Handles what is ready and delivers every message, until nobody has anything to say.
  private mutating func settle() throws {
    var isBusy = true
    while isBusy {
      isBusy = false
      for position in 0..<3 where nodes[position].hasReady {
        isBusy = true
        nodes[position].ready(into: &ready)
        readsAnswered += UInt64(ready.readStates.count)
        if encodes {
          try Self.send(&ready, to: &nodes, through: &wire)
        } else {
          try Self.send(&ready, to: &nodes)
        }
        nodes[position].advance(ready)
      }
    }
  }

  /// Messages are handled where they lie: taking each out of the array would cost as much as stepping it.
  private static func send(_ ready: inout Ready, to nodes: inout [3 of RawNode]) throws {
    for position in ready.messages.indices {
      try nodes[Int(ready.messages[position].to) - 1].step(&ready.messages[position])
    }
  }

  private static func send(_ ready: inout Ready, to nodes: inout [3 of RawNode], through wire: inout Wire) throws {
    for position in ready.messages.indices {
      try wire.carry(&ready.messages[position])
      try nodes[Int(wire.received.to) - 1].step(&wire.received)
    }
  }
}

/// Encodes a message into a receive buffer and decodes it from there, as a connection would.
private struct Wire {
  private static let slabBytes = 256 << 10
  private var slabs = [Slab(capacity: slabBytes)]
  private var current = 0
  private var used = 0
  fileprivate var received = Message(type: .hup)

  mutating func carry(_ message: inout Message) throws {
    let size = MessageCodec.encodedBytes(of: message)
    if used + size > slabs[current].capacity { advance() }
    let slab = slabs[current]
    let start = used
    let target = UnsafeMutableRawBufferPointer(rebasing: slab.bytes[start..<start + size])
    var position = MessageCodec.encodeHeader(of: message, into: target)
    message.entries.forEachSlice { slice in
      let source = slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount)
      UnsafeMutableRawBufferPointer(rebasing: target[position...]).copyMemory(from: source)
      position += slice.byteCount
    }
    used += (size + 63) & ~63
    try MessageCodec.decode(slab: slab, offset: start, byteCount: size, into: &received)
  }

  /// The next buffer that nobody reads any more.
  private mutating func advance() {
    used = 0
    for position in slabs.indices where isKnownUniquelyReferenced(&slabs[position]) {
      current = position
      return
    }
    slabs.append(Slab(capacity: Self.slabBytes))
    current = slabs.count - 1
  }
}
