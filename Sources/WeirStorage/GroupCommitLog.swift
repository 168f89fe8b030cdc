import Dispatch
import WeirCore

/// The write-ahead log on a queue of its own, with group commit: everything that is submitted while a batch is being
/// made durable goes with the next one, by one write and one sync.
///
/// Submitting copies the entries into the batch that gathers, on the caller's thread, and never waits for the disk.
/// Completions are called on the log's queue, in order of submission; they only hand the news on (to a mailbox).
public final class GroupCommitLog: Sendable {
  public typealias Completion = @Sendable (Result<Void, StorageError>) -> Void

  /// Puts an opened log on a queue. Nobody else uses `log` from here on.
  public init(log: sending WriteAheadLog, label: String = "weir.log") { preconditionFailure("follows") }

  /// Entries that replace the log from their first index on, and a hard state, durable together: entries first, so that
  /// the hard state never refers to an entry that is missing. `completion` is called once both are.
  ///
  /// After a failure every completion gets the error, this one included, and nothing is written any more.
  public func submit(_ entries: EntryBatch, hardState: HardState? = nil, completion: @escaping Completion) {
    preconditionFailure("follows")
  }

  /// A commit index, written with the next batch.
  public func updateCommit(_ commit: LogIndex) { preconditionFailure("follows") }

  /// The entries up to and including `index` are not needed any more: a snapshot that holds them is durable.
  public func compact(through index: LogIndex, term: Term) { preconditionFailure("follows") }

  /// The log is empty and continues behind a received snapshot, which is durable.
  public func reset(anchorIndex: LogIndex, anchorTerm: Term, completion: @escaping Completion) {
    preconditionFailure("follows")
  }

  /// Bytes submitted and not written yet: what a node watches to slow its clients down.
  public var waitingBytes: Int { preconditionFailure("follows") }

  /// What the log has done so far.
  public var counters: LogCounters { preconditionFailure("follows") }

  /// Called once, on the log's queue, when space for the next segment could not be prepared: the log goes on until the
  /// current segment is full. The node should stop taking writes now.
  public func onSpaceWarning(_ body: @escaping @Sendable (FileError) -> Void) { preconditionFailure("follows") }

  /// Writes and syncs what was submitted, then closes the log. `completion` is called last.
  public func close(completion: @escaping Completion) { preconditionFailure("follows") }

  /// As `close(completion:)`, waiting for it. Not to be called on the log's queue.
  public func closeAndWait() throws(StorageError) { preconditionFailure("follows") }
}
