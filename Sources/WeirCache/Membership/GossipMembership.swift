import Gossip
import Logging
import Raft
import Synchronization
import WeirCore
import WeirTransport

/// Gossip beside Raft: a node announces who it is, where it listens and whether it leads, and learns the same of the
/// others.
///
/// Gossip only introduces nodes to each other. Who may vote is decided by the replicated configuration: a stranger that
/// shows up here gets a connection, not a vote.
public final class GossipMembership: Sendable {
  /// The gossip agent, for what is not wrapped here.
  public let agent: GossipNode
  private let node: Node
  private let raftAddress: String
  private let clientAddress: String
  private let respAddress: String
  private let introductions: Introductions
  private let observer = Mutex<ObserverToken?>(nil)

  /// Starts the agent of a node that listens for peers. Best done before the node itself is started: a change of its
  /// role is announced from here on.
  /// - Parameters:
  ///   - bind: where to gossip, for packets and streams alike; port 0 lets the system choose.
  ///   - clientAddress: where the node serves clients, `host:port`; empty if it does not.
  ///   - respAddress: where it serves cache clients, the same.
  ///   - membership: timings; `.local` for nodes on one machine.
  /// - Throws: `GossipNodeError` if it cannot listen.
  public init(
    node: Node, bind: GossipAddress, clientAddress: String = "", respAddress: String = "",
    membership: Gossip.MembershipConfiguration = .lan, log: Logger
  ) throws(GossipNodeError) {
    self.node = node
    raftAddress = node.address?.description ?? ""
    self.clientAddress = clientAddress
    self.respAddress = respAddress
    introductions = Introductions(node: node, log: log)
    var settings = GossipNodeConfiguration(
      name: NodeName("weir-\(node.clusterID)-\(node.id)"), bind: bind, membership: membership)
    settings.metadata =
      MemberMetadata(
        raftID: node.id, clusterID: node.clusterID, role: node.status.role, raftAddress: raftAddress,
        clientAddress: clientAddress, respAddress: respAddress
      ).encoded()
    agent = try GossipNode(settings, hooks: GossipHooks(events: introductions))
    let token = node.observe { [weak self] event in
      if case .roleChanged(let role) = event { self?.announce(role: role) }
    }
    observer.withLock { $0 = token }
  }

  /// The members of this cluster that gossip knows to be there, this node among them, by Raft id.
  public var members: [MemberMetadata] {
    agent.members.filter { $0.state == .alive || $0.state == .suspect }
      .compactMap { MemberMetadata(decoding: $0.metadata) }
      .filter { $0.clusterID == node.clusterID }
      .sorted { $0.raftID < $1.raftID }
  }

  /// The nodes whose address has been handed to this one's transport so far.
  public var introducedNodes: Set<NodeID> { introductions.introduced.withLock { Set($0.map(\.self)) } }

  /// Exchanges state with the nodes at `addresses`, from which all others become known. Blocks the calling thread, but
  /// needs none of those that tasks share.
  /// - Throws: the first failure, if none of them answered.
  public func join(_ addresses: [GossipAddress]) throws(GossipNodeError) {
    let agent = agent
    _ = try waitForCallback { agent.join(addresses.map(\.description), completion: $0) }.get()
  }

  /// Tells the others that this node's role has changed. Returns at once; called for every change by itself.
  public func announce(role: Role) {
    let metadata = MemberMetadata(
      raftID: node.id, clusterID: node.clusterID, role: role, raftAddress: raftAddress, clientAddress: clientAddress,
      respAddress: respAddress
    ).encoded()
    agent.update(metadata: metadata, timeout: .seconds(1)) { _ in }
  }

  /// What gossip has cost so far. Never blocks.
  public var statistics: GossipStatistics { agent.latestStatistics }

  /// Tells the others that this node goes, so that they need not find out by probing. Blocks until they were told, or two
  /// seconds. Not from a task.
  public func leave() {
    let agent = agent
    waitForCallback { done in
      Task {
        _ = try? await agent.leave(timeout: .seconds(2))
        done(())
      }
    }
  }

  /// Ends the agent without a word: the others find out by themselves, as they would of a crash. Blocks until no socket
  /// of it remains.
  public func stop() {
    let token = observer.withLock { observer in
      defer { observer = nil }
      return observer
    }
    if let token { node.removeObserver(token) }
    let agent = agent
    waitForCallback { done in agent.shutdown { done(()) } }
  }
}

/// Makes members known to the node's transport as gossip finds them.
private final class Introductions: MemberEventDelegate {
  private let node: Node
  private let log: Logger
  let introduced = Mutex<Set<NodeID>>([])

  init(node: Node, log: Logger) {
    self.node = node
    self.log = log
  }

  func memberChanged(_ event: MemberEvent) {
    guard let metadata = MemberMetadata(decoding: event.member.metadata), metadata.clusterID == node.clusterID,
      metadata.raftID != node.id
    else { return }
    switch event {
    case .joined, .updated:
      do {
        node.addPeer(metadata.raftID, address: try SocketAddress(parsing: metadata.raftAddress))
        introduced.withLock { _ = $0.insert(metadata.raftID) }
      } catch {
        log.warning("gossip member \(event.member.name) announces no usable Raft address: \(metadata.raftAddress)")
      }
    case .left(let member):
      // The connection stays: Raft's own messages find out faster whether it works, and a member that comes back under
      // the same address needs no introduction.
      log.info("gossip: node \(metadata.raftID) \(member.state == .left ? "has left" : "is dead")")
    }
  }
}

extension Node {
  /// The cluster this node belongs to.
  public var clusterID: UInt64 { configuration.clusterID }
}
