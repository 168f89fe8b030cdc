import CWeir
import Glibc
import Logging
import WeirCore
import WeirTransport

/// Several nodes in one process, each with its own Raft, queue, log, state machine and real connections on loopback.
///
/// Sendable: the nodes are, and the list never changes.
public final class EmbeddedCluster: Sendable {
  public let nodes: [Node]

  /// Makes the nodes, connects them and starts them.
  /// - Parameter adjust: changes the settings of each node before it is made.
  public init(
    nodeCount: Int, seed: UInt64, log: Logger = Logger(label: "weir.cluster"),
    adjust: (inout NodeConfiguration) -> Void = { _ in }
  ) throws {
    precondition(nodeCount > 0, "a cluster has at least one node")
    let voters = (1...UInt64(nodeCount)).map { $0 }
    var nodes: [Node] = []
    for id in voters {
      var configuration = NodeConfiguration(
        id: id, clusterID: seed | 1, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0),
        initialVoters: voters, seed: seed &+ id, log: log)
      adjust(&configuration)
      nodes.append(try Node(configuration))
    }
    for node in nodes {
      for peer in nodes where peer.id != node.id {
        if let address = peer.address { node.addPeer(peer.id, address: address) }
      }
    }
    for node in nodes { node.start() }
    self.nodes = nodes
  }

  /// Those nodes of a cluster that live in this process.
  public init(nodes: [Node]) { self.nodes = nodes }

  /// The node that leads in the highest term, if any does.
  public var leader: Node? {
    var found: (node: Node, term: Term)?
    for node in nodes {
      let status = node.status
      if status.role == .leader, status.term >= found?.term ?? 0 { found = (node, status.term) }
    }
    return found?.node
  }

  /// Waits for a leader that has a lease, or in a cluster of one, for a leader.
  /// - Returns: the leader, or nil if there was none before the deadline (CLOCK_MONOTONIC).
  public func waitForLeader(deadlineNanoseconds: UInt64) -> Node? {
    while true {
      if let leader, leader.holdsLease || nodes.count == 1 { return leader }
      guard cweir_monotonic_nanoseconds() < deadlineNanoseconds else { return nil }
      usleep(1000)
    }
  }

  /// Waits until every node has applied what the leader has committed.
  public func waitUntilEven(deadlineNanoseconds: UInt64) -> Bool {
    while true {
      let statuses = nodes.map(\.status)
      let commit = statuses.map(\.commitIndex).max() ?? 0
      if statuses.allSatisfy({ $0.appliedIndex == commit }) { return true }
      guard cweir_monotonic_nanoseconds() < deadlineNanoseconds else { return false }
      usleep(1000)
    }
  }

  /// Stops all nodes; no thread or socket of them remains when it returns.
  public func stop() { for node in nodes { node.stop() } }
}
