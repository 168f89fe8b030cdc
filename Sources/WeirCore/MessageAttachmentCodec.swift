// The rare part of messages: snapshots and responses. It may allocate, in proportion to the bytes that are there.
//
// Cost: one store or load of 8 bytes and one check of the bounds a field, an array for each list of members; a snapshot's
// own bytes follow by another way. Expected: 50 ns an array. Measured
// (`bench hot-paths --parts`, 2-core EPYC 9005): 283 to 295 ns for a snapshot of 3 voters, written and read.

/// Writes and reads what `MessageCodec` documents behind byte 96 of a header.
enum MessageAttachmentCodec {
  private static let snapshotHeaderBytes = 40
  private static let responsesHeaderBytes = 8
  private static let responsePrefixBytes = 8

  private static func padded(_ byteCount: Int) -> Int { (byteCount + 7) & ~7 }

  static func encodedBytes(of attachment: MessageAttachment) -> Int {
    var total = 0
    if let snapshot = attachment.snapshot {
      let configuration = snapshot.metadata.configuration
      let members =
        configuration.voters.count + configuration.votersOutgoing.count + configuration.learners.count
        + configuration.learnersNext.count
      total += snapshotHeaderBytes + 8 * members + padded(snapshot.data.count)
    }
    if !attachment.responses.isEmpty {
      total += responsesHeaderBytes
      for response in attachment.responses {
        total += responsePrefixBytes + MessageCodec.encodedBytes(of: response)
      }
    }
    return total
  }

  /// - Parameter destination: exactly `encodedBytes(of:)` long.
  @unsafe
  static func encode(_ attachment: MessageAttachment, into destination: UnsafeMutableRawBufferPointer) {
    var writer = unsafe Writer(bytes: destination)
    if let snapshot = attachment.snapshot { encode(snapshot, to: &writer) }
    guard !attachment.responses.isEmpty else { return }
    require(attachment.responses.count <= MessageCodec.maximumResponses, "more than maximumResponses")
    writer.write(UInt32(attachment.responses.count))
    writer.write(UInt32(0))
    for response in attachment.responses {
      require(response.responses.isEmpty, "a response has no responses")
      writer.write(UInt64(MessageCodec.encodedBytes(of: response)))
      writer.writeHeader(of: response)
      response.entries.forEachSlice { slice in
        unsafe writer.write(slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount))
      }
    }
  }

  private static func encode(_ snapshot: Snapshot, to writer: inout Writer) {
    let configuration = snapshot.metadata.configuration
    let lists = [
      configuration.voters, configuration.votersOutgoing, configuration.learners, configuration.learnersNext,
    ]
    require(lists.allSatisfy { $0.count <= MessageCodec.maximumMembers }, "more than maximumMembers")
    require(snapshot.data.count <= Int(UInt32.max), "snapshot data over 4 GiB does not travel inside a message")
    writer.write(snapshot.metadata.index)
    writer.write(snapshot.metadata.term)
    for list in lists { writer.write(UInt32(list.count)) }
    writer.write(UInt32(snapshot.data.count))
    writer.write(UInt32(configuration.autoLeave ? 1 : 0))
    for list in lists {
      for member in list { writer.write(member) }
    }
    unsafe snapshot.data.withUnsafeBytes { unsafe writer.write($0) }
    writer.pad(padded(snapshot.data.count) - snapshot.data.count)
  }

  @inline(never)
  static func decode(
    slab: Slab, range: Range<Int>, hasSnapshot: Bool, hasResponses: Bool
  ) throws(MessageDecodingError) -> MessageAttachment {
    var reader = unsafe Reader(bytes: slab.bytes(in: range))
    let snapshot = hasSnapshot ? try decodeSnapshot(from: &reader) : nil
    var responses: [Message] = []
    if hasResponses {
      responses = try decodeResponses(from: &reader, slab: slab, rangeStart: range.lowerBound)
    }
    guard reader.remaining == 0 else { throw .trailingBytes(reader.remaining) }
    return MessageAttachment(snapshot: snapshot, responses: responses)
  }

  private static func decodeSnapshot(from reader: inout Reader) throws(MessageDecodingError) -> Snapshot {
    try reader.need(snapshotHeaderBytes)
    var snapshot = Snapshot()
    snapshot.metadata.index = reader.readUInt64()
    snapshot.metadata.term = reader.readUInt64()
    let voters = Int(reader.readUInt32())
    let votersOutgoing = Int(reader.readUInt32())
    let learners = Int(reader.readUInt32())
    let learnersNext = Int(reader.readUInt32())
    let dataBytes = Int(reader.readUInt32())
    let autoLeaveAt = reader.position
    let autoLeave = reader.readUInt32()
    guard autoLeave <= 1 else {
      throw .reservedBytesNotZero(byteOffset: MessageCodec.fixedHeaderBytes + autoLeaveAt)
    }
    snapshot.metadata.configuration.autoLeave = autoLeave == 1
    snapshot.metadata.configuration.voters = try members(voters, from: &reader)
    snapshot.metadata.configuration.votersOutgoing = try members(votersOutgoing, from: &reader)
    snapshot.metadata.configuration.learners = try members(learners, from: &reader)
    snapshot.metadata.configuration.learnersNext = try members(learnersNext, from: &reader)
    try reader.need(padded(dataBytes))
    snapshot.data = reader.readBytes(dataBytes)
    for _ in dataBytes..<padded(dataBytes) {
      let at = reader.position
      guard reader.readByte() == 0 else {
        throw .reservedBytesNotZero(byteOffset: MessageCodec.fixedHeaderBytes + at)
      }
    }
    return snapshot
  }

  private static func members(_ count: Int, from reader: inout Reader) throws(MessageDecodingError) -> [NodeID] {
    guard count <= MessageCodec.maximumMembers else {
      throw .listTooLong(count: count, maximumCount: MessageCodec.maximumMembers)
    }
    guard count > 0 else { return [] }
    try reader.need(8 * count)
    var members: [NodeID] = []
    members.reserveCapacity(count)
    for _ in 0..<count {
      let member = reader.readUInt64()
      if let last = members.last, last >= member { throw .membersNotAscending }
      members.append(member)
    }
    return members
  }

  private static func decodeResponses(
    from reader: inout Reader, slab: Slab, rangeStart: Int
  ) throws(MessageDecodingError) -> [Message] {
    try reader.need(responsesHeaderBytes)
    let count = Int(reader.readUInt32())
    let reservedAt = reader.position
    guard reader.readUInt32() == 0 else {
      throw .reservedBytesNotZero(byteOffset: MessageCodec.fixedHeaderBytes + reservedAt)
    }
    guard count <= MessageCodec.maximumResponses else {
      throw .listTooLong(count: count, maximumCount: MessageCodec.maximumResponses)
    }
    guard count > 0 else { throw .emptyList }
    // Memory is taken for as many as can be there at most, not for as many as are claimed.
    try reader.need(count * (responsePrefixBytes + MessageCodec.fixedHeaderBytes))
    var responses: [Message] = []
    responses.reserveCapacity(count)
    for _ in 0..<count {
      try reader.need(responsePrefixBytes)
      let stated = reader.readUInt64()
      guard stated <= UInt64(reader.remaining) else {
        throw .truncated(neededBytes: Int(clamping: stated), availableBytes: reader.remaining)
      }
      let byteCount = Int(stated)
      var response = Message(type: .hup)
      try MessageCodec.decode(
        slab: slab, offset: rangeStart + reader.position, byteCount: byteCount, isResponse: true, into: &response)
      responses.append(response)
      reader.skip(byteCount)
    }
    return responses
  }
}

/// Appends to a region whose size was computed beforehand; each write is checked against it.
@safe
private struct Writer {
  private let bytes: UnsafeMutableRawBufferPointer
  private var position = 0

  init(bytes: UnsafeMutableRawBufferPointer) { unsafe self.bytes = bytes }

  mutating func write<Number: FixedWidthInteger & BitwiseCopyable>(_ number: Number) {
    let size = MemoryLayout<Number>.size
    precondition(unsafe position + size <= bytes.count, "attachment larger than computed")
    unsafe bytes.storeBytes(of: number.littleEndian, toByteOffset: position, as: Number.self)
    position += size
  }

  mutating func write(_ source: UnsafeRawBufferPointer) {
    precondition(unsafe position + source.count <= bytes.count, "attachment larger than computed")
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[position...]).copyMemory(from: source)
    position += source.count
  }

  mutating func writeHeader(of message: Message) {
    let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[position...])
    position += unsafe MessageCodec.encodeHeader(of: message, into: rest)
  }

  mutating func pad(_ count: Int) {
    for _ in 0..<count { write(UInt8(0)) }
  }
}

/// Reads from a region. `need` throws where bytes are missing; the reads behind it only assert.
@safe
private struct Reader {
  private let bytes: UnsafeRawBufferPointer
  private(set) var position = 0

  init(bytes: UnsafeRawBufferPointer) { unsafe self.bytes = bytes }

  var remaining: Int { unsafe bytes.count - position }

  func need(_ byteCount: Int) throws(MessageDecodingError) {
    let available = remaining
    guard byteCount <= available else { throw .truncated(neededBytes: byteCount, availableBytes: available) }
  }

  mutating func readByte() -> UInt8 { read(UInt8.self) }
  mutating func readUInt32() -> UInt32 { read(UInt32.self) }
  mutating func readUInt64() -> UInt64 { read(UInt64.self) }

  private mutating func read<Number: FixedWidthInteger & BitwiseCopyable>(_ type: Number.Type) -> Number {
    let size = MemoryLayout<Number>.size
    precondition(unsafe position + size <= bytes.count, "read behind what was asked for")
    defer { position += size }
    return unsafe Number(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: Number.self))
  }

  mutating func readBytes(_ count: Int) -> [UInt8] {
    precondition(unsafe position + count <= bytes.count, "read behind what was asked for")
    defer { position += count }
    return unsafe [UInt8](bytes[position..<position + count])
  }

  mutating func skip(_ count: Int) {
    precondition(unsafe position + count <= bytes.count, "skip behind what was asked for")
    position += count
  }
}
