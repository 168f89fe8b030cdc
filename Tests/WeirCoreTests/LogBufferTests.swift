import Testing
import WeirCore

@Suite struct LogBufferTests {
  @Test func keepsWhatWasAppended() {
    var log = LogBuffer()
    for number in 0..<1000 {
      let payload = [UInt8](repeating: UInt8(number & 0xFF), count: number % 200)
      log.append(term: UInt64(1 + number / 100), payload: payload.span.bytes)
    }
    #expect(log.lastIndex == 1000)
    #expect(log.term(at: 101) == 2)
    var seen = 0
    log.batch(from: 1, through: 1000).forEach { header, payload in
      #expect(header.index == UInt64(seen + 1))
      #expect(payload.byteCount == seen % 200)
      seen += 1
    }
    #expect(seen == 1000)
  }

  @Test func aBatchOutlivesTheTruncationOfItsEntries() {
    var log = LogBuffer()
    log.append(term: 1, payload: [1].span.bytes)
    log.append(term: 1, payload: [2].span.bytes)
    let before = log.batch(from: 1, through: 2)
    log.truncateSuffix(from: 2)
    log.append(term: 2, payload: [3].span.bytes)
    var bytes: [UInt8] = []
    before.forEach { _, payload in bytes.append(payload.unsafeLoadUnaligned(as: UInt8.self)) }
    log.batch(from: 1, through: 2).forEach { _, payload in bytes.append(payload.unsafeLoadUnaligned(as: UInt8.self)) }
    #expect(bytes == [1, 2, 1, 3])
  }
}
