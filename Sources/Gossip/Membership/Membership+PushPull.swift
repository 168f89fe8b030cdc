/// Exchange of full state, and finding lost peers again.
extension Membership {
  // MARK: Anti-entropy

  mutating func pushPullTick(scheduledAtNanoseconds scheduled: UInt64) {
    let interval = Formulas.pushPullIntervalNanoseconds(
      baseNanoseconds: configuration.pushPullIntervalNanoseconds, nodeCount: table.count)
    deadlines.add(.pushPull, atNanoseconds: nextTick(after: scheduled, interval: interval))
    let local = localSlot
    var targets = chosen
    table.choose(1, random: &random, into: &targets) { slot, record in slot != local && record.state == .alive }
    if let target = targets.first {
      counters.pushPulls += 1
      outbox.actions.append(
        .openPushPull(with: table[target].address, name: table[target].name, isJoin: false))
    }
    chosen = targets
  }

  /// All that we know, for one side of an exchange.
  public func localState(isJoin: Bool, userState: [UInt8] = []) -> PushPull {
    var nodes: [PushPullNodeState] = []
    nodes.reserveCapacity(table.count)
    for slot in table.ring {
      let record = table[slot]
      nodes.append(
        PushPullNodeState(
          name: record.name, address: record.address, meta: record.metadata,
          isEmptyMetaNil: record.isEmptyMetadataNil, incarnation: record.incarnation, state: record.state,
          versions: record.versions == .unknown ? nil : record.versions))
    }
    return PushPull(isJoin: isJoin, nodes: nodes, userState: userState)
  }

  /// Whether the members of both sides understand each other; if not, nothing of the remote state may be merged.
  public func verifyVersions(of remote: PushPull) throws(WireError) {
    var check = VersionRangeCheck()
    for node in remote.nodes { check.include(node.versions, state: node.state) }
    for slot in table.ring { check.include(table[slot].versions, state: table[slot].state) }
    for node in remote.nodes { try check.verify(node.versions) }
    for slot in table.ring { try check.verify(table[slot].versions) }
  }

  /// Takes in what another member knows.
  ///
  /// What it holds dead is only suspected here: the accused hears of it from us and can refute, which it could not
  /// if the rumour of one side's dead killed them on the other.
  public mutating func mergeRemoteState(_ remote: PushPull, nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    for node in remote.nodes {
      switch node.state {
      case .alive:
        receive(
          Alive(
            incarnation: node.incarnation, node: node.name, address: node.address, meta: node.meta,
            isEmptyMetaNil: node.isEmptyMetaNil, versions: node.versions))
      case .left:
        receive(Dead(incarnation: node.incarnation, node: node.name, from: node.name))
      case .dead, .suspect:
        receive(Suspect(incarnation: node.incarnation, node: node.name, from: localName))
      }
    }
  }

  /// Takes in an announcement that the application was asked about (`Action.voteAlive`) and approved.
  public mutating func handleAlive(_ announcement: Alive, nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    receive(announcement, isApproved: true)
  }

  // MARK: Rejoin

  /// Peers that were lost and are still looked for.
  public var lostPeerCount: Int { rememberedPeers.peers.count }

  /// Has a peer looked for until it is met, as if it had been a member before: the seeds a node was told to join.
  public mutating func lookFor(_ address: GossipAddress, named name: NodeName, nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    guard name != localName, table.slot(of: name).map({ table[$0].isDeadOrLeft }) ?? true else { return }
    rememberedPeers.remember(name, address: address, nowNanoseconds: now)
  }

  mutating func scheduleRejoin() {
    guard configuration.rejoinIntervalNanoseconds > 0 else { return }
    // Between half and one and a half intervals: two halves of a healed cluster would otherwise look for each other
    // in step, all at once.
    let interval = configuration.rejoinIntervalNanoseconds
    deadlines.add(
      .rejoin, atNanoseconds: Formulas.saturatingSum(now, interval / 2 + random.below(max(1, interval))))
  }

  mutating func rejoinTick(scheduledAtNanoseconds _: UInt64) {
    scheduleRejoin()
    guard !hasLeft else { return }
    rememberedPeers.forgetOlder(
      thanNanoseconds: configuration.rememberPeersNanoseconds, nowNanoseconds: now)
    guard !rememberedPeers.peers.isEmpty else { return }
    // One peer in each interval from every member finds a healed partition in a few intervals, and costs a cluster
    // that lost many machines for good no more than that.
    let peer = rememberedPeers.peers[random.below(rememberedPeers.peers.count)]
    outbox.actions.append(.openPushPull(with: peer.address, name: peer.name, isJoin: true))
  }
}
