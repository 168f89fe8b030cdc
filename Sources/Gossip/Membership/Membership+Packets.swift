/// Sending: every packet carries as much news as fits.
extension Membership {
  /// What one packet's messages may take, without label and encryption.
  private var budgetBytes: Int {
    max(0, configuration.packetSizeBytes - PacketComposer.compoundHeaderBytes - configuration.packetOverheadBytes)
  }

  /// Sends a message of the failure detector with queued broadcasts riding on it.
  mutating func send(_ message: GossipMessage, to address: GossipAddress) {
    composer.begin()
    composer.add { message.encode(into: &$0) }
    let left = budgetBytes - composer.sizeBytes - PacketComposer.compoundPartBytes
    if left > 0 { fillWithBroadcasts(limitBytes: left) }
    emitPacket(to: address, withChecksum: false)
  }

  /// Sends a ping and tells the suspect of its suspicion in the same packet, with nothing else.
  mutating func sendPingWithSuspicion(_ ping: Ping, suspect: MemberRecord) {
    composer.begin()
    composer.add { GossipMessage.ping(ping).encode(into: &$0) }
    let accusation = Suspect(incarnation: suspect.incarnation, node: suspect.name, from: localName)
    composer.add { GossipMessage.suspect(accusation).encode(into: &$0) }
    emitPacket(to: suspect.address, withChecksum: suspect.versions.understandsCRC)
  }

  private mutating func emitPacket(to address: GossipAddress, withChecksum: Bool) {
    let body = composer.write(into: &outbox.bytes)
    counters.packetsSent += 1
    counters.bytesSent += body.count
    outbox.actions.append(.sendPacket(to: address, body: body, withChecksum: withChecksum))
  }

  /// Adds broadcasts to the packet being composed.
  ///
  /// News of members goes first, but leaves user broadcasts their share while any wait: in a large cluster where
  /// members come and go all the time there is always more news than room, and user broadcasts would never be sent.
  mutating func fillWithBroadcasts(limitBytes: Int) {
    guard !broadcasts.isEmpty else { return }
    let reserved = broadcasts.hasUserBroadcasts ? limitBytes * sharePercent / 100 : 0
    let used = broadcasts.takeMembership(
      limitBytes: limitBytes - min(reserved, broadcasts.queuedUserBytes), nodeCount: table.count, into: &composer)
    broadcasts.takeUser(limitBytes: limitBytes - used, nodeCount: table.count, into: &composer)
    reportFinishedAnnouncements()
  }

  private var sharePercent: Int { min(max(0, configuration.userBroadcastSharePercent), 100) }

  // MARK: Gossip tick

  /// Arranges for the next tick if there is anything to gossip. Ticks keep their beat over silent times.
  mutating func scheduleGossip() {
    guard !isGossipScheduled, !broadcasts.isEmpty else { return }
    isGossipScheduled = true
    let interval = max(1, configuration.gossipIntervalNanoseconds)
    if gossipPhaseNanoseconds <= now {
      gossipPhaseNanoseconds = nextTick(after: gossipPhaseNanoseconds, interval: interval)
    }
    deadlines.add(.gossip, atNanoseconds: gossipPhaseNanoseconds)
  }

  mutating func gossipTick(scheduledAtNanoseconds scheduled: UInt64) {
    isGossipScheduled = false
    let now = now
    let keptFor = configuration.gossipToTheDeadNanoseconds
    let local = localSlot
    var targets = chosen
    table.choose(configuration.gossipNodes, random: &random, into: &targets) { slot, record in
      guard slot != local else { return false }
      switch record.state {
      case .alive, .suspect: return true
      case .dead: return now - min(now, record.stateChangeNanoseconds) <= keptFor
      case .left: return false
      }
    }
    for target in targets {
      composer.begin()
      fillWithBroadcasts(limitBytes: budgetBytes)
      guard composer.count > 0 else { break }
      emitPacket(to: table[target].address, withChecksum: table[target].versions.understandsCRC)
    }
    chosen = targets
    // Alone, the news waits; whoever comes is news itself and starts the ticks again.
    if !targets.isEmpty || !isAlone { scheduleGossip() }
  }

  // MARK: Direct user messages

  /// Sends the application's bytes to one member by one packet, which may be lost.
  public mutating func sendBestEffort(_ message: [UInt8], to name: NodeName, nowNanoseconds: UInt64)
    throws(MembershipError)
  {
    advance(to: nowNanoseconds)
    guard let slot = table.slot(of: name) else { throw .unknownMember(name) }
    guard message.count <= Self.maximumDatagramBytes else {
      throw .broadcastTooLong(byteCount: message.count, limitBytes: Self.maximumDatagramBytes)
    }
    composer.begin()
    composer.add(prefix: MessageType.user.rawValue, message)
    emitPacket(to: table[slot].address, withChecksum: table[slot].versions.understandsCRC)
  }

  /// What fits a datagram with all that may be put around it.
  static var maximumDatagramBytes: Int { 65_000 }
}
