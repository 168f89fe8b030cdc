import CWeir
import Glibc
import HTTPWire
import WeirTransport

/// One request to another node, and its answer: what joining a cluster takes. Blocks the calling thread, and closes the
/// connection afterwards; no more of a client than that.
public enum HTTPExchange {
  /// What came back.
  public struct Answer: Sendable, Hashable {
    public var code: Int
    public var location: String?
    public var body: [UInt8]

    /// The body as a line of text.
    public var text: String { String(decoding: body.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self) }
  }

  /// Why there is no answer.
  public enum Failure: Error, Sendable, Hashable, CustomStringConvertible {
    case transport(TransportError)
    case timeout
    case noAnswer(String)

    public var description: String {
      switch self {
      case .transport(let error): error.description
      case .timeout: "no answer in time"
      case .noAnswer(let reason): "the answer is none: \(reason)"
      }
    }
  }

  /// The most that an answer may have, head and body, in bytes.
  static var maximumAnswerBytes: Int { 2 << 20 }

  /// Sends a request without a body.
  /// - Parameters:
  ///   - target: path and query, percent-encoded.
  ///   - deadlineNanoseconds: until when (CLOCK_MONOTONIC).
  public static func request(
    _ method: HTTPMethod, _ target: String, at address: SocketAddress, deadlineNanoseconds: UInt64
  ) throws(Failure) -> Answer {
    let descriptor: Int32
    do throws(TransportError) { descriptor = try Socket.connect(to: address) } catch { throw .transport(error) }
    defer { Socket.close(descriptor) }
    try wait(descriptor, Int16(POLLOUT), deadlineNanoseconds)
    let code = Socket.pendingError(descriptor)
    guard code == 0 else { throw .transport(.systemCall("connect to \(address)", errno: code)) }
    let request = Array(
      "\(method.rawValue) \(target) HTTP/1.1\r\nHost: \(address)\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".utf8
    )
    try send(request, descriptor, deadlineNanoseconds)
    return try parse(try receiveAll(descriptor, deadlineNanoseconds))
  }

  private static func send(_ bytes: [UInt8], _ descriptor: Int32, _ deadline: UInt64) throws(Failure) {
    var sent = 0
    while sent < bytes.count {
      let result = unsafe bytes.withUnsafeBytes { source in
        unsafe Socket.send(descriptor, bytes: UnsafeRawBufferPointer(rebasing: source[sent...]))
      }
      switch result {
      case .moved(let count): sent += count
      case .wouldBlock: try wait(descriptor, Int16(POLLOUT), deadline)
      case .closed: throw .noAnswer("the connection was closed")
      case .failed(let code): throw .transport(.systemCall("send", errno: code))
      }
    }
  }

  private static func receiveAll(_ descriptor: Int32, _ deadline: UInt64) throws(Failure) -> [UInt8] {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 << 10)
    while true {
      switch unsafe chunk.withUnsafeMutableBytes({ unsafe Socket.receive(descriptor, into: $0) }) {
      case .moved(let count):
        bytes += chunk[..<count]
        guard bytes.count <= maximumAnswerBytes else { throw .noAnswer("it is too long") }
      case .wouldBlock: try wait(descriptor, Int16(POLLIN), deadline)
      case .closed: return bytes
      case .failed(let code): throw .transport(.systemCall("recv", errno: code))
      }
    }
  }

  private static func wait(_ descriptor: Int32, _ events: Int16, _ deadline: UInt64) throws(Failure) {
    let now = cweir_monotonic_nanoseconds()
    guard deadline > now else { throw .timeout }
    var polled = [pollfd(fd: descriptor, events: events, revents: 0)]
    if unsafe cweir_poll(&polled, 1, Int64(min(deadline - now, 60_000_000_000))) == 0 { throw .timeout }
  }

  /// Reads an answer that ended with its connection.
  static func parse(_ bytes: [UInt8]) throws(Failure) -> Answer {
    let separator = Array("\r\n\r\n".utf8)
    guard let end = bytes.indices.first(where: { bytes[$0...].starts(with: separator) }) else {
      throw .noAnswer("it has no head")
    }
    let lines = String(decoding: bytes[..<end], as: UTF8.self).split(separator: "\r\n")
    let words = lines.first.map { $0.split(separator: " ") } ?? []
    guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let code = Int(words[1]) else {
      throw .noAnswer("it does not begin with a status")
    }
    var answer = Answer(code: code, body: Array(bytes[(end + separator.count)...]))
    for line in lines.dropFirst() {
      let sides = line.split(separator: ":", maxSplits: 1)
      guard sides.count == 2 else { continue }
      let value = String(sides[1].drop { $0 == " " })
      switch sides[0].lowercased() {
      case "location": answer.location = value
      case "content-length":
        guard Int(value) == answer.body.count else { throw .noAnswer("it is cut off") }
      default: break
      }
    }
    return answer
  }
}
