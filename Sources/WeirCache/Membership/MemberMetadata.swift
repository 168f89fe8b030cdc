import Raft
import WeirCore

/// What a node tells of itself in its gossip metadata, so that others can reach it and know what it is.
///
///     offset  size  field
///          0     2  "WR"
///          2     1  version, 1
///          3     1  role: 0 follower, 1 candidate, 2 leader, 3 pre-candidate
///          4     8  Raft id, little-endian
///         12     8  cluster id, little-endian
///         20     1  length of the Raft address
///         21     n  Raft address, `host:port`
///       21+n     1  length of the client address, 0 where the node serves none
///       22+n     m  client address, `host:port`
///
/// At most 502 of the 512 bytes that gossip allows. Members of other programs have other metadata and are left alone.
public struct MemberMetadata: Sendable, Hashable {
  public var raftID: NodeID
  public var clusterID: UInt64
  public var role: Role
  /// Where the node listens for Raft messages, `host:port`; at most 240 bytes.
  public var raftAddress: String
  /// Where it serves clients, `host:port`; at most 240 bytes, and empty where it serves none. What a follower needs to
  /// know of the leader to send clients there.
  public var clientAddress: String

  public init(raftID: NodeID, clusterID: UInt64, role: Role, raftAddress: String, clientAddress: String = "") {
    self.raftID = raftID
    self.clusterID = clusterID
    self.role = role
    self.raftAddress = raftAddress
    self.clientAddress = clientAddress
  }

  static let version: UInt8 = 1
  /// All before the first address's length.
  static let headerBytes = 20
  static let maximumAddressBytes = 240

  /// The bytes that go into gossip.
  public func encoded() -> [UInt8] {
    var bytes: [UInt8] = [UInt8(ascii: "W"), UInt8(ascii: "R"), Self.version, role.rawValue]
    for value in [raftID, clusterID] {
      for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
    for address in [raftAddress, clientAddress] {
      let text = Array(address.utf8.prefix(Self.maximumAddressBytes))
      bytes.append(UInt8(text.count))
      bytes += text
    }
    return bytes
  }

  /// Nil if the bytes are not the metadata of a node of this program, in a version that is known here.
  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= Self.headerBytes, bytes[0] == UInt8(ascii: "W"), bytes[1] == UInt8(ascii: "R"),
      bytes[2] == Self.version, let role = Role(rawValue: bytes[3])
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
    guard let raftAddress = takeAddress(), let clientAddress = takeAddress(), rest.isEmpty else { return nil }
    self.init(
      raftID: number(at: 4), clusterID: number(at: 12), role: role, raftAddress: raftAddress,
      clientAddress: clientAddress)
    guard raftID != .none else { return nil }
  }
}
