/// Faults that real Raft implementations had, to be switched on in tests only: a simulator that does not find them proves
/// nothing. Each is looked at where its rule is applied, never on the path of a single entry.
@_spi(Testing)
public struct PlantedBugs: OptionSet, Sendable, Hashable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// A membership change is taken while an earlier one is not applied (Ongaro, raft-dev 2015: disjoint quorums).
  public static let changeWhileChangePending = PlantedBugs(rawValue: 1 << 0)
  /// The leader leaves a joint configuration without noting that it did, so that a second change slips in (etcd #12136).
  public static let autoLeaveNotPending = PlantedBugs(rawValue: 1 << 1)
  /// A snapshot's outgoing voters are forgotten: one majority decides alone (etcd raft e515a67).
  public static let outgoingVotersDropped = PlantedBugs(rawValue: 1 << 2)
  /// A node campaigns with a committed change it has not applied: votes are counted by an old quorum (etcd #12134).
  public static let campaignWithUnappliedChange = PlantedBugs(rawValue: 1 << 3)
  /// Voters grant votes although they hear from a leader (dissertation 4.2.3 and 6.4.1): leases overlap.
  public static let votesWithinLease = PlantedBugs(rawValue: 1 << 4)
  /// A new leader answers reads before it has committed in its term (etcd #7331).
  public static let readBeforeOwnCommit = PlantedBugs(rawValue: 1 << 5)
  /// An answer to any heartbeat confirms every waiting read, also one that came later (etcd #20418).
  public static let readConfirmedByOldRound = PlantedBugs(rawValue: 1 << 6)
  /// A follower answers reads from its own commit index (TiKV #9208).
  public static let readFromLocalCommit = PlantedBugs(rawValue: 1 << 7)
  /// A leader answers reads without asking anybody (etcd #741).
  public static let readWithoutQuorum = PlantedBugs(rawValue: 1 << 8)
  /// The lease goes on while leadership is handed over (etcd #12704, TiKV #1593).
  public static let leaseKeptDuringTransfer = PlantedBugs(rawValue: 1 << 9)
  /// The lease is counted from when answers arrive instead of from when the question left (sofa-jraft #34).
  public static let leaseFromAnswer = PlantedBugs(rawValue: 1 << 10)
  /// A single voter's entry counts as committed before it is stored (etcd #14370).
  public static let commitBeforeStored = PlantedBugs(rawValue: 1 << 11)
  /// Storage's acknowledgement of an entry that was replaced meanwhile confirms the new one (etcd raft 2e0653d).
  public static let storageAckIgnoresTerm = PlantedBugs(rawValue: 1 << 12)
  /// An append whose previous entry is compacted away goes out with term 0, and is taken (etcd raft 76f1249).
  public static let appendWithoutPreviousTerm = PlantedBugs(rawValue: 1 << 13)
  /// A follower cuts its log behind every append, conflict or not (CCF #5991, #6016).
  public static let truncateWithoutConflict = PlantedBugs(rawValue: 1 << 14)
  /// Applied entries still count as uncommitted: in the end every proposal is refused (etcd raft a370b6f).
  public static let uncommittedBytesLeak = PlantedBugs(rawValue: 1 << 15)
  /// Entries of older terms are committed by counting (paper, figure 8; CCF #5674).
  public static let commitOlderTerm = PlantedBugs(rawValue: 1 << 16)
  /// Heartbeats carry the leader's commit index, not bounded by what the follower has (etcd raft #139).
  public static let heartbeatCommitBeyondMatch = PlantedBugs(rawValue: 1 << 17)
  /// Votes are answered before they are stored (TiKV #1610): two votes in one term across a restart.
  public static let voteBeforeStored = PlantedBugs(rawValue: 1 << 18)
  /// Appends are acknowledged before they are stored.
  public static let appendAckBeforeStored = PlantedBugs(rawValue: 1 << 19)
  /// Votes go to candidates with shorter logs too (NuRaft #185).
  public static let voteForShorterLog = PlantedBugs(rawValue: 1 << 20)
  /// A node starts to serve as voter of its leases right after a restart, though it promised not to.
  public static let promiseForgottenAtRestart = PlantedBugs(rawValue: 1 << 21)

  /// All of them, with their names, in order.
  public static let all: [(name: String, bug: PlantedBugs)] = [
    ("changeWhileChangePending", .changeWhileChangePending), ("autoLeaveNotPending", .autoLeaveNotPending),
    ("outgoingVotersDropped", .outgoingVotersDropped), ("campaignWithUnappliedChange", .campaignWithUnappliedChange),
    ("votesWithinLease", .votesWithinLease), ("readBeforeOwnCommit", .readBeforeOwnCommit),
    ("readConfirmedByOldRound", .readConfirmedByOldRound), ("readFromLocalCommit", .readFromLocalCommit),
    ("readWithoutQuorum", .readWithoutQuorum), ("leaseKeptDuringTransfer", .leaseKeptDuringTransfer),
    ("leaseFromAnswer", .leaseFromAnswer), ("commitBeforeStored", .commitBeforeStored),
    ("storageAckIgnoresTerm", .storageAckIgnoresTerm), ("appendWithoutPreviousTerm", .appendWithoutPreviousTerm),
    ("truncateWithoutConflict", .truncateWithoutConflict), ("uncommittedBytesLeak", .uncommittedBytesLeak),
    ("commitOlderTerm", .commitOlderTerm), ("heartbeatCommitBeyondMatch", .heartbeatCommitBeyondMatch),
    ("voteBeforeStored", .voteBeforeStored), ("appendAckBeforeStored", .appendAckBeforeStored),
    ("voteForShorterLog", .voteForShorterLog), ("promiseForgottenAtRestart", .promiseForgottenAtRestart),
  ]
}
