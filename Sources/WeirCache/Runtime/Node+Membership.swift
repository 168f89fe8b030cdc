import CWeir
import Raft
import WeirCore
import WeirTransport

/// The membership as this node has applied it.
public struct Membership: Sendable, Hashable {
  public var configuration: ConfigurationState
  /// The index of its last change: what a further change can be made conditional on.
  public var index: LogIndex
  /// Where the members are, `host:port`, as far as this node knows. Members that the cluster started with are known to
  /// those that were told of them.
  public var addresses: [NodeID: String]
}

/// Who belongs to the cluster, and who leads it. Each request has an async and a callback face with the same typed
/// errors; callbacks come on the node's queue, or for timeouts on another, and must not block.
extension Node {
  // MARK: Membership

  /// Makes a node a voter, whether it is a learner or not a member yet, or gives a voter another address.
  /// - Parameter ifIndexIs: the change happens only if the configuration's index is this; 0: in any case.
  /// - Returns: the index of the change, for the condition of the next one.
  @discardableResult
  public func addVoter(
    _ member: NodeID, address: SocketAddress, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) -> LogIndex {
    try await change(MemberChange(.addVoter, member), address, ifIndexIs, timeoutNanoseconds)
  }

  /// The same with a callback.
  public func addVoter(
    _ member: NodeID, address: SocketAddress, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000,
    completion: @escaping @Sendable (Result<LogIndex, NodeError>) -> Void
  ) {
    change(MemberChange(.addVoter, member), address, ifIndexIs, timeoutNanoseconds, completion)
  }

  /// Makes a node a learner: it gets the log and has no vote.
  @discardableResult
  public func addLearner(
    _ member: NodeID, address: SocketAddress, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) -> LogIndex {
    try await change(MemberChange(.addLearner, member), address, ifIndexIs, timeoutNanoseconds)
  }

  /// The same with a callback.
  public func addLearner(
    _ member: NodeID, address: SocketAddress, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000,
    completion: @escaping @Sendable (Result<LogIndex, NodeError>) -> Void
  ) {
    change(MemberChange(.addLearner, member), address, ifIndexIs, timeoutNanoseconds, completion)
  }

  /// Removes a member. A leader that removes itself leads until the change is committed.
  @discardableResult
  public func removeServer(
    _ member: NodeID, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) -> LogIndex {
    try await change(MemberChange(.remove, member), nil, ifIndexIs, timeoutNanoseconds)
  }

  /// The same with a callback.
  public func removeServer(
    _ member: NodeID, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000,
    completion: @escaping @Sendable (Result<LogIndex, NodeError>) -> Void
  ) {
    change(MemberChange(.remove, member), nil, ifIndexIs, timeoutNanoseconds, completion)
  }

  private func change(
    _ member: MemberChange, _ address: SocketAddress?, _ expected: LogIndex, _ timeout: UInt64
  ) async throws(NodeError) -> LogIndex {
    try await Self.wait { change(member, address, expected, timeout, $0) }
  }

  private func change(
    _ change: MemberChange, _ address: SocketAddress?, _ expected: LogIndex, _ timeout: UInt64,
    _ completion: @escaping @Sendable (Result<LogIndex, NodeError>) -> Void
  ) {
    let deadline = cweir_monotonic_nanoseconds() &+ timeout
    request({ driver in
      driver.change(change, address: address, expectedIndex: expected, commitDeadline: deadline) {
        completion($0.map(\.index))
      }
    }) { completion(.failure(.shutdown)) }
  }

  /// The membership as this node has applied it.
  public func membership() async throws(NodeError) -> Membership {
    try await Self.wait { membership(completion: $0) }
  }

  /// The same with a callback.
  public func membership(completion: @escaping @Sendable (Result<Membership, NodeError>) -> Void) {
    request({ driver in
      completion(
        .success(
          Membership(
            configuration: driver.configurationState, index: driver.configurationIndex,
            addresses: driver.replicatedAddresses)))
    }) { completion(.failure(.shutdown)) }
  }

  // MARK: Leadership

  /// Hands the leadership to another voter, and waits until it leads.
  public func transferLeadership(
    to target: NodeID, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) {
    try await Self.wait { transferLeadership(to: target, timeoutNanoseconds: timeoutNanoseconds, completion: $0) }
  }

  /// The same with a callback.
  public func transferLeadership(
    to target: NodeID, timeoutNanoseconds: UInt64 = 10_000_000_000,
    completion: @escaping @Sendable (Result<Void, NodeError>) -> Void
  ) {
    let deadline = cweir_monotonic_nanoseconds() &+ timeoutNanoseconds
    request({ $0.transferLeadership(to: target, deadline: deadline, completion) }) {
      completion(.failure(.shutdown))
    }
  }
}
