import Testing

@testable import RESPWire

/// Everything that `bytes` hold, fed in pieces.
private func read(
  _ bytes: [UInt8], pieceBytes: Int = .max, limits: RESPLimits = .init()
) -> (commands: [[[UInt8]]], error: RESPError?, pendingBytes: Int) {
  var reader = RESPCommandReader(limits: limits)
  var commands: [[[UInt8]]] = []
  var rest = bytes[...]
  do throws(RESPError) {
    while !rest.isEmpty {
      reader.append(rest.prefix(pieceBytes))
      rest = rest.dropFirst(pieceBytes)
      while try reader.next() {
        commands.append(reader.arguments.map { Array(reader.bytes[$0]) })
        reader.consume()
      }
    }
    return (commands, nil, reader.pendingBytes)
  } catch { return (commands, error, reader.pendingBytes) }
}

private func words(_ commands: [[[UInt8]]]) -> [[String]] {
  commands.map { $0.map { String(decoding: $0, as: UTF8.self) } }
}

@Suite struct RESPCommandReaderTests {
  static let sound: [(String, [[String]])] = [
    ("*1\r\n$4\r\nPING\r\n", [["PING"]]),
    ("*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n", [["GET", "a"], ["PING"]]),
    ("*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\n\r\n\r\n\r\n", [["SET", "", "\r\n\r\n"]]),
    ("*0\r\n*-1\r\n*1\r\n$1\r\nx\r\n", [["x"]]),
    ("PING\r\n", [["PING"]]),
    ("  set  a\tb \r\n\r\n\nget a\n", [["set", "a", "b"], ["get", "a"]]),
    ("*1\r\n$2\r\n$3\r\nping\r\n", [["$3"], ["ping"]]),
  ]

  @Test(arguments: sound, [1, 2, 3, 7, Int.max])
  func commandsAreReadHoweverTheyAreCut(sample: (String, [[String]]), pieceBytes: Int) {
    let reading = read(Array(sample.0.utf8), pieceBytes: pieceBytes)
    #expect(reading.error == nil && reading.pendingBytes == 0)
    #expect(words(reading.commands) == sample.1)
  }

  static let unsound: [(String, RESPError)] = [
    ("*x\r\n", .invalidCount), ("*\r\n", .invalidCount), ("*1\n", .invalidCount), ("*99999\r\n", .invalidCount),
    ("*12345678901234567890\r\n", .invalidCount), ("*1234567890123456", .invalidCount),
    ("*9223372036854775808\r\n", .invalidCount), ("*+1\r\n", .invalidCount), ("*--1\r\n", .invalidCount),
    ("*1\r\nPING\r\n", .expectedBulk(UInt8(ascii: "P"))), ("*1\r\n:1\r\n", .expectedBulk(UInt8(ascii: ":"))),
    ("*1\r\n$-1\r\n", .invalidLength), ("*1\r\n$1x\r\n", .invalidLength), ("*1\r\n$\r\n", .invalidLength),
    ("*1\r\n$2000000\r\n", .invalidLength), ("*1\r\n$99999999999\r\n", .invalidLength),
    ("*1\r\n$3\r\nPING\r\n", .unterminated), ("*1\r\n$4\r\nPING\n\n", .unterminated),
    ("*2\r\n$100\r\n", .commandTooLarge), ("set a \"b\"\r\n", .quotes), ("set a 'b'\r\n", .quotes),
    (String(repeating: "a", count: 65) + "\r\n", .lineTooLarge), (String(repeating: "a", count: 65), .lineTooLarge),
  ]

  @Test(arguments: unsound, [1, 5, Int.max])
  func whatIsNoCommandIsRefused(sample: (String, RESPError), pieceBytes: Int) {
    let limits = RESPLimits(
      maximumArguments: 1000, maximumBulkBytes: 1 << 20, maximumCommandBytes: 100, maximumInlineBytes: 64)
    let bytes = Array("*1\r\n$1\r\na\r\n".utf8) + Array(sample.0.utf8)
    let reading = read(bytes, pieceBytes: pieceBytes, limits: limits)
    #expect(words(reading.commands) == [["a"]], "what came before is read")
    #expect(reading.error == sample.1)
  }

  @Test func anErrorLasts() throws {
    var reader = RESPCommandReader()
    reader.append(Array("*x\r\n*1\r\n$1\r\na\r\n".utf8))
    for _ in 0..<3 { #expect(throws: RESPError.invalidCount) { try reader.next() } }
  }

  @Test func aCommandIsThereUntilItIsConsumed() throws {
    var reader = RESPCommandReader()
    reader.append(Array("*1\r\n$1\r\na\r\n*1\r\n$1\r\nb".utf8))
    #expect(try reader.next())
    reader.append(Array("\r\n".utf8))
    #expect(try reader.next())
    #expect(Array(reader.bytes[reader.arguments[0]]) == Array("a".utf8))
    reader.consume()
    #expect(try reader.next())
    #expect(Array(reader.bytes[reader.arguments[0]]) == Array("b".utf8))
  }

  /// Random commands, cut at random, come back as they were; memory of what is done is given back.
  @Test(arguments: [UInt64(1), 2, 3, 4])
  func randomCommandsComeBack(seed: UInt64) throws {
    var generator = Generator(state: seed)
    var reader = RESPCommandReader()
    var expected: [[[UInt8]]] = []
    var found: [[[UInt8]]] = []
    for _ in 0..<2000 {
      let command = (0...Int.random(in: 0..<5, using: &generator)).map { _ in
        [UInt8](
          repeating: .random(in: 0...255, using: &generator), count: .random(in: 0..<300, using: &generator))
      }
      expected.append(command)
      var rest = encode(command)[...]
      while !rest.isEmpty {
        let piece = rest.prefix(Int.random(in: 1..<400, using: &generator))
        reader.append(piece)
        rest = rest.dropFirst(piece.count)
        while try reader.next() {
          found.append(reader.arguments.map { Array(reader.bytes[$0]) })
          reader.consume()
        }
      }
      #expect(reader.bytes.count <= 128 << 10)
    }
    #expect(found == expected)
  }

  private func encode(_ command: [[UInt8]]) -> [UInt8] {
    var bytes: [UInt8] = []
    RESPReply.appendArray(command.count, to: &bytes)
    for word in command { RESPReply.appendBulk(word, to: &bytes) }
    return bytes
  }

  private struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state ^ state >> 29
    }
  }
}

@Suite struct RESPReplyTests {
  private func text(_ write: (inout [UInt8]) -> Void) -> String {
    var bytes: [UInt8] = []
    write(&bytes)
    return String(decoding: bytes, as: UTF8.self)
  }

  @Test func repliesAreWrittenAsTheProtocolSays() {
    #expect(text { RESPReply.appendSimple("OK", to: &$0) } == "+OK\r\n")
    #expect(text { RESPReply.appendError("ERR a\r\nb", to: &$0) } == "-ERR a  b\r\n")
    #expect(text { RESPReply.appendBulk("", to: &$0) } == "$0\r\n\r\n")
    #expect(text { RESPReply.appendBulk("a\r\nb", to: &$0) } == "$4\r\na\r\nb\r\n")
    #expect(text { RESPReply.appendNull(to: &$0) } == "$-1\r\n")
    #expect(text { RESPReply.appendArray(12, to: &$0) } == "*12\r\n")
  }

  @Test(arguments: [Int64.min, -10, -1, 0, 7, 10, 1_000_000, .max])
  func integersAreDecimal(number: Int64) {
    #expect(text { RESPReply.appendInteger(number, to: &$0) } == ":\(number)\r\n")
  }
}

@Suite struct RESPKeySlotTests {
  /// Keys whose slots the cluster specification and its tools give.
  @Test(arguments: [
    ("123456789", 12_739), ("foo", 12_182), ("bar", 5061), ("{user1000}.following", 3443),
    ("{user1000}.followers", 3443), ("foo{}{bar}", 8363), ("foo{{bar}}zap", 4015), ("foo{bar}{zap}", 5061), ("", 0),
  ])
  func keysBelongWhereRedisPutsThem(key: String, slot: Int) {
    let bytes = Array(key.utf8)
    let found = bytes.withUnsafeBytes { RESPKeySlot.slot(of: RawSpan(_unsafeBytes: $0)) }
    #expect(found == slot)
  }
}
