import CWeir
import Glibc
import Gossip
import Logging
import WeirCore
import WeirTransport

/// Several nodes in one process, each with its own Raft, queue, log, state machine and real connections on loopback.
///
/// Sendable: the nodes are, and the lists never change.
public final class EmbeddedCluster: Sendable {
  /// How the nodes come to know where the others listen.
  public enum Introduction: Sendable {
    /// Each is told of all others before it starts, and there is no gossip.
    case direct
    /// Every node runs gossip beside Raft and joins through the address of the first: what gossip tells it of the
    /// others is all that it knows. With it everybody's role is known everywhere.
    case gossip(Gossip.MembershipConfiguration)
  }

  public let nodes: [Node]
  /// Gossip of each node, in the order of `nodes`; empty without.
  public let gossip: [GossipMembership]

  /// Makes the nodes, introduces them to each other and starts them.
  /// - Parameters:
  ///   - introduction: by gossip with timings for one machine, unless told otherwise.
  ///   - adjust: changes the settings of each node before it is made.
  /// - Throws: what a node or its gossip throws, or `IntroductionTimeout` if the nodes do not find each other within 30 s.
  public init(
    nodeCount: Int, seed: UInt64, introduction: Introduction = .gossip(.local),
    log: Logger = Logger(label: "weir.cluster"), adjust: (inout NodeConfiguration) -> Void = { _ in }
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
    switch introduction {
    case .direct:
      Self.introduceAll(nodes)
      gossip = []
    case .gossip(let timings): gossip = try Self.startGossip(of: nodes, timings, log: log)
    }
    for node in nodes { node.start() }
    self.nodes = nodes
  }

  /// Those nodes of a cluster that live in this process, and their gossip where they have it.
  public init(nodes: [Node], gossip: [GossipMembership] = []) {
    self.nodes = nodes
    self.gossip = gossip
  }

  private static func introduceAll(_ nodes: [Node]) {
    for node in nodes {
      for peer in nodes where peer.id != node.id {
        if let address = peer.address { node.addPeer(peer.id, address: address) }
      }
    }
  }

  private static func startGossip(
    of nodes: [Node], _ timings: Gossip.MembershipConfiguration, log: Logger
  ) throws -> [GossipMembership] {
    var gossip: [GossipMembership] = []
    do {
      for node in nodes {
        let bind = GossipAddress(ip: IPAddress(127, 0, 0, 1), port: 0)
        let membership = try GossipMembership(node: node, bind: bind, membership: timings, log: log)
        if let first = gossip.first { try membership.join([first.agent.address]) }
        gossip.append(membership)
      }
      // A node that starts before it knows the others loses its first election and waits for the next.
      let deadline = cweir_monotonic_nanoseconds() + 30_000_000_000
      while !gossip.allSatisfy({ $0.introducedNodes.count == nodes.count - 1 }) {
        guard cweir_monotonic_nanoseconds() < deadline else { throw IntroductionTimeout() }
        usleep(1000)
      }
    } catch {
      for membership in gossip { membership.stop() }
      throw error
    }
    return gossip
  }

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
  public func stop() {
    for membership in gossip { membership.stop() }
    for node in nodes { node.stop() }
  }
}

/// The nodes of a cluster did not find each other through gossip.
public struct IntroductionTimeout: Error, CustomStringConvertible {
  public init() {}

  public var description: String {
    "the nodes did not find each other by gossip within 30 s: the machine is overloaded, or loopback is filtered"
  }
}
