import RESPWire
import WeirCore

/// What is answered to a write, once it is known what became of it.
enum RESPWriteReply: UInt8 {
  /// `OK`, or nothing where a condition was not met.
  case ok
  /// 1 if the key was there, else 0.
  case existed
  /// 1, or 0 where a condition was not met.
  case met
  /// The number that it has as its result.
  case number
}

/// Writes as commands of the state machine.
struct RESPWriteEncoder {
  /// The command that `encode` made.
  private(set) var command: [UInt8] = []

  /// Makes a command of a client's words.
  /// - Parameter now: milliseconds since 1970: what relative times count from, and what the command says of itself.
  /// - Returns: what its answer looks like.
  /// - Throws: `RESPRefusal` with the answer if it is none.
  mutating func encode(_ verb: RESPVerb, _ words: RESPWords, now: UInt64) throws(RESPRefusal) -> RESPWriteReply {
    command.removeAll(keepingCapacity: command.capacity <= 64 << 10)
    switch verb {
    case .set:
      try append(.set, words, key: 1, value: 2, try Self.setOptions(words, now))
      return .ok
    case .setnx:
      var options = Command.Options(asOfMilliseconds: now)
      options.condition = .ifAbsent
      try append(.set, words, key: 1, value: 2, options)
      return .met
    case .setex, .psetex:
      let deadline = try Self.deadline(words, 2, isSeconds: verb == .setex, from: now)
      guard deadline > now else { throw .invalidExpiry }
      try append(.set, words, key: 1, value: 3, Command.Options(deadlineMilliseconds: deadline))
      return .ok
    case .incr, .decr, .incrby, .decrby:
      try appendIncrement(verb, words, now)
      return .number
    case .expire, .pexpire, .expireat, .pexpireat:
      try appendExpiry(verb, words, now)
      return .existed
    case .persist:
      try append(.expire, words, key: 1, value: nil, Command.Options(asOfMilliseconds: now))
      return .existed
    case .del, .unlink:
      guard words.count > 2 else {
        try append(.delete, words, key: 1, value: nil, Command.Options(asOfMilliseconds: now))
        return .existed
      }
      try appendSeveral(.delete, words, step: 1, Command.Options(asOfMilliseconds: now))
      return .number
    case .mset:
      guard words.count % 2 == 1 else { throw .wrongCount(verb) }
      try appendSeveral(.set, words, step: 2, Command.Options())
      return .ok
    default: throw .syntax
    }
  }

  /// A command that removes a key if its deadline has passed.
  static func removal(of key: [UInt8], now: UInt64) -> [UInt8]? {
    try? Command.encode(.removeExpired, key: key, options: Command.Options(asOfMilliseconds: now))
  }

  private mutating func append(
    _ operation: Command.Operation, _ words: RESPWords, key: Int, value: Int?, _ options: Command.Options
  ) throws(RESPRefusal) {
    do throws(CommandError) {
      let bytes = unsafe words.bytes.span.bytes
      let place = value.map { words.places[$0] } ?? 0..<0
      try Command.append(
        operation, key: bytes.extracting(words.places[key]), value: bytes.extracting(place), options: options,
        to: &command)
    } catch { throw .command(error) }
  }

  private mutating func appendSeveral(
    _ operation: Command.Operation, _ words: RESPWords, step: Int, _ options: Command.Options
  ) throws(RESPRefusal) {
    do throws(CommandError) {
      var commands: [[UInt8]] = []
      commands.reserveCapacity(words.count / step)
      for position in stride(from: 1, to: words.count, by: step) {
        commands.append(
          try Command.encode(
            operation, key: words.array(position), value: step == 2 ? words.array(position + 1) : [],
            options: options))
      }
      command = try Command.encodeSeveral(commands)
    } catch { throw .command(error) }
  }

  private mutating func appendIncrement(_ verb: RESPVerb, _ words: RESPWords, _ now: UInt64) throws(RESPRefusal) {
    var delta: Int64 = 1
    if words.count == 3 {
      guard let number = words.number(2) else { throw .notANumber }
      delta = number
    }
    if verb == .decr || verb == .decrby {
      guard delta != .min else { throw .overflow }
      delta = -delta
    }
    let value = (0..<8).map { UInt8(truncatingIfNeeded: delta >> (8 * $0)) }
    do throws(CommandError) {
      command = try Command.encode(
        .increment, key: words.array(1), value: value, options: Command.Options(asOfMilliseconds: now))
    } catch { throw .command(error) }
  }

  private mutating func appendExpiry(_ verb: RESPVerb, _ words: RESPWords, _ now: UInt64) throws(RESPRefusal) {
    guard words.count == 3 else { throw .unsupported("EXPIRE takes no condition") }
    let isSeconds = verb == .expire || verb == .expireat
    let isRelative = verb == .expire || verb == .pexpire
    let deadline = try Self.deadline(words, 2, isSeconds: isSeconds, from: isRelative ? now : 0)
    // A time that has passed removes the key, as in Redis.
    guard deadline > now else {
      return try append(.delete, words, key: 1, value: nil, Command.Options(asOfMilliseconds: now))
    }
    try append(
      .expire, words, key: 1, value: nil,
      Command.Options(asOfMilliseconds: now, deadlineMilliseconds: deadline))
  }

  private static func setOptions(_ words: RESPWords, _ now: UInt64) throws(RESPRefusal) -> Command.Options {
    var options = Command.Options()
    var position = 3
    while position < words.count {
      switch words.name(position) {
      case Word.nx where options.condition == .always: options.condition = .ifAbsent
      case Word.xx where options.condition == .always: options.condition = .ifPresent
      case Word.keepTTL where options.deadlineMilliseconds == 0: options.keepsDeadline = true
      case let word? where Word.times[word] != nil:
        guard let time = Word.times[word], position + 1 < words.count, options.deadlineMilliseconds == 0,
          !options.keepsDeadline
        else { throw .syntax }
        position += 1
        options.deadlineMilliseconds = try deadline(
          words, position, isSeconds: time.isSeconds, from: time.isRelative ? now : 0)
        // A time of day in the past is taken, as in Redis: the key is gone at once.
        guard options.deadlineMilliseconds > (time.isRelative ? now : 0) else { throw .invalidExpiry }
      case Word.get: throw .unsupported("SET does not answer with the old value")
      default: throw .syntax
      }
      position += 1
    }
    // What was there matters: and it is not there if its time has passed.
    if options.condition != .always || options.keepsDeadline { options.asOfMilliseconds = now }
    return options
  }

  private static func deadline(
    _ words: RESPWords, _ position: Int, isSeconds: Bool, from start: UInt64
  ) throws(RESPRefusal) -> UInt64 {
    guard let number = words.number(position) else { throw .notANumber }
    let (milliseconds, overflows) = number.multipliedReportingOverflow(by: isSeconds ? 1000 : 1)
    guard !overflows, let start = Int64(exactly: start) else { throw .invalidExpiry }
    let (sum, isBeyond) = start.addingReportingOverflow(milliseconds)
    guard !isBeyond else { throw .invalidExpiry }
    return UInt64(max(sum, 0))
  }

  private enum Word {
    static let nx = RESPName("nx")
    static let xx = RESPName("xx")
    static let get = RESPName("get")
    static let keepTTL = RESPName("keepttl")
    static let times: [RESPName: (isSeconds: Bool, isRelative: Bool)] = [
      RESPName("ex"): (true, true), RESPName("px"): (false, true), RESPName("exat"): (true, false),
      RESPName("pxat"): (false, false),
    ]
  }
}

/// Why a command is answered with an error without having been tried. Worded as Redis words it where it has the same.
enum RESPRefusal: Error {
  case syntax
  case wrongCount(RESPVerb)
  case notANumber
  case overflow
  case invalidExpiry
  case unsupported(String)
  case command(CommandError)

  var text: String {
    switch self {
    case .syntax: "ERR syntax error"
    case .wrongCount(let verb): "ERR wrong number of arguments for '\(verb.rawValue)' command"
    case .notANumber: "ERR value is not an integer or out of range"
    case .overflow: "ERR increment or decrement would overflow"
    case .invalidExpiry: "ERR invalid expire time"
    case .unsupported(let what): "ERR not supported: \(what)"
    case .command(.emptyKey): "ERR a key has at least one byte"
    case .command(.keyTooLarge): "ERR a key has at most \(Command.maximumKeyBytes) bytes"
    case .command(.valueTooLarge):
      "ERR a value has at most \(Command.maximumValueBytes) bytes, several together \(Command.maximumSeveralBytes)"
    case .command(.malformed): "ERR not a command of the state machine"
    }
  }
}
