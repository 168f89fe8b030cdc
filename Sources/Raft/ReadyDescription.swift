import WeirCore

extension RaftDescription {
  public static func softState(_ state: SoftState) -> String {
    "Lead:\(state.leader) State:\(state.role.etcdName)"
  }

  /// Reads as Go prints them: the context as the bytes of its eight-byte little-endian form without trailing zeros.
  public static func readStates(_ states: [ReadState]) -> String {
    let items = states.map { state in
      var bytes = (0..<8).map { UInt8(truncatingIfNeeded: state.context >> (8 * UInt64($0))) }
      while bytes.count > 1, bytes.last == 0 { bytes.removeLast() }
      return "{\(state.index) [\(bytes.map(String.init).joined(separator: " "))]}"
    }
    return "[" + items.joined(separator: " ") + "]"
  }

  /// A `Ready`: a line per part, or `<empty Ready>` without a line end.
  public static func ready(_ ready: Ready) -> String {
    var text = ""
    if let state = ready.softState { text += softState(state) + "\n" }
    if !ready.hardState.isEmpty { text += "HardState " + hardState(ready.hardState) + "\n" }
    if !ready.readStates.isEmpty { text += "ReadStates \(readStates(ready.readStates))\n" }
    if !ready.refusedReads.isEmpty {
      text += "RefusedReads [\(ready.refusedReads.map(String.init).joined(separator: " "))]\n"
    }
    if !ready.entries.isEmpty { text += "Entries:\n" + entries(ready.entries) }
    if let snapshot = ready.snapshot, !snapshot.isEmpty { text += "Snapshot \(self.snapshot(snapshot))\n" }
    if !ready.committedEntries.isEmpty { text += "CommittedEntries:\n" + entries(ready.committedEntries) }
    if !ready.messages.isEmpty {
      text += "Messages:\n"
      for message in ready.messages { text += self.message(message) + "\n" }
    }
    return text.isEmpty ? "<empty Ready>" : "Ready MustSync=\(ready.mustSync):\n" + text
  }
}

extension RawNode {
  /// What a leader knows of each member, one to a line; empty on others.
  public var progressDescription: String { role == .leader ? tracker.progressDescription : "" }
}
