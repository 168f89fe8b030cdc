import Testing

@testable import Load

@Suite("Operations")
struct OperationTests {
  @Test(
    "A key number is spelled as 16 lower-case hexadecimal digits",
    arguments: [
      (0, "0000000000000000"), (1, "0000000000000001"), (0xDEAD_BEEF, "00000000deadbeef"),
      (0x0123_4567_89AB_CDEF, "0123456789abcdef"), (UInt64.max, "ffffffffffffffff"),
    ] as [(UInt64, String)])
  func keySpelling(number: UInt64, text: String) {
    #expect(KeySpelling.bytes(number) == Array(text.utf8))
  }

  @Test("The name of a write survives its way through a value")
  func valueRoundTrip() {
    for id in [ValueID(client: 1, sequence: 1), ValueID(client: .max, sequence: .max)] {
      let value = id.makeValue(valueBytes: 40)
      #expect(value.count == 40)
      #expect(ValueID(value: value) == id)
      #expect(ValueID(low: id.words.low, high: id.words.high) == id)
    }
    #expect(ValueID(value: [UInt8](repeating: 0, count: 16)) == nil)
    #expect(ValueID(value: [1, 2, 3]) == nil)
    #expect(ValueID(client: 1, sequence: 2).makeValue(valueBytes: 3).count == 16)
  }

  @Test("Counters subtract, and what is not known stays unknown")
  func counters() {
    let start = TargetCounters(peerMessages: 10, fsyncs: nil)
    let end = TargetCounters(peerMessages: 25, fsyncs: 3)
    #expect(end.since(start) == TargetCounters(peerMessages: 15))
  }
}
