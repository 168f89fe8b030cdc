import WeirCore

/// What a log entry's payload asks of the state machine. Little-endian, fixed header, then key and value:
///
///     offset  size  field
///          0     1  operation: 0 set, 1 delete, 2 increment, 3 expire, 4 remove if expired, 5 several
///          1     1  flags: 1 only if absent, 2 only if present, 4 keep the deadline, 8 has times
///          2     2  reserved, zero
///          4     4  key length in bytes (0 for several)
///          8     4  value length in bytes
///         12    16  only with times: as of, and deadline, 8 bytes each, milliseconds since 1970; 0: none
///          …     k  key
///          …     v  value
///
/// The value of a set is what is set; an increment has the 8 bytes of a signed number, several have commands, each behind
/// its size in 4 bytes, and the others have none. A plain set or delete is written as it was before there was anything
/// else; a node that knows no more than those refuses the rest, so every member is brought up to date before any is used.
///
/// **Time.** Replicas apply a command at different moments, so none of them may look at its clock. Whoever proposes a
/// command says in it *as of* when it is meant: a key whose deadline is not after that is removed first, on every replica
/// alike. Otherwise a key stays, whatever clocks say, until a command removes it: a read that finds it late has it removed
/// before it answers that there is none. So a key that was seen to be gone does not come back with a leader whose clock is
/// behind.
public enum Command {
  /// What a command does; the numbers go into the log.
  @frozen
  public enum Operation: UInt8, Sendable, CaseIterable {
    case set = 0
    case delete = 1
    /// Adds to a value that is a decimal number; a key that is not there counts as 0, and a deadline stays.
    case increment = 2
    /// Gives a key that is there another deadline, or none.
    case expire = 3
    /// Removes a key whose deadline is not after the command's time.
    case removeExpired = 4
    /// Sets and deletes that take effect together.
    case several = 5
  }

  /// What a command depends on beside its key.
  public struct Options: Sendable, Hashable {
    public enum Condition: UInt8, Sendable {
      case always = 0
      case ifAbsent = 1
      case ifPresent = 2
    }

    /// When a set takes place.
    public var condition = Condition.always
    /// Whether a set leaves the key's deadline as it is.
    public var keepsDeadline = false
    /// When the command is meant, in milliseconds since 1970; 0: deadlines count for nothing.
    public var asOfMilliseconds: UInt64 = 0
    /// Until when the key is to live, the same; 0: for ever.
    public var deadlineMilliseconds: UInt64 = 0

    public init(asOfMilliseconds: UInt64 = 0, deadlineMilliseconds: UInt64 = 0) {
      self.asOfMilliseconds = asOfMilliseconds
      self.deadlineMilliseconds = deadlineMilliseconds
    }

    var hasTimes: Bool { asOfMilliseconds != 0 || deadlineMilliseconds != 0 }
    var flags: UInt8 { condition.rawValue | (keepsDeadline ? 4 : 0) | (hasTimes ? 8 : 0) }
  }

  /// Size of the fixed header in bytes.
  public static var headerBytes: Int { 12 }
  static var timesBytes: Int { 16 }
  /// The largest key in bytes (4 KiB).
  public static var maximumKeyBytes: Int { 4 << 10 }
  /// The largest value in bytes (1 MiB).
  public static var maximumValueBytes: Int { 1 << 20 }
  /// The most that several commands have together, in bytes (2 MiB).
  public static var maximumSeveralBytes: Int { 2 << 20 }

  /// Size of an encoded command without options in bytes.
  @inlinable
  public static func encodedBytes(keyBytes: Int, valueBytes: Int) -> Int { headerBytes + keyBytes + valueBytes }

  /// A command as the payload of an entry.
  /// - Throws: `CommandError` if key or value exceed their limit, or the key is empty.
  public static func encode(
    _ operation: Operation, key: [UInt8], value: [UInt8] = [], options: Options = .init()
  ) throws(CommandError) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(encodedBytes(keyBytes: key.count, valueBytes: value.count) + timesBytes)
    try unsafe append(operation, key: key.span.bytes, value: value.span.bytes, options: options, to: &bytes)
    return bytes
  }

  /// The same behind what stands in `output`; that is unchanged if it throws.
  static func append(
    _ operation: Operation, key: RawSpan, value: RawSpan, options: Options = .init(), to output: inout [UInt8]
  ) throws(CommandError) {
    guard key.byteCount > 0 else { throw .emptyKey }
    guard key.byteCount <= maximumKeyBytes else { throw .keyTooLarge(bytes: key.byteCount) }
    guard value.byteCount <= maximumValueBytes else { throw .valueTooLarge(bytes: value.byteCount) }
    appendHeader(operation, flags: options.flags, keyBytes: key.byteCount, valueBytes: value.byteCount, to: &output)
    if options.hasTimes {
      let times = (options.asOfMilliseconds.littleEndian, options.deadlineMilliseconds.littleEndian)
      unsafe withUnsafeBytes(of: times) { unsafe output.append(contentsOf: $0) }
    }
    unsafe key.withUnsafeBytes { unsafe output.append(contentsOf: $0) }
    unsafe value.withUnsafeBytes { unsafe output.append(contentsOf: $0) }
  }

  /// Sets and deletes that take effect together: nobody sees some of them without the others.
  /// - Parameter commands: encoded sets and deletes, each at most once per key that matters; later ones win.
  /// - Throws: `CommandError` if they are too large together, or one of them is something else.
  public static func encodeSeveral(_ commands: [[UInt8]]) throws(CommandError) -> [UInt8] {
    let size = commands.reduce(0) { $0 + 4 + $1.count }
    guard size <= maximumSeveralBytes else { throw .valueTooLarge(bytes: size) }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(headerBytes + size)
    appendHeader(.several, flags: 0, keyBytes: 0, valueBytes: size, to: &bytes)
    for command in commands {
      unsafe withUnsafeBytes(of: UInt32(command.count).littleEndian) { unsafe bytes.append(contentsOf: $0) }
      bytes.append(contentsOf: command)
    }
    _ = unsafe try decode(bytes.span.bytes)
    return bytes
  }

  private static func appendHeader(
    _ operation: Operation, flags: UInt8, keyBytes: Int, valueBytes: Int, to output: inout [UInt8]
  ) {
    let word = UInt32(operation.rawValue) | UInt32(flags) << 8
    let head = (word.littleEndian, UInt32(keyBytes).littleEndian, UInt32(valueBytes).littleEndian)
    unsafe withUnsafeBytes(of: head) { unsafe output.append(contentsOf: $0) }
  }

  /// Where a command's parts lie in its payload. Small: it is found twice for every entry that is applied, and a layout that
  /// carried the options of the few commands that have some made a write of all nodes cost a sixth more.
  @frozen
  public struct Layout: Sendable, Hashable {
    public var operation: Operation
    /// As they stand in the payload; 0: a plain set or delete, or no options.
    public var flags: UInt8 = 0
    public var key: Range<Int>
    public var value: Range<Int>
  }

  /// Checks a payload and finds its parts.
  public static func decode(_ payload: RawSpan) throws(CommandError) -> Layout {
    guard payload.byteCount >= headerBytes else { throw .malformed }
    // Safe: the header's 12 bytes were just seen to be there.
    let head = unsafe UInt32(littleEndian: payload.unsafeLoadUnaligned(as: UInt32.self))
    guard head <= UInt32(Operation.delete.rawValue) else { return try decodeWithOptions(payload, head: head) }
    let (keyBytes, valueBytes) = try lengths(payload)
    guard payload.byteCount == headerBytes + keyBytes + valueBytes else { throw .malformed }
    return Layout(
      operation: head == 0 ? .set : .delete, key: headerBytes..<headerBytes + keyBytes,
      value: headerBytes + keyBytes..<headerBytes + keyBytes + valueBytes)
  }

  @inline(__always)
  private static func lengths(_ payload: RawSpan) throws(CommandError) -> (key: Int, value: Int) {
    // Safe: callers have seen the header.
    let keyBytes = Int(unsafe UInt32(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 4, as: UInt32.self)))
    let valueBytes = Int(unsafe UInt32(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt32.self)))
    guard keyBytes > 0 else { throw .emptyKey }
    guard keyBytes <= maximumKeyBytes else { throw .keyTooLarge(bytes: keyBytes) }
    guard valueBytes <= maximumValueBytes else { throw .valueTooLarge(bytes: valueBytes) }
    return (keyBytes, valueBytes)
  }

  /// Everything that is not a plain set or delete.
  @inline(never)
  private static func decodeWithOptions(_ payload: RawSpan, head: UInt32) throws(CommandError) -> Layout {
    guard head <= 0xFFFF, let operation = Operation(rawValue: UInt8(truncatingIfNeeded: head)) else {
      throw .malformed
    }
    let flags = UInt8(truncatingIfNeeded: head >> 8)
    if operation == .several { return try decodeSeveral(payload, flags: flags) }
    let (keyBytes, valueBytes) = try lengths(payload)
    let options = try decodeOptions(payload, flags: flags)
    let start = headerBytes + (options.hasTimes ? timesBytes : 0)
    guard payload.byteCount == start + keyBytes + valueBytes else { throw .malformed }
    let layout = Layout(
      operation: operation, flags: flags, key: start..<start + keyBytes, value: start + keyBytes..<payload.byteCount)
    guard isSound(layout, options) else { throw .malformed }
    return layout
  }

  /// The options of a command that was decoded.
  static func options(of layout: Layout, _ payload: RawSpan) -> Options {
    guard layout.flags != 0, let options = try? decodeOptions(payload, flags: layout.flags) else { return Options() }
    return options
  }

  private static func decodeOptions(_ payload: RawSpan, flags: UInt8) throws(CommandError) -> Options {
    guard flags <= 0xF, let condition = Options.Condition(rawValue: flags & 3) else { throw .malformed }
    var options = Options()
    options.condition = condition
    options.keepsDeadline = flags & 4 != 0
    guard flags & 8 != 0 else { return options }
    guard payload.byteCount >= headerBytes + timesBytes else { throw .malformed }
    // Safe: just seen to be there.
    options.asOfMilliseconds = unsafe UInt64(
      littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: headerBytes, as: UInt64.self))
    options.deadlineMilliseconds = unsafe UInt64(
      littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: headerBytes + 8, as: UInt64.self))
    guard options.hasTimes else { throw .malformed }
    return options
  }

  /// Whether a command has what its operation takes, and nothing else: one that a reader could take for two things is none.
  private static func isSound(_ layout: Layout, _ options: Options) -> Bool {
    guard layout.operation == .set || options.condition == .always && !options.keepsDeadline else { return false }
    return switch layout.operation {
    case .set: !options.keepsDeadline || options.deadlineMilliseconds == 0
    case .delete: options.deadlineMilliseconds == 0
    case .increment: layout.value.count == 8 && options.deadlineMilliseconds == 0
    case .expire: layout.value.isEmpty && options.hasTimes
    case .removeExpired: layout.value.isEmpty && options.asOfMilliseconds != 0 && options.deadlineMilliseconds == 0
    case .several: false
    }
  }

  private static func decodeSeveral(_ payload: RawSpan, flags: UInt8) throws(CommandError) -> Layout {
    // Safe: the caller has seen the header.
    let keyBytes = unsafe UInt32(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 4, as: UInt32.self))
    let valueBytes = Int(unsafe UInt32(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: 8, as: UInt32.self)))
    guard flags == 0, keyBytes == 0, valueBytes > 0, payload.byteCount == headerBytes + valueBytes else {
      throw .malformed
    }
    guard valueBytes <= maximumSeveralBytes else { throw .valueTooLarge(bytes: valueBytes) }
    try forEach(ofSeveral: payload) { _, _ in }
    return Layout(operation: .several, key: headerBytes..<headerBytes, value: headerBytes..<payload.byteCount)
  }

  /// Calls `body` with each of several commands: where it lies in the payload, and where its parts lie in it.
  static func forEach(
    ofSeveral payload: RawSpan, _ body: (Range<Int>, Layout) -> Void
  ) throws(CommandError) {
    var offset = headerBytes
    while offset < payload.byteCount {
      guard payload.byteCount - offset >= 4 else { throw .malformed }
      // Safe: just seen to be there.
      let size = Int(
        unsafe UInt32(littleEndian: payload.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt32.self)))
      offset += 4
      guard size <= payload.byteCount - offset else { throw .malformed }
      let range = offset..<offset + size
      // No nesting: an input must not decide how deep this goes.
      guard size > 0, payload.checkedByte(at: offset) <= Operation.delete.rawValue else { throw .malformed }
      body(range, try decode(payload.extracting(range)))
      offset += size
    }
  }
}

extension RawSpan {
  /// The byte at `offset`, which is below `byteCount`.
  fileprivate func checkedByte(at offset: Int) -> UInt8 {
    precondition(offset >= 0 && offset < byteCount, "within the bytes")
    return unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: UInt8.self)
  }
}

/// Why a command is refused.
public enum CommandError: Error, Sendable, Hashable {
  /// The payload is not a command: replicas run different versions, or something else proposed it.
  case malformed
  /// A key has at least one byte.
  case emptyKey
  /// The key exceeds `Command.maximumKeyBytes`.
  case keyTooLarge(bytes: Int)
  /// The value exceeds `Command.maximumValueBytes`.
  case valueTooLarge(bytes: Int)
}

/// What applying a command did.
@frozen
public enum CommandResult: Sendable, Hashable {
  /// The key was set; whether it existed before.
  case set(existed: Bool)
  /// The key is gone; whether it existed before.
  case deleted(existed: Bool)
  /// The number that was incremented is this now; or of several commands, so many keys were there before.
  case number(Int64)
  /// The command's condition was not met: it changed nothing.
  case unmet
  /// What should be incremented is no number: it is left as it is.
  case notANumber
  /// The sum is no 64-bit number: it is left as it is.
  case overflow
  /// The command changed nothing, on any replica, because it is not one.
  case refused(CommandError)
}
