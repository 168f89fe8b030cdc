import CFuzzDriver
import WeirCore

// A fuzzer does not find by itself what is verified together: eight frames and more of one length, with consecutive
// indexes and right checksums. So an input may say what such a run looks like and what is wrong with it.

/// A run of frames of one length, term and kind, with the changes that an input makes to it.
///
///     byte 0   frames: 8 and up to 15 more
///     byte 1   payload: 64 bytes and up to 255 more
///     byte 2   payload: twice as many bytes more
///     then     changes of 3 bytes each: where, little-endian, and what the byte there is xor-ed with
public struct AlikeFrames {
  /// The most bytes that a run has.
  public static let maximumBytes = 23 * EntryFrame.occupiedBytes(payloadBytes: 64 + 255 + 510)

  public let count: Int
  public let byteCount: Int
  private let payloadBytes: Int
  private let changes: UnsafeBufferPointer<UInt8>

  public init?(_ input: UnsafeBufferPointer<UInt8>) {
    guard input.count >= 3 else { return nil }
    count = 8 + Int(input[0]) % 16
    payloadBytes = 64 + Int(input[1]) + 2 * Int(input[2])
    byteCount = count * EntryFrame.occupiedBytes(payloadBytes: payloadBytes)
    changes = UnsafeBufferPointer(rebasing: input[3...])
  }

  /// Writes the run, its indexes from `firstIndex` on; with right checksums before its changes, or after them.
  public func write(
    to bytes: UnsafeMutableRawBufferPointer, firstIndex: LogIndex, term: Term, areChangesSealed: Bool
  ) {
    let run = UnsafeMutableRawBufferPointer(rebasing: bytes[0..<byteCount])
    let stride = byteCount / count
    cfuzz_fill(run.baseAddress, byteCount)
    for frame in 0..<count {
      let start = frame * stride
      let length = EntryFrame.headerBytes + payloadBytes
      run.storeBytes(of: UInt64(length), toByteOffset: start, as: UInt64.self)
      run.storeBytes(of: firstIndex + UInt64(frame), toByteOffset: start + 8, as: UInt64.self)
      run.storeBytes(of: term, toByteOffset: start + 16, as: UInt64.self)
      run.storeBytes(of: 0, toByteOffset: start + 24, as: UInt64.self)
      for position in start + length..<start + stride { run[position] = 0 }
    }
    if !areChangesSealed { crc32cSealFrames(run) }
    for change in 0..<changes.count / 3 {
      let position = Int(changes[3 * change]) | Int(changes[3 * change + 1]) << 8
      run[position % byteCount] ^= changes[3 * change + 2]
    }
    if areChangesSealed { crc32cSealFrames(run) }
  }
}

/// How many frames at the start of `range` are good when each is verified alone, where no group is.
public func goodFrames(_ slab: Slab, _ range: Range<Int>, firstIndex: LogIndex, lowestTerm: Term) -> Int {
  var position = range.lowerBound
  var count = 0
  var term = lowestTerm
  while position < range.upperBound {
    guard range.upperBound - position >= EntryFrame.headerBytes else { break }
    let length = Int(slab.bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self))
    let end = position + (length + 7) & ~7
    guard length >= EntryFrame.headerBytes, end <= range.upperBound else { break }
    guard
      let frame = try? EntryBatch.verifying(
        slab: slab, range: position..<end, firstIndex: firstIndex + UInt64(count), lowestTerm: term)
    else { break }
    term = frame.terms.last
    count += 1
    position = end
  }
  return count
}
