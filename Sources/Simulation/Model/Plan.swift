import WeirCore

/// How messages travel.
public struct NetworkSettings: Sendable, Hashable {
  public var minimumDelayNanoseconds = 200_000
  public var maximumDelayNanoseconds = 3_000_000
  /// How many messages in a million take much longer.
  public var tailPerMillion = 0
  public var tailNanoseconds = 400_000_000
  public var lossPerMillion = 0
  public var duplicatePerMillion = 0
  /// Whether a partition also takes what is under way.
  public var partitionsDropInFlight = false
  /// Whether every message is encoded to bytes and decoded again.
  public var encodes = false
}

/// How storage behaves.
public struct DiskSettings: Sendable, Hashable {
  public enum Kind: String, Sendable, Hashable, CaseIterable {
    /// Writes survive a crash if they were synced; of the others a prefix may.
    case model
    /// The real write-ahead log and snapshot files on a simulated file system.
    case writeAheadLog
  }

  public var kind = Kind.model
  public var minimumSyncNanoseconds = 100_000
  public var maximumSyncNanoseconds = 2_000_000
  /// How many syncs in a million take as long as `slowSyncNanoseconds`.
  public var slowPerMillion = 0
  public var slowSyncNanoseconds = 200_000_000
  /// At a crash, unsynced writes may survive in part (torn, in any order), and not only vanish.
  public var tearsAtCrash = false
  /// Size of the log's segments in bytes.
  public var segmentBytes = 32 << 10
  /// The node ends itself on a failed write or sync with this rate, and starts again.
  public var errorPerMillion = 0
}

/// How reads are served.
public enum ReadMode: UInt8, Sendable, Hashable, CaseIterable {
  case safe
  case lease
}

/// The clients and what they do.
public struct WorkloadSettings: Sendable, Hashable {
  public var clients = 3
  public var keys = 3
  public var readPerMillion = 500_000
  public var deletePerMillion = 60_000
  public var thinkNanoseconds = 8_000_000
  public var timeoutNanoseconds = 400_000_000
  /// Entries are filled up to at most this many bytes.
  public var maximumPayloadBytes = 64
  public var readMode = ReadMode.safe
  /// Each client stops after so many operations.
  public var operationsPerClient = 200
}

/// Settings of the core, drawn per seed.
public struct CoreSettings: Sendable, Hashable {
  public var tickNanoseconds: UInt64 = 10_000_000
  public var electionTicks = 10
  public var heartbeatTicks = 2
  public var preVote = true
  public var checkQuorum = true
  public var asynchronousStorage = false
  public var maximumBytesPerMessage = 1 << 20
  public var maximumInflightMessages = 64
  public var maximumUncommittedBytes = 1 << 20
  public var maximumCommittedBytesPerReady = 1 << 20
  public var disablesProposalForwarding = false
  public var stepsDownOnRemoval = true
  /// Whether a node drains the core after every message, or after all that wait.
  public var handlesInputsOneByOne = true
  /// How many applications in a million take up to `slowApplyNanoseconds`, with asynchronous storage.
  public var slowApplyPerMillion = 0
  public var slowApplyNanoseconds = 0
  /// Applied entries after which a snapshot is made.
  public var snapshotThreshold = 40
  /// Entries kept behind a snapshot for slow followers.
  public var trailingEntries = 10
  /// The clock drift that leases allow for, in a millionth.
  public var leaseDriftPerMillion = 50_000
}

/// Whom a fault hits, told when it begins.
public enum Target: Sendable, Hashable {
  case node(Int)
  /// The leader of the highest term, or node 0 if there is none.
  case leader
  /// A node that does not lead.
  case follower(Int)
}

/// Where in a node's work a crash happens.
public enum CrashPoint: UInt8, Sendable, Hashable, CaseIterable {
  case atOnce
  /// After a batch was handed to the disk, before it is durable.
  case beforeSync
  /// After a batch is durable, before any message that depends on it leaves.
  case afterSync
  /// In the middle of sending.
  case whileSending
  /// After messages were sent, before entries are applied.
  case beforeApply
  /// Between making a snapshot and forgetting the log in front of it.
  case afterSnapshot
}

/// Which links a partition cuts.
public enum PartitionShape: Sendable, Hashable {
  /// One node alone.
  case isolate(Target)
  /// The nodes of the mask against all others.
  case split(mask: Int)
  /// Two halves that only see each other through one node.
  case bridge(Int, mask: Int)
  /// What one node sends to the others is lost; what they send arrives.
  case mute(Target)
  /// What is sent to one node is lost; what it sends arrives.
  case deafen(Target)
  /// One link, one direction.
  case oneWay(from: Int, to: Int)
  /// Each node sees only its neighbours in a ring.
  case ring
}

/// A membership change the administrator asks for.
public enum MembershipRequest: Sendable, Hashable {
  case addVoter(Int)
  case addLearner(Int)
  case remove(Target)
  /// Several at once, through a joint configuration: these become voters, these go, and these become learners.
  case joint(add: [Int], remove: [Int], demote: [Int])
  /// Leaves a joint configuration.
  case leaveJoint
}

/// What goes wrong, or is asked for by the administrator.
public enum FaultAction: Sendable, Hashable {
  case crash(Target, CrashPoint)
  case crashAll
  case pause(Target)
  case partition(PartitionShape)
  /// Everything on one link takes longer.
  case clog(from: Int, to: Int, delayNanoseconds: Int)
  case lossBurst(perMillion: Int)
  case slowDisk(Target)
  /// There is no room for new bytes on a node's disk.
  case fullDisk(Target)
  /// Some of the node's stored bytes are not what they were, when it comes back after a moment.
  case damage(Target)
  case transfer(to: Target)
  case campaign(Target)
  case forgetLeader(Target)
  case change(MembershipRequest)
}

/// One decision of a seed's plan.
public struct Fault: Sendable, Hashable {
  /// Virtual time at which it begins, in nanoseconds.
  public var beginNanoseconds: UInt64
  /// How long it lasts; a crashed node starts again after it.
  public var durationNanoseconds: UInt64
  public var action: FaultAction

  public init(at beginNanoseconds: UInt64, for durationNanoseconds: UInt64, _ action: FaultAction) {
    self.beginNanoseconds = beginNanoseconds
    self.durationNanoseconds = durationNanoseconds
    self.action = action
  }
}

/// Everything that a run is made of, drawn from its seed: two runs of one plan are the same run.
///
/// Faults are decided before the run begins, not while it runs, so that a failing plan can be cut down: what is left
/// after a fault is taken out goes on as it did before.
public struct SimulationPlan: Sendable {
  public var seed: UInt64
  /// Slots for nodes, members or not; identities are 1 ... nodeCount.
  public var nodeCount = 3
  public var initialVoters = 3
  public var initialLearners = 0
  public var core = CoreSettings()
  public var network = NetworkSettings()
  public var disk = DiskSettings()
  public var workload = WorkloadSettings()
  /// How much each node's clock is fast, in millionths.
  public var clockRatesPerMillion: [Int] = [0, 0, 0]
  public var faults: [Fault] = []
  /// Virtual time after which everything heals.
  public var faultPhaseNanoseconds: UInt64 = 2_000_000_000
  /// How long the cluster has then to come together.
  public var healingNanoseconds: UInt64 = 4_000_000_000

  public init(seed: UInt64) { self.seed = seed }

  /// An election timeout in nanoseconds of a clock without drift.
  public var electionTimeoutNanoseconds: UInt64 { core.tickNanoseconds * UInt64(core.electionTicks) }
}
