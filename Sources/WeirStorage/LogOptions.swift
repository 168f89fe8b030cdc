import WeirCore

/// When the log's bytes are made durable, against when they are acknowledged.
public enum SyncPolicy: Sendable, Hashable {
  /// Before anything is acknowledged. The only policy under which an acknowledged write survives a power cut.
  case always
  /// Acknowledged once written, made durable every so many milliseconds: a power cut loses at most that much.
  case interval(milliseconds: Int)
  /// Acknowledged once written, made durable whenever the operating system likes.
  case off
}

extension SyncPolicy: CustomStringConvertible {
  /// Reads `always`, `interval:<ms>` or `off`; nil for anything else.
  public init?(_ text: String) {
    switch text {
    case "always": self = .always
    case "off": self = .off
    default:
      guard text.hasPrefix("interval:"), let milliseconds = Int(text.dropFirst(9)),
        (1...86_400_000).contains(milliseconds)
      else { return nil }
      self = .interval(milliseconds: milliseconds)
    }
  }

  /// As `init` reads it.
  public var description: String {
    switch self {
    case .always: "always"
    case .interval(let milliseconds): "interval:\(milliseconds)"
    case .off: "off"
    }
  }
}

/// Settings of a write-ahead log.
public struct LogOptions: Sendable, Hashable {
  /// Who the log belongs to (the node's id): a log of another owner is refused.
  public var owner: UInt64
  /// Size of a segment file in bytes, rounded up to whole blocks; a batch larger than that gets a segment of its own.
  public var segmentBytes: Int
  /// Size of a block in bytes, a power of two from 256 to 65536: a batch begins at one. Direct writes need 4096.
  public var blockBytes: Int
  public var sync: SyncPolicy
  /// How writes reach the disk under `SyncPolicy.always`; the other policies always write through the cache. Direct is
  /// the default, as it was the faster one where both were measured in turns (`bench wal`): one call in place of two
  /// and one copy less, 71 to 82 µs for 4 KiB and 122 to 145 µs for 64 KiB at best, even from 640 KiB on. On a file
  /// system that has no direct writes the log falls back to buffered ones.
  public var writeMode: WriteMode
  /// Whether segments are filled with zeros before use. It makes a commit up to 1.8 times as fast, since fdatasync then
  /// has no metadata to write; tests with small logs can do without.
  public var zeroFill: Bool
  /// How many files of segments that are not needed any more are kept to be used again, at most. A file that was written
  /// before takes new bytes without any metadata, and without being filled with zeros first: a log that is cut as fast as
  /// it grows writes each byte once. The default is what a node lets go of at a time with its default settings (a
  /// snapshot each 512 MiB); it costs that much space on the disk where the log has been that long.
  public var maximumSpareSegments: Int
  /// Size of the segments in memory that the recovered entries are handed out in, in bytes (`LogBuffer.Configuration`).
  public var memorySegmentBytes: Int

  public init(
    owner: UInt64 = 0, segmentBytes: Int = 64 << 20, blockBytes: Int = 4096, sync: SyncPolicy = .always,
    writeMode: WriteMode = .direct, zeroFill: Bool = true, maximumSpareSegments: Int = 8,
    memorySegmentBytes: Int = 1 << 20
  ) {
    precondition(LogFormat.isBlockSize(blockBytes), "blockBytes is a power of two from 256 to 65536")
    self.owner = owner
    self.segmentBytes = segmentBytes
    self.blockBytes = blockBytes
    self.sync = sync
    self.writeMode = writeMode
    self.zeroFill = zeroFill
    self.maximumSpareSegments = maximumSpareSegments
    self.memorySegmentBytes = memorySegmentBytes
  }
}

/// What a log has done since it was opened.
public struct LogCounters: Sendable, Hashable {
  /// Entries written.
  public var entries = 0
  /// Bytes written, headers and padding included.
  public var bytes = 0
  /// Bytes of entry frames written.
  public var entryBytes = 0
  /// Batches written.
  public var batches = 0
  /// Write calls; more than one batch may go with one.
  public var writes = 0
  /// Times that data was made durable: fdatasync calls, or writes in direct mode.
  public var syncs = 0
  /// Segments begun, without the one that the log was opened with.
  public var segments = 0
  /// Of these, the ones in a file that held an earlier segment.
  public var recycledSegments = 0
  /// Segments, a new log's first one included, whose file was filled with zeros before: each byte of them was written
  /// twice.
  public var zeroFilledSegments = 0

  public init() {}
}

/// What a log held when it was opened.
public final class RecoveredState {
  /// Term, vote and commit as of the last durable batch.
  public let hardState: HardState
  /// What was found, and what was cut.
  public let report: RecoveryReport
  private var log: LogBuffer

  init(hardState: HardState, report: RecoveryReport, log: consuming LogBuffer) {
    self.hardState = hardState
    self.report = report
    self.log = log
  }

  /// Takes the entries out, anchored where the log begins; what stays behind is empty.
  public func takeLog() -> LogBuffer {
    var taken = LogBuffer(configuration: .init(segmentBytes: 4096, maximumSpareSegments: 0))
    swap(&taken, &log)
    return taken
  }
}

/// What opening a log found.
public struct RecoveryReport: Sendable, Hashable {
  public var segments = 0
  /// Of these, the ones in a file that held an earlier segment: what lies behind their last batch need not be zero.
  public var recycledSegments = 0
  public var batches = 0
  /// Entries read, those included that later ones replaced.
  public var entries = 0
  /// Bytes of valid batches.
  public var bytes = 0
  /// The last entry before the first that the log holds.
  public var anchorIndex: LogIndex = 0
  /// The last entry that the log holds.
  public var lastIndex: LogIndex = 0
  /// A torn tail that was cut: bytes of the last, unfinished writes before a crash, which nobody was told of.
  public var cut: Cut?

  public struct Cut: Sendable, Hashable {
    public var path: String
    /// Where the log now ends, in bytes from the file's start.
    public var offsetBytes: Int
    /// Why the bytes there are no batch.
    public var reason: String
  }

  public init() {}
}
