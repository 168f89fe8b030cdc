import WeirCore

/// Why a proposal was not taken.
public enum ProposalDropReason: Sendable, Hashable {
  /// This node knows no leader: wait for one, or ask another node.
  case noLeader
  /// A leader is known and forwarding is off: propose there.
  case forwardingDisabled(leader: NodeID)
  /// Leadership is on its way to another node: propose again once it arrived.
  case transferInProgress(to: NodeID)
  /// This leader is no longer a member.
  case notMember
  /// Entries that wait to be committed fill their limit: propose again after some were applied.
  case uncommittedLimit
  /// A payload is larger than a log entry can be, or the batch is empty.
  case invalidPayload
}

/// What the core refuses, and why. Nothing has changed when one is thrown, except where the message's term was higher:
/// that this node follows the higher term is right whatever the rest of the message says.
public enum RaftError: Error, Sendable, Hashable {
  case proposalDropped(ProposalDropReason)
  /// A message of a type that only the node itself may produce came from somebody else.
  case stepLocalMessage
  /// A response from a node that is not a member.
  case stepPeerNotFound
  /// A setting that cannot work; the text names it.
  case invalidConfiguration(String)
  /// The stored state contradicts itself; the text says how.
  case inconsistentStorage(String)
  /// A membership that cannot be; the text is that of the rule it breaks.
  case invalidMembership(String)
  /// A message whose fields contradict each other or what this node holds; the text says what was expected.
  case malformedMessage(String)
}

extension RaftError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .proposalDropped: "raft proposal dropped"
    case .stepLocalMessage: "raft: cannot step raft local message"
    case .stepPeerNotFound: "raft: cannot step as peer not found"
    case .invalidConfiguration(let text), .inconsistentStorage(let text), .invalidMembership(let text),
      .malformedMessage(let text):
      text
    }
  }
}
