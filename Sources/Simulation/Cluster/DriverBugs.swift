/// Mistakes that a driver around the core can make, each of which somebody made. Off in every run but those that show
/// that the simulator finds them.
public struct DriverBugs: OptionSet, Sendable, Hashable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Votes and acknowledgements leave before what they promise is durable (TiKV #1610).
  public static let sendsBeforeSync = DriverBugs(rawValue: 1 << 0)
  /// A vote that changes nothing else is not written (the same, for hard states without entries).
  public static let forgetsVote = DriverBugs(rawValue: 1 << 1)
  /// The leader serves reads from its own state without asking (etcd #741).
  public static let readsLocally = DriverBugs(rawValue: 1 << 2)
  /// Operations are applied once for each time that they are in the log.
  public static let ignoresSessions = DriverBugs(rawValue: 1 << 3)
  /// A restart takes the voters of a snapshot's joint configuration, and drops its outgoing half (etcd raft e515a67).
  public static let dropsOutgoingVoters = DriverBugs(rawValue: 1 << 4)
  /// The state is stored later than the index it belongs to: entries in between are skipped (etcd #13766).
  public static let storesAppliedIndexApart = DriverBugs(rawValue: 1 << 5)
  /// The clock of the lease stands still while the process is paused (etcd #12704, TiKV #964).
  public static let leaseClockStops = DriverBugs(rawValue: 1 << 6)
  /// Voters vote as soon as they have restarted, though they promised a leader not to (TiKV's lease rules).
  public static let votesAfterRestart = DriverBugs(rawValue: 1 << 7)
  /// A damaged log is taken for an empty one, and the node votes (NuRaft #185).
  public static let startsEmptyWhenDamaged = DriverBugs(rawValue: 1 << 9)
  /// Syncs do nothing.
  public static let syncDoesNothing = DriverBugs(rawValue: 1 << 10)
  /// The log is cut behind a snapshot before the snapshot is durable (etcd-io/etcd #10219, Redis-Raft #654).
  public static let compactsBeforeSnapshot = DriverBugs(rawValue: 1 << 11)
  /// A reader's confirmed index is not waited for: the answer comes from what is applied (dragonboat, Redis-Raft #30).
  public static let readsBeforeApplied = DriverBugs(rawValue: 1 << 12)
  /// Writes are answered when they are appended at the leader, not when they are committed.
  public static let answersWhenAppended = DriverBugs(rawValue: 1 << 13)
}
