/// An IPv4 or IPv6 address, held as a number: no allocation, cheap to compare and hash.
///
/// An IPv4 address written as IPv6 (`::ffff:a.b.c.d`) stays what it came as, because messages are passed on with the bytes
/// they came with; `unmapped` gives the IPv4 form.
public struct IPAddress: Hashable, Comparable, Sendable {
  public enum Family: UInt8, Hashable, Sendable {
    case v4 = 4
    case v6 = 6
  }

  public let family: Family
  /// The first eight bytes of an IPv6 address in network order; 0 for IPv4.
  public let high: UInt64
  /// The last eight bytes of an IPv6 address in network order, or the four bytes of an IPv4 address.
  public let low: UInt64

  /// The IPv4 address `a.b.c.d`.
  public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8) {
    self.init(v4: UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d))
  }

  /// An IPv4 address from its four bytes in network order, as one number.
  public init(v4 value: UInt32) {
    self.family = .v4
    self.high = 0
    self.low = UInt64(value)
  }

  /// An IPv6 address from its sixteen bytes in network order, as two numbers.
  public init(v6High high: UInt64, low: UInt64) {
    self.family = .v6
    self.high = high
    self.low = low
  }

  /// An address from 4 or 16 bytes in network order; nil for any other count.
  public init?(bytes: some Collection<UInt8>) {
    switch bytes.count {
    case 4:
      self.init(v4: bytes.reduce(0) { $0 << 8 | UInt32($1) })
    case 16:
      let high = bytes.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      let low = bytes.dropFirst(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      self.init(v6High: high, low: low)
    default:
      return nil
    }
  }

  public var isIPv4: Bool { family == .v4 }

  /// 4 or 16.
  public var byteCount: Int { isIPv4 ? 4 : 16 }

  /// The 4 or 16 bytes in network order.
  public var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(byteCount)
    append(to: &bytes)
    return bytes
  }

  /// Appends the 4 or 16 bytes in network order.
  public func append(to buffer: inout [UInt8]) {
    if isIPv4 {
      for shift: UInt64 in [24, 16, 8, 0] { buffer.append(UInt8(truncatingIfNeeded: low >> shift)) }
    } else {
      for shift in stride(from: UInt64(56), through: 0, by: -8) {
        buffer.append(UInt8(truncatingIfNeeded: high >> shift))
      }
      for shift in stride(from: UInt64(56), through: 0, by: -8) {
        buffer.append(UInt8(truncatingIfNeeded: low >> shift))
      }
    }
  }

  /// The IPv4 address inside an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`), else the address itself.
  public var unmapped: IPAddress {
    guard !isIPv4, high == 0, low >> 32 == 0xFFFF else { return self }
    return IPAddress(v4: UInt32(truncatingIfNeeded: low))
  }

  /// 127.0.0.0/8 or ::1.
  public var isLoopback: Bool {
    let plain = unmapped
    return plain.isIPv4 ? plain.low >> 24 == 127 : plain.high == 0 && plain.low == 1
  }

  /// 0.0.0.0 or ::, "every interface" when binding; nothing can be sent to it.
  public var isUnspecified: Bool { high == 0 && low == 0 }

  /// IPv4 before IPv6, then by value.
  public static func < (left: IPAddress, right: IPAddress) -> Bool {
    if left.family != right.family { return left.isIPv4 }
    return (left.high, left.low) < (right.high, right.low)
  }
}

/// Where a member listens, packets and streams alike: an address and one port.
public struct GossipAddress: Hashable, Comparable, Sendable {
  public var ip: IPAddress
  public var port: UInt16

  public init(ip: IPAddress, port: UInt16) {
    self.ip = ip
    self.port = port
  }

  /// An address from 4 or 16 bytes in network order; nil for any other count.
  public init?(bytes: some Collection<UInt8>, port: UInt16) {
    guard let ip = IPAddress(bytes: bytes) else { return nil }
    self.init(ip: ip, port: port)
  }

  public static func < (left: GossipAddress, right: GossipAddress) -> Bool {
    left.ip == right.ip ? left.port < right.port : left.ip < right.ip
  }
}

extension GossipAddress: CustomStringConvertible {
  /// `127.0.0.1:7946` or `[::1]:7946`.
  public var description: String { ip.isIPv4 ? "\(ip):\(port)" : "[\(ip)]:\(port)" }

  /// Parses `127.0.0.1:7946` or `[::1]:7946`; nil for anything else, a host name included.
  public init?(_ text: some StringProtocol) {
    guard let parsed = try? JoinAddress(parsing: text), parsed.name == nil, let port = parsed.port,
      let ip = IPAddress(parsed.host)
    else { return nil }
    self.init(ip: ip, port: port)
  }
}
