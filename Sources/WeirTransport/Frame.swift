import CWeir
import WeirCore

/// What stands in front of everything that travels between nodes behind the hello. Little-endian:
///
///     offset  size  field
///          0     4  size of the whole frame in bytes, this header included
///          4     4  CRC-32C of bytes 8 ..< 32 and of the covered part of the body
///          8     2  protocol version
///         10     1  kind
///         11     1  reserved, zero
///         12     4  how many bytes of the body the checksum covers
///         16     8  cluster id
///         24     8  sender's node id
///         32     n  body
///
/// A message and its entries carry their own checksums, so for them the checksum ends with this header: no byte is
/// summed twice. The chunks of a snapshot have none, and are covered as a whole.
struct FrameHeader: Equatable {
  enum Kind: UInt8 {
    /// One Raft message.
    case message = 1
    /// The head of a snapshot transfer: its number (8 bytes), and the snapshot message without its data.
    case snapshotStart = 2
    /// The next bytes of the snapshot's data.
    case snapshotChunk = 3
    /// How far the receiver of a snapshot is: `SnapshotProgress`.
    case snapshotProgress = 4
  }

  static let bytes = 32
  /// 2: a snapshot's transfer is numbered, and its receiver says how far it is.
  static let version: UInt16 = 2

  var frameBytes: Int
  var kind: Kind
  var coveredBytes: Int
  var clusterID: UInt64
  var sender: NodeID

  /// Writes the header in front of a body that is already there, and seals both.
  @unsafe
  func seal(_ target: UnsafeMutableRawPointer) {
    unsafe target.storeBytes(of: UInt32(truncatingIfNeeded: frameBytes).littleEndian, as: UInt32.self)
    unsafe target.storeBytes(of: Self.version.littleEndian, toByteOffset: 8, as: UInt16.self)
    unsafe target.storeBytes(of: kind.rawValue, toByteOffset: 10, as: UInt8.self)
    unsafe target.storeBytes(of: 0, toByteOffset: 11, as: UInt8.self)
    unsafe target.storeBytes(
      of: UInt32(truncatingIfNeeded: coveredBytes).littleEndian, toByteOffset: 12, as: UInt32.self)
    unsafe target.storeBytes(of: clusterID.littleEndian, toByteOffset: 16, as: UInt64.self)
    unsafe target.storeBytes(of: sender.littleEndian, toByteOffset: 24, as: UInt64.self)
    let checksum = unsafe cweir_crc32c(0, target + 8, Self.bytes - 8 + coveredBytes)
    unsafe target.storeBytes(of: checksum.littleEndian, toByteOffset: 4, as: UInt32.self)
  }

  /// The size of the frame that begins with `bytes`, or nil if not even that is there yet.
  /// - Throws: `FrameError.invalidLength` before anybody allocates what a peer claims.
  static func frameBytes(_ bytes: UnsafeRawBufferPointer, maximumFrameBytes: Int) throws(FrameError) -> Int? {
    guard bytes.count >= 4 else { return nil }
    let length = unsafe Int(UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)))
    guard length >= Self.bytes, length <= maximumFrameBytes else { throw .invalidLength(length) }
    return length
  }

  /// Reads and checks the header of a complete frame.
  init(parsing bytes: UnsafeRawBufferPointer) throws(FrameError) {
    guard bytes.count >= Self.bytes else { throw .invalidLength(bytes.count) }
    let version = unsafe UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt16.self))
    guard version == Self.version else { throw .unsupportedVersion(version) }
    let coveredBytes = unsafe Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 12, as: UInt32.self)))
    guard coveredBytes <= bytes.count - Self.bytes else { throw .invalidLength(coveredBytes) }
    let stated = unsafe UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    let covered = unsafe UnsafeRawBufferPointer(rebasing: bytes[8..<Self.bytes + coveredBytes])
    guard unsafe cweir_crc32c(0, covered.baseAddress, covered.count) == stated else { throw .checksumMismatch }
    let kindByte = unsafe bytes[10]
    guard let kind = Kind(rawValue: kindByte), unsafe bytes[11] == 0 else { throw .invalidKind(kindByte) }
    frameBytes = bytes.count
    self.kind = kind
    self.coveredBytes = coveredBytes
    clusterID = unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
    sender = unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
  }

  init(frameBytes: Int, kind: Kind, coveredBytes: Int, clusterID: UInt64, sender: NodeID) {
    self.frameBytes = frameBytes
    self.kind = kind
    self.coveredBytes = coveredBytes
    self.clusterID = clusterID
    self.sender = sender
  }
}

/// Why bytes from a peer are not a frame. Any of these ends the connection: behind a broken frame nothing can be found.
enum FrameError: Error, Equatable {
  case invalidLength(Int)
  case unsupportedVersion(UInt16)
  case invalidKind(UInt8)
  case checksumMismatch
  case wrongCluster(UInt64)
  case wrongSender(NodeID)
  case invalidMessage(String)
}
