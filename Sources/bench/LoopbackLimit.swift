import CWeir
import Foundation
import Measure

/// What the machine's loopback does without any consensus: plain blocking sockets, no framing, no checks. What the
/// cluster does is stated beside it, measured in the same run.
struct LoopbackLimit {
  /// Round trips with one in flight.
  var roundTrip: LatencyHistogram
  var roundTripCPUNanoseconds: Double
  /// Messages a second, sent in writes of `messagesPerWrite`.
  var streamMessagesPerSecond: Double
  var streamCPUNanoseconds: Double
  var messagesPerWrite: Int

  /// - Parameters:
  ///   - requestBytes: size of what goes out, and of a message of the stream.
  ///   - answerBytes: size of what comes back.
  static func measure(
    requestBytes: Int, answerBytes: Int, messagesPerWrite: Int, seconds: Double
  ) throws -> LoopbackLimit {
    let (roundTrip, cpu) = try pingPong(requestBytes, answerBytes, seconds)
    let (rate, streamCPU) = try stream(requestBytes, messagesPerWrite, seconds)
    return LoopbackLimit(
      roundTrip: roundTrip, roundTripCPUNanoseconds: cpu, streamMessagesPerSecond: rate,
      streamCPUNanoseconds: streamCPU, messagesPerWrite: messagesPerWrite)
  }

  private static func pingPong(_ request: Int, _ answer: Int, _ seconds: Double) throws -> (LatencyHistogram, Double) {
    let (near, far) = try connectedPair()
    let echo = Thread {
      var buffer = [UInt8](repeating: 1, count: max(request, answer))
      while readAll(far, &buffer, request) { if !writeAll(far, buffer, answer) { break } }
      close(far)
    }
    echo.start()
    var histogram = LatencyHistogram()
    var buffer = [UInt8](repeating: 1, count: max(request, answer))
    let cpu = cweir_process_cpu_nanoseconds()
    let end = cweir_monotonic_nanoseconds() + UInt64(seconds * 1e9)
    var before = cweir_monotonic_nanoseconds()
    while before < end, writeAll(near, buffer, request), readAll(near, &buffer, answer) {
      let after = cweir_monotonic_nanoseconds()
      histogram.record(after - before)
      before = after
    }
    let used = cweir_process_cpu_nanoseconds() - cpu
    close(near)
    return (histogram, Double(used) / Double(max(histogram.count, 1)))
  }

  private static func stream(_ size: Int, _ perWrite: Int, _ seconds: Double) throws -> (Double, Double) {
    let (near, far) = try connectedPair()
    let sink = Thread {
      var buffer = [UInt8](repeating: 0, count: 256 << 10)
      while buffer.withUnsafeMutableBytes({ recv(far, $0.baseAddress, $0.count, 0) }) > 0 {}
      close(far)
    }
    sink.start()
    let block = [UInt8](repeating: 1, count: size * perWrite)
    let cpu = cweir_process_cpu_nanoseconds()
    let start = cweir_monotonic_nanoseconds()
    let end = start + UInt64(seconds * 1e9)
    var messages = 0
    while cweir_monotonic_nanoseconds() < end, writeAll(near, block, block.count) { messages += perWrite }
    let elapsed = Double(cweir_monotonic_nanoseconds() - start) / 1e9
    let used = cweir_process_cpu_nanoseconds() - cpu
    close(near)
    return (Double(messages) / elapsed, Double(used) / Double(max(messages, 1)))
  }

  // MARK: Sockets

  private static func connectedPair() throws -> (near: Int32, far: Int32) {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let near = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    let isConnected = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        bind(listener, address, length) == 0 && listen(listener, 1) == 0 && getsockname(listener, address, &length) == 0
          && connect(near, address, length) == 0
      }
    }
    let far = isConnected ? accept(listener, nil, nil) : -1
    guard far >= 0 else { throw UsageError("cannot open sockets on loopback (errno \(errno))") }
    var one: Int32 = 1
    for descriptor in [near, far] {
      setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
    }
    return (near, far)
  }

  private static func writeAll(_ descriptor: Int32, _ bytes: [UInt8], _ count: Int) -> Bool {
    bytes.withUnsafeBytes { buffer in
      var sent = 0
      while sent < count {
        let moved = send(descriptor, buffer.baseAddress.map { $0 + sent }, count - sent, Int32(MSG_NOSIGNAL))
        guard moved > 0 else { return false }
        sent += moved
      }
      return true
    }
  }

  private static func readAll(_ descriptor: Int32, _ bytes: inout [UInt8], _ count: Int) -> Bool {
    bytes.withUnsafeMutableBytes { buffer in
      var got = 0
      while got < count {
        let moved = recv(descriptor, buffer.baseAddress.map { $0 + got }, count - got, 0)
        guard moved > 0 else { return false }
        got += moved
      }
      return true
    }
  }
}
