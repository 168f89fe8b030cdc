import Raft
import WeirCore

/// What a node of the scripts has on its disk: a model of etcd's in-memory storage, for the commands that print it.
struct MemoryStorage {
  struct StoredEntry {
    var header: EntryHeader
    var text: String
    var payload: [UInt8]
  }

  private(set) var hardState = HardState()
  private(set) var snapshot = Snapshot()
  /// The index and term of the entry before the first.
  private(set) var anchor: (index: LogIndex, term: Term) = (0, 0)
  private(set) var entries: [StoredEntry] = []

  var firstIndex: LogIndex { anchor.index + 1 }
  var lastIndex: LogIndex { anchor.index + UInt64(entries.count) }

  mutating func setHardState(_ state: HardState) { hardState = state }

  mutating func apply(_ snapshot: Snapshot) throws {
    if self.snapshot.metadata.index != 0, self.snapshot.metadata.index >= snapshot.metadata.index {
      throw ScriptError("requested index is older than the existing snapshot")
    }
    self.snapshot = snapshot
    anchor = (snapshot.metadata.index, snapshot.metadata.term)
    entries = []
  }

  mutating func append(_ batch: EntryBatch) throws {
    var incoming: [StoredEntry] = []
    batch.forEach { header, payload in
      incoming.append(
        StoredEntry(
          header: header, text: RaftDescription.entry(header, payload), payload: payload.withUnsafeBytes { [UInt8]($0) }
        ))
    }
    incoming.removeAll { $0.header.index < firstIndex }
    guard let first = incoming.first else { return }
    guard first.header.index <= lastIndex + 1 else {
      throw ScriptError("missing log entry [last: \(lastIndex), append at: \(first.header.index)]")
    }
    entries.removeLast(Int(lastIndex + 1 - first.header.index))
    entries += incoming
  }

  mutating func compact(through index: LogIndex) throws {
    guard index > anchor.index else {
      throw ScriptError("requested index is unavailable due to compaction")
    }
    guard index <= lastIndex else { throw ScriptError("compact \(index) is out of bound lastindex(\(lastIndex))") }
    let position = Int(index - firstIndex)
    anchor = (index, entries[position].header.term)
    entries.removeFirst(position + 1)
  }

  var description: String {
    guard !entries.isEmpty else { return "log is empty: first index=\(firstIndex), last index=\(lastIndex)" }
    return entries.map { $0.text + "\n" }.joined()
  }
}
