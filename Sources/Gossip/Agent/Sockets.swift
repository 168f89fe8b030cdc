import Glibc

/// The operating system's text for an error number.
func errorText(_ code: Int32) -> String {
  String(cString: strerror(code))
}

/// An address in the form that the operating system takes.
struct SocketAddress {
  private var storage = sockaddr_storage()
  private var length: socklen_t = 0

  /// - Parameter isIPv6Socket: IPv4 destinations are then written as `::ffff:a.b.c.d`, which is how a socket bound to
  ///   all addresses of both kinds reaches them.
  init(_ address: GossipAddress, isIPv6Socket: Bool) {
    var ip = address.ip
    if isIPv6Socket, ip.isIPv4 { ip = IPAddress(v6High: 0, low: 0xFFFF_0000_0000 | ip.low) }
    if ip.isIPv4 {
      var raw = sockaddr_in()
      raw.sin_family = sa_family_t(AF_INET)
      raw.sin_port = address.port.bigEndian
      raw.sin_addr.s_addr = UInt32(truncatingIfNeeded: ip.low).bigEndian
      fill(with: raw)
    } else {
      var raw = sockaddr_in6()
      raw.sin6_family = sa_family_t(AF_INET6)
      raw.sin6_port = address.port.bigEndian
      withUnsafeMutableBytes(of: &raw.sin6_addr) { $0.copyBytes(from: ip.bytes) }
      fill(with: raw)
    }
  }

  private init() {}

  private mutating func fill<Raw>(with raw: Raw) {
    // sockaddr_storage is by definition large enough for every kind of address.
    withUnsafeMutableBytes(of: &storage) { target in
      withUnsafeBytes(of: raw) { target.copyMemory(from: $0) }
    }
    length = socklen_t(MemoryLayout<Raw>.size)
  }

  /// Lets `body` fill in an address (`recvfrom`, `getsockname`).
  static func receiving<Result>(
    _ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Result
  ) -> (Result, SocketAddress) {
    var address = SocketAddress()
    address.length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = withUnsafeMutablePointer(to: &address.storage) { storage in
      storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        withUnsafeMutablePointer(to: &address.length) { body(pointer, $0) }
      }
    }
    return (result, address)
  }

  func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    withUnsafePointer(to: storage) { storage in
      storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
    }
  }

  /// The address, an IPv4 one written as IPv6 unwrapped; nil for other families.
  var gossipAddress: GossipAddress? {
    withUnsafeBytes(of: storage) { bytes in
      switch Int32(storage.ss_family) {
      case AF_INET:
        let raw = bytes.loadUnaligned(as: sockaddr_in.self)
        return GossipAddress(
          ip: IPAddress(v4: UInt32(bigEndian: raw.sin_addr.s_addr)), port: UInt16(bigEndian: raw.sin_port))
      case AF_INET6:
        let raw = bytes.loadUnaligned(as: sockaddr_in6.self)
        guard let ip = withUnsafeBytes(of: raw.sin6_addr, { IPAddress(bytes: $0) }) else { return nil }
        return GossipAddress(ip: ip.unmapped, port: UInt16(bigEndian: raw.sin6_port))
      default:
        return nil
      }
    }
  }
}

/// A listening stream socket and a datagram socket on one address and one port.
struct SocketPair {
  let listener: Int32
  let datagram: Int32
  let bound: GossipAddress

  var isIPv6: Bool { !bound.ip.isIPv4 }

  /// Whether packets to that address can be sent from here: those of the same kind, and IPv4 ones where the socket is
  /// bound to all addresses of both kinds.
  func reaches(_ address: GossipAddress) -> Bool {
    address.ip.isIPv4 != isIPv6 || (isIPv6 && bound.ip.isUnspecified)
  }

  func close() {
    Glibc.close(listener)
    Glibc.close(datagram)
  }
}

/// The calls on sockets that gossip needs, all non-blocking.
enum Sockets {
  static let streamType = Int32(SOCK_STREAM.rawValue)
  static let datagramType = Int32(SOCK_DGRAM.rawValue)

  /// A socket that does not block and is not inherited by child processes.
  static func open(isIPv6: Bool, type: Int32) throws(GossipNodeError) -> Int32 {
    let flags = Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(isIPv6 ? AF_INET6 : AF_INET, type | flags, 0)
    guard descriptor >= 0 else { throw .system(call: "socket", code: errno) }
    return descriptor
  }

  /// The next connection of a listener, not blocking and not inherited; negative with `errno` set if there is none.
  static func accept(from listener: Int32) -> Int32 {
    let descriptor = Glibc.accept(listener, nil, nil)
    if descriptor >= 0 {
      _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    }
    return descriptor
  }

  static func bind(_ descriptor: Int32, to address: GossipAddress) throws(GossipNodeError) {
    if !address.ip.isIPv4 {
      // Bound to `::` it serves IPv4 as well; bound to one address it makes no difference.
      set(descriptor, level: Int32(IPPROTO_IPV6), option: IPV6_V6ONLY, value: 0)
    }
    let result = SocketAddress(address, isIPv6Socket: !address.ip.isIPv4).withPointer { pointer, length in
      Glibc.bind(descriptor, pointer, length)
    }
    guard result == 0 else { throw .system(call: "bind to \(address)", code: errno) }
  }

  static func localAddress(of descriptor: Int32) throws(GossipNodeError) -> GossipAddress {
    let (result, address) = SocketAddress.receiving { getsockname(descriptor, $0, $1) }
    guard result == 0, let local = address.gossipAddress else { throw .system(call: "getsockname", code: errno) }
    return local
  }

  @discardableResult
  static func set(_ descriptor: Int32, level: Int32, option: Int32, value: Int32) -> Bool {
    var value = value
    return setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0
  }

  /// The error that a connection attempt ended with, 0 for success.
  static func pendingError(of descriptor: Int32) -> Int32 {
    var code: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    guard getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) == 0 else { return errno }
    return code
  }

  /// A listening stream socket and a datagram socket on one address and one port.
  ///
  /// With port 0 the system chooses the port of the first; the second may find it taken, and then both are tried again.
  static func openPair(at address: GossipAddress) throws(GossipNodeError) -> SocketPair {
    var attemptsLeft = address.port == 0 ? 20 : 1
    while true {
      attemptsLeft -= 1
      let listener = try open(isIPv6: !address.ip.isIPv4, type: streamType)
      var datagram: Int32 = -1
      do throws(GossipNodeError) {
        set(listener, level: SOL_SOCKET, option: SO_REUSEADDR, value: 1)
        try bind(listener, to: address)
        guard listen(listener, 128) == 0 else { throw .system(call: "listen", code: errno) }
        let port = try localAddress(of: listener).port
        let bound = GossipAddress(ip: address.ip, port: port)
        datagram = try open(isIPv6: !address.ip.isIPv4, type: datagramType)
        try bind(datagram, to: bound)
        growReceiveBuffer(of: datagram)
        return SocketPair(listener: listener, datagram: datagram, bound: bound)
      } catch {
        close(listener)
        if datagram >= 0 { close(datagram) }
        if attemptsLeft <= 0 { throw error }
      }
    }
  }

  /// The same at several addresses, all with the port of the first.
  static func openPairs(
    at address: GossipAddress, and others: [IPAddress]
  ) throws(GossipNodeError) -> [SocketPair] {
    var attemptsLeft = address.port == 0 ? 20 : 1
    while true {
      attemptsLeft -= 1
      var pairs = [try openPair(at: address)]
      do throws(GossipNodeError) {
        for ip in others { pairs.append(try openPair(at: GossipAddress(ip: ip, port: pairs[0].bound.port))) }
        return pairs
      } catch {
        for pair in pairs { pair.close() }
        if attemptsLeft <= 0 { throw error }
      }
    }
  }

  /// A burst of packets while the node is busy must not be lost: 2 MiB, or half of it as often as the system refuses.
  private static func growReceiveBuffer(of descriptor: Int32) {
    var size: Int32 = 2 * 1_048_576
    while size > 65_536, !set(descriptor, level: SOL_SOCKET, option: SO_RCVBUF, value: size) { size /= 2 }
  }
}
