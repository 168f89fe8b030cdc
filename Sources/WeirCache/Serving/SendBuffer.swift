import WeirTransport

/// Bytes on their way to a client, and how many of them the socket has taken.
struct SendBuffer {
  /// All that was put in since it was last empty.
  var bytes: [UInt8] = []
  private var sentBytes = 0

  /// What the socket has not taken yet, in bytes.
  var pendingBytes: Int { bytes.count - sentBytes }
  var pending: ArraySlice<UInt8> { bytes[sentBytes...] }

  /// Sends as much as the socket takes at once. `moved` says that nothing is left.
  /// - Parameter keptBytes: how much memory an empty buffer may keep for what comes next.
  mutating func send(to descriptor: Int32, keptBytes: Int = 1 << 20) -> SocketResult {
    while pendingBytes > 0 {
      let sent = sentBytes
      let result = unsafe bytes.withUnsafeBytes { all in
        unsafe Socket.send(descriptor, bytes: UnsafeRawBufferPointer(rebasing: all[sent...]))
      }
      guard case .moved(let count) = result else { return result }
      sentBytes += count
    }
    bytes.removeAll(keepingCapacity: bytes.capacity <= keptBytes)
    sentBytes = 0
    return .moved(0)
  }
}
