/// What both codecs must know of the cluster's configuration.
public struct WireConfiguration: Sendable {
  /// The label that all members share; empty: no label header. At most 255 bytes.
  public var label: [UInt8] = []
  /// nil: no encryption.
  public var keyring: Keyring?
  /// Refuse what is not encrypted, if there is a keyring (memberlist's `GossipVerifyIncoming`).
  public var verifyIncoming = true
  /// Encrypt, if there is a keyring (`GossipVerifyOutgoing`).
  public var verifyOutgoing = true
  /// Compress what is sent. Compressed messages are always accepted.
  public var isCompressionEnabled = true
  /// The protocol version spoken: 1 pads what it encrypts (encryption version 0), 2 and later do not (version 1).
  public var protocolVersion = ProtocolVersions.defaultProtocol
  /// A proxy in front has checked and removed the label of what comes in (`SkipInboundLabelCheck`).
  public var skipInboundLabelCheck = false
  public var limits = WireLimits()

  public init() {}

  /// Whether what goes out is encrypted.
  public var encryptsOutgoing: Bool { keyring != nil && verifyOutgoing }

  /// Bytes that label and encryption add to a packet: take them off the packet's size before filling it with messages.
  public var packetOverheadBytes: Int {
    let labelBytes = label.isEmpty ? 0 : 2 + label.count
    guard encryptsOutgoing else { return labelBytes }
    return labelBytes + (protocolVersion <= 1 ? Envelope.largestPaddedOverheadBytes : Envelope.plainOverheadBytes)
  }
}

/// How much the decoders take from one peer before they refuse: checked against every length before memory is taken.
public struct WireLimits: Hashable, Sendable {
  /// Node states of one push/pull (memberlist's 1,048,576).
  public var nodeCount = 1_048_576
  /// User state of a push/pull, and a user message of a stream (20 MiB).
  public var userBytes = 20 * 1_048_576
  /// An encrypted frame of a stream (20 MiB).
  public var encryptedBytes = 20 * 1_048_576
  /// A stream's message after decompression (40 MiB).
  public var decompressedStreamBytes = 40 * 1_048_576
  /// All that one packet decompresses to, over all its parts. A peer's packet holds 64 KiB at most before it is
  /// compressed; memberlist would take 40 MiB from each of 255 parts.
  public var decompressedPacketBytes = 1_048_576
  /// One node state, header, ping, ack or error of a stream, encoded. A node state of the longest metadata takes well
  /// under 1 KiB. It is read again from its start whenever bytes were missing, so this also bounds what a peer can make
  /// us do that sends it a byte at a time.
  public var messageBytes = 16_384
  /// How deep compounds and compressions may nest in a packet.
  public var nesting = 6

  public init() {}
}
