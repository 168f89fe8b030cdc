import Foundation
import Testing

@testable import Measure

@Suite("Histogram files")
struct HistogramFilesTests {
  static func sample(seed: UInt64, count: Int, highest: UInt64 = 2_000_000_000) -> LatencyHistogram {
    var random = TestRandom(state: seed)
    var histogram = LatencyHistogram()
    for _ in 0..<count {
      // A product of two uniform draws: a long tail, and many empty buckets in between.
      let a = Double.random(in: 0...1, using: &random)
      let b = Double.random(in: 0...1, using: &random)
      histogram.record(UInt64(a * b * b * Double(highest)))
    }
    return histogram
  }

  @Test(
    "What the encoder writes, the decoder reads back bucket for bucket",
    arguments: [(1, 0), (2, 1), (3, 100), (4, 50_000)] as [(UInt64, Int)])
  func roundTrip(seed: UInt64, count: Int) throws {
    let histogram = Self.sample(seed: seed, count: count)
    let decoded = try LogDecoder.decode(HistogramEncoding.compressed(histogram))
    #expect(decoded == histogram.buckets())
  }

  @Test("Values at the edges of buckets keep their place", arguments: [0, 1, 2047, 2048, 4095, 4096, 60_000_000_000])
  func edges(value: Int) throws {
    var histogram = LatencyHistogram()
    histogram.record(UInt64(value), count: 3)
    let decoded = try LogDecoder.decode(HistogramEncoding.compressed(histogram))
    #expect(decoded.count == 1)
    #expect(decoded == histogram.buckets())
  }

  @Test("The compressed form begins as every V2 histogram does")
  func prefix() {
    let text = Data(HistogramEncoding.compressed(Self.sample(seed: 5, count: 10))).base64EncodedString()
    #expect(text.hasPrefix("HISTFAAA"))
  }

  @Test("Zig-zag LEB128 takes at most nine bytes and returns what went in")
  func zigZag() throws {
    for value in [0, 1, -1, 63, 64, -64, -65, 1 << 40, .max, .min] as [Int64] {
      var bytes: [UInt8] = []
      HistogramEncoding.appendZigZag(value, to: &bytes)
      #expect(bytes.count <= 9)
      var offset = 0
      #expect(try LogDecoder.zigZag(bytes, &offset) == value)
      #expect(offset == bytes.count)
    }
  }

  @Test("A zlib stream of more than one block has a right checksum and right lengths")
  func zlib() throws {
    let bytes = (0..<150_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    #expect(try LogDecoder.inflateStored(Zlib.store(bytes)) == bytes)
    #expect(try LogDecoder.inflateStored(Zlib.store([])) == [])
    // The checksum of RFC 1950's well-known example.
    #expect(Zlib.adler32(Array("Wikipedia".utf8)) == 0x11E6_0398)
  }

  @Test("A log has its header, and a line for each interval with tag, times, maximum and distribution")
  func log() throws {
    let histogram = Self.sample(seed: 9, count: 1000)
    let text = HistogramLog.text(
      startEpochSeconds: 1_700_000_000.25,
      intervals: [
        .init(tag: "write", startSeconds: 0, lengthSeconds: 1, histogram: histogram),
        .init(tag: "read", startSeconds: 1, lengthSeconds: 0.5, histogram: LatencyHistogram()),
      ])
    let lines = text.split(separator: "\n")
    #expect(lines.count == 5)
    #expect(lines[0] == "#[Histogram log format version 1.3]")
    #expect(lines[1].hasPrefix("#[StartTime: 1700000000.250 "))
    let fields = lines[3].split(separator: ",")
    #expect(fields.count == 5)
    #expect(fields[0] == "Tag=write")
    #expect(fields[3] == String(format: "%.3f", Double(histogram.maxNanoseconds) / 1e6)[...])
    let data = try #require(Data(base64Encoded: String(fields[4])))
    #expect(try LogDecoder.decode(Array(data)) == histogram.buckets())
  }

  @Test("A percentile table rises to 1, covers every operation, and ends with its four footer lines")
  func percentileTable() {
    let histogram = Self.sample(seed: 13, count: 20_000)
    let lines = PercentileFile.lines(of: histogram.buckets(), total: histogram.count, ticksPerHalfDistance: 5)
    #expect(zip(lines, lines.dropFirst()).allSatisfy { $0.quantile < $1.quantile })
    #expect(zip(lines, lines.dropFirst()).allSatisfy { $0.nanoseconds <= $1.nanoseconds })
    #expect(lines.last?.quantile == 1)
    #expect(lines.last?.totalCount == 20_000)
    for line in lines where line.quantile < 1 {
      // A line names the first bucket whose end covers its quantile.
      #expect(Double(line.totalCount) >= line.quantile * 20_000 - 1e-6)
    }
    let text = PercentileFile.text(of: histogram).split(separator: "\n")
    #expect(text.suffix(4).allSatisfy { $0.hasPrefix("#[") })
    #expect(text.count == lines.count + 5)
    #expect(PercentileFile.text(of: LatencyHistogram()).contains("Total count    =            0]"))
  }
}

/// A decoder of V2 histograms, written from the format's description and not from the encoder.
enum LogDecoder {
  struct Malformed: Error {
    var reason: String
  }

  static func decode(_ bytes: [UInt8]) throws -> [HistogramBucket] {
    guard integer(bytes, 0, 4) == 0x1C84_9314 else { throw Malformed(reason: "compressed cookie") }
    guard Int(integer(bytes, 4, 4)) == bytes.count - 8 else { throw Malformed(reason: "compressed length") }
    let plain = try inflateStored(Array(bytes[8...]))
    guard integer(plain, 0, 4) == 0x1C84_9313 else { throw Malformed(reason: "cookie") }
    guard Int(integer(plain, 4, 4)) == plain.count - 40 else { throw Malformed(reason: "length") }
    guard integer(plain, 8, 4) == 0, integer(plain, 12, 4) == 3, integer(plain, 16, 8) == 1,
      integer(plain, 24, 8) == 60_000_000_000, Double(bitPattern: integer(plain, 32, 8)) == 1
    else { throw Malformed(reason: "header") }
    var buckets: [HistogramBucket] = []
    var offset = 40
    var index = 0
    while offset < plain.count {
      let count = try zigZag(plain, &offset)
      if count < 0 {
        index += Int(-count)
      } else {
        if count > 0 {
          buckets.append(HistogramBucket(highestNanoseconds: highestValue(at: index), count: UInt64(count)))
        }
        index += 1
      }
    }
    return buckets
  }

  /// The largest value of a place in the counts: 2048 places of width 1, then groups of 1024, each twice as wide.
  static func highestValue(at index: Int) -> UInt64 {
    guard index >= 2048 else { return UInt64(index) }
    let group = (index - 2048) / 1024 + 1
    let place = (index - 2048) % 1024 + 1024
    return (UInt64(place + 1) << UInt64(group)) - 1
  }

  static func integer(_ bytes: [UInt8], _ start: Int, _ count: Int) -> UInt64 {
    guard bytes.count >= start + count else { return .max }
    return bytes[start..<start + count].reduce(0) { $0 << 8 | UInt64($1) }
  }

  static func zigZag(_ bytes: [UInt8], _ offset: inout Int) throws -> Int64 {
    var value: UInt64 = 0
    for position in 0..<9 {
      guard offset < bytes.count else { throw Malformed(reason: "cut number") }
      let byte = bytes[offset]
      offset += 1
      if position == 8 {
        value |= UInt64(byte) << 56
        break
      }
      value |= UInt64(byte & 0x7F) << UInt64(7 * position)
      if byte & 0x80 == 0 { break }
    }
    return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1)
  }

  static func inflateStored(_ stream: [UInt8]) throws -> [UInt8] {
    guard stream.count >= 6, stream[0] & 0x0F == 8, (UInt(stream[0]) << 8 | UInt(stream[1])) % 31 == 0 else {
      throw Malformed(reason: "zlib header")
    }
    var bytes: [UInt8] = []
    var offset = 2
    var isLast = false
    while !isLast {
      guard offset + 5 <= stream.count, stream[offset] <= 1 else { throw Malformed(reason: "block") }
      isLast = stream[offset] == 1
      let length = Int(stream[offset + 1]) | Int(stream[offset + 2]) << 8
      let complement = Int(stream[offset + 3]) | Int(stream[offset + 4]) << 8
      guard length ^ complement == 0xFFFF, offset + 5 + length <= stream.count else {
        throw Malformed(reason: "block length")
      }
      bytes += stream[offset + 5..<offset + 5 + length]
      offset += 5 + length
    }
    guard integer(stream, offset, 4) == UInt64(Zlib.adler32(bytes)), offset + 4 == stream.count else {
      throw Malformed(reason: "checksum")
    }
    return bytes
  }
}
