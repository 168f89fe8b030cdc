import Glibc

/// Where a socket listens or connects to: a numeric IPv4 or IPv6 address, or a name resolved once, and a port.
public struct SocketAddress: Sendable, Hashable, CustomStringConvertible {
  /// The host as it was given.
  public let host: String
  /// The TCP port; 0 lets the system choose one (for listening only).
  public let port: UInt16
  let isIPv6: Bool
  private let bytes: [UInt8]

  /// Resolves `host`. A name is looked up now, which may block: call it while configuring, not on an event loop.
  /// - Throws: `TransportError.unresolvableHost` if the name means nothing here.
  public init(host: String, port: UInt16) throws(TransportError) {
    try self.init(host: host, port: port, flags: AI_ADDRCONFIG)
  }

  private init(host: String, port: UInt16, flags: Int32) throws(TransportError) {
    var hints = unsafe addrinfo()
    unsafe hints.ai_family = AF_UNSPEC
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = flags
    var found: UnsafeMutablePointer<addrinfo>?
    let code = unsafe getaddrinfo(host, "\(port)", &hints, &found)
    defer { if let found = unsafe found { unsafe freeaddrinfo(found) } }
    guard code == 0, let first = unsafe found, let address = unsafe first.pointee.ai_addr else {
      throw .unresolvableHost(host)
    }
    let length = unsafe Int(first.pointee.ai_addrlen)
    unsafe self.init(
      host: host, port: port, isIPv6: first.pointee.ai_family == AF_INET6,
      bytes: [UInt8](UnsafeRawBufferPointer(start: address, count: length)))
  }

  /// Parses `host:port`, `[v6]:port` or `:port` (every IPv4 interface).
  public init(parsing text: String) throws(TransportError) {
    guard let parts = Self.split(text) else { throw .unresolvableHost(text) }
    try self.init(host: parts.host, port: parts.port)
  }

  /// Parses the same where the host is a number: looks nothing up, so it may be called on an event loop. Nil for
  /// anything else.
  public init?(numeric text: String) {
    guard let parts = Self.split(text),
      let address = try? SocketAddress(host: parts.host, port: parts.port, flags: AI_NUMERICHOST)
    else { return nil }
    self = address
  }

  private static func split(_ text: String) -> (host: String, port: UInt16)? {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
    var host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    return (host.isEmpty ? "0.0.0.0" : host, port)
  }

  private init(host: String, port: UInt16, isIPv6: Bool, bytes: [UInt8]) {
    self.host = host
    self.port = port
    self.isIPv6 = isIPv6
    self.bytes = bytes
  }

  /// The same host with another port: what a listener on port 0 turned out to be.
  package func withPort(_ port: UInt16) -> SocketAddress {
    var bytes = bytes
    // In sockaddr_in and sockaddr_in6 alike the port lies at offset 2, in network byte order.
    if bytes.count >= 4 {
      bytes[2] = UInt8(port >> 8)
      bytes[3] = UInt8(port & 0xFF)
    }
    return SocketAddress(host: host, port: port, isIPv6: isIPv6, bytes: bytes)
  }

  /// Whether it stands for every interface of this machine, which means nothing to another one.
  public var isWildcard: Bool { ["0.0.0.0", "::", "::0"].contains(host) }

  public var description: String { isIPv6 ? "[\(host)]:\(port)" : "\(host):\(port)" }

  @unsafe
  func withSocketAddress<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    var storage = sockaddr_storage()
    return unsafe withUnsafeMutableBytes(of: &storage) { target in
      precondition(bytes.count <= target.count, "an address fits into sockaddr_storage")
      unsafe target.copyBytes(from: bytes)
      let base = unsafe target.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: sockaddr.self)
      return unsafe body(base, socklen_t(bytes.count))
    }
  }
}
