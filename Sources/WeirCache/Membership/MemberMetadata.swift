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
///
/// At most 276 of the 512 bytes that gossip allows. Members of other programs have other metadata and are left alone.
public struct MemberMetadata: Sendable, Hashable {
  public var raftID: NodeID
  public var clusterID: UInt64
  public var role: Role
  /// Where the node listens for Raft messages, `host:port`; at most 255 bytes.
  public var raftAddress: String

  public init(raftID: NodeID, clusterID: UInt64, role: Role, raftAddress: String) {
    self.raftID = raftID
    self.clusterID = clusterID
    self.role = role
    self.raftAddress = raftAddress
  }

  static let version: UInt8 = 1
  static let headerBytes = 21

  /// The bytes that go into gossip.
  public func encoded() -> [UInt8] {
    let address = Array(raftAddress.utf8.prefix(255))
    var bytes: [UInt8] = [UInt8(ascii: "W"), UInt8(ascii: "R"), Self.version, role.rawValue]
    for value in [raftID, clusterID] {
      for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
    bytes.append(UInt8(address.count))
    return bytes + address
  }

  /// Nil if the bytes are not the metadata of a node of this program, in a version that is known here.
  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= Self.headerBytes, bytes[0] == UInt8(ascii: "W"), bytes[1] == UInt8(ascii: "R"),
      bytes[2] == Self.version, let role = Role(rawValue: bytes[3])
    else { return nil }
    func number(at offset: Int) -> UInt64 {
      bytes[offset..<offset + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    let addressBytes = bytes[Self.headerBytes...]
    guard addressBytes.count == Int(bytes[20]), let address = String(validating: addressBytes, as: UTF8.self) else {
      return nil
    }
    self.init(raftID: number(at: 4), clusterID: number(at: 12), role: role, raftAddress: address)
    guard raftID != .none else { return nil }
  }
}
