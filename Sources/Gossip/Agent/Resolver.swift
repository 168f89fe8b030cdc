import Glibc

/// Turning what people write into addresses. Blocking: never called on a node's queue.
enum Resolver {
  /// All addresses of `host`, in the system's order; a literal address gives itself.
  static func addresses(of host: String, port: UInt16) throws(GossipNodeError) -> [GossipAddress] {
    if let ip = IPAddress(host) { return [GossipAddress(ip: ip, port: port)] }
    var hints = addrinfo()
    hints.ai_socktype = Sockets.streamType
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, nil, &hints, &list) == 0 else { throw .unresolvable(host) }
    defer { freeaddrinfo(list) }
    var found: [GossipAddress] = []
    var next = list
    while let entry = next {
      if let raw = entry.pointee.ai_addr, let ip = ip(from: raw, byteCount: Int(entry.pointee.ai_addrlen)) {
        let address = GossipAddress(ip: ip, port: port)
        if !found.contains(address) { found.append(address) }
      }
      next = entry.pointee.ai_next
    }
    guard !found.isEmpty else { throw .unresolvable(host) }
    return found
  }

  /// An address of this machine that others are likely to reach: the first private IPv4 address of an interface that is
  /// up, else any that is not loopback, else loopback.
  static func addressToAdvertise() -> IPAddress {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { return IPAddress(127, 0, 0, 1) }
    defer { freeifaddrs(list) }
    var fallback: IPAddress?
    var next = list
    while let entry = next {
      next = entry.pointee.ifa_next
      guard entry.pointee.ifa_flags & UInt32(IFF_UP) != 0, let raw = entry.pointee.ifa_addr,
        Int32(raw.pointee.sa_family) == AF_INET,
        let ip = ip(from: raw, byteCount: MemoryLayout<sockaddr_in>.size), !ip.isLoopback
      else { continue }
      if isPrivate(ip) { return ip }
      fallback = fallback ?? ip
    }
    return fallback ?? IPAddress(127, 0, 0, 1)
  }

  private static func isPrivate(_ ip: IPAddress) -> Bool {
    let value = ip.low
    return value >> 24 == 10 || value >> 20 == 0xAC1 || value >> 16 == 0xC0A8
  }

  private static func ip(from raw: UnsafeMutablePointer<sockaddr>, byteCount: Int) -> IPAddress? {
    let bytes = UnsafeRawBufferPointer(start: raw, count: byteCount)
    switch Int32(raw.pointee.sa_family) {
    case AF_INET where byteCount >= MemoryLayout<sockaddr_in>.size:
      return IPAddress(v4: UInt32(bigEndian: bytes.loadUnaligned(as: sockaddr_in.self).sin_addr.s_addr))
    case AF_INET6 where byteCount >= MemoryLayout<sockaddr_in6>.size:
      let address = bytes.loadUnaligned(as: sockaddr_in6.self).sin6_addr
      return withUnsafeBytes(of: address) { IPAddress(bytes: $0) }
    default:
      return nil
    }
  }
}
