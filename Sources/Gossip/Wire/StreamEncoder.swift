/// Which end of a stream we are. It matters for the label alone: the dialer's bytes begin with the label header and the
/// acceptor's answer has none, while both authenticate the label when they encrypt.
public enum StreamSide: Sendable {
  case dialer
  case acceptor
}

/// Streams, outgoing: one message per stream and direction.
///
/// Outermost first: `[label, dialer only] [encrypted frame] -> [compression] -> message`. Unlike a packet, a stream's
/// message is compressed even where that makes it longer, and has no checksum.
public struct StreamEncoder: Sendable {
  public var configuration: WireConfiguration
  private var encoder = LZWEncoder()

  public init(_ configuration: WireConfiguration = WireConfiguration()) {
    self.configuration = configuration
  }

  /// The bytes to write to the stream. The generator makes the nonce, and is used only with encryption.
  ///
  /// Throws `tooLarge` or `tooManyNodes` for what a peer would refuse, and `labelTooLong`.
  public mutating func encode(
    _ message: StreamMessage, side: StreamSide, using generator: inout some RandomNumberGenerator
  ) throws(WireError) -> [UInt8] {
    var stream: [UInt8] = []
    if side == .dialer { try appendLabelHeader(configuration.label, to: &stream) }
    var body: [UInt8] = []
    try append(message, to: &body)
    if configuration.isCompressionEnabled {
      var compressed: [UInt8] = []
      _ = encoder.encode(body.span, into: &compressed)
      body.removeAll(keepingCapacity: true)
      CompressMessage.append(payload: compressed, to: &body)
    }
    guard configuration.encryptsOutgoing, let keyring = configuration.keyring else {
      stream.append(contentsOf: body)
      return stream
    }
    try appendFrame(body, keyring, Envelope.Nonce(using: &generator), to: &stream)
    return stream
  }

  private func append(_ message: StreamMessage, to buffer: inout [UInt8]) throws(WireError) {
    switch message {
    case .ping(let ping): ping.encode(into: &buffer)
    case .ack(let ack): ack.encode(into: &buffer)
    case .error(let error): error.encode(into: &buffer)
    case .user(let bytes):
      try check(bytes.count, limitBytes: configuration.limits.userBytes)
      buffer.append(MessageType.user.rawValue)
      UserStreamHeader(byteCount: bytes.count).encode(into: &buffer)
      buffer.append(contentsOf: bytes)
    case .pushPull(let exchange):
      try append(exchange, to: &buffer)
    }
  }

  private func append(_ exchange: PushPull, to buffer: inout [UInt8]) throws(WireError) {
    let limits = configuration.limits
    guard exchange.nodes.count <= limits.nodeCount else {
      throw .tooManyNodes(count: exchange.nodes.count, limit: limits.nodeCount)
    }
    try check(exchange.userState.count, limitBytes: limits.userBytes)
    buffer.append(MessageType.pushPull.rawValue)
    PushPullHeader(
      nodeCount: exchange.nodes.count, userStateByteCount: exchange.userState.count, isJoin: exchange.isJoin
    ).encode(into: &buffer)
    for node in exchange.nodes { node.encode(into: &buffer) }
    buffer.append(contentsOf: exchange.userState)
  }

  /// `0A, length: u32`, then the envelope of that length, which authenticates those five bytes and the label.
  private func appendFrame(
    _ body: [UInt8], _ keyring: Keyring, _ nonce: Envelope.Nonce, to stream: inout [UInt8]
  ) throws(WireError) {
    let version: UInt8 = configuration.protocolVersion <= 1 ? 0 : 1
    let byteCount = Envelope.sealedByteCount(of: body.count, version: version)
    try check(byteCount, limitBytes: configuration.limits.encryptedBytes)
    var header: [UInt8] = []
    header.append(addingCapacity: EncryptedFrame.headerBytes) { output in
      output.append(MessageType.encrypt.rawValue)
      output.writeWord(UInt64(truncatingIfNeeded: byteCount), byteCount: 4)
    }
    stream.append(contentsOf: header)
    try Envelope.seal(
      body, version: version, keyring: keyring, authenticating: header + configuration.label, nonce: nonce,
      into: &stream)
  }

  private func check(_ byteCount: Int, limitBytes: Int) throws(WireError) {
    guard byteCount <= limitBytes else { throw .tooLarge(byteCount: byteCount, limitBytes: limitBytes) }
  }
}

enum EncryptedFrame {
  /// Type byte and length.
  static let headerBytes = 5
}
