import WeirCore

/// The snapshots of one node: files in a directory, each written under a temporary name, synced, then renamed.
public final class SnapshotStore: Sendable {
  /// A snapshot that is complete on disk.
  public struct Stored: Sendable, Hashable {
    public var metadata: SnapshotMetadata
    public var path: String
    /// Size of the file in bytes: what is sent to a follower.
    public var fileBytes: Int
  }

  /// Opens the directory, which is made if it is missing; removes what was left unfinished, except a partly received
  /// snapshot, which can be continued.
  /// - Parameter retained: how many snapshots are kept when a newer one is finished.
  public static func open(fileSystem: any FileSystem, directory: String, retained: Int = 2) throws(StorageError)
    -> SnapshotStore
  {
    preconditionFailure("follows")
  }

  /// The complete snapshots, newest first.
  public func list() throws(StorageError) -> [Stored] { preconditionFailure("follows") }

  /// The newest snapshot whose checksums hold; damaged ones are passed over.
  public func newest() throws(StorageError) -> Stored? { preconditionFailure("follows") }

  /// Checks every checksum of a snapshot.
  public func verify(_ snapshot: Stored) throws(StorageError) { preconditionFailure("follows") }

  /// Begins a snapshot. Nothing of it counts until `SnapshotWriter.finish`.
  public func create(_ metadata: SnapshotMetadata) throws(StorageError) -> SnapshotWriter {
    preconditionFailure("follows")
  }

  /// Opens a snapshot for restoring the state machine, or for sending.
  public func reader(_ snapshot: Stored) throws(StorageError) -> SnapshotReader { preconditionFailure("follows") }

  /// Begins, or continues, to receive a snapshot file that the leader sends in chunks.
  public func receive(_ metadata: SnapshotMetadata, fileBytes: Int) throws(StorageError) -> SnapshotReceiver {
    preconditionFailure("follows")
  }
}

/// Writes one snapshot, chunk by chunk. Used by one thread at a time.
public final class SnapshotWriter {
  /// Adds the next part of the state, at most `SnapshotFormat.maximumChunkBytes` long. Written at once; synced now and
  /// then, so that the last sync is short.
  public func append(_ bytes: RawSpan) throws(StorageError) { preconditionFailure("follows") }

  /// Makes the snapshot durable and visible, and removes those that are older than the retained ones.
  public func finish() throws(StorageError) -> SnapshotStore.Stored { preconditionFailure("follows") }

  /// Gives up and removes the temporary file.
  public func cancel() { preconditionFailure("follows") }
}

/// Reads one snapshot. Used by one thread at a time.
public final class SnapshotReader {
  public var metadata: SnapshotMetadata { preconditionFailure("follows") }
  /// Size of the file in bytes.
  public var fileBytes: Int { preconditionFailure("follows") }

  /// Calls `body` with each part of the state as it was appended, each checked before.
  public func forEachChunk(_ body: (RawSpan) throws -> Void) throws { preconditionFailure("follows") }

  /// Bytes of the file as they are, for sending: at most `maximumBytes` from `offset` on.
  public func fileChunk(at offset: Int, maximumBytes: Int) throws(StorageError) -> [UInt8] {
    preconditionFailure("follows")
  }
}

/// Receives one snapshot file in chunks. Used by one thread at a time.
public final class SnapshotReceiver {
  /// How many bytes have arrived: the offset that the next chunk must have, and what is told to the leader after a
  /// broken connection.
  public var receivedBytes: Int { preconditionFailure("follows") }

  /// Whether all bytes have arrived.
  public var isComplete: Bool { preconditionFailure("follows") }

  /// Takes the chunk at `offset`. What arrived before is ignored; a gap is refused.
  /// - Returns: `receivedBytes` afterwards.
  @discardableResult
  public func receive(_ chunk: RawSpan, at offset: Int) throws(StorageError) -> Int { preconditionFailure("follows") }

  /// Checks the whole file, makes it durable and visible. A file that does not hold is removed.
  public func finish() throws(StorageError) -> SnapshotStore.Stored { preconditionFailure("follows") }

  /// Gives up and removes what has arrived.
  public func cancel() { preconditionFailure("follows") }
}
