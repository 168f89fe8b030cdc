import WeirCore

// The text forms of etcd's raft, in which its logs and its interaction scripts are written. Ids are decimal here except
// at the ends of messages and in configurations, as there.

extension MessageType {
  /// `MsgApp`, `MsgHup`, …
  public var etcdName: String {
    switch self {
    case .hup: "MsgHup"
    case .beat: "MsgBeat"
    case .propose: "MsgProp"
    case .append: "MsgApp"
    case .appendResponse: "MsgAppResp"
    case .vote: "MsgVote"
    case .voteResponse: "MsgVoteResp"
    case .snapshot: "MsgSnap"
    case .heartbeat: "MsgHeartbeat"
    case .heartbeatResponse: "MsgHeartbeatResp"
    case .unreachable: "MsgUnreachable"
    case .snapshotStatus: "MsgSnapStatus"
    case .checkQuorum: "MsgCheckQuorum"
    case .transferLeader: "MsgTransferLeader"
    case .timeoutNow: "MsgTimeoutNow"
    case .readIndex: "MsgReadIndex"
    case .readIndexResponse: "MsgReadIndexResp"
    case .preVote: "MsgPreVote"
    case .preVoteResponse: "MsgPreVoteResp"
    case .storageAppend: "MsgStorageAppend"
    case .storageAppendResponse: "MsgStorageAppendResp"
    case .storageApply: "MsgStorageApply"
    case .storageApplyResponse: "MsgStorageApplyResp"
    case .forgetLeader: "MsgForgetLeader"
    }
  }
}

/// Text forms of the protocol's values.
public enum RaftDescription {
  /// A byte string in Go's quotes.
  public static func quoted(_ bytes: [UInt8]) -> String {
    var text = "\""
    var offset = 0
    while offset < bytes.count {
      let length = utf8Length(bytes, at: offset)
      if length == 0 {
        text += hexEscape(bytes[offset])
        offset += 1
        continue
      }
      let scalars = String(decoding: bytes[offset..<offset + length], as: UTF8.self).unicodeScalars
      for scalar in scalars { text += escaped(scalar) }
      offset += length
    }
    return text + "\""
  }

  private static func hexEscape(_ byte: UInt8) -> String { "\\x" + (byte < 16 ? "0" : "") + byte.hex }

  /// Length of the well-formed UTF-8 sequence at `offset`, or 0.
  private static func utf8Length(_ bytes: [UInt8], at offset: Int) -> Int {
    for length in 1...4 where offset + length <= bytes.count {
      if String(validating: bytes[offset..<offset + length], as: UTF8.self) != nil { return length }
    }
    return 0
  }

  private static func escaped(_ scalar: Unicode.Scalar) -> String {
    switch scalar {
    case "\"": return "\\\""
    case "\\": return "\\\\"
    case "\u{07}": return "\\a"
    case "\u{08}": return "\\b"
    case "\u{0C}": return "\\f"
    case "\n": return "\\n"
    case "\r": return "\\r"
    case "\t": return "\\t"
    case "\u{0B}": return "\\v"
    default: break
    }
    if scalar.value < 0x20 || scalar.value == 0x7F { return hexEscape(UInt8(scalar.value)) }
    if isPrintable(scalar) { return String(scalar) }
    let digits = scalar.value.hex
    return scalar.value < 0x10000
      ? "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      : "\\U" + String(repeating: "0", count: 8 - digits.count) + digits
  }

  private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
    case .spaceSeparator: scalar == " "
    default: true
    }
  }

  /// One entry: `TERM/INDEX TYPE TEXT`, without a line end.
  public static func entry(_ header: EntryHeader, _ payload: RawSpan) -> String {
    let head = "\(header.term)/\(header.index) "
    switch header.kind {
    case .normal:
      return head + "EntryNormal " + quoted(payload.bytes(in: 0..<payload.byteCount))
    case .configurationChange:
      return head + "EntryConfChange" + suffix((try? ConfigurationChange(decoding: payload)).map { [$0.change] } ?? [])
    case .configurationChangeV2:
      return head + "EntryConfChangeV2" + suffix((try? ConfigurationChangeV2(decoding: payload))?.changes ?? [])
    }
  }

  private static func suffix(_ changes: [MemberChange]) -> String {
    changes.isEmpty ? "" : " " + memberChanges(changes)
  }

  /// Changes as scripts write them: `v1 l2 r3 u4`, ids in decimal.
  public static func memberChanges(_ changes: [MemberChange]) -> String {
    changes.map { change in
      switch change.kind {
      case .addVoter: "v\(change.nodeID)"
      case .addLearner: "l\(change.nodeID)"
      case .remove: "r\(change.nodeID)"
      case .update: "u\(change.nodeID)"
      }
    }.joined(separator: " ")
  }

  /// Entries, one to a line, each line ended.
  public static func entries(_ batch: EntryBatch) -> String {
    var text = ""
    batch.forEach { text += entry($0, $1) + "\n" }
    return text
  }

  public static func hardState(_ state: HardState) -> String {
    "Term:\(state.term)" + (state.vote != 0 ? " Vote:\(state.vote)" : "") + " Commit:\(state.commit)"
  }

  public static func configurationState(_ state: ConfigurationState) -> String {
    func list(_ ids: [NodeID]) -> String { "[" + ids.map(String.init).joined(separator: " ") + "]" }
    return "Voters:\(list(state.voters)) VotersOutgoing:\(list(state.votersOutgoing)) Learners:\(list(state.learners))"
      + " LearnersNext:\(list(state.learnersNext)) AutoLeave:\(state.autoLeave)"
  }

  public static func snapshot(_ snapshot: Snapshot) -> String {
    let metadata = snapshot.metadata
    return "Index:\(metadata.index) Term:\(metadata.term) ConfState:\(configurationState(metadata.configuration))"
  }

  /// A configuration change as the log writes it.
  public static func configurationChange(_ change: ConfigurationChangeV2) -> String {
    var text = "transition:"
    switch change.transition {
    case .auto: text += "ConfChangeTransitionAuto"
    case .jointImplicit: text += "ConfChangeTransitionJointImplicit"
    case .jointExplicit: text += "ConfChangeTransitionJointExplicit"
    }
    for member in change.changes {
      let kind =
        switch member.kind {
        case .addVoter: "ConfChangeAddNode"
        case .remove: "ConfChangeRemoveNode"
        case .update: "ConfChangeUpdateNode"
        case .addLearner: "ConfChangeAddLearnerNode"
        }
      text += " changes:{type:\(kind) node_id:\(member.nodeID)}"
    }
    if !change.context.isEmpty { text += " context:" + quoted(change.context) }
    return text
  }

  /// Where a message goes to or comes from.
  static func end(_ id: NodeID) -> String {
    switch id {
    case .none: "None"
    case .appendThread: "AppendThread"
    case .applyThread: "ApplyThread"
    default: id.hex
    }
  }

  /// A message, without a final line end; lines behind the first begin with `indent`.
  public static func message(_ message: Message, indent: String = "") -> String {
    var text = indent + end(message.from) + "->" + end(message.to) + " " + message.type.etcdName
    text += " Term:\(message.term) Log:\(message.logTerm)/\(message.index)"
    if message.reject { text += " Rejected (Hint: \(message.rejectHint))" }
    if message.commit != 0 { text += " Commit:\(message.commit)" }
    if message.vote != 0 { text += " Vote:\(message.vote)" }
    var lines: [String] = []
    message.entries.forEach { lines.append(entry($0, $1)) }
    if lines.count == 1 {
      text += " Entries:[\(lines[0])]"
    } else if lines.count > 1 {
      text += " Entries:["
      for line in lines { text += "\n" + indent + "  " + line }
      text += "\n" + indent + "]"
    }
    if let snapshot = message.snapshot, !snapshot.isEmpty {
      text += "\n" + indent + "  Snapshot: " + self.snapshot(snapshot)
    }
    if !message.responses.isEmpty {
      text += " Responses:["
      for response in message.responses { text += "\n" + self.message(response, indent: indent + "  ") }
      text += "\n" + indent + "]"
    }
    return text
  }
}

extension Progress.State {
  /// `StateProbe`, `StateReplicate`, `StateSnapshot`.
  public var etcdName: String {
    switch self {
    case .probe: "StateProbe"
    case .replicate: "StateReplicate"
    case .snapshot: "StateSnapshot"
    }
  }
}

extension Progress: CustomStringConvertible {
  /// As etcd's raft writes it: `StateReplicate match=3 next=4 inflight=1`.
  public var description: String {
    var text = "\(state.etcdName) match=\(match) next=\(next)"
    if isLearner { text += " learner" }
    if isPaused { text += " paused" }
    if pendingSnapshot > 0 { text += " pendingSnap=\(pendingSnapshot)" }
    if !isRecentlyActive { text += " inactive" }
    if inflights.count > 0 { text += " inflight=\(inflights.count)" + (inflights.isFull ? "[full]" : "") }
    return text
  }
}

extension ProgressTracker {
  /// Every member's progress, one to a line, ids in decimal, each line ended.
  public var progressDescription: String {
    progress.map { "\($0.id): \($0)\n" }.joined()
  }
}
