import Raft
import WeirCore

/// What a node tells of itself in its gossip metadata, so that others can reach it and know what it is.
///
///     offset  size  field
///          0     2  "WR"
///          2     1  version, 1 or 2
///          3     1  role: 0 follower, 1 candidate, 2 leader, 3 pre-candidate
///          4     8  Raft id, little-endian
///         12     8  cluster id, little-endian
///         20     1  length of the Raft address
///         21     n  Raft address, `host:port`
///       21+n     1  length of the client address, 0 where the node serves none
///       22+n     m  client address, `host:port`
///                1  only in version 2: length of the RESP address
///                r  RESP address, `host:port`
///
/// At most 503 of the 512 bytes that gossip allows. Version 2 is written by nodes that serve RESP. Members of other programs have other metadata and are left alone.
public struct MemberMetadata: Sendable, Hashable {
  public var raftID: NodeID
  public var clusterID: UInt64
  public var role: Role
  /// Where the node listens for Raft messages, `host:port`; at most 240 bytes.
  public var raftAddress: String
  /// Where it serves clients, `host:port`; at most 240 bytes, and empty where it serves none. What a follower needs to
  /// know of the leader to send clients there.
  public var clientAddress: String
  /// Where it serves cache clients, `host:port`; at most 160 bytes, as the others are then, and empty where it serves none.
  public var respAddress: String

  public init(
    raftID: NodeID, clusterID: UInt64, role: Role, raftAddress: String, clientAddress: String = "",
    respAddress: String = ""
  ) {
    self.raftID = raftID
    self.clusterID = clusterID
    self.role = role
    self.raftAddress = raftAddress
    self.clientAddress = clientAddress
    self.respAddress = respAddress
  }

  static let version: UInt8 = 1
  static let versionWithRESP: UInt8 = 2
  /// All before the first address's length.
  static let headerBytes = 20
  static let maximumAddressBytes = 240
  /// Where there are three of them.
  static let maximumAddressBytesWithRESP = 160

  /// The bytes that go into gossip.
  public func encoded() -> [UInt8] {
    let hasRESP = !respAddress.isEmpty
    let version = hasRESP ? Self.versionWithRESP : Self.version
    var bytes: [UInt8] = [UInt8(ascii: "W"), UInt8(ascii: "R"), version, role.rawValue]
    for value in [raftID, clusterID] {
      for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
    for address in [raftAddress, clientAddress] + (hasRESP ? [respAddress] : []) {
      let text = Array(
        address.utf8.prefix(hasRESP ? Self.maximumAddressBytesWithRESP : Self.maximumAddressBytes))
      bytes.append(UInt8(text.count))
      bytes += text
    }
    return bytes
  }

  /// Nil if the bytes are not the metadata of a node of this program, in a version that is known here.
  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= Self.headerBytes, bytes[0] == UInt8(ascii: "W"), bytes[1] == UInt8(ascii: "R"),
      bytes[2] == Self.version || bytes[2] == Self.versionWithRESP, let role = Role(rawValue: bytes[3])
    else { return nil }
    func number(at offset: Int) -> UInt64 {
      bytes[offset..<offset + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    var rest = bytes[Self.headerBytes...]
    func takeAddress() -> String? {
      guard let length = rest.popFirst(), rest.count >= Int(length) else { return nil }
      defer { rest.removeFirst(Int(length)) }
      return String(validating: rest.prefix(Int(length)), as: UTF8.self)
    }
    guard let raftAddress = takeAddress(), let clientAddress = takeAddress() else { return nil }
    let respAddress = bytes[2] == Self.versionWithRESP ? takeAddress() : ""
    guard let respAddress, rest.isEmpty else { return nil }
    self.init(
      raftID: number(at: 4), clusterID: number(at: 12), role: role, raftAddress: raftAddress,
      clientAddress: clientAddress, respAddress: respAddress)
    guard raftID != .none else { return nil }
  }
}
