import CAllocationCounter
import Glibc
import Raft
import WeirCore

/// What a run of the pure core did and cost: all three nodes' work is in it.
public struct RaftCoreCost: Sendable {
  public var operations: Int
  /// CPU time of this thread.
  public var cpuNanoseconds: UInt64
  /// Allocations of this thread; nil where the counter is not linked in.
  public var allocations: UInt64?

  public var operationsPerCPUSecond: Double { Double(operations) / (Double(max(cpuNanoseconds, 1)) / 1e9) }
  public var allocationsPerOperation: Double? { allocations.map { Double($0) / Double(max(operations, 1)) } }
}

/// The workloads of the pure core: three nodes on one thread, messages handed over directly, pre-vote and quorum checks on,
/// as etcd/raft was measured (Go, v3.6.0: 351 000 single and 3.2 million batched proposals per CPU second).
public enum RaftCoreWorkload: String, CaseIterable, Sendable {
  /// Proposals one by one, `outstanding` of them before the others answer.
  case single
  /// `outstanding` proposals in one batch.
  case batched
  /// Batched, and every message encoded and decoded on its way.
  case encoded
  /// Reads confirmed by a heartbeat round, `outstanding` waiting for each.
  case readIndexSafe
  /// Reads under the lease.
  case readIndexLease

  /// Runs at least `operations` operations after a warm-up of as many rounds as fill every buffer.
  /// - Parameters:
  ///   - outstanding: operations under way at a time.
  ///   - payloadBytes: size of a command.
  public func run(operations: Int, outstanding: Int = 256, payloadBytes: Int = 128) throws -> RaftCoreCost {
    var cluster = try ThreeNodes(readMode: self == .readIndexLease ? .leaseBased : .safe)
    try cluster.elect()
    let payload = [UInt8](repeating: 0x5A, count: payloadBytes)
    cluster.encodes = self == .encoded
    let rounds = max(1, operations / outstanding)
    try round(&cluster, payload, outstanding, rounds: max(64, min(rounds / 4, 2048)))
    let allocationsBefore = callocation_counts_of_this_thread().allocations
    let before = threadCPUNanoseconds()
    try round(&cluster, payload, outstanding, rounds: rounds)
    let after = threadCPUNanoseconds()
    let allocations = callocation_counts_of_this_thread().allocations - allocationsBefore
    return RaftCoreCost(
      operations: rounds * outstanding, cpuNanoseconds: after - before,
      allocations: callocation_counter_is_active() == 1 ? allocations : nil)
  }

  private func round(_ cluster: inout ThreeNodes, _ payload: [UInt8], _ outstanding: Int, rounds: Int) throws {
    switch self {
    case .single:
      for _ in 0..<rounds { try cluster.proposeSingly(payload, count: outstanding) }
    case .batched, .encoded:
      for _ in 0..<rounds { try cluster.proposeBatch(payload, count: outstanding) }
    case .readIndexSafe, .readIndexLease:
      for _ in 0..<rounds { try cluster.read(count: outstanding) }
    }
  }
}

private func threadCPUNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Why a workload did not do what it should: its figures would mean nothing.
public enum RaftCoreWorkloadError: Error {
  case notElected
  case notCommitted(applied: LogIndex, expected: LogIndex)
  case readsUnanswered(Int)
}

/// A node and what it hands out, in a box, since a node cannot be copied.
private final class NodeBox {
  var raw: RawNode
  var ready = Ready()
  var readsAnswered = 0

  init(_ id: NodeID, readMode: ReadMode) throws {
    var configuration = RaftConfiguration(id: id)
    configuration.preVote = true
    configuration.checkQuorum = true
    configuration.maximumMessageBytes = 1 << 20
    configuration.maximumPendingReads = 1 << 20
    configuration.maximumInflightMessages = 512
    configuration.refuseVotesWithinLease = readMode == .leaseBased
    configuration.readMode = readMode
    configuration.randomSeed = id
    raw = try RawNode(
      configuration: configuration, log: LogBuffer(), configurationState: ConfigurationState(voters: [1, 2, 3]))
    raw.nowNanoseconds = 1
  }
}

/// Three nodes whose messages go from one straight into the others.
private struct ThreeNodes: ~Copyable {
  private let nodes: [NodeBox]
  var encodes = false
  private var builder = EntryBatchBuilder(capacity: 1 << 20)
  private var wire = Wire()
  private var reads: UInt64 = 0

  init(readMode: ReadMode) throws {
    nodes = try (1...3).map { try NodeBox(NodeID($0), readMode: readMode) }
  }

  private var leader: NodeBox { nodes[0] }

  mutating func elect() throws {
    try leader.raw.campaign()
    try settle()
    guard leader.raw.role == .leader, leader.raw.commit > 0 else { throw RaftCoreWorkloadError.notElected }
    for _ in 0..<2 {
      leader.raw.tick()
      try settle()
    }
  }

  mutating func proposeSingly(_ payload: [UInt8], count: Int) throws {
    let bytes = payload.span.bytes
    for _ in 0..<count { try leader.raw.propose(payload: bytes) }
    try finish()
  }

  mutating func proposeBatch(_ payload: [UInt8], count: Int) throws {
    let bytes = payload.span.bytes
    for _ in 0..<count { builder.append(payload: bytes) }
    try leader.raw.propose(builder.finish())
    try finish()
  }

  mutating func read(count: Int) throws {
    let before = leader.readsAnswered
    for _ in 0..<count {
      reads += 1
      leader.raw.readIndex(context: reads)
    }
    try settle()
    let answered = leader.readsAnswered - before
    guard answered == count else { throw RaftCoreWorkloadError.readsUnanswered(count - answered) }
  }

  /// Lets everything be stored, committed and applied everywhere, and drops what is no longer needed.
  private mutating func finish() throws {
    let last = leader.raw.lastIndex
    try settle()
    for node in nodes {
      guard node.raw.applied == last else {
        throw RaftCoreWorkloadError.notCommitted(applied: node.raw.applied, expected: last)
      }
      if last > 4096 { node.raw.compact(through: last - 4096) }
    }
  }

  private mutating func settle() throws {
    var isBusy = true
    while isBusy {
      isBusy = false
      for node in nodes where node.raw.hasReady {
        isBusy = true
        node.raw.ready(into: &node.ready)
        node.readsAnswered += node.ready.readStates.count
        if encodes { try sendEncoded(node) } else { try send(node) }
        node.raw.advance(node.ready)
      }
    }
  }

  private func send(_ node: NodeBox) throws {
    for message in node.ready.messages { try nodes[Int(message.to) - 1].raw.step(message) }
  }

  private mutating func sendEncoded(_ node: NodeBox) throws {
    for message in node.ready.messages {
      let received = try wire.carry(message)
      try nodes[Int(received.to) - 1].raw.step(received)
    }
  }
}

/// Encodes a message into a receive buffer and decodes it from there, as a connection would.
private struct Wire {
  private var slabs: [Slab] = [Slab(capacity: 4 << 20)]
  private var current = 0
  private var used = 0

  mutating func carry(_ message: Message) throws -> Message {
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
    return try MessageCodec.decode(slab: slab, offset: start, byteCount: size)
  }

  /// The next buffer that nobody reads any more.
  private mutating func advance() {
    used = 0
    for position in slabs.indices where isKnownUniquelyReferenced(&slabs[position]) {
      current = position
      return
    }
    slabs.append(Slab(capacity: 4 << 20))
    current = slabs.count - 1
  }
}
