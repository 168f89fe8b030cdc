import WeirCore

extension HotPaths {
  static let messageEncoding: [HotPath] = [
    HotPath(
      name: "message-encode-append-128B", suite: .messageEncoding,
      operation: "encode an append of one entry of 128 bytes", payloadBytes: 128,
      reference: .init(name: "plain [UInt8] append encoder") { PlainEncode(entries: 1) },
      makeWorkload: { Encode(entries: 1) }),
    HotPath(
      name: "message-encode-append-64x128B", suite: .messageEncoding,
      operation: "encode an append of 64 entries of 128 bytes", payloadBytes: 64 * 128,
      reference: .init(name: "plain [UInt8] append encoder") { PlainEncode(entries: 64) },
      makeWorkload: { Encode(entries: 64) }),
    HotPath(
      name: "message-decode-append-128B", suite: .messageEncoding,
      operation: "decode and verify an append of one entry of 128 bytes", payloadBytes: 128,
      reference: .init(name: "plain decoder into arrays, unverified") { PlainDecode(entries: 1) },
      makeWorkload: { Decode(entries: 1) }),
    HotPath(
      name: "message-decode-append-64x128B", suite: .messageEncoding,
      operation: "decode and verify an append of 64 entries of 128 bytes", payloadBytes: 64 * 128,
      reference: .init(name: "memcpy of the same bytes") { CopyMessage(entries: 64) },
      makeWorkload: { Decode(entries: 64) }),
    HotPath(
      name: "message-decode-heartbeat", suite: .messageEncoding, operation: "decode a message without entries",
      payloadBytes: 0,
      reference: .init(name: "plain decoder into arrays, unverified") { PlainDecode(entries: 0) },
      makeWorkload: { Decode(entries: 0) }),
  ]

  /// An append with so many entries of 128 bytes; a heartbeat with none.
  static func appendMessage(entries: Int) -> Message {
    var log = LogBuffer()
    for number in 0..<max(entries, 1) { log.append(term: 5, payload: Shape.payload(number).span.bytes) }
    var message = Message(type: entries > 0 ? .append : .heartbeat, to: 2, from: 1, term: 5)
    message.logTerm = entries > 0 ? 5 : 0
    message.commit = 0
    message.context = 9
    if entries > 0 { message.entries = log.batch(from: 1, through: UInt64(entries)) }
    return message
  }

  /// The message as it lies in a receive buffer.
  static func received(_ message: Message) -> (slab: Slab, byteCount: Int) {
    var bytes = [UInt8](repeating: 0, count: MessageCodec.encodedHeaderBytes(of: message))
    bytes.withUnsafeMutableBytes { _ = MessageCodec.encodeHeader(of: message, into: $0) }
    message.entries.forEachSlice { bytes += $0.slab.bytes(in: $0.offset..<$0.offset + $0.byteCount) }
    let slab = Slab(capacity: bytes.count)
    slab.bytes.copyBytes(from: bytes)
    return (slab, bytes.count)
  }
}

private final class Encode: Workload {
  let operationsPerStep = 100
  private var message: Message
  private var buffer = [UInt8](repeating: 0, count: 4096)
  private(set) var sink = 0

  init(entries: Int) {
    message = HotPaths.appendMessage(entries: entries)
    message.logTerm = 4
  }

  func step() { sink &+= Self.encode(&message, &buffer, times: operationsPerStep) }

  // The state of a workload is borrowed once a step: a checked access to a property of an object costs as much as some of
  // what is measured here.
  private static func encode(_ message: inout Message, _ buffer: inout [UInt8], times: Int) -> Int {
    var sink = 0
    var span = buffer.mutableSpan
    var bytes = span.mutableBytes
    for number in 0..<times {
      message.commit = UInt64(number)
      sink &+= MessageCodec.encodeHeader(of: message, into: &bytes)
      // The entries go out as they are: this is what a vectored write is given.
      message.entries.forEachSlice { sink &+= $0.offset &+ $0.byteCount }
    }
    return sink
  }
}

/// The same fields and entries appended to an array, as encoders without a plan do it.
private final class PlainEncode: Workload {
  let operationsPerStep = 100
  private let payloads: [[UInt8]]
  private var buffer: [UInt8] = []

  init(entries: Int) { payloads = (0..<entries).map { Shape.payload($0) } }

  private func put(_ number: UInt64) {
    withUnsafeBytes(of: number.littleEndian) { buffer.append(contentsOf: $0) }
  }

  func step() {
    for number in 0..<operationsPerStep {
      buffer.removeAll(keepingCapacity: true)
      buffer.append(3)
      put(2)
      put(1)
      put(5)
      put(4)
      put(0)
      put(UInt64(number))
      put(0)
      put(0)
      put(9)
      put(UInt64(payloads.count))
      for (position, payload) in payloads.enumerated() {
        put(UInt64(position + 1))
        put(5)
        buffer.append(0)
        put(UInt64(payload.count))
        buffer.append(contentsOf: payload)
      }
    }
  }
}

private final class Decode: Workload {
  let operationsPerStep = 100
  private let slab: Slab
  private let byteCount: Int
  private(set) var sink: UInt64 = 0

  init(entries: Int) {
    (slab, byteCount) = HotPaths.received(HotPaths.appendMessage(entries: entries))
  }

  func step() {
    var sum: UInt64 = 0
    var message = Message(type: .hup)
    for _ in 0..<operationsPerStep {
      do throws(MessageDecodingError) {
        try MessageCodec.decode(slab: slab, offset: 0, byteCount: byteCount, into: &message)
        sum &+= message.term &+ UInt64(message.entries.count)
      } catch {
        preconditionFailure("what was encoded is decoded: \(error)")
      }
    }
    sink &+= sum
  }
}

/// Reads the same fields, and each entry into an array of its own; checks nothing.
private final class PlainDecode: Workload {
  private struct Entry {
    var index: UInt64
    var term: UInt64
    var payload: [UInt8]
  }

  let operationsPerStep = 100
  private let bytes: [UInt8]
  private(set) var sink: UInt64 = 0

  init(entries: Int) {
    let (slab, byteCount) = HotPaths.received(HotPaths.appendMessage(entries: entries))
    bytes = [UInt8](slab.bytes[0..<byteCount])
  }

  private func number(at offset: Int) -> UInt64 {
    var result: UInt64 = 0
    for position in 0..<8 { result |= UInt64(bytes[offset + position]) << UInt64(8 * position) }
    return result
  }

  func step() {
    for _ in 0..<operationsPerStep {
      for field in 0..<9 { sink &+= number(at: 24 + 8 * field) }
      var entries: [Entry] = []
      var position = MessageCodec.fixedHeaderBytes
      while position < bytes.count {
        let length = Int(number(at: position) & 0xFFFF_FFFF)
        let payload = [UInt8](bytes[position + EntryFrame.headerBytes..<position + length])
        entries.append(Entry(index: number(at: position + 8), term: number(at: position + 16), payload: payload))
        position += EntryFrame.occupiedBytes(payloadBytes: payload.count)
      }
      sink &+= UInt64(entries.count)
    }
  }
}

private final class CopyMessage: Workload {
  let operationsPerStep = 100
  private let source: [UInt8]
  private var target: [UInt8]

  init(entries: Int) {
    let (slab, byteCount) = HotPaths.received(HotPaths.appendMessage(entries: entries))
    source = [UInt8](slab.bytes[0..<byteCount])
    target = source
  }

  func step() {
    for _ in 0..<operationsPerStep {
      source.withUnsafeBytes { from in target.withUnsafeMutableBytes { $0.copyMemory(from: from) } }
    }
  }
}
