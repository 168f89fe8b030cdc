import Dispatch
import Synchronization

/// A member of a cluster: finds the others, tells who is alive, and spreads messages.
///
///     var configuration = GossipNodeConfiguration(name: "n1", bind: GossipAddress("127.0.0.1:0")!)
///     configuration.metadata = Array("role=cache".utf8)
///     let node = try GossipNode(configuration)
///     try await node.join(["127.0.0.1:7946"])
///     for await event in node.events() { … }
///
/// It speaks memberlist's protocol: members made with memberlist or serf take it for one of their own. All methods may
/// be called from any thread; none blocks on the network.
public final class GossipNode: Sendable {
  /// The name given.
  public let name: NodeName
  /// Where others reach it: the address told to them.
  public let address: GossipAddress
  private let loop: GossipLoop

  /// Binds the sockets and starts, alone in its cluster. Throws if the address cannot be bound.
  public init(_ configuration: GossipNodeConfiguration, hooks: GossipHooks = GossipHooks()) throws(GossipNodeError) {
    loop = try GossipLoop(configuration, hooks: hooks)
    name = configuration.name
    address = loop.localAddress
    loop.start()
  }

  deinit {
    let loop = loop
    loop.queue.async { loop.shutDown {} }
  }

  // MARK: Members

  /// Who is present, by name: alive and suspect members and the local one.
  public var members: [Member] { loop.published.members }

  /// The local member as the others see it.
  public var localMember: Member { loop.published.local }

  /// How well the node believes itself to be doing: 0 is best (memberlist's health score).
  public var healthScore: Int { loop.published.healthScore }

  /// The changes of the membership from now on. A consumer that falls more than `limit` events behind loses the later
  /// ones; `members` tells the truth at any time.
  public func events(limit: Int = 4096) -> AsyncStream<MemberEvent> { loop.published.events(limit: limit) }

  /// Counts of what the node has done, as they were when it last went to sleep. Never waits.
  public var latestStatistics: GossipStatistics {
    var statistics = loop.published.statistics
    statistics.droppedHookCalls = loop.hookQueue.droppedCalls
    return statistics
  }

  /// Counts of what the node has done, up to now.
  public func statistics() async -> GossipStatistics {
    await withCheckedContinuation { continuation in
      loop.queue.async { [loop] in
        var statistics = loop.statistics
        statistics.droppedHookCalls = loop.hookQueue.droppedCalls
        continuation.resume(returning: statistics)
      }
    }
  }

  // MARK: Joining and leaving

  /// What became of a join.
  public struct JoinResult: Sendable {
    /// Addresses with which full state was exchanged.
    public var contacted: Int
    /// Those with which it was not, and why.
    public var failures: [(address: String, error: GossipNodeError)]
  }

  /// Exchanges full state with every address given, `[name/]host[:port]`, and remembers them as seeds.
  ///
  /// Throws only if nobody could be contacted (the first failure), and if there was nobody to contact, nothing happens.
  @discardableResult
  public func join(_ addresses: [String]) async throws(GossipNodeError) -> JoinResult {
    let result: Result<JoinResult, GossipNodeError> = await withCheckedContinuation { continuation in
      join(addresses) { continuation.resume(returning: $0) }
    }
    return try result.get()
  }

  /// The same for callers that cannot await: `completion` is called once, on a queue of the node's or on the caller's
  /// thread, and must not block.
  public func join(
    _ addresses: [String], completion: @escaping @Sendable (Result<JoinResult, GossipNodeError>) -> Void
  ) {
    join(addresses[...], JoinResult(contacted: 0, failures: []), completion)
  }

  /// One address after the other.
  private func join(
    _ addresses: ArraySlice<String>, _ soFar: JoinResult,
    _ completion: @escaping @Sendable (Result<JoinResult, GossipNodeError>) -> Void
  ) {
    guard let text = addresses.first else {
      if soFar.contacted == 0, let first = soFar.failures.first { return completion(.failure(first.error)) }
      return completion(.success(soFar))
    }
    let goOn: @Sendable (Result<Int, GossipNodeError>) -> Void = { outcome in
      var result = soFar
      switch outcome {
      case .success(let contacted): result.contacted += contacted
      case .failure(let error): result.failures.append((text, error))
      }
      self.join(addresses.dropFirst(), result, completion)
    }
    do throws(WireError) {
      let target = try JoinAddress(parsing: text)
      if loop.configuration.requiresNodeNames, target.name == nil {
        return goOn(.failure(.nameRequired(address: text)))
      }
      loop.join(target, completion: goOn)
    } catch {
      goOn(.failure(.wire(error)))
    }
  }

  /// Says goodbye and waits until the others have been told, or `timeout`. The node still answers packets afterwards, so that
  /// the goodbye spreads; `shutdown` ends it, `rejoin` brings it back.
  ///
  /// - Returns: whether the goodbye has been sent as often as news is.
  @discardableResult
  public func leave(timeout: Duration = .seconds(5)) async throws(GossipNodeError) -> Bool {
    try await announce { membership, now throws(MembershipError) in
      try membership.leave(timeoutNanoseconds: timeout.nanoseconds, nowNanoseconds: now)
    }
  }

  /// Comes back after `leave`, with a higher incarnation, through the addresses given or the members still known.
  public func rejoin(_ addresses: [String] = []) async throws(GossipNodeError) {
    let known: [Member] = await withCheckedContinuation { continuation in
      loop.queue.async { [loop] in
        loop.membership.rejoinAfterLeave(nowNanoseconds: GossipLoop.now())
        loop.performOutbox()
        continuation.resume(returning: loop.membership.members)
      }
    }
    var targets = addresses
    if targets.isEmpty {
      targets = known.filter { $0.name != name }.prefix(3).map(\.address.description)
    }
    try await join(targets)
  }

  /// Changes the metadata and waits until the others have been told, or `timeout`.
  ///
  /// - Returns: whether the news has been sent as often as news is.
  @discardableResult
  public func update(metadata: [UInt8], timeout: Duration = .seconds(5)) async throws(GossipNodeError) -> Bool {
    try await announce { membership, now throws(MembershipError) in
      try membership.update(metadata: metadata, timeoutNanoseconds: timeout.nanoseconds, nowNanoseconds: now)
    }
  }

  /// The same for callers that cannot await: `completion` is called once, on a queue of the node's, and must not block.
  public func update(
    metadata: [UInt8], timeout: Duration = .seconds(5),
    completion: @escaping @Sendable (Result<Bool, GossipNodeError>) -> Void
  ) {
    announce(
      { membership, now throws(MembershipError) in
        try membership.update(metadata: metadata, timeoutNanoseconds: timeout.nanoseconds, nowNanoseconds: now)
      }, completion)
  }

  private func announce(
    _ start: @escaping @Sendable (inout Membership, UInt64) throws(MembershipError) -> UInt64
  ) async throws(GossipNodeError) -> Bool {
    let result: Result<Bool, GossipNodeError> = await withCheckedContinuation { continuation in
      announce(start) { continuation.resume(returning: $0) }
    }
    return try result.get()
  }

  private func announce(
    _ start: @escaping @Sendable (inout Membership, UInt64) throws(MembershipError) -> UInt64,
    _ completion: @escaping @Sendable (Result<Bool, GossipNodeError>) -> Void
  ) {
    loop.queue.async { [loop] in
      guard !loop.isShutDown else { return completion(.failure(.isShutDown)) }
      do throws(MembershipError) {
        let number = try start(&loop.membership, GossipLoop.now())
        loop.announcementCompletions[number] = { completion(.success($0)) }
        loop.performOutbox()
      } catch {
        completion(.failure(.membership(error)))
      }
    }
  }

  /// Closes the sockets without telling anybody, and waits until they are closed.
  public func shutdown() async {
    await withCheckedContinuation { continuation in shutdown { continuation.resume() } }
  }

  /// The same for callers that cannot await: `completion` is called once, on a queue of the node's.
  public func shutdown(completion: @escaping @Sendable () -> Void) {
    loop.queue.async { [loop] in loop.shutDown(completion: completion) }
  }

  // MARK: Messages

  /// Sends a message to all members, epidemically; it must fit one packet.
  public func broadcast(_ message: [UInt8]) async throws(GossipNodeError) {
    try await request { membership, now throws(MembershipError) in
      try membership.broadcast(message, nowNanoseconds: now)
    }
  }

  /// Sends a message to one member by one packet: it may be lost, and nothing is awaited.
  public func sendBestEffort(_ message: [UInt8], to member: NodeName) async throws(GossipNodeError) {
    try await request { membership, now throws(MembershipError) in
      try membership.sendBestEffort(message, to: member, nowNanoseconds: now)
    }
  }

  private func request(
    _ body: @escaping @Sendable (inout Membership, UInt64) throws(MembershipError) -> Void
  ) async throws(GossipNodeError) {
    let result: Result<Void, GossipNodeError> = await withCheckedContinuation { continuation in
      loop.queue.async { [loop] in
        guard !loop.isShutDown else { return continuation.resume(returning: .failure(.isShutDown)) }
        do throws(MembershipError) {
          try body(&loop.membership, GossipLoop.now())
          loop.performOutbox()
          continuation.resume(returning: .success(()))
        } catch {
          continuation.resume(returning: .failure(.membership(error)))
        }
      }
    }
    try result.get()
  }

  /// Sends a message to one member by a stream, of up to 20 MiB; returns when it is handed to the system.
  public func sendReliable(_ message: [UInt8], to member: NodeName) async throws(GossipNodeError) {
    let result: Result<Void, GossipNodeError> = await withCheckedContinuation { continuation in
      loop.sendReliable(message, to: member) { continuation.resume(returning: $0) }
    }
    try result.get()
  }

  /// Pings a member once.
  ///
  /// - Returns: the round trip, or nil if there was no answer within the probe timeout.
  public func ping(_ member: NodeName) async throws(GossipNodeError) -> Duration? {
    let result: Result<UInt64?, GossipNodeError> = await withCheckedContinuation { continuation in
      loop.queue.async { [loop] in
        guard !loop.isShutDown else { return continuation.resume(returning: .failure(.isShutDown)) }
        do throws(MembershipError) {
          let number = try loop.membership.ping(member, nowNanoseconds: GossipLoop.now())
          loop.pingCompletions[number] = { continuation.resume(returning: .success($0)) }
          loop.performOutbox()
        } catch {
          continuation.resume(returning: .failure(.membership(error)))
        }
      }
    }
    return try result.get().map { .nanoseconds($0) }
  }

  // MARK: Keys

  /// Replaces the keys: the first encrypts, all decrypt. nil ends encryption.
  ///
  /// To change a cluster's key: give every member the old key first and the new one second; then the new one first;
  /// then the new one alone. To turn encryption on, start with `verifyIncoming` and `verifyOutgoing` off.
  public func setKeyring(_ keyring: Keyring?, verifyIncoming: Bool = true, verifyOutgoing: Bool = true) async {
    await withCheckedContinuation { continuation in
      loop.queue.async { [loop] in
        loop.wire.keyring = keyring
        loop.wire.verifyIncoming = verifyIncoming
        loop.wire.verifyOutgoing = verifyOutgoing
        loop.packetCodec.configuration = loop.wire
        loop.streamEncoder.configuration = loop.wire
        continuation.resume()
      }
    }
  }
}

extension Duration {
  /// Nanoseconds, 0 for a negative duration and the largest number for one that is out of range.
  fileprivate var nanoseconds: UInt64 {
    let (seconds, attoseconds) = components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    return Formulas.saturatingSum(
      Formulas.saturatingProduct(UInt64(seconds), 1_000_000_000), UInt64(attoseconds) / 1_000_000_000)
  }
}
