/// A ping made for somebody else, whose answer is passed on.
struct Relay {
  let localSequenceNumber: UInt32
  let originalSequenceNumber: UInt32
  let replyTo: GossipAddress
  let wantsNack: Bool
}

/// Answering pings, and pinging for others.
extension Membership {
  /// The most relays under way; requests beyond it are dropped, and whoever asked counts us as silent.
  static var maximumRelays: Int { 1024 }

  mutating func receive(_ ping: Ping, from source: GossipAddress) {
    // Whoever lived at our address before us may have had another name: answering for it would keep it alive.
    guard ping.node.isEmpty || ping.node == localName else {
      outbox.actions.append(.notice(.pingForAnother(ping.node)))
      return
    }
    send(.ack(Ack(sequenceNumber: ping.sequenceNumber, payload: ackPayload)), to: ping.source ?? source)
  }

  /// Answers a ping that came on a stream; nil if it was meant for another member, and then the stream is closed.
  public func answer(_ ping: Ping) -> Ack? {
    guard ping.node.isEmpty || ping.node == localName else { return nil }
    return Ack(sequenceNumber: ping.sequenceNumber)
  }

  mutating func receive(_ request: IndirectPing, from source: GossipAddress) {
    guard relays.count < Self.maximumRelays else { return }
    // Protocol 1 knows no ports: everybody listens at the same one.
    let port = request.port == 0 ? table[localSlot].address.port : request.port
    let relay = Relay(
      localSequenceNumber: nextSequenceNumber(), originalSequenceNumber: request.sequenceNumber,
      replyTo: request.source ?? source, wantsNack: request.wantsNack)
    relays.append(relay)
    deadlines.add(
      .relayTimeout, identifier: UInt64(relay.localSequenceNumber),
      atNanoseconds: Formulas.saturatingSum(now, configuration.probeTimeoutNanoseconds))
    send(
      .ping(ownPing(sequenceNumber: relay.localSequenceNumber, of: request.node)),
      to: GossipAddress(ip: request.target, port: port))
  }

  /// The target answered in time.
  mutating func answerRelay(at index: Int) {
    let relay = relays.remove(at: index)
    send(.ack(Ack(sequenceNumber: relay.originalSequenceNumber)), to: relay.replyTo)
  }

  mutating func relayTimedOut(sequenceNumber: UInt64) {
    guard let index = relays.firstIndex(where: { UInt64($0.localSequenceNumber) == sequenceNumber }) else { return }
    let relay = relays.remove(at: index)
    if relay.wantsNack {
      send(.nack(Nack(sequenceNumber: relay.originalSequenceNumber)), to: relay.replyTo)
    }
  }
}
