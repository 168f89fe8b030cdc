/// Reads commands from a client's bytes, however they are cut up: arrays of bulk strings, and lines of words, which people
/// type (Redis serialization protocol, version 2).
///
/// What has arrived lies in `bytes`; a command is where its arguments lie there, so that an argument is copied only by who
/// wants to keep it. A command that is not whole yet is not read twice from its beginning: a client that sends byte by
/// byte costs no more than another.
public struct RESPCommandReader: Sendable {
  private let limits: RESPLimits
  /// What has arrived. `arguments` are places in it.
  public private(set) var bytes: [UInt8] = []
  /// The arguments of the command that `next` has found, its name the first; at least one.
  public private(set) var arguments: [Range<Int>] = []
  /// Where the command that is being read begins.
  private var start = 0
  /// Up to where it has been read.
  private var position = 0
  /// Up to here there is no end of line.
  private var searched = 0
  /// Arguments that are to come; nil before the command's first line.
  private var missing: Int?
  /// The length of the argument that comes next, once its line was read.
  private var bulkBytes: Int?
  private var isWhole = false
  private var failure: RESPError?

  public init(limits: RESPLimits = .init()) { self.limits = limits }

  /// Bytes that arrived and are not part of a command that was consumed.
  public var pendingBytes: Int { bytes.count - start }

  /// Takes in what has arrived. `arguments` are no longer valid.
  public mutating func append(_ arrived: some Sequence<UInt8>) {
    dropConsumed()
    bytes.append(contentsOf: arrived)
  }

  /// Whether a whole command has arrived; its `arguments` then. The same one again until it is consumed.
  /// - Throws: `RESPError`; nothing more can be read then, and it is thrown each time.
  public mutating func next() throws(RESPError) -> Bool {
    if let failure { throw failure }
    do throws(RESPError) {
      while !isWhole {
        guard try readMore() else { return false }
      }
      return true
    } catch {
      failure = error
      throw error
    }
  }

  /// Goes on behind the command that `next` has found.
  public mutating func consume() {
    precondition(isWhole, "a command is consumed that was found")
    begin(at: position)
  }

  private mutating func begin(at offset: Int) {
    start = offset
    position = offset
    searched = offset
    missing = nil
    bulkBytes = nil
    isWhole = false
    // A command of many arguments leaves no large array behind.
    arguments.removeAll(keepingCapacity: arguments.capacity <= 256)
  }

  /// Reads the next piece of a command. Returns whether it was there.
  private mutating func readMore() throws(RESPError) -> Bool {
    guard missing != nil else { return try readFirstLine() }
    guard let length = bulkBytes else { return try readLength() }
    guard bytes.count - position >= length + 2 else { return false }
    let end = position + length
    guard bytes[end] == Byte.cr, bytes[end + 1] == Byte.lf else { throw .unterminated }
    arguments.append(position..<end)
    bulkBytes = nil
    move(to: end + 2)
    finishArgument()
    return true
  }

  private mutating func finishArgument() {
    guard let count = missing else { return }
    missing = count - 1
    if count == 1 { isWhole = true }
  }

  private mutating func readFirstLine() throws(RESPError) -> Bool {
    guard position < bytes.count else { return false }
    guard bytes[position] == Byte.asterisk else { return try readInline() }
    guard let line = try takeLine(or: .invalidCount) else { return false }
    guard let count = Byte.number(bytes[line].dropFirst()), count <= limits.maximumArguments else {
      throw .invalidCount
    }
    // Nothing is asked for: Redis passes over it as well.
    if count <= 0 { begin(at: position) } else { missing = count }
    return true
  }

  private mutating func readLength() throws(RESPError) -> Bool {
    guard position < bytes.count else { return false }
    guard bytes[position] == Byte.dollar else { throw .expectedBulk(bytes[position]) }
    guard let line = try takeLine(or: .invalidLength) else { return false }
    guard let length = Byte.number(bytes[line].dropFirst()), length >= 0, length <= limits.maximumBulkBytes else {
      throw .invalidLength
    }
    guard position - start + length <= limits.maximumCommandBytes else { throw .commandTooLarge }
    bulkBytes = length
    return true
  }

  /// Takes a line of a sign and a number, without its end; nil if that has not arrived.
  private mutating func takeLine(or error: RESPError) throws(RESPError) -> Range<Int>? {
    guard let end = findLineEnd() else {
      // A sign, a sign, and as many digits as any number within the limits has.
      guard bytes.count - position <= Byte.maximumDigits + 3 else { throw error }
      return nil
    }
    guard end > position, bytes[end - 1] == Byte.cr else { throw error }
    let line = position..<end - 1
    move(to: end + 1)
    return line
  }

  private mutating func findLineEnd() -> Int? {
    var place = max(searched, position)
    while place < bytes.count {
      if bytes[place] == Byte.lf { return place }
      place += 1
    }
    searched = place
    return nil
  }

  private mutating func move(to offset: Int) {
    position = offset
    searched = offset
  }

  /// A line of words between blanks.
  private mutating func readInline() throws(RESPError) -> Bool {
    guard let end = findLineEnd() else {
      guard bytes.count - position <= limits.maximumInlineBytes else { throw .lineTooLarge }
      return false
    }
    guard end - position <= limits.maximumInlineBytes else { throw .lineTooLarge }
    let lineEnd = end > position && bytes[end - 1] == Byte.cr ? end - 1 : end
    var wordStart: Int?
    for place in position...lineEnd {
      let isBlank = place == lineEnd || bytes[place] == Byte.space || bytes[place] == Byte.tab
      if !isBlank, bytes[place] == Byte.quote || bytes[place] == Byte.apostrophe { throw .quotes }
      if isBlank, let first = wordStart {
        arguments.append(first..<place)
        wordStart = nil
      } else if !isBlank, wordStart == nil {
        wordStart = place
      }
    }
    guard arguments.count <= limits.maximumArguments else { throw .invalidCount }
    if arguments.isEmpty {
      begin(at: end + 1)
    } else {
      move(to: end + 1)
      isWhole = true
    }
    return true
  }

  /// Forgets what was consumed, seldom enough that moving the rest costs little.
  private mutating func dropConsumed() {
    guard start == bytes.count || start > 64 << 10 else { return }
    let dropped = start
    if start == bytes.count {
      bytes.removeAll(keepingCapacity: bytes.capacity <= 256 << 10)
    } else {
      bytes.removeFirst(dropped)
    }
    for place in arguments.indices {
      arguments[place] = arguments[place].lowerBound - dropped..<arguments[place].upperBound - dropped
    }
    start = 0
    position -= dropped
    searched -= dropped
  }
}

/// The characters that mean something here.
enum Byte {
  static let tab = UInt8(ascii: "\t")
  static let lf = UInt8(ascii: "\n")
  static let cr = UInt8(ascii: "\r")
  static let space = UInt8(ascii: " ")
  static let quote = UInt8(ascii: "\"")
  static let apostrophe = UInt8(ascii: "'")
  static let asterisk = UInt8(ascii: "*")
  static let dollar = UInt8(ascii: "$")
  static let minus = UInt8(ascii: "-")

  static let maximumDigits = 10

  /// The number that the digits spell, with a minus in front at most; nil if they spell none, or a longer one.
  static func number(_ digits: ArraySlice<UInt8>) -> Int? {
    let isNegative = digits.first == minus
    let digits = isNegative ? digits.dropFirst() : digits
    guard !digits.isEmpty, digits.count <= maximumDigits else { return nil }
    var number = 0
    for digit in digits {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
      number = number * 10 + Int(digit - UInt8(ascii: "0"))
    }
    return isNegative ? -number : number
  }
}
