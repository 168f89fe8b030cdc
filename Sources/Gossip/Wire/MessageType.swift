/// The first byte of every message (memberlist's `messageType`).
public enum MessageType: UInt8, Hashable, Sendable, CaseIterable {
  case ping = 0
  case indirectPing = 1
  case ack = 2
  case suspect = 3
  case alive = 4
  case dead = 5
  case pushPull = 6
  case compound = 7
  case user = 8
  case compress = 9
  case encrypt = 10
  case nack = 11
  case hasCRC = 12
  case error = 13
  /// The label header is outside everything else, so its number is far from the messages'.
  case hasLabel = 244
}

/// What the cluster thinks of a member; the numbers are those of a push/pull node state.
public enum NodeStateKind: UInt8, Hashable, Sendable, CaseIterable {
  case alive = 0
  case suspect = 1
  case dead = 2
  case left = 3
}
