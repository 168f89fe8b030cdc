/// The commands that cache clients may use, and what a client that asks is told of each.
enum RESPVerb: String, CaseIterable, Sendable {
  case get, set, del, unlink, exists, mget, mset, setnx, setex, psetex
  case incr, decr, incrby, decrby
  case expire, pexpire, expireat, pexpireat, persist, ttl, pttl, expiretime, pexpiretime
  case strlen, type
  case ping, echo, hello, auth, quit, reset, select, command, client, config, info, time, dbsize, cluster
  case readonly, readwrite

  /// How a command takes its place among those of its connection.
  enum Kind {
    /// Goes through the log.
    case write
    /// Is answered from the state.
    case read
    /// Is answered by the connection alone.
    case local
  }

  /// As Redis' COMMAND describes it: how many words with its name (at least so many if negative), and which of them are
  /// keys. Clients of a cluster look there for the key that decides where a command goes.
  struct Shape {
    var kind: Kind
    var arity: Int
    var firstKey = 0
    var lastKey = 0
    var keyStep = 0
  }

  var shape: Shape {
    switch self {
    case .get, .strlen, .type, .ttl, .pttl, .expiretime, .pexpiretime: Self.oneKey(.read, 2)
    case .exists, .mget: Shape(kind: .read, arity: -2, firstKey: 1, lastKey: -1, keyStep: 1)
    case .set: Self.oneKey(.write, -3)
    case .setnx, .incrby, .decrby: Self.oneKey(.write, 3)
    case .setex, .psetex: Self.oneKey(.write, 4)
    case .incr, .decr, .persist: Self.oneKey(.write, 2)
    case .expire, .pexpire, .expireat, .pexpireat: Self.oneKey(.write, -3)
    case .del, .unlink: Shape(kind: .write, arity: -2, firstKey: 1, lastKey: -1, keyStep: 1)
    case .mset: Shape(kind: .write, arity: -3, firstKey: 1, lastKey: -1, keyStep: 2)
    case .echo, .select: Shape(kind: .local, arity: 2)
    case .auth, .client, .config, .cluster: Shape(kind: .local, arity: -2)
    case .ping, .hello, .quit, .command, .info: Shape(kind: .local, arity: -1)
    case .reset, .time, .dbsize, .readonly, .readwrite: Shape(kind: .local, arity: 1)
    }
  }

  private static func oneKey(_ kind: Kind, _ arity: Int) -> Shape {
    Shape(kind: kind, arity: arity, firstKey: 1, lastKey: 1, keyStep: 1)
  }

  func accepts(_ wordCount: Int) -> Bool {
    let arity = shape.arity
    return arity >= 0 ? wordCount == arity : wordCount >= -arity
  }

  /// The verb that the bytes name, in either case; nil if none.
  static func named(_ name: RawSpan) -> RESPVerb? { RESPName(name).flatMap { byName[$0] } }

  private static let byName: [RESPName: RESPVerb] = {
    var verbs: [RESPName: RESPVerb] = [:]
    for verb in allCases {
      let bytes = Array(verb.rawValue.utf8)
      if let name = unsafe RESPName(bytes.span.bytes) { verbs[name] = verb }
    }
    return verbs
  }()
}

/// A word of at most 16 bytes, all the same in upper and lower case: what names and options are compared as, without a
/// string of each.
struct RESPName: Hashable {
  private var low: UInt64 = 0
  private var high: UInt64 = 0

  init?(_ word: RawSpan) {
    guard word.byteCount <= 16, word.byteCount > 0 else { return nil }
    for offset in 0..<word.byteCount {
      // Safe: below `byteCount`.
      var byte = unsafe word.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt8.self)
      if (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) { byte |= 0x20 }
      if offset < 8 { low |= UInt64(byte) << (8 * offset) } else { high |= UInt64(byte) << (8 * (offset - 8)) }
    }
  }

  init(_ word: StaticString) {
    self = word.withUTF8Buffer { bytes in
      guard let name = unsafe RESPName(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(bytes))) else {
        preconditionFailure("a name of 1 to 16 bytes")
      }
      return name
    }
  }
}

/// One command's words, where they arrived.
struct RESPWords {
  let bytes: [UInt8]
  let places: [Range<Int>]

  var count: Int { places.count }

  /// Calls `body` with word `position`, the name being 0.
  @inline(__always)
  func with<Result>(_ position: Int, _ body: (RawSpan) -> Result) -> Result {
    unsafe body(bytes.span.bytes.extracting(places[position]))
  }

  func name(_ position: Int) -> RESPName? { with(position) { RESPName($0) } }
  func array(_ position: Int) -> [UInt8] { Array(bytes[places[position]]) }
  func text(_ position: Int) -> String { String(decoding: bytes[places[position]], as: UTF8.self) }
  /// A whole number as Redis accepts it.
  func number(_ position: Int) -> Int64? { DecimalNumber.parse(array(position)) }
}
