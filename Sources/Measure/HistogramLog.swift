import Foundation

/// Writes a histogram log (`.hlog`, format 1.3): one line for each interval and tag, each with the whole distribution
/// in HdrHistogram's V2 compressed encoding, so that logs of several processes can be merged without loss.
public enum HistogramLog {
  /// One interval of one operation.
  public struct Interval: Sendable {
    /// What the distribution is of, e.g. `write`; no comma, no space.
    public var tag: String
    /// Seconds since the log's start.
    public var startSeconds: Double
    public var lengthSeconds: Double
    public var histogram: LatencyHistogram

    public init(tag: String, startSeconds: Double, lengthSeconds: Double, histogram: LatencyHistogram) {
      self.tag = tag
      self.startSeconds = startSeconds
      self.lengthSeconds = lengthSeconds
      self.histogram = histogram
    }
  }

  /// - Parameter startEpochSeconds: the wall clock's time at the log's start, in seconds since 1970.
  public static func text(startEpochSeconds: Double, intervals: [Interval]) -> String {
    var text = "#[Histogram log format version 1.3]\n"
    text += "#[StartTime: \(decimal(startEpochSeconds)) (seconds since epoch)]\n"
    text += "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
    for interval in intervals {
      // The maximum is in milliseconds, as the log processors expect of histograms in nanoseconds.
      let maximum = decimal(Double(interval.histogram.maxNanoseconds) / 1e6)
      let encoded = Data(HistogramEncoding.compressed(interval.histogram)).base64EncodedString()
      text += "Tag=\(interval.tag),\(decimal(interval.startSeconds)),\(decimal(interval.lengthSeconds)),"
      text += "\(maximum),\(encoded)\n"
    }
    return text
  }

  private static func decimal(_ value: Double) -> String { String(format: "%.3f", value) }
}

/// HdrHistogram's V2 encoding of the histograms of this module.
public enum HistogramEncoding {
  static let cookie: UInt32 = 0x1C84_9303 | 0x10
  static let compressedCookie: UInt32 = 0x1C84_9304 | 0x10
  /// Three digits need 2048 sub-buckets, of which each bucket but the first has the upper half.
  static let subBucketHalfMagnitude = 10

  /// The compressed form: cookie, length, and a zlib stream of `plain`.
  public static func compressed(_ histogram: LatencyHistogram) -> [UInt8] {
    let stream = Zlib.store(plain(histogram))
    return bigEndian(compressedCookie) + bigEndian(UInt32(stream.count)) + stream
  }

  /// The plain form: a header of 40 bytes, then the counts as zig-zag LEB128, runs of zeros as their negative length.
  public static func plain(_ histogram: LatencyHistogram) -> [UInt8] {
    let payload = counts(histogram.buckets())
    var bytes = bigEndian(cookie) + bigEndian(UInt32(payload.count))
    bytes += bigEndian(UInt32(0))  // normalizing index offset
    bytes += bigEndian(UInt32(3))  // significant digits
    bytes += bigEndian(UInt64(1))  // lowest discernible value
    bytes += bigEndian(LatencyHistogram.highestNanoseconds)
    bytes += bigEndian((1.0).bitPattern)  // integer to double conversion ratio
    return bytes + payload
  }

  private static func counts(_ buckets: [HistogramBucket]) -> [UInt8] {
    var bytes: [UInt8] = []
    var next = 0
    for bucket in buckets {
      let index = index(of: bucket.highestNanoseconds)
      switch index - next {
      case 0: break
      case 1: appendZigZag(0, to: &bytes)
      case let zeros: appendZigZag(Int64(-zeros), to: &bytes)
      }
      appendZigZag(Int64(clamping: bucket.count), to: &bytes)
      next = index + 1
    }
    return bytes
  }

  /// The place of a value in the counts array.
  static func index(of value: UInt64) -> Int {
    let mask = UInt64(1 << (subBucketHalfMagnitude + 1)) - 1
    let bucket = 64 - (subBucketHalfMagnitude + 1) - (value | mask).leadingZeroBitCount
    let subBucket = Int(value >> UInt64(bucket))
    return ((bucket + 1) << subBucketHalfMagnitude) + subBucket - (1 << subBucketHalfMagnitude)
  }

  /// LEB128 of the zig-zag mapping, at most nine bytes: the ninth carries eight bits.
  static func appendZigZag(_ value: Int64, to bytes: inout [UInt8]) {
    var rest = UInt64(bitPattern: (value << 1) ^ (value >> 63))
    for _ in 0..<8 {
      guard rest > 0x7F else {
        bytes.append(UInt8(rest))
        return
      }
      bytes.append(UInt8(rest & 0x7F) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(truncatingIfNeeded: rest))
  }

  static func bigEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<(T.bitWidth / 8)).reversed().map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
  }
}

/// The least of zlib (RFC 1950) and deflate (RFC 1951) that is legal: blocks that are stored, not compressed.
enum Zlib {
  /// Most that one stored block holds.
  static let blockBytes = 65_535

  static func store(_ bytes: [UInt8]) -> [UInt8] {
    // 32 KiB window, deflate; the second byte makes the pair a multiple of 31.
    var stream: [UInt8] = [0x78, 0x01]
    var start = 0
    repeat {
      let count = min(blockBytes, bytes.count - start)
      let isLast = start + count == bytes.count
      let length = UInt16(count)
      stream.append(isLast ? 1 : 0)
      stream += [UInt8(length & 0xFF), UInt8(length >> 8), UInt8(~length & 0xFF), UInt8(~length >> 8)]
      stream += bytes[start..<start + count]
      start += count
    } while start < bytes.count
    return stream + HistogramEncoding.bigEndian(adler32(bytes))
  }

  static func adler32(_ bytes: [UInt8]) -> UInt32 {
    var a: UInt32 = 1
    var b: UInt32 = 0
    for byte in bytes {
      a = (a + UInt32(byte)) % 65_521
      b = (b + a) % 65_521
    }
    return b << 16 | a
  }
}
