/// The application's own broadcasts.
extension Membership {
  /// Sends a message to all members, epidemically: at most as many bytes as fit one packet.
  ///
  /// With `identifiesUserBroadcasts` every member that receives it delivers it once and passes it on; else it is sent
  /// plain, as memberlist does.
  public mutating func broadcast(_ payload: [UInt8], nowNanoseconds: UInt64) throws(MembershipError) {
    advance(to: nowNanoseconds)
    let limit =
      configuration.maximumUserBroadcastBytes
      - (configuration.identifiesUserBroadcasts ? BroadcastIdentity.encodedSizeBytes : 0)
    guard payload.count <= limit else { throw .broadcastTooLong(byteCount: payload.count, limitBytes: limit) }
    var message: [UInt8] = []
    message.reserveCapacity(payload.count + BroadcastIdentity.encodedSizeBytes)
    if configuration.identifiesUserBroadcasts {
      lastBroadcastSequence &+= 1
      let identity = BroadcastIdentity(origin: broadcastOrigin, sequence: lastBroadcastSequence)
      // Ours too is remembered: it comes back from those that pass it on.
      _ = seenBroadcasts.insert(identity)
      identity.append(to: &message)
    }
    message.append(contentsOf: payload)
    queueUserBroadcast(message)
  }

  /// Hands over messages that are to be sent once, in the next packets that have room: what the application's own
  /// queue has chosen (memberlist's `GetBroadcasts`). Beyond 64 KiB waiting, the rest is dropped and counted.
  public mutating func offer(_ messages: [[UInt8]], nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    for message in messages where !broadcasts.offer(message) { counters.droppedUserBroadcasts += 1 }
    scheduleGossip()
  }

  /// What was offered and has not been sent yet.
  public var offeredBytes: Int { broadcasts.offeredBytes }

  private mutating func queueUserBroadcast(_ message: [UInt8]) {
    counters.droppedUserBroadcasts += broadcasts.queueUser(message)
    scheduleGossip()
  }

  /// A user message came by packet.
  mutating func receiveUserMessage(_ message: [UInt8]) {
    guard configuration.identifiesUserBroadcasts, let identity = BroadcastIdentity(startOf: message) else {
      deliver(message[...])
      return
    }
    guard seenBroadcasts.insert(identity) else {
      counters.userBroadcastDuplicates += 1
      return
    }
    deliver(message[BroadcastIdentity.encodedSizeBytes...])
    if !hasLeft { queueUserBroadcast(message) }
  }

  /// A user message came by stream: reliable, so it neither repeats nor is passed on.
  public mutating func receiveStreamUserMessage(_ message: [UInt8], nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    deliver(message[...])
  }

  private mutating func deliver(_ message: ArraySlice<UInt8>) {
    let start = outbox.bytes.count
    outbox.bytes.append(contentsOf: message)
    counters.userBroadcastsDelivered += 1
    outbox.actions.append(.deliver(start..<outbox.bytes.count))
  }
}
