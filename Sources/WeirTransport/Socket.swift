import CWeir
import Glibc

/// What became of one read or write on a non-blocking socket.
package enum SocketResult: Equatable {
  /// So many bytes were moved.
  case moved(Int)
  /// Nothing can be moved now.
  case wouldBlock
  /// The peer has closed its side.
  case closed
  /// The connection is broken, with this `errno`.
  case failed(Int32)
}

/// System calls on non-blocking TCP sockets. Interrupted calls are repeated here; nothing raises SIGPIPE.
package enum Socket {
  /// A listening socket and the port it got.
  package static func listen(on address: SocketAddress, backlog: Int32 = 128) throws(TransportError)
    -> (descriptor: Int32, port: UInt16)
  {
    let descriptor = try create(for: address)
    setOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
    let bound = unsafe address.withSocketAddress { unsafe bind(descriptor, $0, $1) }
    guard bound == 0, Glibc.listen(descriptor, backlog) == 0 else {
      let code = errno
      close(descriptor)
      throw .cannotListen(address.description, errno: code)
    }
    return (descriptor, localPort(of: descriptor))
  }

  /// Begins to connect; the socket becomes writable when that has ended, well or not (`pendingError`).
  package static func connect(to address: SocketAddress) throws(TransportError) -> Int32 {
    let descriptor = try create(for: address)
    configureStream(descriptor)
    let result = unsafe address.withSocketAddress { unsafe Glibc.connect(descriptor, $0, $1) }
    let code = errno
    if result != 0, code != EINPROGRESS, code != EINTR {
      close(descriptor)
      throw .systemCall("connect to \(address)", errno: code)
    }
    return descriptor
  }

  /// The next connection that waits on a listener, or nil.
  package static func accept(on listener: Int32) -> Int32? {
    while true {
      let descriptor = cweir_accept(listener)
      if descriptor >= 0 {
        configureStream(descriptor)
        return descriptor
      }
      // A connection that was reset while it waited is none; the next may be fine.
      if errno != EINTR, errno != ECONNABORTED { return nil }
    }
  }

  /// The outcome of a connect: 0, or an `errno`.
  package static func pendingError(_ descriptor: Int32) -> Int32 {
    var code: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    let result = unsafe getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length)
    return result == 0 ? code : errno
  }

  @unsafe
  package static func receive(_ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer) -> SocketResult {
    while true {
      let count = unsafe recv(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
      if count > 0 { return .moved(count) }
      if count == 0 { return unsafe buffer.isEmpty ? .moved(0) : .closed }
      if errno == EINTR { continue }
      return errno == EAGAIN || errno == EWOULDBLOCK ? .wouldBlock : .failed(errno)
    }
  }

  /// One vectored write. MSG_NOSIGNAL: a peer that went away is an error to handle, not a signal that ends the process.
  @unsafe
  static func send(_ descriptor: Int32, vectors: UnsafeMutableBufferPointer<iovec>) -> SocketResult {
    while true {
      var message = unsafe msghdr()
      unsafe message.msg_iov = vectors.baseAddress
      unsafe message.msg_iovlen = vectors.count
      let flags = Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL)
      let count = unsafe sendmsg(descriptor, &message, flags)
      if count >= 0 { return .moved(count) }
      if errno == EINTR { continue }
      return errno == EAGAIN || errno == EWOULDBLOCK ? .wouldBlock : .failed(errno)
    }
  }

  /// One write of plain bytes.
  @unsafe
  package static func send(_ descriptor: Int32, bytes: UnsafeRawBufferPointer) -> SocketResult {
    while true {
      let count = unsafe Glibc.send(
        descriptor, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
      if count >= 0 { return .moved(count) }
      if errno == EINTR { continue }
      return errno == EAGAIN || errno == EWOULDBLOCK ? .wouldBlock : .failed(errno)
    }
  }

  package static func close(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

  static func localPort(of descriptor: Int32) -> UInt16 {
    var storage = sockaddr_storage()
    return unsafe withUnsafeMutableBytes(of: &storage) { bytes in
      var length = socklen_t(bytes.count)
      let base = unsafe bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: sockaddr.self)
      guard unsafe getsockname(descriptor, base, &length) == 0 else { return 0 }
      return unsafe UInt16(bytes[2]) << 8 | UInt16(bytes[3])
    }
  }

  private static func create(for address: SocketAddress) throws(TransportError) -> Int32 {
    let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
    let descriptor = socket(address.isIPv6 ? AF_INET6 : AF_INET, type, 0)
    guard descriptor >= 0 else { throw .systemCall("socket", errno: errno) }
    return descriptor
  }

  /// NODELAY: Nagle's algorithm holds the tail of a batch back until the peer's delayed acknowledgement, 40 ms.
  /// NOTSENT_LOWAT bounds what waits unsent in the kernel, where a heartbeat would stand behind it.
  private static func configureStream(_ descriptor: Int32) {
    setOption(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    setOption(descriptor, Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, 1 << 20)
  }

  private static func setOption(_ descriptor: Int32, _ level: Int32, _ name: Int32, _ value: Int32) {
    var value = value
    _ = unsafe setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
  }
}
