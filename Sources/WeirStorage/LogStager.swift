import WeirCore

/// The side of the log that gathers: where the log stands with everything submitted, and the batches that gather while
/// others are being written.
///
/// May cross threads because one at a time uses it: the caller of `WriteAheadLog`, or who holds the lock of
/// `GroupCommitLog`.
final class LogStager: @unchecked Sendable {
  private(set) var tail: LogTail
  private var staging: LogStaging
  private var spare: LogStaging?

  init(blockBytes: Int, tail: LogTail) {
    self.tail = tail
    staging = LogStaging(blockBytes: blockBytes)
    spare = LogStaging(blockBytes: blockBytes)
  }

  var hasStaged: Bool { !staging.isEmpty }
  var stagedBytes: Int { staging.byteCount }
  /// As `stagedBytes`, in whole blocks.
  var paddedBytes: Int { staging.paddedByteCount }

  func append(_ entries: EntryBatch, hardState: HardState?) {
    if let hardState { tail.hardState = hardState }
    if !entries.isEmpty {
      precondition(
        entries.firstIndex > tail.anchorIndex && entries.firstIndex <= tail.lastIndex + 1,
        "entries continue the log or replace its end")
      tail.lastIndex = entries.lastIndex
    }
    tail.lastTerm = staging.append(entries, tail: tail) ?? tail.lastTerm
  }

  func updateCommit(_ commit: LogIndex) {
    tail.hardState.commit = commit
    staging.restate(commit: commit)
  }

  func compact(through index: LogIndex, term: Term) {
    guard index > tail.anchorIndex else { return }
    precondition(index <= tail.lastIndex, "only entries that are in the log can be dropped from it")
    tail.anchorIndex = index
    tail.anchorTerm = term
    staging.compact(tail: tail)
  }

  func reset(anchorIndex: LogIndex, anchorTerm: Term) {
    tail.anchorIndex = anchorIndex
    tail.anchorTerm = anchorTerm
    tail.lastIndex = anchorIndex
    tail.lastTerm = anchorTerm
    staging.reset(tail: tail)
  }

  /// Takes what has gathered; the next batch gathers elsewhere.
  func take() -> LogStaging {
    let taken = staging
    staging = spare ?? LogStaging(blockBytes: taken.blockBytes)
    spare = nil
    return taken
  }

  /// Returns what `take` gave out, once it is written.
  func giveBack(_ written: LogStaging) {
    written.clear()
    spare = written
  }
}
