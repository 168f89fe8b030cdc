import Glibc
import Testing
import WeirTransport

@Suite("Requests for short idle states", .serialized)
struct CPULatencyRequestTests {
  private static let isAllowed = access(CPULatencyRequest.path, R_OK | W_OK) == 0

  /// What the kernel holds the processors to now, in microseconds.
  private func limit() throws -> Int32 {
    let descriptor = open(CPULatencyRequest.path, O_RDONLY)
    defer { close(descriptor) }
    var value: Int32 = -1
    let count = withUnsafeMutableBytes(of: &value) { read(descriptor, $0.baseAddress, $0.count) }
    try #require(count == 4, "the device does not say its limit")
    return value
  }

  @Test(
    "A request holds while it lives, the least of several counts",
    .enabled(if: isAllowed, "the device cannot be opened here: it is for root, and Linux's"))
  func holds() throws {
    let before = try limit()
    try #require(before > 7, "somebody else holds the processors to \(before) µs")
    do {
      let first = try CPULatencyRequest(microseconds: 7)
      #expect(try limit() == 7)
      do {
        let second = try CPULatencyRequest(microseconds: 0)
        #expect(try limit() == 0)
        withExtendedLifetime(second) {}
      }
      #expect(try limit() == 7)
      withExtendedLifetime(first) {}
    }
    #expect(try limit() == before)
  }

  @Test("A time below 0 is refused")
  func negative() {
    #expect(throws: CPULatencyError.negative(-1)) { try CPULatencyRequest(microseconds: -1) }
  }
}
