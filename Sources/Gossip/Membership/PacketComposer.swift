/// Collects the messages of one packet and writes them out: one goes bare, several as a compound.
///
/// Its buffers are reused from packet to packet.
struct PacketComposer {
  /// Type byte and count of a compound.
  static let compoundHeaderBytes = 2
  /// The length field of each message in a compound.
  static let compoundPartBytes = 2
  /// The count of a compound is one byte.
  static let maximumParts = 255

  private var bytes: [UInt8] = []
  private var ends: [Int] = []

  /// Messages so far.
  var count: Int { ends.count }
  /// Bytes of the messages so far, without the compound's own.
  var sizeBytes: Int { bytes.count }
  var isFull: Bool { ends.count >= Self.maximumParts }

  mutating func begin() {
    bytes.removeAll(keepingCapacity: true)
    ends.removeAll(keepingCapacity: true)
  }

  /// Adds the message that `write` appends.
  mutating func add(_ write: (inout [UInt8]) -> Void) {
    write(&bytes)
    ends.append(bytes.count)
  }

  /// Adds a message from its bytes.
  mutating func add(_ message: RawSpan) {
    message.withUnsafeBytes { bytes.append(contentsOf: $0) }
    ends.append(bytes.count)
  }

  /// Adds a message from its bytes, `prefix` first.
  mutating func add(prefix: UInt8? = nil, _ message: some Collection<UInt8>) {
    if let prefix { bytes.append(prefix) }
    bytes.append(contentsOf: message)
    ends.append(bytes.count)
  }

  /// Appends the packet's body and returns where it lies.
  func write(into packet: inout [UInt8]) -> Range<Int> {
    let start = packet.count
    if ends.count > 1 {
      packet.append(MessageType.compound.rawValue)
      packet.append(UInt8(truncatingIfNeeded: ends.count))
      var partStart = 0
      for end in ends {
        let length = UInt16(truncatingIfNeeded: end - partStart)
        packet.append(UInt8(length >> 8))
        packet.append(UInt8(length & 0xFF))
        partStart = end
      }
    }
    packet.append(contentsOf: bytes)
    return start..<packet.count
  }
}
