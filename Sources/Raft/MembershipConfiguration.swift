import WeirCore

/// Who is a member in which role. Lists are ascending and hold no id twice.
public struct MembershipConfiguration: Sendable, Hashable {
  /// Voters; the incoming half of a joint configuration.
  public internal(set) var voters: [NodeID] = []
  /// The outgoing half of a joint configuration; empty outside of one.
  public internal(set) var votersOutgoing: [NodeID] = []
  public internal(set) var learners: [NodeID] = []
  /// Voters of the outgoing half that become learners when the joint configuration is left. They cannot be learners
  /// before: they still vote in the outgoing half.
  public internal(set) var learnersNext: [NodeID] = []
  /// The leader leaves the joint configuration on its own.
  public internal(set) var autoLeave = false

  public init() {}

  public var isJoint: Bool { !votersOutgoing.isEmpty }

  /// Voters of both halves, ascending.
  public var allVoters: [NodeID] {
    var all = voters
    for id in votersOutgoing { all.insertSorted(id) }
    return all
  }

  public func isVoter(_ id: NodeID) -> Bool { voters.contains(id) || votersOutgoing.contains(id) }

  /// The same as a snapshot carries it.
  public var configurationState: ConfigurationState {
    ConfigurationState(
      voters: voters, votersOutgoing: votersOutgoing, learners: learners, learnersNext: learnersNext,
      autoLeave: autoLeave)
  }
}

extension MembershipConfiguration: CustomStringConvertible {
  /// As etcd's raft writes it: `voters=(1 2)&&(1) learners=(3) autoleave`, ids in hexadecimal.
  public var description: String {
    func list(_ ids: [NodeID]) -> String { "(" + ids.map(\.hex).joined(separator: " ") + ")" }
    var text = "voters=" + list(voters)
    if isJoint { text += "&&" + list(votersOutgoing) }
    if !learners.isEmpty { text += " learners=" + list(learners) }
    if !learnersNext.isEmpty { text += " learners_next=" + list(learnersNext) }
    if autoLeave { text += " autoleave" }
    return text
  }
}

extension Array where Element == NodeID {
  mutating func insertSorted(_ id: NodeID) {
    let position = firstIndex { $0 >= id } ?? endIndex
    if position == endIndex || self[position] != id { insert(id, at: position) }
  }

  mutating func remove(_ id: NodeID) {
    if let position = firstIndex(of: id) { remove(at: position) }
  }
}
