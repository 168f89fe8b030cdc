import Raft
import WeirCore

/// Runs the commands of configuration-change scripts: one tracker, to which each change is made or refused.
final class ConfigurationReplay {
  private var changer = ConfigurationChanger(tracker: ProgressTracker(), lastIndex: 0, maximumInflightMessages: 10)

  func handle(_ directive: Directive) -> String {
    defer { changer.lastIndex += 1 }
    do {
      let changes = try directive.input.split(separator: " ").map { token -> MemberChange in
        guard let id = NodeID(token.dropFirst()) else { throw ScriptError("unknown input: \(token)") }
        switch token.first {
        case "v": return MemberChange(.addVoter, id)
        case "l": return MemberChange(.addLearner, id)
        case "r": return MemberChange(.remove, id)
        case "u": return MemberChange(.update, id)
        default: throw ScriptError("unknown input: \(token)")
        }
      }
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
