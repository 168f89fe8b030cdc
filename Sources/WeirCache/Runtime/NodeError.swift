import Raft
import WeirCore

/// Why a node did not do what was asked of it.
public enum NodeError: Error, Sendable, Hashable, CustomStringConvertible {
  /// Only the leader does this; `hint` is who leads as far as this node knows, or nil.
  case notLeader(hint: NodeID?)
  /// The leadership ended while it was under way: it may have taken effect or not, or may yet. Read before repeating.
  case leadershipLost
  /// It was not taken into the log in time, and never will be.
  case enqueueTimeout
  /// It was taken into the log, but not applied in time: it may yet be.
  case commitTimeout
  /// Too much is under way already; it never entered the log. Try again later, with less at once.
  case overloaded
  /// The node's disk has no space for the log to go on; it never entered the log. What is in it is safe.
  case outOfSpace
  /// The node is stopping. What was under way may have taken effect or not.
  case shutdown
  /// The command is none: too large, or malformed.
  case invalidCommand(CommandError)
  /// The command's condition was not met; it changed nothing.
  case conditionUnmet
  /// What should be incremented is no number, or would become too large for one; it is as it was.
  case notIncremented
  /// The configuration has changed since the index that the change was made conditional on.
  case configurationChanged(currentIndex: LogIndex)
  /// The membership does not allow the change; the text says why.
  case invalidChange(String)
  /// No snapshot can be written now: another one is under way, the node has no disk, or the state was overwritten faster
  /// than the disk took it.
  case snapshotUnavailable
  /// A state from the leader is taking the place of what this node held, and there is none to read from until it has.
  case loading
  /// The leadership did not arrive at its target in time.
  case transferFailed

  public var description: String {
    switch self {
    case .notLeader(let hint?): "this node is not the leader; node \(hint) is, as far as it knows"
    case .notLeader(nil): "this node is not the leader, and knows none; try again after an election"
    case .leadershipLost: "the leadership was lost on the way: the outcome is unknown, read before repeating"
    case .enqueueTimeout: "it was not taken into the log in time; it has no effect"
    case .commitTimeout: "it was not committed in time; it may take effect yet"
    case .overloaded: "too much is under way; it has no effect, try again later"
    case .outOfSpace: "the disk is full: it has no effect; make space and restart the node"
    case .shutdown: "the node is stopping; what was under way has an unknown outcome"
    case .invalidCommand(let error): "not a command: \(error)"
    case .conditionUnmet: "its condition was not met; it has changed nothing"
    case .notIncremented: "the value is no 64-bit number, or would not be one afterwards; it has changed nothing"
    case .configurationChanged(let index): "the configuration has changed, at index \(index); look at it again"
    case .invalidChange(let reason): "the membership cannot change like that: \(reason)"
    case .snapshotUnavailable: "no snapshot can be written now: one is under way, or there is no disk"
    case .loading: "this node is loading a state from its leader; ask another one, or this one again later"
    case .transferFailed: "the leadership did not arrive at its target in time"
    }
  }
}

/// What became of a command.
public struct Applied: Sendable, Hashable {
  /// The command's place in the log.
  public var index: LogIndex
  /// Whether the key was there before.
  public var existed: Bool
  /// The result of a command that has a number as its result.
  public var number: Int64?
}

/// What changed at a node.
public enum NodeEvent: Sendable, Hashable {
  case roleChanged(Role)
  case leaderChanged(NodeID)
  case configurationChanged(ConfigurationState, index: LogIndex)
  case peerConnection(NodeID, isConnected: Bool)
  case snapshotInstalled(index: LogIndex)
}
