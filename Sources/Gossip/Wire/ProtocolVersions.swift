/// The six version bytes that a member announces (`Vsn`): what it understands and what it speaks, of the gossip protocol
/// and of the application above it.
public struct ProtocolVersions: Hashable, Sendable {
  public var protocolMin: UInt8
  public var protocolMax: UInt8
  public var protocolCurrent: UInt8
  public var delegateMin: UInt8
  public var delegateMax: UInt8
  public var delegateCurrent: UInt8

  /// The oldest protocol this code understands: in it the port of an alive message is ignored.
  public static let oldestProtocol: UInt8 = 1
  /// The newest protocol this code understands: checksums (5), after nacks (4) and the TCP ping (3).
  public static let newestProtocol: UInt8 = 5
  /// What memberlist speaks unless told otherwise.
  public static let defaultProtocol: UInt8 = 2

  public init(
    protocolMin: UInt8 = oldestProtocol, protocolMax: UInt8 = newestProtocol,
    protocolCurrent: UInt8 = defaultProtocol,
    delegateMin: UInt8 = 0, delegateMax: UInt8 = 0, delegateCurrent: UInt8 = 0
  ) {
    self.protocolMin = protocolMin
    self.protocolMax = protocolMax
    self.protocolCurrent = protocolCurrent
    self.delegateMin = delegateMin
    self.delegateMax = delegateMax
    self.delegateCurrent = delegateCurrent
  }

  /// The versions as they are counted for a member that has not told any: all zero.
  public static let unknown = ProtocolVersions(
    protocolMin: 0, protocolMax: 0, protocolCurrent: 0, delegateMin: 0, delegateMax: 0, delegateCurrent: 0)

  /// What serf 0.9 announces; a member that wants to be let into a serf cluster announces delegate versions 2, 5, 5.
  public static let serf = ProtocolVersions(delegateMin: 2, delegateMax: 5, delegateCurrent: 5)

  /// Whether an alive message with these versions may be taken in: no zero and no inverted range.
  public var isValidForAlive: Bool { protocolMin != 0 && protocolMax != 0 && protocolMin <= protocolMax }

  /// Whether the member answers a ping over TCP (protocol 3). Peers judge by what it understands, not by what it speaks.
  public var understandsStreamPing: Bool { protocolMax >= 3 }
  /// Whether the member sends and expects nacks (protocol 4).
  public var understandsNack: Bool { protocolMax >= 4 }
  /// Whether the member takes packets with a checksum (protocol 5).
  public var understandsCRC: Bool { protocolMax >= 5 }
}

/// Whether all members of two node lists understand each other: memberlist's check before it merges a remote state.
///
/// Feed every node of both lists to `include`, then ask `verify` for every node of both lists. The range is taken over
/// the alive nodes only, but every node, whatever its state, must speak inside it. A node that told no versions counts
/// as speaking version 0 and does not narrow the range.
public struct VersionRangeCheck: Sendable {
  public private(set) var protocolRange: (low: UInt8, high: UInt8) = (0, .max)
  public private(set) var delegateRange: (low: UInt8, high: UInt8) = (0, .max)

  public init() {}

  /// Narrows the ranges by one node of either list.
  public mutating func include(_ versions: ProtocolVersions?, state: NodeStateKind) {
    guard state == .alive, let versions else { return }
    protocolRange.low = max(protocolRange.low, versions.protocolMin)
    protocolRange.high = min(protocolRange.high, versions.protocolMax)
    delegateRange.low = max(delegateRange.low, versions.delegateMin)
    delegateRange.high = min(delegateRange.high, versions.delegateMax)
  }

  /// Throws `incompatibleProtocol` or `incompatibleDelegate` if a node speaks outside the ranges.
  public func verify(_ versions: ProtocolVersions?) throws(WireError) {
    let versions = versions ?? .unknown
    guard versions.protocolCurrent >= protocolRange.low, versions.protocolCurrent <= protocolRange.high else {
      throw .incompatibleProtocol(
        speaks: versions.protocolCurrent, low: protocolRange.low, high: protocolRange.high)
    }
    guard versions.delegateCurrent >= delegateRange.low, versions.delegateCurrent <= delegateRange.high else {
      throw .incompatibleDelegate(
        speaks: versions.delegateCurrent, low: delegateRange.low, high: delegateRange.high)
    }
  }
}
