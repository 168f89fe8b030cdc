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
  let readiness: Readiness?
  /// A folder of its own that goes with the target.
  private let folder: TemporaryFolder?

  init(cluster: EmbeddedCluster, readiness: Readiness? = nil, folder: TemporaryFolder? = nil) {
    self.cluster = cluster
    self.readiness = readiness
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
    for gossip in cluster.gossip {
      let statistics = gossip.statistics
      total.gossipPackets = (total.gossipPackets ?? 0) + UInt64(statistics.packetsSent)
      total.gossipBytes =
        (total.gossipBytes ?? 0) + UInt64(statistics.packetBytesSent) + UInt64(statistics.streamBytesSent)
      total.gossipCPUNanoseconds = (total.gossipCPUNanoseconds ?? 0) + statistics.cpuNanoseconds
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
    let target = EmbeddedTarget(cluster: cluster, readiness: eventLoop.readiness, folder: folder)
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

  /// Reads in the order in which they were asked for; their keys lie one behind the other, as the store takes them.
  private struct ReadBatch {
    var tokens: [UInt32] = []
    /// Two words for each key.
    var keyWords: [UInt64] = []

    var count: Int { tokens.count }

    @inline(__always)
    mutating func append(_ submission: Submission) {
      let (low, high) = KeySpelling.words(submission.operation.keyNumber)
      tokens.append(submission.token)
      keyWords.append(low.littleEndian)
      keyWords.append(high.littleEndian)
    }

    mutating func removeAll() {
      tokens.removeAll(keepingCapacity: true)
      keyWords.removeAll(keepingCapacity: true)
    }
  }

  /// A lane to one node and the reads that wait in it.
  private struct Way {
    var node: Node
    var lane: SessionLane
    var reads = ReadBatch()
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
  private var template: CommandTemplate
  private var leaseReads = ReadBatch()

  private static let laneCapacity = 1 << 16

  init(cluster: EmbeddedCluster, readMode: Load.ReadMode) throws {
    self.cluster = cluster
    self.readMode = readMode
    template = try CommandTemplate()
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
    let firstRead = ways[leader].reads.count
    for index in batch.indices {
      let submission = batch[index]
      switch submission.operation.kind {
      case .get:
        if readMode == .lease {
          leaseReads.append(submission)
        } else {
          ways[leader].reads.append(submission)
        }
      case .set, .delete: frame(submission)
      }
    }
    if leaseReads.count > 0 { answerLeaseReads(&completions) }
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
      ways[leader].node.park(parker, lane: ways[leader].lane, untilNanoseconds: deadlineNanoseconds)
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
    template.withCommand(submission.operation) { builder.append(payload: $0) }
    tokens.append(submission.token)
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

  /// Looks up `count` reads from position `first` on in the state of the node at `position`.
  private func answer(
    _ reads: ReadBatch, first: Int, count: Int, from position: Int, _ completions: inout [Completion]
  ) {
    let keys = reads.keyWords.span.bytes.extracting(
      first * KeySpelling.keyBytes..<(first + count) * KeySpelling.keyBytes)
    let begin = completions.count
    let isComplete = ways[position].node.store.readEach(keys, keyBytes: KeySpelling.keyBytes) { place, value in
      completions.append(
        Completion(
          token: reads.tokens[first + place], status: .ok, readValue: Self.name(of: value), doneNanoseconds: 0))
    }
    guard !isComplete else { return }
    // The node follows another leader by now, and is loading a state from it.
    completions.removeSubrange(begin...)
    for token in reads.tokens[first..<first + count] {
      completions.append(Completion(token: token, status: .failed, doneNanoseconds: 0))
    }
  }

  @inline(__always)
  private static func name(of value: RawSpan?) -> ValueID? {
    guard let value, value.byteCount >= ValueID.encodedBytes else { return nil }
    let low = value.unsafeLoadUnaligned(as: UInt64.self)
    let high = value.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt64.self)
    return ValueID(low: UInt64(littleEndian: low), high: UInt64(littleEndian: high))
  }

  /// The answers count only if the lease held while they were read; else the reads take a round like Safe ones.
  private func answerLeaseReads(_ completions: inout [Completion]) {
    let first = completions.count
    answer(leaseReads, first: 0, count: leaseReads.count, from: leader, &completions)
    if ways[leader].node.leaseHeldDuringReads() {
      stamp(&completions, from: first)
    } else {
      completions.removeSubrange(first...)
      ways[leader].reads.tokens += leaseReads.tokens
      ways[leader].reads.keyWords += leaseReads.keyWords
    }
    leaseReads.removeAll()
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
    // Tickets up to `failed` are given up; those after it are answered.
    let firstTicket = ways[position].firstTicket
    let givenUp = failed < firstTicket ? 0 : min(available, Int(failed - firstTicket + 1))
    let head = ways[position].head
    for place in head..<head + givenUp {
      completions.append(
        Completion(token: ways[position].reads.tokens[place], status: .failed, doneNanoseconds: 0))
    }
    if givenUp < available {
      answer(
        ways[position].reads, first: head + givenUp, count: available - givenUp, from: position, &completions)
    }
    ways[position].head += available
    ways[position].firstTicket += UInt64(available)
    if ways[position].head == ways[position].reads.count {
      ways[position].reads.removeAll()
      ways[position].head = 0
    }
  }

  private static func status(of outcome: Outcome) -> OperationStatus {
    switch outcome {
    case .appliedFresh, .appliedExisting, .appliedNumber: .ok
    case .notLeader, .overloaded, .refused, .outOfSpace, .conditionUnmet, .notANumber, .overflow: .failed
    case .leadershipLost, .shutdown: .unknown
    }
  }
}
