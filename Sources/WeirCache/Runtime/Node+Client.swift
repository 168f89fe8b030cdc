import CWeir
import Dispatch
import Raft
import Synchronization
import WeirCore
import WeirTransport

/// How fresh a read has to be.
public enum ReadConsistency: String, Sendable, CaseIterable {
  /// Linearizable whatever clocks do: one heartbeat round, shared with all reads that wait.
  case safe
  /// Linearizable as long as clocks keep the stated drift bound; without a message while the lease runs.
  case lease
  /// What this node has applied, on any node.
  case stale
}

/// How long an operation may take.
public struct ApplyTimeouts: Sendable, Hashable {
  /// Until when it must be taken into the log; after that it has no effect for certain.
  public var enqueueNanoseconds: UInt64
  /// Until when it must be applied; after that its outcome is unknown.
  public var commitNanoseconds: UInt64

  public init(enqueueNanoseconds: UInt64 = 2_000_000_000, commitNanoseconds: UInt64 = 10_000_000_000) {
    self.enqueueNanoseconds = enqueueNanoseconds
    self.commitNanoseconds = commitNanoseconds
  }
}

/// The membership as this node has applied it.
public struct Membership: Sendable, Hashable {
  public var configuration: ConfigurationState
  /// The index of its last change: what a further change can be made conditional on.
  public var index: LogIndex
}

/// A registered observer, to be given back.
public struct ObserverToken: Sendable, Hashable {
  let number: UInt64
}

/// What applications ask of a node: callbacks come on the node's queue or, for timeouts, on another, and must not block.
extension Node {
  // MARK: Writing

  /// Proposes a command (`Command.encode`); `completion` is called exactly once.
  public func apply(
    _ command: [UInt8], timeouts: ApplyTimeouts = .init(),
    completion: @escaping @Sendable (Result<Applied, NodeError>) -> Void
  ) {
    if !command.isEmpty {
      do throws(CommandError) { _ = unsafe try Command.decode(command.span.bytes) } catch {
        return completion(.failure(.invalidCommand(error)))
      }
    }
    let now = cweir_monotonic_nanoseconds()
    let isTaken = client.submit(
      payload: command, enqueueDeadline: now &+ timeouts.enqueueNanoseconds,
      commitDeadline: now &+ max(timeouts.commitNanoseconds, timeouts.enqueueNanoseconds), completion)
    if isTaken { intake.post(client) }
  }

  /// Proposes a command and waits until it is applied.
  @discardableResult
  public func apply(_ command: [UInt8], timeouts: ApplyTimeouts = .init()) async throws(NodeError) -> Applied {
    try await Self.wait { apply(command, timeouts: timeouts, completion: $0) }
  }

  /// Waits until everything proposed before is applied here.
  @discardableResult
  public func barrier(timeouts: ApplyTimeouts = .init()) async throws(NodeError) -> LogIndex {
    try await apply([], timeouts: timeouts).index
  }

  // MARK: Reading

  /// Waits for a heartbeat round that proves that this node led after the call.
  public func verifyLeader(timeoutNanoseconds: UInt64 = 10_000_000_000) async throws(NodeError) {
    try await Self.wait { verifyLeader(timeoutNanoseconds: timeoutNanoseconds, completion: $0) }
  }

  /// The same with a callback: once it succeeds, what `store` holds contains all that was acknowledged before the call.
  public func verifyLeader(
    timeoutNanoseconds: UInt64, completion: @escaping @Sendable (Result<Void, NodeError>) -> Void
  ) {
    let deadline = cweir_monotonic_nanoseconds() &+ timeoutNanoseconds
    if client.requestRead(deadline: deadline, completion) { intake.post(client) }
  }

  /// The value of `key`.
  public func read(
    _ key: [UInt8], _ consistency: ReadConsistency = .safe, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) -> [UInt8]? {
    switch consistency {
    case .stale: return store.get(key)
    case .lease:
      let value = store.get(key)
      if leaseHeldDuringReads() { return value }
    case .safe: break
    }
    try await verifyLeader(timeoutNanoseconds: timeoutNanoseconds)
    return store.get(key)
  }

  // MARK: Membership

  /// Makes a node a voter, whether it is a learner or not a member yet.
  /// - Parameter ifIndexIs: the change happens only if the configuration's index is this; 0: in any case.
  public func addVoter(
    _ member: NodeID, address: SocketAddress, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) -> LogIndex {
    try await change(MemberChange(.addVoter, member), address, ifIndexIs, timeoutNanoseconds)
  }

  /// Makes a node a learner: it gets the log and has no vote.
  public func addLearner(
    _ member: NodeID, address: SocketAddress, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) -> LogIndex {
    try await change(MemberChange(.addLearner, member), address, ifIndexIs, timeoutNanoseconds)
  }

  /// Removes a member. A leader that removes itself leads until the change is committed.
  public func removeServer(
    _ member: NodeID, ifIndexIs: LogIndex = 0, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) -> LogIndex {
    try await change(MemberChange(.remove, member), nil, ifIndexIs, timeoutNanoseconds)
  }

  private func change(
    _ change: MemberChange, _ address: SocketAddress?, _ expected: LogIndex, _ timeout: UInt64
  ) async throws(NodeError) -> LogIndex {
    let context = address.map { Array($0.description.utf8) } ?? []
    let deadline = cweir_monotonic_nanoseconds() &+ timeout
    return try await Self.wait { (completion: @escaping @Sendable (Result<Applied, NodeError>) -> Void) in
      request({ driver in
        driver.change(
          ConfigurationChangeV2(changes: [change], context: context), expectedIndex: expected,
          commitDeadline: deadline, completion)
      }) { completion(.failure(.shutdown)) }
    }.index
  }

  /// The membership as this node has applied it.
  public func membership() async throws(NodeError) -> Membership {
    try await Self.wait { (completion: @escaping @Sendable (Result<Membership, NodeError>) -> Void) in
      request({ driver in
        completion(.success(Membership(configuration: driver.configurationState, index: driver.configurationIndex)))
      }) { completion(.failure(.shutdown)) }
    }
  }

  /// Hands the leadership to another voter, and waits until it leads.
  public func transferLeadership(
    to target: NodeID, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) {
    let deadline = cweir_monotonic_nanoseconds() &+ timeoutNanoseconds
    try await Self.wait { (completion: @escaping @Sendable (Result<Void, NodeError>) -> Void) in
      request({ $0.transferLeadership(to: target, deadline: deadline, completion) }) {
        completion(.failure(.shutdown))
      }
    }
  }

  // MARK: Observers

  /// Calls `body` on the node's queue with each change; it must not block.
  public func observe(_ body: @escaping @Sendable (NodeEvent) -> Void) -> ObserverToken {
    let token = ObserverToken(number: observerCount.wrappingAdd(1, ordering: .relaxed).newValue)
    _ = intake.perform { $0.observers[token.number] = body }
    return token
  }

  public func removeObserver(_ token: ObserverToken) {
    _ = intake.perform { $0.observers[token.number] = nil }
  }

  // MARK: Waiting

  /// Has `body` run on the node's queue, or `otherwise` here if it has stopped.
  private func request(_ body: @escaping @Sendable (NodeLoop) -> Void, otherwise: () -> Void) {
    if !intake.perform(body) { otherwise() }
  }

  private static func wait<Value: Sendable>(
    _ start: (@escaping @Sendable (Result<Value, NodeError>) -> Void) -> Void
  ) async throws(NodeError) -> Value {
    let result = await withCheckedContinuation { (continuation: CheckedContinuation<Result<Value, NodeError>, Never>) in
      start { continuation.resume(returning: $0) }
    }
    return try result.get()
  }
}
