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

/// A registered observer, to be given back.
public struct ObserverToken: Sendable, Hashable {
  let number: UInt64
}

/// What applications ask of a node: callbacks come on the node's queue, on a thread in `park`, or for timeouts on another
/// queue, one at a time but for those; never from within the call that they belong to, unless it is refused at once. They must
/// not block.
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
  /// - Returns: the barrier's own index.
  @discardableResult
  public func barrier(timeouts: ApplyTimeouts = .init()) async throws(NodeError) -> LogIndex {
    try await Self.wait { barrier(timeouts: timeouts, completion: $0) }
  }

  /// The same with a callback.
  public func barrier(
    timeouts: ApplyTimeouts = .init(), completion: @escaping @Sendable (Result<LogIndex, NodeError>) -> Void
  ) {
    apply([], timeouts: timeouts) { completion($0.map(\.index)) }
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

  /// An index at which this node's state contains all that was acknowledged before the call, once it is applied here:
  /// when this returns, it is.
  public func readIndex(timeoutNanoseconds: UInt64 = 10_000_000_000) async throws(NodeError) -> LogIndex {
    try await Self.wait { readIndex(timeoutNanoseconds: timeoutNanoseconds, completion: $0) }
  }

  /// The same with a callback.
  public func readIndex(
    timeoutNanoseconds: UInt64 = 10_000_000_000,
    completion: @escaping @Sendable (Result<LogIndex, NodeError>) -> Void
  ) {
    let published = published
    verifyLeader(timeoutNanoseconds: timeoutNanoseconds) { result in
      // Published before any lane hears that its reads are settled.
      completion(result.map { published.appliedIndex.load(ordering: .acquiring) })
    }
  }

  /// The value of `key`, or nil.
  public func read(
    _ key: [UInt8], _ consistency: ReadConsistency = .safe, timeoutNanoseconds: UInt64 = 10_000_000_000
  ) async throws(NodeError) -> [UInt8]? {
    if let answer = readLocally(key, consistency) { return try answer.get() }
    try await verifyLeader(timeoutNanoseconds: timeoutNanoseconds)
    return try look(up: key).get()
  }

  /// The same with a callback, which comes at once where no message is needed.
  public func read(
    _ key: [UInt8], _ consistency: ReadConsistency = .safe, timeoutNanoseconds: UInt64 = 10_000_000_000,
    completion: @escaping @Sendable (Result<[UInt8]?, NodeError>) -> Void
  ) {
    if let answer = readLocally(key, consistency) { return completion(answer) }
    verifyLeader(timeoutNanoseconds: timeoutNanoseconds) { [self] result in
      completion(result.flatMap { look(up: key) })
    }
  }

  /// The answer where it needs no round; nil where it does.
  private func readLocally(_ key: [UInt8], _ consistency: ReadConsistency) -> Result<[UInt8]?, NodeError>? {
    guard consistency != .safe else { return nil }
    let answer = look(up: key)
    // In this order: the lease has to hold after the value was read, see `leaseHeldDuringReads`.
    return consistency == .stale || leaseHeldDuringReads() ? answer : nil
  }

  /// What this node has applied. A node that was given leave to read as a leader may have been sent a state since.
  private func look(up key: [UInt8]) -> Result<[UInt8]?, NodeError> {
    guard let value = store.readCopy(key) else { return .failure(.loading) }
    return .success(value)
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
  func request(_ body: @escaping @Sendable (NodeLoop) -> Void, otherwise: () -> Void) {
    if !intake.perform(body) { otherwise() }
  }

  static func wait<Value: Sendable>(
    _ start: (@escaping @Sendable (Result<Value, NodeError>) -> Void) -> Void
  ) async throws(NodeError) -> Value {
    let result = await withCheckedContinuation { (continuation: CheckedContinuation<Result<Value, NodeError>, Never>) in
      start { continuation.resume(returning: $0) }
    }
    return try result.get()
  }
}
