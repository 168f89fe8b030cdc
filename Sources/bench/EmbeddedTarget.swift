import CWeir
import Foundation
import Load
import Logging
import Raft
import WeirCache
import WeirCore
import WeirStorage
import WeirTransport

/// A cluster within this process: real nodes, real connections on loopback, no client protocol in between.
final class EmbeddedTarget: Target {
  let name = "embedded"
  let cluster: EmbeddedCluster
  /// A folder of its own that goes with the target.
  private let folder: TemporaryFolder?

  init(cluster: EmbeddedCluster, folder: TemporaryFolder? = nil) {
    self.cluster = cluster
    self.folder = folder
  }

  /// How fast each node writes a snapshot at most.
  var snapshotBytesPerSecond: Int { cluster.nodes.first?.snapshotBytesPerSecond ?? 1 }

  func makeSession(worker: Int, readMode: Load.ReadMode) throws -> any TargetSession {
    try EmbeddedSession(cluster: cluster, readMode: readMode)
  }

  func counters() -> TargetCounters {
    var total = TargetCounters(
      peerMessages: 0, peerBytes: 0, wakeups: 0, fsyncs: 0, nodeCPUNanoseconds: 0, elections: 0)
    for node in cluster.nodes {
      let counters = node.counters
      total.peerMessages = (total.peerMessages ?? 0) + counters.messagesSent
      total.peerBytes = (total.peerBytes ?? 0) + counters.bytesSent
      total.wakeups = (total.wakeups ?? 0) + counters.wakeups
      total.fsyncs = (total.fsyncs ?? 0) + counters.syncs
      total.elections = (total.elections ?? 0) + counters.electionsWon
      // One node that cannot tell makes the sum meaningless.
      if let sum = total.nodeCPUNanoseconds, let share = counters.cpuNanoseconds {
        total.nodeCPUNanoseconds = sum + share
      } else {
        total.nodeCPUNanoseconds = nil
      }
    }
    return total
  }

  func replicaHashes(deadlineNanoseconds: UInt64) throws -> [ReplicaHash] {
    guard cluster.waitUntilEven(deadlineNanoseconds: deadlineNanoseconds) else {
      let indexes = cluster.nodes.map { "node \($0.id) at \($0.status.appliedIndex)" }.joined(separator: ", ")
      throw TargetError("the replicas have not applied the same entries in time: \(indexes)")
    }
    return cluster.nodes.map { node in
      ReplicaHash(
        node: node.id, appliedIndex: node.status.appliedIndex, hash: node.store.stateHash,
        keys: UInt64(node.store.count))
    }
  }

  func shutdown() {
    cluster.stop()
    folder?.remove()
  }
}

/// Starts embedded clusters.
struct EmbeddedTargetFactory: TargetFactory {
  var eventLoop = EventLoopConfiguration()
  /// Where the stages of sampled writes go.
  var stageBoard: StageBoard?
  /// Bytes of log after which a node writes a snapshot; nil: as nodes do by themselves.
  var snapshotAfterBytes: Int?

  func startCluster(_ configuration: ClusterConfiguration) throws -> any Target {
    // Dropped with the factory's local if the cluster does not start, and the folder with it.
    let folder = configuration.durability == .memory ? nil : try TemporaryFolder(in: configuration.directory)
    var log = Logger(label: "weir")
    log.logLevel = .error
    let cluster = try EmbeddedCluster(nodeCount: configuration.nodes, seed: configuration.seed, log: log) { node in
      node.eventLoop = eventLoop
      node.stageBoard = stageBoard
      if let snapshotAfterBytes {
        node.snapshotAfterBytes = snapshotAfterBytes
        node.snapshotAfterEntries = .max
      }
      node.tickNanoseconds = UInt64(configuration.tickMilliseconds) * 1_000_000
      node.electionTicks = configuration.electionTicks
      node.heartbeatTicks = configuration.heartbeatTicks
      if let folder, let sync = configuration.durability.syncPolicy {
        node.storage = .files(directory: "\(folder.path)/node-\(node.id)", sync: sync)
      }
    }
    let target = EmbeddedTarget(cluster: cluster, folder: folder)
    let deadline = cweir_monotonic_nanoseconds() + 30_000_000_000
    guard cluster.waitForLeader(deadlineNanoseconds: deadline) != nil else {
      target.shutdown()
      throw TargetError("the cluster elected no leader within 30 s: the machine is overloaded")
    }
    return target
  }
}

/// One worker's conversation with the cluster: always with the node that leads.
///
/// Writes travel through a lane in batches. Reads never enter the node: under the lease they are answered in `submit`,
/// on this thread; in Safe mode the lane waits for a round and the keys are looked up here, in `poll`.
private final class EmbeddedSession: TargetSession {
  private struct Read {
    var token: UInt32
    var keyNumber: UInt64
  }

  /// A lane to one node and the reads that wait in it.
  private struct Way {
    var node: Node
    var lane: SessionLane
    var reads: [Read] = []
    var head = 0
    /// The ticket of the first read that waits.
    var firstTicket: UInt64 = 1
    var writesInFlight = 0
  }

  private let cluster: EmbeddedCluster
  private let readMode: Load.ReadMode
  private let parker = Parker()
  private var ways: [Way] = []
  private var leader = 0
  private var builder = EntryBatchBuilder(capacity: 256 << 10)
  private var tokens: [UInt32] = []
  private var setCommand: [UInt8] = []
  private var deleteCommand: [UInt8]

  private static let laneCapacity = 1 << 16

  init(cluster: EmbeddedCluster, readMode: Load.ReadMode) throws {
    self.cluster = cluster
    self.readMode = readMode
    deleteCommand = try Command.encode(.delete, key: [UInt8](repeating: 0, count: KeySpelling.keyBytes))
    for node in cluster.nodes {
      ways.append(Way(node: node, lane: try node.openLane(capacity: Self.laneCapacity, parker: parker)))
    }
    findLeader()
  }

  func submit(_ batch: Span<Submission>, completions: inout [Completion]) {
    if !ways[leader].node.isLeader { findLeader() }
    guard ways[leader].writesInFlight + batch.count <= Self.laneCapacity else {
      return refuse(batch, &completions)
    }
    let firstAnswer = completions.count
    let firstRead = ways[leader].reads.count
    for index in batch.indices {
      let submission = batch[index]
      switch submission.operation.kind {
      case .get:
        if readMode == .lease {
          completions.append(answer(submission.token, submission.operation.keyNumber))
        } else {
          ways[leader].reads.append(Read(token: submission.token, keyNumber: submission.operation.keyNumber))
        }
      case .set, .delete: frame(submission)
      }
    }
    if completions.count > firstAnswer { settleLeaseReads(batch, from: firstAnswer, &completions) }
    submitWrites(&completions)
    let reads = ways[leader].reads.count - firstRead
    if reads > 0 { _ = ways[leader].node.requestReads(UInt64(reads), lane: ways[leader].lane) }
  }

  func poll(into completions: inout [Completion], until deadlineNanoseconds: UInt64) {
    while true {
      let before = completions.count
      for position in ways.indices { collect(position, &completions) }
      if completions.count > before { return stamp(&completions, from: before) }
      if deadlineNanoseconds == 0 || cweir_monotonic_nanoseconds() >= deadlineNanoseconds { return }
      parker.park(untilNanoseconds: deadlineNanoseconds)
    }
  }

  func close() { for way in ways { way.node.close(way.lane) } }

  private func findLeader() {
    guard let node = cluster.leader, let position = ways.firstIndex(where: { $0.node === node }) else { return }
    leader = position
  }

  private func refuse(_ batch: Span<Submission>, _ completions: inout [Completion]) {
    let now = cweir_monotonic_nanoseconds()
    for index in batch.indices {
      completions.append(Completion(token: batch[index].token, status: .failed, doneNanoseconds: now))
    }
  }

  // MARK: Writes

  private func frame(_ submission: Submission) {
    let operation = submission.operation
    let (low, high) = KeySpelling.words(operation.keyNumber)
    if operation.kind == .set {
      let valueBytes = Int(operation.valueBytes)
      let size = Command.encodedBytes(keyBytes: KeySpelling.keyBytes, valueBytes: valueBytes)
      if setCommand.count != size { setCommand = Self.makeSetCommand(valueBytes: valueBytes) }
      let (valueLow, valueHigh) = operation.value.words
      setCommand.withUnsafeMutableBytes { bytes in
        bytes.storeBytes(of: low.littleEndian, toByteOffset: Command.headerBytes, as: UInt64.self)
        bytes.storeBytes(of: high.littleEndian, toByteOffset: Command.headerBytes + 8, as: UInt64.self)
        bytes.storeBytes(of: valueLow.littleEndian, toByteOffset: Command.headerBytes + 16, as: UInt64.self)
        bytes.storeBytes(of: valueHigh.littleEndian, toByteOffset: Command.headerBytes + 24, as: UInt64.self)
      }
      builder.append(payload: setCommand.span.bytes)
    } else {
      deleteCommand.withUnsafeMutableBytes { bytes in
        bytes.storeBytes(of: low.littleEndian, toByteOffset: Command.headerBytes, as: UInt64.self)
        bytes.storeBytes(of: high.littleEndian, toByteOffset: Command.headerBytes + 8, as: UInt64.self)
      }
      builder.append(payload: deleteCommand.span.bytes)
    }
    tokens.append(submission.token)
  }

  /// A command whose key and value name are filled in for each operation.
  private static func makeSetCommand(valueBytes: Int) -> [UInt8] {
    let key = [UInt8](repeating: 0, count: KeySpelling.keyBytes)
    let value = [UInt8](repeating: ValueID.filler, count: valueBytes)
    return (try? Command.encode(.set, key: key, value: value)) ?? []
  }

  private func submitWrites(_ completions: inout [Completion]) {
    guard !tokens.isEmpty else { return }
    if ways[leader].node.submit(builder.finish(), tokens: tokens, lane: ways[leader].lane) {
      ways[leader].writesInFlight += tokens.count
    } else {
      let now = cweir_monotonic_nanoseconds()
      for token in tokens { completions.append(Completion(token: token, status: .failed, doneNanoseconds: now)) }
    }
    tokens.removeAll(keepingCapacity: true)
  }

  // MARK: Reads

  private func answer(_ token: UInt32, _ keyNumber: UInt64) -> Completion {
    let (low, high) = KeySpelling.words(keyNumber)
    let key: [2 of UInt64] = [low.littleEndian, high.littleEndian]
    let value = ways[leader].node.store.read(key.span.bytes) { value -> ValueID? in
      guard let value, value.byteCount >= ValueID.encodedBytes else { return nil }
      let low = value.unsafeLoadUnaligned(as: UInt64.self)
      let high = value.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt64.self)
      return ValueID(low: UInt64(littleEndian: low), high: UInt64(littleEndian: high))
    }
    return Completion(token: token, status: .ok, readValue: value, doneNanoseconds: 0)
  }

  /// The answers count only if the lease held while they were read; else the reads take a round like Safe ones.
  private func settleLeaseReads(_ batch: Span<Submission>, from first: Int, _ completions: inout [Completion]) {
    if ways[leader].node.leaseHeldDuringReads() { return stamp(&completions, from: first) }
    completions.removeSubrange(first...)
    for index in batch.indices where batch[index].operation.kind == .get {
      ways[leader].reads.append(Read(token: batch[index].token, keyNumber: batch[index].operation.keyNumber))
    }
  }

  private func stamp(_ completions: inout [Completion], from first: Int) {
    let now = cweir_monotonic_nanoseconds()
    for index in first..<completions.count { completions[index].doneNanoseconds = now }
  }

  // MARK: Answers

  private func collect(_ position: Int, _ completions: inout [Completion]) {
    if ways[position].writesInFlight > 0 {
      let count = ways[position].lane.drain { completion in
        completions.append(
          Completion(token: completion.token, status: Self.status(of: completion.outcome), doneNanoseconds: 0))
      }
      ways[position].writesInFlight -= count
    }
    if ways[position].head < ways[position].reads.count { collectReads(position, &completions) }
  }

  private func collectReads(_ position: Int, _ completions: inout [Completion]) {
    let (settled, failed) = ways[position].lane.settledReads
    let available = Int(settled + 1 - ways[position].firstTicket)
    guard available > 0 else { return }
    let previous = leader
    leader = position
    for _ in 0..<available {
      let read = ways[position].reads[ways[position].head]
      if ways[position].firstTicket <= failed {
        completions.append(Completion(token: read.token, status: .failed, doneNanoseconds: 0))
      } else {
        completions.append(answer(read.token, read.keyNumber))
      }
      ways[position].head += 1
      ways[position].firstTicket += 1
    }
    leader = previous
    if ways[position].head == ways[position].reads.count {
      ways[position].reads.removeAll(keepingCapacity: true)
      ways[position].head = 0
    }
  }

  private static func status(of outcome: Outcome) -> OperationStatus {
    switch outcome {
    case .appliedFresh, .appliedExisting: .ok
    case .notLeader, .overloaded, .refused, .outOfSpace: .failed
    case .leadershipLost, .shutdown: .unknown
    }
  }
}
