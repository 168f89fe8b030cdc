import CWeir
import Foundation
import WeirTransport

/// One connection to a RESP server, as a test wants it. Waits for a minute at most.
final class RawRESPClient {
  indirect enum Reply: Equatable, CustomStringConvertible {
    case simple(String)
    case error(String)
    case integer(Int64)
    case bulk(String)
    case null
    case array([Reply])

    var description: String {
      switch self {
      case .simple(let text): "+\(text)"
      case .error(let text): "-\(text)"
      case .integer(let number): ":\(number)"
      case .bulk(let text): "\"\(text)\""
      case .null: "null"
      case .array(let replies): "\(replies)"
      }
    }

    /// The first word of an error.
    var code: String? {
      guard case .error(let text) = self else { return nil }
      return text.split(separator: " ").first.map(String.init)
    }

    static let ok = Reply.simple("OK")
  }

  private let descriptor: Int32
  private let end = deadline(inSeconds: 60)
  private var buffer: [UInt8] = []
  private var consumed = 0

  init(_ address: SocketAddress) throws {
    descriptor = try Socket.connect(to: address)
    try wait(Int16(POLLOUT))
  }

  deinit { Socket.close(descriptor) }

  static func encode(_ command: [String]) -> [UInt8] {
    var bytes = Array("*\(command.count)\r\n".utf8)
    for word in command { bytes += Array("$\(word.utf8.count)\r\n\(word)\r\n".utf8) }
    return bytes
  }

  func send(_ bytes: [UInt8]) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      switch rest.withUnsafeBytes({ Socket.send(descriptor, bytes: $0) }) {
      case .moved(let count): rest = rest.dropFirst(count)
      case .wouldBlock: try wait(Int16(POLLOUT))
      case .closed, .failed: throw HarnessError("closed while sending")
      }
    }
  }

  /// Sends as much as the socket takes; how many bytes that was.
  func sendSome(_ bytes: ArraySlice<UInt8>) throws -> Int {
    switch bytes.withUnsafeBytes({ Socket.send(descriptor, bytes: $0) }) {
    case .moved(let count): return count
    case .wouldBlock: return 0
    case .closed, .failed: throw HarnessError("closed while sending")
    }
  }

  func ask(_ words: String...) throws -> Reply {
    try send(Self.encode(words))
    return try receive()
  }

  /// Sends all at once, and takes as many answers.
  func pipeline(_ commands: [[String]]) throws -> [Reply] {
    try send(commands.flatMap(Self.encode))
    return try commands.map { _ in try receive() }
  }

  func receive() throws -> Reply {
    let line = try takeLine()
    let rest = String(line.dropFirst())
    switch line.first {
    case "+": return .simple(rest)
    case "-": return .error(rest)
    case ":": return .integer(Int64(rest) ?? 0)
    case "$":
      guard let length = Int(rest), length >= 0 else { return .null }
      while buffer.count - consumed < length + 2 { try receiveMore() }
      defer { consumed += length + 2 }
      return .bulk(String(decoding: buffer[consumed..<consumed + length], as: UTF8.self))
    case "*":
      guard let count = Int(rest), count >= 0 else { return .null }
      return .array(try (0..<count).map { _ in try receive() })
    default: throw HarnessError("no reply: \(line)")
    }
  }

  /// Whether nothing but the end comes.
  func isAtEnd() throws -> Bool {
    guard consumed == buffer.count else { return false }
    do { try receiveMore() } catch is HarnessError { return true }
    return false
  }

  private func takeLine() throws -> String {
    while true {
      if let end = buffer[consumed...].firstIndex(of: UInt8(ascii: "\n")) {
        defer { consumed = end + 1 }
        return String(decoding: buffer[consumed..<end - 1], as: UTF8.self)
      }
      try receiveMore()
    }
  }

  private func receiveMore() throws {
    if consumed > 1 << 20 {
      buffer.removeFirst(consumed)
      consumed = 0
    }
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      switch chunk.withUnsafeMutableBytes({ Socket.receive(descriptor, into: $0) }) {
      case .moved(let count):
        buffer += chunk[..<count]
        return
      case .wouldBlock: try wait(Int16(POLLIN))
      case .closed, .failed: throw HarnessError("the connection ended before an answer")
      }
    }
  }

  private func wait(_ events: Int16) throws {
    var polled = pollfd(fd: descriptor, events: events, revents: 0)
    guard cweir_monotonic_nanoseconds() < end, poll(&polled, 1, 60_000) > 0 else {
      throw HarnessError("nothing came in time")
    }
  }
}
