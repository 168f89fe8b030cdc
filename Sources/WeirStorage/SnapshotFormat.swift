import CWeir
import WeirCore

/// The byte layout of a snapshot file, `<index>-<term>.snapshot` with both in 16 hexadecimal digits. Little-endian.
///
/// Header:
///
///     offset  size  field
///          0     8  "WEIRSNP1"
///          8     4  CRC-32C of bytes 12 ..< header size
///         12     4  version, 1
///         16     4  size of the header in bytes
///         20     4  flags: bit 0, the joint configuration is left automatically
///         24     8  index of the last entry that the snapshot contains
///         32     8  term of that entry
///         40     4  number of voters
///         44     4  number of outgoing voters
///         48     4  number of learners
///         52     4  number of learners to be
///         56   8 n  the members' ids, in that order
///
/// Any number of chunks, the parts of the state as they were appended:
///
///          0     4  size of the part in bytes, at least 1
///          4     4  CRC-32C of the part, continued from the checksum of the chunk before (or of the
///                   header), so that no chunk can be missing or come twice
///          8     n  the part
///
/// The end:
///
///          0     4  zero
///          4     4  CRC-32C of bytes 8 ..< 24, continued from the last chunk's checksum
///          8     8  number of chunks
///         16     8  size of all parts in bytes
public enum SnapshotFormat {
  public static var version: UInt32 { 1 }
  /// The largest part that one chunk has, in bytes (1 MiB).
  public static var maximumChunkBytes: Int { 1 << 20 }
  /// The most members that one list of a configuration has.
  public static var maximumMembers: Int { 4096 }

  static var magic: UInt64 { 0x3150_4E53_5249_4557 }  // "WEIRSNP1"
  static var fixedHeaderBytes: Int { 56 }
  static var chunkHeaderBytes: Int { 8 }
  static var endBytes: Int { 24 }
  static var maximumHeaderBytes: Int { fixedHeaderBytes + 4 * 8 * maximumMembers }

  static func fileName(_ metadata: SnapshotMetadata) -> String {
    hexadecimal(metadata.index) + "-" + hexadecimal(metadata.term) + ".snapshot"
  }

  /// Index and term in a snapshot's file name, or nil if it is none.
  static func parse(fileName: String) -> (index: LogIndex, term: Term)? {
    guard fileName.hasSuffix(".snapshot"), fileName.utf8.count == 42 else { return nil }
    let parts = fileName.dropLast(9).split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, parts.allSatisfy({ $0.utf8.count == 16 }), let index = UInt64(parts[0], radix: 16),
      let term = UInt64(parts[1], radix: 16)
    else { return nil }
    return (index, term)
  }

  private static func hexadecimal(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  /// The bytes of a header, and their checksum.
  static func encodeHeader(_ metadata: SnapshotMetadata) -> (bytes: [UInt8], checksum: UInt32) {
    let configuration = metadata.configuration
    let lists = [
      configuration.voters, configuration.votersOutgoing, configuration.learners, configuration.learnersNext,
    ]
    precondition(lists.allSatisfy { $0.count <= maximumMembers }, "more members than maximumMembers")
    let size = fixedHeaderBytes + 8 * lists.reduce(0) { $0 + $1.count }
    var bytes = [UInt8](repeating: 0, count: size)
    let checksum = unsafe bytes.withUnsafeMutableBytes { bytes in
      unsafe bytes.store(magic, at: 0)
      unsafe bytes.store(version, at: 12)
      unsafe bytes.store(UInt32(size), at: 16)
      unsafe bytes.store(UInt32(configuration.autoLeave ? 1 : 0), at: 20)
      unsafe bytes.store(metadata.index, at: 24)
      unsafe bytes.store(metadata.term, at: 32)
      var offset = fixedHeaderBytes
      for (position, list) in lists.enumerated() {
        unsafe bytes.store(UInt32(list.count), at: 40 + 4 * position)
        for member in list {
          unsafe bytes.store(member, at: offset)
          offset += 8
        }
      }
      let checksum = unsafe self.checksum(0, UnsafeRawBufferPointer(rebasing: bytes[12...]))
      unsafe bytes.store(checksum, at: 8)
      return checksum
    }
    return (bytes, checksum)
  }

  /// Reads a header from a file's first bytes.
  /// - Returns: what it says, its size and its checksum; or why it is none.
  @unsafe
  static func decodeHeader(_ bytes: UnsafeRawBufferPointer) -> Result<DecodedHeader, SnapshotFault> {
    guard bytes.count >= fixedHeaderBytes, unsafe bytes.value(UInt64.self, at: 0) == magic else {
      return .failure(.init(offset: 0, reason: "the file does not begin with WEIRSNP1"))
    }
    let version = unsafe bytes.value(UInt32.self, at: 12)
    guard version == Self.version else { return .failure(.init(offset: 12, reason: "", version: version)) }
    let size = unsafe Int(bytes.value(UInt32.self, at: 16))
    let counts = (0..<4).map { unsafe Int(bytes.value(UInt32.self, at: 40 + 4 * $0)) }
    guard counts.allSatisfy({ $0 <= maximumMembers }), size == fixedHeaderBytes + 8 * counts.reduce(0, +),
      size <= bytes.count
    else { return .failure(.init(offset: 16, reason: "the header's sizes make no sense")) }
    let checksum = unsafe self.checksum(0, UnsafeRawBufferPointer(rebasing: bytes[12..<size]))
    guard unsafe bytes.value(UInt32.self, at: 8) == checksum else {
      return .failure(.init(offset: 8, reason: "the header's checksum does not match"))
    }
    var offset = fixedHeaderBytes
    var lists: [[NodeID]] = []
    for count in counts {
      lists.append((0..<count).map { unsafe bytes.value(UInt64.self, at: offset + 8 * $0) })
      offset += 8 * count
    }
    let configuration = unsafe ConfigurationState(
      voters: lists[0], votersOutgoing: lists[1], learners: lists[2], learnersNext: lists[3],
      autoLeave: bytes.value(UInt32.self, at: 20) & 1 != 0)
    let metadata = unsafe SnapshotMetadata(
      index: bytes.value(UInt64.self, at: 24), term: bytes.value(UInt64.self, at: 32), configuration: configuration)
    return .success(DecodedHeader(metadata: metadata, size: size, checksum: checksum))
  }

  @unsafe
  static func checksum(_ seed: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
    guard let base = bytes.baseAddress else { return seed }
    return unsafe cweir_crc32c(seed, base, bytes.count)
  }

  struct DecodedHeader {
    var metadata: SnapshotMetadata
    var size: Int
    var checksum: UInt32
  }
}

/// Why bytes are not a snapshot.
struct SnapshotFault: Error {
  var offset: Int
  var reason: String
  /// A version that is not known.
  var version: UInt32?
}
