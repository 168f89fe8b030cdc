/// What a fuzzer's input makes of a file that was written properly: its first byte is for the target, the second says
/// where the rest is laid over the file.
public struct Overlay {
  /// The file's bytes with the input's laid over them.
  public private(set) var bytes: [UInt8]
  private let end: Int

  /// nil where the input is too short to change anything, or the file would grow beyond 64 KiB.
  /// - Parameter stepBytes: what one in the second byte of the input moves the rest by.
  public init?(of input: Span<UInt8>, on seed: [UInt8], stepBytes: Int) {
    guard input.count > 2, !seed.isEmpty else { return nil }
    bytes = seed
    let start = Int(input[1]) * stepBytes % seed.count
    for index in 2..<input.count {
      let position = start + index - 2
      if position < bytes.count { bytes[position] = input[index] } else { bytes.append(input[index]) }
    }
    if bytes.count > 1 << 16 { return nil }
    end = start + input.count - 2
  }

  /// Changes the bytes, for instance to put checksums right.
  public mutating func change(_ body: (inout [UInt8]) -> Void) { body(&bytes) }

  /// Ends the file where the input ends.
  public mutating func cut() { bytes.removeLast(bytes.count - min(bytes.count, end)) }
}
