import CWeir
import Foundation
import Load
import WeirCache
import WeirCore
import WeirTransport

/// A cluster of which each node is a process of its own; the generator talks to the leader over sockets.
final class ProcessTarget: Target {
  let name = "processes"
  let readiness: Readiness?
  let children: [ChildNode]
  let clusterID: UInt64
  private let connectionsPerSession: Int
  /// A folder of its own that goes with the target.
  private let folder: TemporaryFolder?

  init(
    children: [ChildNode], clusterID: UInt64, readiness: Readiness, connectionsPerSession: Int,
    folder: TemporaryFolder?
  ) {
    self.children = children
    self.clusterID = clusterID
    self.readiness = readiness
    self.connectionsPerSession = connectionsPerSession
    self.folder = folder
  }

  func makeSession(worker: Int, readMode: Load.ReadMode) throws -> any TargetSession {
    try ProcessSession(target: self, readMode: readMode, connectionCount: connectionsPerSession)
  }

  /// Nothing where a child does not answer: the run's errors, and the comparison of the replicas, say why.
  func counters() -> TargetCounters {
    guard let reports = try? children.map({ try $0.report() }) else { return TargetCounters() }
    func sum(_ path: KeyPath<NodeReport, UInt64>) -> UInt64 { reports.reduce(0) { $0 + $1[keyPath: path] } }
    return TargetCounters(
      peerMessages: sum(\.messagesSent), peerBytes: sum(\.bytesSent), wakeups: sum(\.wakeups), fsyncs: sum(\.syncs),
      gossipPackets: sum(\.gossipPackets), gossipBytes: sum(\.gossipBytes),
      gossipCPUNanoseconds: sum(\.gossipCPUNanoseconds), nodeCPUNanoseconds: sum(\.processCPUNanoseconds),
      otherProcessCPUNanoseconds: sum(\.processCPUNanoseconds),
      elections: sum(\.electionsWon))
  }

  func replicaHashes(deadlineNanoseconds: UInt64) throws -> [ReplicaHash] {
    while true {
      let reports = try children.map { try $0.report() }
      let commit = reports.map(\.commitIndex).max() ?? 0
      if reports.allSatisfy({ $0.appliedIndex == commit }) {
        return reports.map {
          ReplicaHash(node: $0.id, appliedIndex: $0.appliedIndex, hash: $0.stateHash, keys: $0.keys)
        }
      }
      guard cweir_monotonic_nanoseconds() < deadlineNanoseconds else {
        let indexes = reports.map { "node \($0.id) at \($0.appliedIndex)" }.joined(separator: ", ")
        throw TargetError("the replicas have not applied the same entries in time: \(indexes)")
      }
      usleep(5000)
    }
  }

  /// The child that leads and holds a lease (in a cluster of one: that leads); nil if none does before the deadline.
  func leader(deadlineNanoseconds: UInt64) throws -> ChildNode? {
    while true {
      for child in children {
        let report = try child.report()
        if report.isLeader, report.holdsLease || children.count == 1 { return child }
      }
      guard cweir_monotonic_nanoseconds() < deadlineNanoseconds else { return nil }
      usleep(5000)
    }
  }

  func shutdown() {
    for child in children { child.end() }
    folder?.remove()
  }
}

/// Starts clusters of processes. From the main thread, see `ChildNode`.
struct ProcessTargetFactory: TargetFactory {
  var eventLoop = EventLoopConfiguration()
  /// Connections of each load worker to the leader.
  var connectionsPerSession = 1
  /// How fast each node writes its snapshots at most; nil: as nodes do by themselves.
  var snapshotBytesPerSecond: Int?

  func startCluster(_ configuration: ClusterConfiguration) throws -> any Target { try start(configuration) }

  func start(_ configuration: ClusterConfiguration) throws -> ProcessTarget {
    let folder = configuration.durability == .memory ? nil : try TemporaryFolder(in: configuration.directory)
    return try start(configuration, in: folder?.path, owning: folder)
  }

  /// Starts a cluster in a folder that may hold one already, which then goes on.
  func start(
    _ configuration: ClusterConfiguration, in directory: String?, owning folder: TemporaryFolder? = nil
  ) throws -> ProcessTarget {
    var configuration = configuration
    configuration.directory = directory
    let clusterID = configuration.seed | 1
    var children: [ChildNode] = []
    do {
      for id in 1...UInt64(configuration.nodes) {
        children.append(
          try ChildNode(
            id: id, cluster: clusterID, configuration: configuration, eventLoop: eventLoop,
            snapshotBytesPerSecond: snapshotBytesPerSecond))
      }
      try Self.connect(children)
    } catch {
      for child in children { child.end() }
      throw error
    }
    let target = ProcessTarget(
      children: children, clusterID: clusterID, readiness: eventLoop.readiness,
      connectionsPerSession: connectionsPerSession, folder: folder)
    do {
      guard try target.leader(deadlineNanoseconds: cweir_monotonic_nanoseconds() + 30_000_000_000) != nil else {
        throw TargetError("the cluster elected no leader within 30 s: the machine is overloaded")
      }
    } catch {
      target.shutdown()
      throw error
    }
    return target
  }

  private static func connect(_ children: [ChildNode]) throws {
    for child in children.dropFirst() where try child.ask("join \(children[0].gossipAddress)") != "joined" {
      throw TargetError("node process \(child.id) did not join the others")
    }
    for child in children where try child.ask("start") != "started" {
      throw TargetError("node process \(child.id) did not start")
    }
  }
}
