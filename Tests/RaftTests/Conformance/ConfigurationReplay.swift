import Raft
import WeirCore

/// Runs the commands of configuration-change scripts: one tracker, to which each change is made or refused.
final class ConfigurationReplay {
  private var changer = ConfigurationChanger(tracker: ProgressTracker(), lastIndex: 0, maximumInflightMessages: 10)

  func handle(_ directive: Directive) -> String {
    defer { changer.lastIndex += 1 }
    do {
      let changes = try MemberChange.parse(directive.input)
      switch directive.command {
      case "simple": changer.tracker = try changer.simple(changes)
      case "enter-joint":
        let autoLeave = ["1", "t", "T", "TRUE", "true", "True"].contains(directive.value("autoleave") ?? "")
        changer.tracker = try changer.enterJoint(changes, autoLeave: autoLeave)
      case "leave-joint":
        guard changes.isEmpty else { throw ScriptError("this command takes no input") }
        changer.tracker = try changer.leaveJoint()
      default: return "unknown command"
      }
      return "\(changer.tracker.configuration)\n\(changer.tracker.progressDescription)"
    } catch {
      return "\(error)\n"
    }
  }
}

extension MemberChange {
  /// Changes as scripts write them, separated by single spaces: `v1` adds a voter, `l2` a learner, `r3` removes, `u4`
  /// updates.
  static func parse(_ text: String) throws -> [MemberChange] {
    if text.isEmpty { return [] }
    return try text.split(separator: " ", omittingEmptySubsequences: false).map { token in
      guard token.utf8.count >= 2 else { throw ScriptError("unknown token \(token)") }
      let kind: Kind =
        switch token.first {
        case "v": .addVoter
        case "l": .addLearner
        case "r": .remove
        case "u": .update
        default: throw ScriptError("unknown input: \(token)")
        }
      guard let id = NodeID(token.dropFirst()) else {
        throw ScriptError("strconv.ParseUint: parsing \"\(token.dropFirst())\": invalid syntax")
      }
      return MemberChange(kind, id)
    }
  }
}
