import WeirCore

/// The state of a node that costs nothing to look at (etcd's BasicStatus).
public struct BasicStatus: Sendable, Hashable {
  public var id: NodeID
  /// Term, vote and commit index.
  public var hardState: HardState
  /// Leader and role.
  public var softState: SoftState
  /// The last entry known to be applied.
  public var applied: LogIndex
  /// Who leadership is being handed to, 0 if nobody.
  public var leadTransferee: NodeID

  public init(
    id: NodeID, hardState: HardState = .init(), softState: SoftState = .init(), applied: LogIndex = 0,
    leadTransferee: NodeID = .none
  ) {
    self.id = id
    self.hardState = hardState
    self.softState = softState
    self.applied = applied
    self.leadTransferee = leadTransferee
  }
}

/// The state of a node with its membership, and on a leader with what it knows of each member (etcd's Status).
///
/// Making one copies both: for looking at now and then, not for each message.
public struct Status: Sendable {
  public var basic: BasicStatus
  public var configuration: MembershipConfiguration
  /// Ascending by id; empty unless the node leads, since only a leader keeps it up to date.
  public var progress: [Progress]

  public var id: NodeID { basic.id }
  public var term: Term { basic.hardState.term }
  public var vote: NodeID { basic.hardState.vote }
  public var commit: LogIndex { basic.hardState.commit }
  public var leader: NodeID { basic.softState.leader }
  public var role: Role { basic.softState.role }
  public var applied: LogIndex { basic.applied }
  public var leadTransferee: NodeID { basic.leadTransferee }
}

extension Status: CustomStringConvertible {
  /// As etcd's raft writes it: one line of JSON, ids in hexadecimal.
  public var description: String {
    let members = progress.map { member in
      "\"\(member.id.hex)\":{\"match\":\(member.match),\"next\":\(member.next),\"state\":\"\(member.state.etcdName)\"}"
    }
    return "{\"id\":\"\(id.hex)\",\"term\":\(term),\"vote\":\"\(vote.hex)\",\"commit\":\(commit),"
      + "\"lead\":\"\(leader.hex)\",\"raftState\":\"\(role.etcdName)\",\"applied\":\(applied),"
      + "\"progress\":{\(members.joined(separator: ","))},\"leadtransferee\":\"\(leadTransferee.hex)\"}"
  }
}

extension RawNode {
  /// What can be said without allocating.
  public var basicStatus: BasicStatus {
    BasicStatus(
      id: id, hardState: hardState, softState: softState, applied: applied, leadTransferee: leadTransferee)
  }

  /// Everything there is to know from outside.
  public var status: Status {
    Status(basic: basicStatus, configuration: membership, progress: role == .leader ? progress : [])
  }

  /// Looks at each member's progress in place, ascending by id, without copying. Meaningful on a leader only.
  public func withProgress(_ body: (borrowing Progress) -> Void) {
    for slot in tracker.progress.indices { body(tracker.progress[slot]) }
  }
}
