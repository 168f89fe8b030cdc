import Dispatch

/// What the application asks for that needs the network.
extension GossipLoop {
  /// The port of a join address that names none.
  static let defaultPort: UInt16 = 7946

  /// Looks the address up and exchanges state with every address found. May be called from any thread.
  ///
  /// - Parameter completion: with how many answered, or why none did.
  func join(_ target: JoinAddress, completion: @escaping @Sendable (Result<Int, GossipNodeError>) -> Void) {
    queue.async { [self] in
      if configuration.retriesJoin, !seeds.contains(target) {
        if seeds.count == Self.maximumSeeds { seeds.removeFirst() }
        seeds.append(target)
      }
    }
    let port = target.port ?? Self.defaultPort
    if let ip = IPAddress(target.host) {
      let address = GossipAddress(ip: ip, port: port)
      return queue.async { [self] in contact([address], name: target.name, contacted: 0, firstError: nil, completion) }
    }
    // Looking up a name blocks, so it is done elsewhere: on a queue of its own, as the threads that all programs' tasks
    // share may all be blocked by theirs.
    DispatchQueue(label: "weir.gossip.resolver").async { [self] in
      do throws(GossipNodeError) {
        let found = try Resolver.addresses(of: target.host, port: port)
        queue.async { [self] in contact(found[...], name: target.name, contacted: 0, firstError: nil, completion) }
      } catch {
        completion(.failure(error))
      }
    }
  }

  private static var maximumSeeds: Int { 64 }

  /// One address after the other.
  private func contact(
    _ addresses: ArraySlice<GossipAddress>, name: NodeName?, contacted: Int, firstError: GossipNodeError?,
    _ completion: @escaping @Sendable (Result<Int, GossipNodeError>) -> Void
  ) {
    guard let next = addresses.first else {
      if contacted == 0, let firstError { return completion(.failure(firstError)) }
      return completion(.success(contacted))
    }
    exchangeState(with: next, isJoin: true, expectedName: name) { [weak self] result in
      guard let self else { return completion(.failure(.isShutDown)) }
      var contacted = contacted
      var firstError = firstError
      switch result {
      case .success: contacted += 1
      case .failure(let error): firstError = firstError ?? error
      }
      contact(addresses.dropFirst(), name: name, contacted: contacted, firstError: firstError, completion)
    }
    performOutbox()
  }

  /// A node that could not reach its seeds when it started, or lost everybody, tries them again.
  func retryJoinIfAlone(nowNanoseconds now: UInt64) {
    let interval = membership.configuration.rejoinIntervalNanoseconds
    guard configuration.retriesJoin, interval > 0, !membership.isGone else { return }
    guard membership.isAlone, !seeds.isEmpty else {
      nextSeedNanoseconds = Formulas.saturatingSum(now, interval)
      return
    }
    guard now >= nextSeedNanoseconds else { return }
    nextSeedNanoseconds = Formulas.saturatingSum(now, interval)
    join(seeds[Int(now % UInt64(seeds.count))]) { _ in }
  }

  /// May be called from any thread.
  func sendReliable(_ message: [UInt8], to name: NodeName, completion: @escaping StreamCompletion) {
    queue.async { [self] in
      guard let member = membership.member(named: name) else {
        return completion(.failure(.membership(.unknownMember(name))))
      }
      dial(
        member.address, purpose: .user(completion: completion), message: .user(message),
        deadlineNanoseconds: Formulas.saturatingSum(Self.now(), configuration.streamTimeoutNanoseconds))
    }
  }
}
