import Dispatch
import Gossip
import Logging
import Raft
import Synchronization
import WeirCore
import WeirTransport

/// Gossip beside Raft: a node announces who it is and where it listens, and learns the same of the others.
///
/// Gossip only introduces nodes to each other. Who may vote is decided by the replicated configuration: a stranger that
/// shows up here gets a connection, not a vote.
public final class GossipMembership: Sendable {
  /// The gossip agent, for what is not wrapped here.
  public let agent: GossipNode
  private let node: Node
  private let raftAddress: String
  private let introductions: Introductions

  /// Starts the agent of a node that listens for peers.
  /// - Parameters:
  ///   - bind: where to gossip, for packets and streams alike; port 0 lets the system choose.
  ///   - membership: timings; `.local` for nodes on one machine.
  /// - Throws: `GossipNodeError` if it cannot listen.
  public init(
    node: Node, bind: GossipAddress, membership: Gossip.MembershipConfiguration = .lan, log: Logger
  ) throws(GossipNodeError) {
    self.node = node
    raftAddress = node.address?.description ?? ""
    introductions = Introductions(node: node, log: log)
    var settings = GossipNodeConfiguration(
      name: NodeName("weir-\(node.clusterID)-\(node.id)"), bind: bind, membership: membership)
    settings.metadata =
      MemberMetadata(
        raftID: node.id, clusterID: node.clusterID, role: node.status.role, raftAddress: raftAddress
      ).encoded()
    agent = try GossipNode(settings, hooks: GossipHooks(events: introductions))
  }

  /// The members of this cluster that gossip knows to be there, this node among them, by Raft id.
  public var members: [MemberMetadata] {
    agent.members.filter { $0.state == .alive || $0.state == .suspect }
      .compactMap { MemberMetadata(decoding: $0.metadata) }
      .filter { $0.clusterID == node.clusterID }
      .sorted { $0.raftID < $1.raftID }
  }

  /// Exchanges state with the nodes at `addresses`, from which all others become known. Blocks the calling thread.
  /// - Throws: the first failure, if none of them answered.
  public func join(_ addresses: [GossipAddress]) throws {
    let agent = agent
    try Self.wait { try await agent.join(addresses.map(\.description)) }
  }

  /// Tells the others that this node's role has changed. Returns at once.
  public func announce(role: Role) {
    let metadata = MemberMetadata(
      raftID: node.id, clusterID: node.clusterID, role: role, raftAddress: raftAddress
    ).encoded()
    let agent = agent
    Task { try? await agent.update(metadata: metadata, timeout: .seconds(1)) }
  }

  /// What gossip has cost so far. Blocks the calling thread.
  public func statistics() throws -> GossipStatistics {
    let agent = agent
    return try Self.wait { await agent.statistics() }
  }

  /// Ends the agent without a word: the others find out by themselves, as they would of a crash. Blocks until no thread
  /// or socket of it remains.
  public func stop() {
    let agent = agent
    _ = try? Self.wait { await agent.shutdown() }
  }

  /// Runs `body` and waits for it. Only for threads of one's own: never on a node's queue or in a task.
  @discardableResult
  private static func wait<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) throws -> Value {
    let done = DispatchSemaphore(value: 0)
    let outcome = Mutex<Result<Value, any Error>?>(nil)
    let box = OutcomeBox(outcome: outcome)
    Task {
      let result: Result<Value, any Error>
      do { result = .success(try await body()) } catch { result = .failure(error) }
      box.outcome.withLock { $0 = result }
      done.signal()
    }
    done.wait()
    guard let result = box.outcome.withLock({ $0 }) else { preconditionFailure("signalled without an outcome") }
    return try result.get()
  }

  private final class OutcomeBox<Value: Sendable>: Sendable {
    let outcome: Mutex<Result<Value, any Error>?>
    init(outcome: consuming Mutex<Result<Value, any Error>?>) { self.outcome = outcome }
  }
}

/// Makes members known to the node's transport as gossip finds them.
private final class Introductions: MemberEventDelegate {
  private let node: Node
  private let log: Logger

  init(node: Node, log: Logger) {
    self.node = node
    self.log = log
  }

  func memberChanged(_ event: MemberEvent) {
    guard let metadata = MemberMetadata(decoding: event.member.metadata), metadata.clusterID == node.clusterID else {
      return
    }
    guard metadata.raftID != node.id else { return }
    switch event {
    case .joined, .updated:
      do {
        node.addPeer(metadata.raftID, address: try SocketAddress(parsing: metadata.raftAddress))
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
