import Testing
import WeirCore

/// Encodes as the transport does: header, then the entries' slices, into a slab.
func encoded(_ message: Message, at offset: Int = 0) -> (slab: Slab, byteCount: Int) {
  var bytes = [UInt8](repeating: 0xEE, count: offset + MessageCodec.encodedHeaderBytes(of: message))
  bytes.withUnsafeMutableBytes { buffer in
    _ = MessageCodec.encodeHeader(of: message, into: UnsafeMutableRawBufferPointer(rebasing: buffer[offset...]))
  }
  message.entries.forEachSlice { slice in
    bytes += slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount)
  }
  return (slab(of: bytes), bytes.count - offset)
}

@Suite struct MessageCodecTests {
  @Test func anAppendComesBackWithItsEntries() throws {
    var log = LogBuffer()
    for number in 1...10 {
      log.append(term: 3, payload: [UInt8](repeating: UInt8(number), count: number * 7).span.bytes)
    }
    var message = Message(type: .append, to: 2, from: 1, term: 4)
    message.logTerm = 3
    message.index = 2
    message.commit = 1
    message.context = 77
    message.entries = log.batch(from: 3, through: 9)
    let (slab, byteCount) = encoded(message, at: 24)
    let decoded = try MessageCodec.decode(slab: slab, offset: 24, byteCount: byteCount)
    #expect(decoded.type == .append && decoded.to == 2 && decoded.from == 1 && decoded.term == 4)
    #expect(decoded.logTerm == 3 && decoded.index == 2 && decoded.commit == 1 && decoded.context == 77)
    #expect(decoded.entries.firstIndex == 3 && decoded.entries.count == 7)
    var sizes: [Int] = []
    decoded.entries.forEach { header, payload in sizes.append(payload.byteCount + Int(header.index) * 0) }
    #expect(sizes == [21, 28, 35, 42, 49, 56, 63])
  }

  @Test func snapshotAndResponsesComeBack() throws {
    let configuration = ConfigurationState(voters: [1, 2, 3], votersOutgoing: [1, 2], learners: [9], autoLeave: true)
    let snapshot = Snapshot(
      metadata: SnapshotMetadata(index: 5, term: 2, configuration: configuration), data: [1, 2, 3])
    var response = Message(type: .appendResponse, to: 1, from: 2, term: 2)
    response.reject = true
    response.rejectHint = 8
    var message = Message(type: .storageAppend, to: .appendThread, from: 2, term: 2)
    message.attachment = MessageAttachment(snapshot: snapshot, responses: [response, Message(type: .voteResponse)])
    let (slab, byteCount) = encoded(message)
    let decoded = try MessageCodec.decode(slab: slab, offset: 0, byteCount: byteCount)
    #expect(decoded.snapshot == snapshot)
    #expect(decoded.responses.count == 2)
    #expect(decoded.responses.first?.reject == true)
    #expect(decoded.responses.first?.rejectHint == 8)
  }
}
