/// A probe of one member that is under way.
struct Probe {
  let sequenceNumber: UInt32
  let slot: Int
  let name: NodeName
  let sentNanoseconds: UInt64
  /// When the probe is over: start plus the scaled interval.
  let endNanoseconds: UInt64
  /// Whether others have been asked already.
  var hasEscalated = false
  /// Nacks that healthy helpers would send by the end if the target does not answer them either.
  var expectedNacks = 0
  var receivedNacks = 0
  /// Whether the target answered on a stream. It counts only at the end: an acknowledgement by packet is better news.
  var answeredByStream = false
}

/// A ping that the application asked for.
struct UserPing {
  let sequenceNumber: UInt32
  let name: NodeName
  let sentNanoseconds: UInt64
}

/// The failure detector: one member after the other, in random order.
extension Membership {
  // MARK: Ticks

  mutating func probeTick(scheduledAtNanoseconds scheduled: UInt64) {
    if probe == nil {
      probeNextMember()
    } else {
      // The running probe's interval is stretched by our own bad health. Its successor starts when it ends.
      isProbeDue = true
    }
    // Added after the probe's own deadlines: a probe that ends on the next beat is to end before it.
    deadlines.add(
      .probe, atNanoseconds: nextTick(after: scheduled, interval: configuration.probeIntervalNanoseconds))
  }

  private mutating func probeNextMember() {
    var checked = 0
    while checked < table.count {
      if ringPosition >= table.count {
        reapAndShuffle()
        ringPosition = 0
        checked += 1
        continue
      }
      let slot = table.ring[ringPosition]
      ringPosition += 1
      if slot == localSlot || table[slot].isDeadOrLeft {
        checked += 1
        continue
      }
      startProbe(of: slot)
      return
    }
  }

  /// At the end of a round the members are forgotten that have been dead or gone for so long that nobody gossips to
  /// them any more.
  private mutating func reapAndShuffle() {
    let now = now
    let keptFor = configuration.gossipToTheDeadNanoseconds
    table.reap(random: &random) { record in
      record.isDeadOrLeft && record.name != localName && now - min(now, record.stateChangeNanoseconds) > keptFor
    }
  }

  // MARK: One probe

  private mutating func startProbe(of slot: Int) {
    let target = table[slot]
    let interval = health.scale(configuration.probeIntervalNanoseconds)
    let started = Probe(
      sequenceNumber: nextSequenceNumber(), slot: slot, name: target.name, sentNanoseconds: now,
      endNanoseconds: Formulas.saturatingSum(now, interval))
    probe = started
    counters.probesStarted += 1
    let identifier = UInt64(started.sequenceNumber)
    deadlines.add(
      .probeTimeout, identifier: identifier,
      atNanoseconds: Formulas.saturatingSum(now, min(configuration.probeTimeoutNanoseconds, interval)))
    deadlines.add(.probeEnd, identifier: identifier, atNanoseconds: started.endNanoseconds)

    let ping = ownPing(sequenceNumber: started.sequenceNumber, of: target.name)
    if target.state == .suspect, configuration.usesLifeguard {
      // The suspect learns of its suspicion with the very packet that gives it a chance to answer, rather than
      // whenever gossip reaches it (Lifeguard's buddy system).
      sendPingWithSuspicion(ping, suspect: target)
    } else {
      send(.ping(ping), to: target.address)
    }
  }

  func ownPing(sequenceNumber: UInt32, of name: NodeName) -> Ping {
    let own = table[localSlot].address
    return Ping(
      sequenceNumber: sequenceNumber, node: name, sourceAddress: own.ip, sourcePort: own.port, sourceNode: localName)
  }

  /// The first wait is over: ask others, and try a stream.
  mutating func probeTimedOut(sequenceNumber: UInt64) {
    guard var current = probe, UInt64(current.sequenceNumber) == sequenceNumber, !current.hasEscalated else { return }
    current.hasEscalated = true
    guard table.isMember(current.name, inSlot: current.slot) else {
      probe = current
      return
    }
    let target = table[current.slot]
    let targetSlot = current.slot
    let local = localSlot
    var helpers = chosen
    table.choose(configuration.indirectChecks, random: &random, into: &helpers) { slot, record in
      slot != local && slot != targetSlot && record.state == .alive
    }
    let own = table[localSlot].address
    for helper in helpers {
      let wantsNack = configuration.usesLifeguard && table[helper].versions.understandsNack
      if wantsNack { current.expectedNacks += 1 }
      let request = IndirectPing(
        sequenceNumber: current.sequenceNumber, target: target.address.ip, port: target.address.port,
        node: target.name, wantsNack: wantsNack, sourceAddress: own.ip, sourcePort: own.port, sourceNode: localName)
      send(.indirectPing(request), to: table[helper].address)
    }
    chosen = helpers
    probe = current
    if configuration.usesStreamPings, target.versions.understandsStreamPing {
      outbox.actions.append(
        .openStreamPing(
          to: target.address, ping: ownPing(sequenceNumber: current.sequenceNumber, of: target.name),
          deadlineNanoseconds: current.endNanoseconds))
    }
  }

  /// The target answered the stream ping of this probe.
  public mutating func streamPingSucceeded(sequenceNumber: UInt32, nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    guard probe?.sequenceNumber == sequenceNumber else { return }
    probe?.answeredByStream = true
  }

  /// The operating system says that nobody listens at this address: waiting for the answer is pointless.
  public mutating func sendFailed(to address: GossipAddress, nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    guard let current = probe, table.isMember(current.name, inSlot: current.slot),
      table[current.slot].address == address
    else { return }
    probeTimedOut(sequenceNumber: UInt64(current.sequenceNumber))
  }

  /// The probe's interval is over without an acknowledgement.
  mutating func probeEnded(sequenceNumber: UInt64) {
    guard let ended = probe, UInt64(ended.sequenceNumber) == sequenceNumber else { return }
    finishProbe()
    if ended.answeredByStream {
      applyHealth(-1)
      outbox.actions.append(.notice(.answeredByStreamOnly(ended.name)))
    } else {
      counters.probesFailed += 1
      // Helpers that do not even send a nack hint that it is our own packets that are lost.
      applyHealth(ended.expectedNacks > 0 ? max(0, ended.expectedNacks - ended.receivedNacks) : 1)
      outbox.actions.append(.notice(.suspected(ended.name)))
      if let slot = table.slot(of: ended.name) {
        receive(Suspect(incarnation: table[slot].incarnation, node: ended.name, from: localName))
      }
    }
    startDueProbe()
  }

  private mutating func finishProbe() {
    probe = nil
  }

  private mutating func startDueProbe() {
    guard isProbeDue else { return }
    isProbeDue = false
    probeNextMember()
  }

  mutating func applyHealth(_ delta: Int) {
    guard configuration.usesLifeguard else { return }
    health.apply(delta)
  }

  // MARK: Answers

  /// An acknowledgement of a ping of ours: a probe's, a relayed one, or the application's.
  mutating func receive(_ ack: Ack) {
    if let current = probe, current.sequenceNumber == ack.sequenceNumber {
      finishProbe()
      applyHealth(-1)
      if !current.hasEscalated {
        outbox.actions.append(
          .pingCompleted(
            current.name, roundTripNanoseconds: now - current.sentNanoseconds,
            payload: appendToOutbox(ack.payload ?? [])))
      }
      startDueProbe()
      return
    }
    if let index = relays.firstIndex(where: { $0.localSequenceNumber == ack.sequenceNumber }) {
      answerRelay(at: index)
      return
    }
    if let index = userPings.firstIndex(where: { $0.sequenceNumber == ack.sequenceNumber }) {
      let ping = userPings.remove(at: index)
      let roundTrip = now - ping.sentNanoseconds
      outbox.actions.append(
        .pingCompleted(ping.name, roundTripNanoseconds: roundTrip, payload: appendToOutbox(ack.payload ?? [])))
      outbox.actions.append(
        .userPingFinished(sequenceNumber: ping.sequenceNumber, roundTripNanoseconds: roundTrip))
    }
  }

  mutating func receive(_ nack: Nack) {
    guard probe?.sequenceNumber == nack.sequenceNumber else { return }
    probe?.receivedNacks += 1
  }

  private mutating func appendToOutbox(_ bytes: [UInt8]) -> Range<Int> {
    let start = outbox.bytes.count
    outbox.bytes.append(contentsOf: bytes)
    return start..<outbox.bytes.count
  }

  // MARK: The application's pings

  /// Pings a member; `Action.userPingFinished` with the returned number tells how it went, within the probe timeout.
  public mutating func ping(_ name: NodeName, nowNanoseconds: UInt64) throws(MembershipError) -> UInt32 {
    advance(to: nowNanoseconds)
    guard let slot = table.slot(of: name) else { throw .unknownMember(name) }
    guard userPings.count < Self.maximumUserPings else { throw .tooManyRequests(limit: Self.maximumUserPings) }
    let sequenceNumber = nextSequenceNumber()
    userPings.append(UserPing(sequenceNumber: sequenceNumber, name: name, sentNanoseconds: now))
    deadlines.add(
      .userPingTimeout, identifier: UInt64(sequenceNumber),
      atNanoseconds: Formulas.saturatingSum(now, configuration.probeTimeoutNanoseconds))
    send(.ping(ownPing(sequenceNumber: sequenceNumber, of: name)), to: table[slot].address)
    return sequenceNumber
  }

  static var maximumUserPings: Int { 1024 }

  mutating func userPingTimedOut(sequenceNumber: UInt64) {
    guard let index = userPings.firstIndex(where: { UInt64($0.sequenceNumber) == sequenceNumber }) else { return }
    let ping = userPings.remove(at: index)
    outbox.actions.append(
      .userPingFinished(sequenceNumber: ping.sequenceNumber, roundTripNanoseconds: nil))
  }
}
