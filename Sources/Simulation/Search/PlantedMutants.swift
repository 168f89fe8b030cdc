@_spi(Testing) import Raft

/// A mistake that somebody really made, to be switched on: what the simulator is measured by.
@_spi(Testing)
public struct Mutant: Sendable {
  public var name: String
  /// Where it happened, or whose rule it breaks.
  public var source: String
  public var options: RunOptions
  /// The kind of seeds that search for it.
  public var profile: Profile
  /// The first seed that finds it, for a quick replay.
  public var knownSeed: UInt64

  init(_ name: String, _ bug: PlantedBugs, _ source: String, _ profile: Profile, seed: UInt64) {
    self.name = name
    self.source = source
    self.profile = profile
    knownSeed = seed
    options = RunOptions()
    options.plantedBugs = bug
  }

  init(_ name: String, driver bug: DriverBugs, _ source: String, _ profile: Profile, seed: UInt64) {
    self.name = name
    self.source = source
    self.profile = profile
    knownSeed = seed
    options = RunOptions()
    options.driverBugs = bug
  }

  /// Runs seeds of the profile, from 0, until one breaks something.
  /// - Returns: that seed, what it broke, and how many seeds it took; nil if none of them did.
  public func search(limit: UInt64) -> (seed: UInt64, violation: Violation, seeds: UInt64)? {
    for seed in 0..<limit {
      if let violation = Simulator.run(seed: seed, profile: profile, options: options).violation {
        return (seed, violation, seed + 1)
      }
    }
    return nil
  }

  /// Its line in the table of the module's documentation.
  public func row(seeds: UInt64, breaks invariant: Invariant) -> String {
    "| `\(name)` | \(source) | \(profile.rawValue) | \(seeds) | \(invariant.rawValue) |"
  }

  /// All of them.
  public static let all: [Mutant] = [
    Mutant("changeWhileChangePending", .changeWhileChangePending, "Ongaro, raft-dev 2015", .membership, seed: 13),
    Mutant("autoLeaveNotPending", .autoLeaveNotPending, "etcd #12136", .membership, seed: 19),
    Mutant("outgoingVotersDropped", .outgoingVotersDropped, "etcd raft e515a67", .membership, seed: 11),
    Mutant("readBeforeOwnCommit", .readBeforeOwnCommit, "etcd #7331", .standard, seed: 31),
    Mutant("readConfirmedByOldRound", .readConfirmedByOldRound, "etcd #20418", .lateAnswers, seed: 126),
    Mutant("readFromLocalCommit", .readFromLocalCommit, "TiKV #9208", .standard, seed: 4),
    Mutant("readWithoutQuorum", .readWithoutQuorum, "etcd #741", .standard, seed: 31),
    Mutant("leaseKeptDuringTransfer", .leaseKeptDuringTransfer, "etcd #12704, TiKV #1593", .lease, seed: 1529),
    Mutant("leaseFromAnswer", .leaseFromAnswer, "sofa-jraft #34", .lease, seed: 139),
    Mutant("votesWithinLease", .votesWithinLease, "Raft dissertation, 6.4.1", .lease, seed: 813),
    Mutant("promiseForgottenAtRestart", .promiseForgottenAtRestart, "TiKV's lease rules", .lease, seed: 179),
    Mutant("commitBeforeStored", .commitBeforeStored, "etcd #14370", .crashes, seed: 1),
    Mutant("truncateWithoutConflict", .truncateWithoutConflict, "CCF #5991, #6016", .standard, seed: 12),
    Mutant("appendWithoutPreviousTerm", .appendWithoutPreviousTerm, "etcd raft 76f1249", .catchUp, seed: 4),
    Mutant("storageAckIgnoresTerm", .storageAckIgnoresTerm, "etcd raft 2e0653d", .slowStorage, seed: 8),
    Mutant("uncommittedBytesLeak", .uncommittedBytesLeak, "etcd raft a370b6f", .catchUp, seed: 4),
    Mutant("campaignWithUnappliedChange", .campaignWithUnappliedChange, "etcd #12134", .slowApply, seed: 82),
    Mutant("commitOlderTerm", .commitOlderTerm, "Raft paper, figure 8; CCF #5674", .elections, seed: 613),
    Mutant("heartbeatCommitBeyondMatch", .heartbeatCommitBeyondMatch, "etcd raft #139", .catchUp, seed: 3),
    Mutant("voteBeforeStored", .voteBeforeStored, "TiKV #1610", .elections, seed: 2),
    Mutant("appendAckBeforeStored", .appendAckBeforeStored, "camunda #30354", .standard, seed: 2),
    Mutant("voteForShorterLog", .voteForShorterLog, "NuRaft #185", .elections, seed: 3),
    Mutant("sendsBeforeSync", driver: .sendsBeforeSync, "TiKV #1610", .standard, seed: 0),
    Mutant("forgetsVote", driver: .forgetsVote, "TiKV #1610", .elections, seed: 0),
    Mutant("readsLocally", driver: .readsLocally, "etcd #741", .standard, seed: 8),
    Mutant("ignoresSessions", driver: .ignoresSessions, "TiDB 2.1 (automatic retry)", .standard, seed: 40),
    Mutant("dropsOutgoingVoters", driver: .dropsOutgoingVoters, "etcd raft e515a67", .membership, seed: 80),
    Mutant("storesAppliedIndexApart", driver: .storesAppliedIndexApart, "etcd #13766", .crashes, seed: 0),
    Mutant("leaseClockStops", driver: .leaseClockStops, "TiKV #964, etcd #12704", .lease, seed: 139),
    Mutant("votesAfterRestart", driver: .votesAfterRestart, "TiKV's lease rules", .lease, seed: 179),
    Mutant("startsEmptyWhenDamaged", driver: .startsEmptyWhenDamaged, "NuRaft #185", .disk, seed: 28),
    Mutant("syncDoesNothing", driver: .syncDoesNothing, "etcd #14140", .disk, seed: 1),
    Mutant("compactsBeforeSnapshot", driver: .compactsBeforeSnapshot, "Redis-Raft #654", .crashes, seed: 9),
    Mutant("readsBeforeApplied", driver: .readsBeforeApplied, "Redis-Raft #30", .standard, seed: 4),
    Mutant("answersWhenAppended", driver: .answersWhenAppended, "Redis-Raft #14", .standard, seed: 0),
  ]
}
