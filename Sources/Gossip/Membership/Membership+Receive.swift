/// What comes in.
extension Membership {
  /// Takes in one message of a packet.
  ///
  /// - Parameters:
  ///   - source: where the packet came from; answers go there when the message does not say otherwise.
  public mutating func receive(_ message: GossipMessage, from source: GossipAddress, nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    switch message {
    case .ping(let ping): receive(ping, from: source)
    case .indirectPing(let request): receive(request, from: source)
    case .ack(let ack): receive(ack)
    case .nack(let nack): receive(nack)
    case .suspect(let accusation): receive(accusation)
    case .alive(let announcement): receive(announcement)
    case .dead(let obituary): receive(obituary)
    case .user(let message): receiveUserMessage(message)
    }
  }
}
