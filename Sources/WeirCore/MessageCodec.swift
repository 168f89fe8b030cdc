// Cost of encoding a common message: 12 stores of 8 bytes and a checksum over 92 on the way, entries untouched.
// Cost of decoding: the same checksum, 12 loads, and per entry what `EntryRun` costs; no entry is copied.
//
// Measured (`bench hot-paths message`, 2-core EPYC 9004 with AVX-512, medians of CPU time): encode 12 to 13 ns whatever the
// number of entries; decode 11.5 ns without entries, 36 with one of 128 bytes, 214 with 64 of them (memcpy of the same
// bytes out of the first-level cache: 101 in the same run). What is above memcpy there is the price of checksums that each
// entry keeps for life, of whose instructions the bare ones take 137: see `EntryRun`.

import CWeir

/// The layout of Raft messages on the wire, version 1. Little-endian; all sizes are multiples of 8. The header comes
/// first, the entries follow as the log's own frames (`EntryFrame`), one behind the other:
///
///     offset  size  field
///          0     4  CRC-32C of bytes 4 ..< header size
///          4     1  version: 1
///          5     1  type: `MessageType`
///          6     1  flags: 1 reject, 2 leadership transfer, 4 snapshot, 8 responses
///          7     1  reserved, zero
///          8     4  header size: everything but the entries
///         12     4  number of entries
///         16     4  size of the entries
///         20     4  reserved, zero
///         24     8  to
///         32     8  from
///         40     8  term
///         48     8  logTerm
///         56     8  index
///         64     8  commit
///         72     8  vote
///         80     8  rejectHint
///         88     8  context
///         96        the snapshot, if flagged; then the responses, if flagged
///
/// A snapshot:
///
///          0     8  index
///          8     8  term
///         16     4  number of voters
///         20     4  number of outgoing voters
///         24     4  number of learners
///         28     4  number of next learners
///         32     4  size of the data
///         36     1  autoLeave: 0 or 1
///         37     3  reserved, zero
///         40     8  each: voters, outgoing voters, learners, next learners; each list ascending
///                   data, padded with zeros
///
/// Responses:
///
///          0     4  number of responses
///          4     4  reserved, zero
///          8        each: 8 bytes of size, then a message with its entries; a response has no responses
///
/// The version is judged before the checksum, since another version may have it elsewhere.
public enum MessageCodec {
  /// The version that is written, and the only one that is read.
  public static var version: UInt8 { 1 }

  /// Size of a header without snapshot and responses, in bytes.
  @inlinable public static var fixedHeaderBytes: Int { 96 }

  /// The most members one list of a configuration may have.
  public static var maximumMembers: Int { 4096 }

  /// The most responses one message may carry.
  public static var maximumResponses: Int { 65_536 }

  @usableFromInline static var rejectFlag: UInt8 { 1 }
  @usableFromInline static var transferFlag: UInt8 { 2 }
  @usableFromInline static var snapshotFlag: UInt8 { 4 }
  @usableFromInline static var responsesFlag: UInt8 { 8 }

  /// Size of everything but the entries, in bytes.
  @inlinable
  public static func encodedHeaderBytes(of message: borrowing Message) -> Int {
    guard let attachment = message.attachment else { return fixedHeaderBytes }
    return fixedHeaderBytes + attachmentBytes(attachment)
  }

  /// Size of the whole message, entries included, in bytes.
  @inlinable
  public static func encodedBytes(of message: borrowing Message) -> Int {
    encodedHeaderBytes(of: message) + message.entries.byteCount
  }

  /// Writes everything but the entries to the start of `destination`, which holds at least `encodedHeaderBytes(of:)`
  /// bytes. The entries follow on the wire as they are: `message.entries.forEachSlice`.
  /// - Returns: how many bytes were written.
  @inlinable
  @discardableResult
  public static func encodeHeader(of message: borrowing Message, into destination: inout MutableRawSpan) -> Int {
    unsafe destination.withUnsafeMutableBytes { unsafe encodeHeader(of: message, into: $0) }
  }

  /// Writes everything but the entries to the start of `destination`, which holds at least `encodedHeaderBytes(of:)`
  /// bytes; see the safe form.
  @unsafe
  @discardableResult
  public static func encodeHeader(
    of message: borrowing Message, into destination: UnsafeMutableRawBufferPointer
  ) -> Int {
    let headerBytes = encodedHeaderBytes(of: message)
    precondition(destination.count >= headerBytes, "no room for the header: see encodedHeaderBytes")
    precondition(headerBytes <= Int(UInt32.max) && message.entries.byteCount <= Int(UInt32.max), "message over 4 GiB")
    precondition(message.entries.isSealed, "proposals travel with checksums: see EntryBatch.sealed()")
    guard let base = destination.baseAddress else { return 0 }
    var flags: UInt8 = message.reject ? rejectFlag : 0
    if message.isLeadershipTransfer { flags |= transferFlag }
    if let attachment = message.attachment {
      if attachment.snapshot != nil { flags |= snapshotFlag }
      if !attachment.responses.isEmpty { flags |= responsesFlag }
      unsafe MessageAttachmentCodec.encode(
        attachment, into: UnsafeMutableRawBufferPointer(rebasing: destination[fixedHeaderBytes..<headerBytes]))
    }
    let tag = UInt32(version) | UInt32(message.type.rawValue) << 8 | UInt32(flags) << 16
    let sizes = UInt64(headerBytes) | UInt64(message.entries.count) << 32
    let byteCount = message.entries.byteCount
    unsafe cweir_write_message_head(
      base, tag, sizes, UInt64(byteCount), message.to, message.from, message.term, message.commit, message.logTerm,
      message.vote, message.index, message.context, message.rejectHint)
    if headerBytes != fixedHeaderBytes {
      let checksum = unsafe headerChecksum(base, headerBytes: headerBytes)
      unsafe base.storeBytes(of: checksum.littleEndian, as: UInt32.self)
    }
    return headerBytes
  }

  @inline(__always)
  @unsafe
  private static func headerChecksum(_ base: UnsafeRawPointer, headerBytes: Int) -> UInt32 {
    unsafe headerBytes == fixedHeaderBytes
      ? cweir_crc32c_head(base + 4) : cweir_crc32c(0, base + 4, headerBytes - 4)
  }

  /// Reads the message that lies in `slab` at `offset`, `byteCount` bytes long and not a byte more. Its entries are
  /// handed out by reference: they keep the slab alive, and nobody may write those bytes while they do.
  ///
  /// Checked before anything is used: sizes, version, type, flags, reserved bytes, both checksums, lengths of lists
  /// (before memory is taken for them), that entries are consecutive (for an append, from `index` + 1 on), and that their
  /// terms never fall, nor pass the message's term.
  public static func decode(slab: Slab, offset: Int, byteCount: Int) throws(MessageDecodingError) -> Message {
    var message = Message(type: .hup)
    try decode(slab: slab, offset: offset, byteCount: byteCount, into: &message)
    return message
  }

  /// `decode` into a message that is used again and again, which saves copying it on return. All of `message` is
  /// replaced; of what it is after an error, nothing is to be used. The entries that it held are let go of.
  public static func decode(
    slab: Slab, offset: Int, byteCount: Int, into message: inout Message
  ) throws(MessageDecodingError) {
    try decode(slab: slab, offset: offset, byteCount: byteCount, isResponse: false, into: &message)
  }

  static func decode(
    slab: Slab, offset: Int, byteCount: Int, isResponse: Bool, into message: inout Message
  ) throws(MessageDecodingError) {
    guard byteCount >= fixedHeaderBytes else {
      throw .truncated(neededBytes: fixedHeaderBytes, availableBytes: byteCount)
    }
    let bytes = unsafe slab.bytes(in: offset..<offset + byteCount)
    guard let base = bytes.baseAddress else { throw .truncated(neededBytes: fixedHeaderBytes, availableBytes: 0) }
    let tag = unsafe UInt32(littleEndian: base.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    guard UInt8(truncatingIfNeeded: tag) == version else {
      throw .unsupportedVersion(UInt8(truncatingIfNeeded: tag))
    }
    let sizes = unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    let headerBytes = Int(UInt32(truncatingIfNeeded: sizes))
    guard headerBytes >= fixedHeaderBytes, headerBytes & 7 == 0 else {
      throw .invalidHeaderBytes(UInt32(truncatingIfNeeded: sizes))
    }
    guard headerBytes <= byteCount else { throw .truncated(neededBytes: headerBytes, availableBytes: byteCount) }
    let stated = unsafe UInt32(littleEndian: base.loadUnaligned(as: UInt32.self))
    guard unsafe headerChecksum(base, headerBytes: headerBytes) == stated else { throw .headerChecksumMismatch }

    let typeNumber = UInt8(truncatingIfNeeded: tag >> 8)
    let flags = UInt8(truncatingIfNeeded: tag >> 16)
    guard let type = MessageType(rawValue: typeNumber) else { throw .unknownType(typeNumber) }
    guard flags < responsesFlag << 1 else { throw .unknownFlags(flags) }
    guard tag >> 24 == 0 else { throw .reservedBytesNotZero(byteOffset: 7) }
    let entriesWord = unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
    guard entriesWord >> 32 == 0 else { throw .reservedBytesNotZero(byteOffset: 20) }
    let entryBytes = Int(entriesWord)
    guard headerBytes + entryBytes <= byteCount else {
      throw .truncated(neededBytes: headerBytes + entryBytes, availableBytes: byteCount)
    }
    guard headerBytes + entryBytes == byteCount else { throw .trailingBytes(byteCount - headerBytes - entryBytes) }

    message.type = type
    message.reject = flags & rejectFlag != 0
    message.isLeadershipTransfer = flags & transferFlag != 0
    message.to = unsafe word(base, 24)
    message.from = unsafe word(base, 32)
    message.term = unsafe word(base, 40)
    message.logTerm = unsafe word(base, 48)
    message.index = unsafe word(base, 56)
    message.commit = unsafe word(base, 64)
    message.vote = unsafe word(base, 72)
    message.rejectHint = unsafe word(base, 80)
    message.context = unsafe word(base, 88)
    let start = offset + headerBytes
    let entryCount = Int(sizes >> 32)
    if entryCount > 0 || entryBytes > 0 {
      try decodeEntries(
        into: &message.entries, type: type, term: message.term, logTerm: message.logTerm, index: message.index,
        slab: slab,
        range: start..<start + entryBytes, count: entryCount)
    } else if message.entries.count > 0 {
      message.entries = EntryBatch()
    }
    if flags & (snapshotFlag | responsesFlag) != 0 {
      if isResponse, flags & responsesFlag != 0 { throw .nestedResponses }
      message.attachment = try MessageAttachmentCodec.decode(
        slab: slab, range: offset + fixedHeaderBytes..<start, hasSnapshot: flags & snapshotFlag != 0,
        hasResponses: flags & responsesFlag != 0)
    } else {
      guard headerBytes == fixedHeaderBytes else { throw .invalidHeaderBytes(UInt32(headerBytes)) }
      if message.attachment != nil { message.attachment = nil }
    }
  }

  /// The little-endian word at `offset` of a header that was checked to be that long.
  @inline(__always)
  @unsafe
  private static func word(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
    unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// Checks the entries by the rule of the message's type.
  @inline(__always)
  private static func decodeEntries(
    into entries: inout EntryBatch, type: MessageType, term: Term, logTerm: Term, index: LogIndex, slab: Slab,
    range: Range<Int>, count: Int
  ) throws(MessageDecodingError) {
    var rule = EntryRunRule()
    rule.announcedCount = count
    switch type {
    case .propose:
      rule.isProposal = true
      rule.highestTerm = 0
    case .append:
      // Indexes end at UInt64.max; without this check the first entry behind it would be asked to be number 0.
      guard index <= .max - UInt64(count) else { throw .indexOverflow(index) }
      rule.firstIndex = index + 1
      rule.lowestTerm = logTerm
      rule.highestTerm = term
    case .storageAppend, .storageApply, .storageApplyResponse:
      break
    default:
      throw .unexpectedEntries(type)
    }
    do {
      try entries.becomeVerified(slab: slab, range: range, rule: rule)
    } catch {
      throw .entries(error)
    }
  }

  @usableFromInline
  static func attachmentBytes(_ attachment: MessageAttachment) -> Int {
    MessageAttachmentCodec.encodedBytes(of: attachment)
  }
}
