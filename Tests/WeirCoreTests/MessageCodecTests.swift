import CWeir
import Testing
import WeirCore

@Suite struct MessageCodecTests {
  static let frames: EntryBatch = {
    var log = LogBuffer(anchorIndex: 41, anchorTerm: 6)
    log.append(term: 6, payload: Array("hello".utf8).span.bytes)
    log.append(term: 7, kind: .configurationChange, payload: RawSpan())
    return log.batch(from: 42, through: 43)
  }()

  /// One message of each shape, beside its bytes.
  static let golden: [(message: Message, bytes: [UInt8])] = {
    var heartbeat = Message(type: .heartbeat, to: 2, from: 1, term: 7)
    heartbeat.commit = 41
    heartbeat.context = 3
    var append = Message(type: .append, to: 2, from: 1, term: 7)
    append.logTerm = 6
    append.index = 41
    append.commit = 40
    append.entries = frames
    var rejection = Message(type: .appendResponse, to: 1, from: 2, term: 7)
    rejection.reject = true
    rejection.logTerm = 5
    rejection.index = 41
    rejection.rejectHint = 30
    var vote = Message(type: .vote, to: 3, from: 2, term: 8)
    vote.isLeadershipTransfer = true
    vote.logTerm = 7
    vote.index = 43
    var snapshot = Message(type: .snapshot, to: 3, from: 1, term: 7)
    let members = ConfigurationState(
      voters: [1, 2, 3], votersOutgoing: [1, 2], learners: [9], learnersNext: [4], autoLeave: true)
    snapshot.attachment = MessageAttachment(
      snapshot: Snapshot(
        metadata: SnapshotMetadata(index: 40, term: 6, configuration: members), data: Array("state".utf8)))
    var acknowledgement = Message(type: .appendResponse, to: 1, from: 2, term: 7)
    acknowledgement.index = 42
    var stored = Message(type: .storageAppendResponse, to: 2, from: .appendThread, term: 7)
    stored.index = 42
    stored.logTerm = 6
    var log = LogBuffer(anchorIndex: 41, anchorTerm: 6)
    log.append(term: 6, kind: .configurationChangeV2, payload: [UInt8](repeating: 0x78, count: 9).span.bytes)
    var storage = Message(type: .storageAppend, to: .appendThread, from: 2, term: 7)
    storage.vote = 1
    storage.commit = 40
    storage.entries = log.batch(from: 42, through: 42)
    storage.attachment = MessageAttachment(responses: [acknowledgement, stored])
    return [
      (heartbeat, GoldenMessages.heartbeat), (append, GoldenMessages.append), (rejection, GoldenMessages.rejection),
      (vote, GoldenMessages.transferVote), (snapshot, GoldenMessages.snapshot),
      (storage, GoldenMessages.storageAppend),
    ]
  }()

  private func decode(_ bytes: [UInt8]) throws(MessageDecodingError) -> Message {
    try MessageCodec.decode(slab: slab(of: bytes), offset: 0, byteCount: bytes.count)
  }

  @Test(arguments: golden.indices)
  func encodesAndDecodesTheGoldenBytes(number: Int) throws {
    let (message, expected) = Self.golden[number]
    #expect(encoded(message) == expected)
    let decoded = try decode(expected)
    #expect(encoded(decoded) == expected)
    #expect(decoded.type == message.type && decoded.entries.count == message.entries.count)
    #expect(decoded.snapshot == message.snapshot && decoded.responses.count == message.responses.count)
  }

  @Test func decodesInTheMiddleOfASlab() throws {
    let bytes = GoldenMessages.append
    let shared = slab(of: [UInt8](repeating: 0xEE, count: 21) + bytes + [1, 2, 3])
    let decoded = try MessageCodec.decode(slab: shared, offset: 21, byteCount: bytes.count)
    #expect(decoded.entries.firstIndex == 42)
    #expect(encoded(decoded) == bytes)
  }

  @Test(arguments: MessageType.allCases)
  func everyTypeComesBack(type: MessageType) throws {
    var message = Message(type: type, to: 1, from: 2, term: 3)
    message.reject = true
    message.vote = 4
    message.rejectHint = .max
    #expect(try decode(encoded(message)).type == type)
  }

  /// A message that is decoded into keeps nothing of what it was before.
  @Test func decodingIntoAMessageReplacesAllOfIt() throws {
    var message = Self.golden[5].message
    for (_, bytes) in Self.golden {
      let slab = slab(of: bytes)
      try MessageCodec.decode(slab: slab, offset: 0, byteCount: bytes.count, into: &message)
      #expect(encoded(message) == bytes)
    }
  }

  @Test func everyTruncationIsRefused() {
    for (_, bytes) in Self.golden {
      for count in 0..<bytes.count {
        #expect(throws: MessageDecodingError.self) { try decode(Array(bytes[0..<count])) }
      }
      #expect(throws: MessageDecodingError.trailingBytes(8)) { try decode(bytes + [UInt8](repeating: 0, count: 8)) }
    }
  }

  /// What is wrong, and what is said about it.
  @Test(
    arguments: [
      (4, [2], MessageDecodingError.unsupportedVersion(2)),
      (5, [24], .unknownType(24)),
      (6, [16], .unknownFlags(16)),
      (7, [1], .reservedBytesNotZero(byteOffset: 7)),
      (8, [95], .invalidHeaderBytes(95)),
      (8, [92], .invalidHeaderBytes(92)),
      (12, [1], .entries(EntryRunError(entry: 1, byteOffset: 40, reason: .moreThanAnnounced(1)))),
      (12, [3], .entries(EntryRunError(entry: 2, byteOffset: 72, reason: .fewerThanAnnounced(3)))),
      (16, [0xFF], .truncated(neededBytes: 96 + 0xFF, availableBytes: 168)),
      (16, [40], .trailingBytes(32)),
      (20, [1], .reservedBytesNotZero(byteOffset: 20)),
      (5, [8], .unexpectedEntries(.heartbeat)),
      (
        5, [2],
        .entries(
          EntryRunError(entry: 0, byteOffset: 0, reason: .indexNotConsecutive(expected: 0, found: 42)))
      ),
      (40, [6], .entries(EntryRunError(entry: 1, byteOffset: 40, reason: .termAboveMessage(message: 6, found: 7)))),
      (48, [7], .entries(EntryRunError(entry: 0, byteOffset: 0, reason: .termBelowPrevious(previous: 7, found: 6)))),
      (
        56, [40],
        .entries(
          EntryRunError(entry: 0, byteOffset: 0, reason: .indexNotConsecutive(expected: 41, found: 42)))
      ),
      (56, [255, 255, 255, 255, 255, 255, 255, 255], .indexOverflow(.max)),
      (96, [6], .entries(EntryRunError(entry: 0, byteOffset: 0, reason: .frame(.invalidLength(6))))),
      (96, [200], .entries(EntryRunError(entry: 0, byteOffset: 0, reason: .frame(.truncated)))),
      (100, [0], .entries(EntryRunError(entry: 0, byteOffset: 0, reason: .frame(.checksumMismatch)))),
      (133, [1], .entries(EntryRunError(entry: 0, byteOffset: 0, reason: .frame(.invalidPadding)))),
    ] as [(Int, [UInt8], MessageDecodingError)])
  func whatIsWrongIsNamed(offset: Int, replacement: [UInt8], error: MessageDecodingError) {
    var bytes = GoldenMessages.append
    bytes.replaceSubrange(offset..<offset + replacement.count, with: replacement)
    sealHeader(&bytes)
    #expect(throws: error) { try decode(bytes) }
  }

  @Test func aHeaderThatWasTouchedIsRefused() {
    for offset in 0..<96 where offset != 4 {
      for bit in 0..<8 {
        var bytes = GoldenMessages.append
        bytes[offset] ^= 1 << bit
        #expect(throws: MessageDecodingError.self) { try decode(bytes) }
      }
    }
  }

  @Test func listsAreLimitedBeforeMemoryIsTaken() {
    var bytes = GoldenMessages.snapshot
    bytes.replaceSubrange(112..<116, with: [0, 0x20, 0, 0])
    sealHeader(&bytes)
    #expect(throws: MessageDecodingError.listTooLong(count: 8192, maximumCount: 4096)) { try decode(bytes) }
    bytes = GoldenMessages.storageAppend
    bytes.replaceSubrange(96..<100, with: [0xFF, 0xFF, 0xFF, 0xFF])
    sealHeader(&bytes)
    #expect(throws: MessageDecodingError.listTooLong(count: 0xFFFF_FFFF, maximumCount: 65_536)) { try decode(bytes) }
  }

  @Test func aResponseHasNoResponses() throws {
    // The golden storage message as a response of another one, put together by hand since the encoder refuses it.
    let inner = GoldenMessages.storageAppend
    var bytes = Array(GoldenMessages.heartbeat)
    bytes[6] = 8
    bytes += [1, 0, 0, 0, 0, 0, 0, 0]
    bytes += withUnsafeBytes(of: UInt64(inner.count).littleEndian) { Array($0) } + inner
    withUnsafeBytes(of: UInt32(bytes.count).littleEndian) { bytes.replaceSubrange(8..<12, with: $0) }
    sealHeader(&bytes)
    #expect(throws: MessageDecodingError.nestedResponses) { try decode(bytes) }
  }

  @Test func membersThatAreNotAscendingAreRefused() {
    var bytes = GoldenMessages.snapshot
    bytes[96 + 40] = 2
    sealHeader(&bytes)
    #expect(throws: MessageDecodingError.membersNotAscending) { try decode(bytes) }
  }

  /// Bytes changed at random, half of the time with the checksums made right again: the decoder refuses them, or what it
  /// reads is written back as the very same bytes. It never traps.
  @Test(arguments: 0..<8)
  func mutationsAreRefusedOrReadAsWhatTheyAre(seed: Int) {
    var random = SplitMix64(seed: UInt64(seed))
    var accepted = 0
    for round in 0..<20_000 {
      var bytes = Self.golden[round % Self.golden.count].bytes
      for _ in 0...random.below(3) {
        let position = random.below(bytes.count)
        switch random.below(5) {
        case 0: bytes[position] ^= 1 << UInt8(random.below(8))
        case 1: bytes[position] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)]
        case 2: bytes[position] = UInt8(truncatingIfNeeded: random.next())
        case 3: bytes.removeLast(min(bytes.count - 1, 1 + random.below(16)))
        default: bytes += (0..<random.below(16)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        }
      }
      if random.chance(70) { sealFrames(&bytes) }
      if random.chance(80) { sealHeader(&bytes) }
      guard let decoded = try? decode(bytes) else { continue }
      accepted += 1
      if encoded(decoded) != bytes { Issue.record("read as something else: \(bytes)") }
    }
    // Fields that may have any value were hit often enough that this is not about refusals alone.
    #expect(accepted > 1000)
  }

  /// Makes the header's checksum right, where there is a header.
  private func sealHeader(_ bytes: inout [UInt8]) {
    guard bytes.count >= 96 else { return }
    let stated = Int(bytes[8]) | Int(bytes[9]) << 8 | Int(bytes[10]) << 16 | Int(bytes[11]) << 24
    let end = min(max(stated, 96), bytes.count)
    let checksum = bytes.withUnsafeBytes { cweir_crc32c(0, $0.baseAddress.map { $0 + 4 }, end - 4) }
    withUnsafeBytes(of: checksum.littleEndian) { bytes.replaceSubrange(0..<4, with: $0) }
  }

  /// Makes the checksum of the frame behind the header right, where its length allows it.
  private func sealFrames(_ bytes: inout [UInt8]) {
    let start = Int(bytes.count > 11 ? bytes[8] : 0) | Int(bytes.count > 11 ? bytes[9] : 0) << 8
    guard start >= 96, start + 32 <= bytes.count else { return }
    let length = Int(bytes[start]) | Int(bytes[start + 1]) << 8
    guard length >= 32, start + length <= bytes.count else { return }
    let checksum = bytes.withUnsafeBytes { cweir_crc32c(0, $0.baseAddress.map { $0 + start + 8 }, length - 8) }
    withUnsafeBytes(of: checksum.littleEndian) { bytes.replaceSubrange(start + 4..<start + 8, with: $0) }
  }
}
