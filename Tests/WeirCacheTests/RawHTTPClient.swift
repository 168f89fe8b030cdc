import CWeir
import Foundation
import WeirTransport

/// One connection to an HTTP server, byte by byte as a test wants it. Waits for a minute at most.
final class RawHTTPClient {
  struct Answer {
    var code: Int
    /// By lower-case name.
    var fields: [String: String] = [:]
    var body: [UInt8] = []
    var text: String { String(decoding: body, as: UTF8.self) }
  }

  private let descriptor: Int32
  private let end = deadline(inSeconds: 60)
  private var buffer: [UInt8] = []

  init(_ address: SocketAddress) throws {
    descriptor = try Socket.connect(to: address)
    try wait(Int16(POLLOUT))
  }

  deinit { Socket.close(descriptor) }

  func send(_ text: String) throws {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      switch rest.withUnsafeBytes({ Socket.send(descriptor, bytes: $0) }) {
      case .moved(let count): rest = rest.dropFirst(count)
      case .wouldBlock: try wait(Int16(POLLOUT), atMostSeconds: 5)
      case .closed: throw HarnessError("closed while sending")
      case .failed(let code): throw HarnessError("send failed: \(code)")
      }
    }
  }

  func finishSending() { shutdown(descriptor, Int32(SHUT_WR)) }

  func receive(hasBody: Bool = true) throws -> Answer {
    let separator = Array("\r\n\r\n".utf8)
    while true {
      if let headEnd = buffer.indices.first(where: { buffer[$0...].starts(with: separator) }) {
        let lines = String(decoding: buffer[..<headEnd], as: UTF8.self).components(separatedBy: "\r\n")
        var answer = Answer(code: Int(lines[0].split(separator: " ")[1]) ?? 0)
        for line in lines.dropFirst() {
          let sides = line.split(separator: ":", maxSplits: 1)
          answer.fields[sides[0].lowercased()] = sides[1].trimmingCharacters(in: .whitespaces)
        }
        let length = hasBody ? Int(answer.fields["content-length"] ?? "0") ?? 0 : 0
        let bodyStart = headEnd + separator.count
        if buffer.count >= bodyStart + length {
          answer.body = Array(buffer[bodyStart..<bodyStart + length])
          buffer.removeFirst(bodyStart + length)
          return answer
        }
      }
      guard try receiveOnce() else { throw HarnessError("the connection ended before an answer") }
    }
  }

  /// Whether nothing but the end comes.
  func isAtEnd() throws -> Bool {
    guard buffer.isEmpty else { return false }
    return try !receiveOnce()
  }

  /// Returns false at the end of the stream.
  private func receiveOnce() throws -> Bool {
    var chunk = [UInt8](repeating: 0, count: 64 << 10)
    while true {
      switch chunk.withUnsafeMutableBytes({ Socket.receive(descriptor, into: $0) }) {
      case .moved(let count):
        buffer += chunk[..<count]
        return true
      case .wouldBlock: try wait(Int16(POLLIN))
      // A server that closes while something is unread resets.
      case .closed, .failed: return false
      }
    }
  }

  private func wait(_ events: Int16, atMostSeconds seconds: Int32 = 60) throws {
    var polled = pollfd(fd: descriptor, events: events, revents: 0)
    guard cweir_monotonic_nanoseconds() < end, poll(&polled, 1, seconds * 1000) > 0 else {
      throw HarnessError("nothing came in time")
    }
  }
}
