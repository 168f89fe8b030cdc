extension IPAddress: CustomStringConvertible {
  /// Dotted numbers, or IPv6 as RFC 5952 writes it (lower case, the longest run of zeros shortened).
  public var description: String {
    if isIPv4 { return [24, 16, 8, 0].map { String(low >> $0 & 0xFF) }.joined(separator: ".") }
    let groups = (0..<8).map { index in
      let word = index < 4 ? high : low
      return UInt16(truncatingIfNeeded: word >> (48 - 16 * UInt64(index % 4)))
    }
    guard let zeros = Self.longestZeroRun(groups) else {
      return groups.map { String($0, radix: 16) }.joined(separator: ":")
    }
    let head = groups[..<zeros.lowerBound].map { String($0, radix: 16) }.joined(separator: ":")
    let tail = groups[zeros.upperBound...].map { String($0, radix: 16) }.joined(separator: ":")
    return head + "::" + tail
  }

  /// The first longest run of two or more zero groups.
  private static func longestZeroRun(_ groups: [UInt16]) -> Range<Int>? {
    var best: Range<Int>?
    var start = 0
    while start < groups.count {
      var end = start
      while end < groups.count, groups[end] == 0 { end += 1 }
      if end - start >= 2, end - start > (best?.count ?? 0) { best = start..<end }
      start = max(end, start + 1)
    }
    return best
  }

  /// Parses `10.0.0.1`, `fe80::1` or `::ffff:10.0.0.1`; nil for anything else (a zone such as `%eth0` included).
  public init?(_ text: some StringProtocol) {
    let bytes = Array(text.utf8)
    if bytes.contains(UInt8(ascii: ":")) {
      guard let groups = Self.parseV6(bytes[...]) else { return nil }
      let high = groups[..<4].reduce(UInt64(0)) { $0 << 16 | UInt64($1) }
      let low = groups[4...].reduce(UInt64(0)) { $0 << 16 | UInt64($1) }
      self.init(v6High: high, low: low)
    } else {
      guard let value = Self.parseV4(bytes[...]) else { return nil }
      self.init(v4: value)
    }
  }

  private static func parseV4(_ text: ArraySlice<UInt8>) -> UInt32? {
    let parts = text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var value: UInt32 = 0
    for part in parts {
      guard (1...3).contains(part.count), part.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
      // A leading zero is octal to some programs and decimal to others: refused, as Go does.
      guard part.count == 1 || part.first != UInt8(ascii: "0") else { return nil }
      let number = part.reduce(UInt32(0)) { $0 * 10 + UInt32($1 - 0x30) }
      guard number <= 255 else { return nil }
      value = value << 8 | number
    }
    return value
  }

  private static func parseV6(_ text: ArraySlice<UInt8>) -> [UInt16]? {
    guard let gap = firstDoubleColon(text) else {
      guard let groups = parseGroups(text), groups.count == 8 else { return nil }
      return groups
    }
    let tail = text[(gap + 2)...]
    guard firstDoubleColon(tail) == nil, let left = parseGroups(text[..<gap]), let right = parseGroups(tail),
      left.count + right.count <= 7
    else { return nil }
    return left + Array(repeating: 0, count: 8 - left.count - right.count) + right
  }

  private static func firstDoubleColon(_ text: ArraySlice<UInt8>) -> Int? {
    text.indices.dropLast().first { text[$0] == UInt8(ascii: ":") && text[$0 + 1] == UInt8(ascii: ":") }
  }

  private static func parseGroups(_ text: ArraySlice<UInt8>) -> [UInt16]? {
    if text.isEmpty { return [] }
    let parts = text.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
    var groups: [UInt16] = []
    for (index, part) in parts.enumerated() {
      if index == parts.count - 1, part.contains(UInt8(ascii: ".")) {
        guard let value = parseV4(part) else { return nil }
        groups += [UInt16(truncatingIfNeeded: value >> 16), UInt16(truncatingIfNeeded: value)]
      } else {
        guard (1...4).contains(part.count), !part.contains(UInt8(ascii: "+")), !part.contains(UInt8(ascii: "-")),
          let group = UInt16(String(decoding: part, as: UTF8.self), radix: 16)
        else { return nil }
        groups.append(group)
      }
    }
    return groups
  }
}

/// Whom to join: `[name/]host[:port]`, IPv6 in brackets when a port follows.
///
/// The name, where given, is what the joined member must be called: a node that took over an old address does not
/// answer for the one that was meant.
public struct JoinAddress: Hashable, Sendable {
  public var name: NodeName?
  /// An address without brackets, or a host name to look up.
  public var host: String
  /// nil: the cluster's usual port.
  public var port: UInt16?

  public init(name: NodeName? = nil, host: String, port: UInt16? = nil) {
    self.name = name
    self.host = host
    self.port = port
  }

  /// Throws `invalidText` where name, host or port is missing or malformed.
  public init(parsing text: some StringProtocol) throws(WireError) {
    var rest = Substring(text)
    if let slash = rest.firstIndex(of: "/") {
      guard slash > rest.startIndex else { throw .invalidText }
      name = NodeName(rest[..<slash])
      rest = rest[rest.index(after: slash)...]
    }
    let portText: Substring?
    (host, portText) = try Self.split(rest)
    guard !host.isEmpty, !host.contains("/") else { throw .invalidText }
    port = nil
    if let portText {
      guard portText.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt16(portText) else {
        throw .invalidText
      }
      port = number
    }
  }

  private static func split(_ text: Substring) throws(WireError) -> (host: String, port: Substring?) {
    if text.first == "[" {
      guard let close = text.firstIndex(of: "]") else { throw .invalidText }
      let host = String(text[text.index(after: text.startIndex)..<close])
      let after = text[text.index(after: close)...]
      guard IPAddress(host)?.isIPv4 == false else { throw .invalidText }
      if after.isEmpty { return (host, nil) }
      guard after.first == ":", after.count > 1 else { throw .invalidText }
      return (host, after.dropFirst())
    }
    let colons = text.utf8.count { $0 == UInt8(ascii: ":") }
    // More than one colon without brackets can only be an IPv6 address without a port.
    if colons > 1 {
      guard IPAddress(text) != nil else { throw .invalidText }
      return (String(text), nil)
    }
    guard let colon = text.firstIndex(of: ":") else { return (String(text), nil) }
    let port = text[text.index(after: colon)...]
    guard !port.isEmpty else { throw .invalidText }
    return (String(text[..<colon]), port)
  }
}

/// A range of addresses, `10.0.0.0/8` or `fd00::/8`.
public struct CIDR: Hashable, Sendable {
  public let network: IPAddress
  public let prefixBits: Int

  /// Parses `address/bits`; throws `invalidText` for anything else.
  public init(parsing text: some StringProtocol) throws(WireError) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let network = IPAddress(parts[0]), let bits = UInt8(parts[1]),
      parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) }), Int(bits) <= network.byteCount * 8
    else { throw .invalidText }
    self.network = network
    self.prefixBits = Int(bits)
  }

  /// Whether the address lies in the range; an IPv4 address written as IPv6 counts as the IPv4 address.
  public func contains(_ address: IPAddress) -> Bool {
    let address = address.unmapped
    guard address.family == network.family else { return false }
    if address.isIPv4 { return Self.differ(address.low ^ network.low, prefixBits, width: 32) == false }
    if prefixBits <= 64 { return Self.differ(address.high ^ network.high, prefixBits, width: 64) == false }
    return address.high == network.high
      && Self.differ(address.low ^ network.low, prefixBits - 64, width: 64) == false
  }

  /// Whether any of the first `bits` of the `width` low bits of `difference` is set.
  private static func differ(_ difference: UInt64, _ bits: Int, width: Int) -> Bool {
    bits == 0 ? false : difference >> UInt64(width - bits) != 0
  }
}

/// Which addresses members may announce (memberlist's `CIDRsAllowed`).
public struct AddressAllowList: Hashable, Sendable {
  /// nil allows every address; an empty list allows none.
  public var ranges: [CIDR]?

  public static let everything = AddressAllowList(ranges: nil)

  public init(ranges: [CIDR]?) {
    self.ranges = ranges
  }

  public func allows(_ address: IPAddress) -> Bool {
    guard let ranges else { return true }
    return ranges.contains { $0.contains(address) }
  }
}
