/// The name of a member: bytes, as on the wire, unique in the cluster.
///
/// Names are compared byte by byte. Swift's `String` equality would take two different names for one wherever they are
/// canonically equivalent in Unicode, and a peer may send bytes that are no UTF-8 at all.
public struct NodeName: Hashable, Comparable, Sendable {
  /// The name's bytes, exactly as a peer sends them.
  public let bytes: [UInt8]

  public init(_ bytes: [UInt8]) {
    self.bytes = bytes
  }

  /// The UTF-8 bytes of `text`.
  public init(_ text: some StringProtocol) {
    self.bytes = Array(text.utf8)
  }

  /// The empty name: in a ping it stands for "whoever you are".
  public static let unnamed = NodeName([])

  public var isEmpty: Bool { bytes.isEmpty }

  public static func < (left: NodeName, right: NodeName) -> Bool {
    left.bytes.lexicographicallyPrecedes(right.bytes)
  }
}

extension NodeName: ExpressibleByStringLiteral, CustomStringConvertible {
  public init(stringLiteral text: String) {
    self.init(text)
  }

  /// For people only: bytes that are not UTF-8 are shown as replacement characters.
  public var description: String { String(decoding: bytes, as: UTF8.self) }
}
