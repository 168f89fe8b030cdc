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

/// Three nodes whose messages go from one straight into the others.
private struct ThreeNodes: ~Copyable {
  private var nodes: [3 of RawNode]
  private var ready = Ready()
  var encodes = false
  private var builder = EntryBatchBuilder(capacity: 1 << 20)
  private var wire = Wire()
  private var readsAsked: UInt64 = 0
  private var readsAnswered = 0

  init(readMode: ReadMode) throws {
    nodes = [
      try Self.node(1, readMode: readMode), try Self.node(2, readMode: readMode), try Self.node(3, readMode: readMode),
    ]
  }

  private static func node(_ id: NodeID, readMode: ReadMode) throws -> RawNode {
    var configuration = RaftConfiguration(id: id)
    configuration.preVote = true
    configuration.checkQuorum = true
    configuration.maximumMessageBytes = 1 << 20
    configuration.maximumInflightMessages = 512
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
    guard nodes[0].role == .leader, nodes[0].commit > 0 else { throw RaftCoreWorkloadError.notElected }
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

  mutating func proposeBatch(_ payload: [UInt8], count: Int) throws {
    let bytes = payload.span.bytes
    for _ in 0..<count { builder.append(payload: bytes) }
    try nodes[0].propose(builder.finish())
    try finish()
  }

  mutating func read(count: Int) throws {
    let before = readsAnswered
    for _ in 0..<count {
      readsAsked += 1
      nodes[0].readIndex(context: readsAsked)
    }
    try settle()
    guard readsAnswered - before == count else {
      throw RaftCoreWorkloadError.readsUnanswered(count - readsAnswered + before)
    }
  }

  /// Lets everything be stored, committed and applied everywhere, and drops what is no longer needed.
  private mutating func finish() throws {
    let last = nodes[0].lastIndex
    try settle()
    for position in 0..<3 {
      guard nodes[position].applied == last else {
        throw RaftCoreWorkloadError.notCommitted(applied: nodes[position].applied, expected: last)
      }
      if last > 4096 { nodes[position].compact(through: last - 4096) }
    }
  }

  private mutating func settle() throws {
    var isBusy = true
    while isBusy {
      isBusy = false
      for position in 0..<3 where nodes[position].hasReady {
        isBusy = true
        nodes[position].ready(into: &ready)
        readsAnswered += ready.readStates.count
        if encodes { try sendEncoded() } else { try Self.send(ready, to: &nodes) }
        nodes[position].advance(ready)
      }
    }
  }

  /// Each message is looked at where it lies: a copy of one costs as much as stepping it.
  private static func send(_ ready: borrowing Ready, to nodes: inout [3 of RawNode]) throws {
    let messages = ready.messages.span
    for position in messages.indices {
      let target = Int(messages[position].to) - 1
      try nodes[target].step(messages[position])
    }
  }

  private mutating func sendEncoded() throws {
    for position in 0..<ready.messages.count {
      let received = try wire.carry(ready.messages[position])
      try nodes[Int(received.to) - 1].step(received)
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
