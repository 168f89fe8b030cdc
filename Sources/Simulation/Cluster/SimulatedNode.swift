import Raft
import WeirCore

/// What a node has to react to, where it cannot at once.
enum NodeInput: Sendable {
  case tick
  case message(Message)
  case request(ClientRequest)
  case report(DeliveryReport)
}

/// What the network tells a sender about a message.
struct DeliveryReport: Sendable {
  enum Fate: Sendable {
    case unreachable
    case snapshotDelivered
    case snapshotFailed
  }

  var peer: NodeID
  var fate: Fate
}

/// A write that is on its way to the disk, and what follows once it is durable.
struct DiskJob {
  var write: StableWrite
  var entries: EntryBatch
  /// Messages that may leave, or come back to the node itself, when the write is durable.
  var responses: [Message] = []
}

/// Entries on their way through the state machine, in asynchronous mode.
struct ApplyJob {
  var entries: EntryBatch
  var responses: [Message]
}

/// A client's write that waits to be applied at the node it was sent to.
struct PendingWrite {
  var request: ClientRequest
}

/// A client's read that waits for its index, or to be applied up to it.
struct PendingRead {
  var request: ClientRequest
  var context: UInt64
  /// Nil until the read is confirmed.
  var index: LogIndex?
}

/// One node: the real core, and a driver around it as a server has one, whose disk, clock and network are simulated.
final class SimulatedNode {
  let position: Int
  let id: NodeID
  /// The core; nil while the node is down.
  var core: Core?
  /// Counts the node's lives; an event of an earlier one is void.
  var incarnation: UInt32 = 0
  var machine: RegisterMachine
  /// The configuration as of the last entry applied.
  var configuration = ConfigurationState()

  var isPaused = false
  /// Several faults may pause a node at once.
  var pauses = 0
  var slowDisks = 0
  /// Faults that leave its disk without room.
  var fullDisks = 0
  /// What came while the node was paused, or waited for its disk.
  var inbox: [NodeInput] = []

  /// The batch that the disk works on, in synchronous mode.
  var ready: Ready?
  var jobs: [DiskJob] = []
  /// How many of `jobs` the disk works on.
  var jobsInFlight = 0
  /// Writes that are durable, which the driver has not heard of.
  var finishedJobs: [DiskJob] = []
  /// Writes that were under way when the node crashed.
  var unsynced: [StableWrite] = []
  /// The node's storage is damaged beyond use: it never starts again.
  var isRetired = false
  var applyJobs: [ApplyJob] = []
  var isApplying = false

  var pendingWrites: [PendingWrite] = []
  var pendingReads: [PendingRead] = []
  var nextReadContext: UInt64 = 1
  /// The last snapshot that came from a leader: entries up to it that are still on their way to the state machine are
  /// in it already.
  var restoredIndex: LogIndex = 0
  /// The newest snapshot's index.
  var snapshotIndex: LogIndex = 0
  var armedCrash: CrashPoint?
  /// When the node starts again after an armed crash.
  var armedRestartNanoseconds: UInt64 = 0

  /// How much the clock is fast, in millionths.
  let clockRatePerMillion: Int
  /// What the clock showed at virtual time 0, in nanoseconds.
  let clockOffsetNanoseconds: UInt64
  /// Virtual time during which the node was paused, for clocks that stand still then.
  var pausedNanoseconds: UInt64 = 0
  var pauseBeganNanoseconds: UInt64 = 0

  var timeouts: RandomStream
  var disk: RandomStream
  var store: DiskStore?

  init(position: Int, plan: SimulationPlan) {
    self.position = position
    id = SafetyChecker.id(position)
    machine = RegisterMachine(keys: plan.workload.keys, clients: plan.workload.clients)
    clockRatePerMillion = plan.clockRatesPerMillion[position]
    timeouts = RandomStream(seed: plan.seed, purpose: .timeouts, instance: UInt64(position))
    disk = RandomStream(seed: plan.seed, purpose: .disk, instance: UInt64(position))
    clockOffsetNanoseconds = UInt64(timeouts.below(1_000_000_000_000))
  }

  var isUp: Bool { core != nil }

  /// Whether the driver can take input now: it is up, runs, and does not wait for its disk.
  var canRun: Bool { core != nil && !isPaused && ready == nil }

  /// What the node's clock shows at a virtual time, in nanoseconds.
  func clock(at now: UInt64) -> UInt64 {
    let fast = Int64(now) / 1000 * Int64(clockRatePerMillion) / 1000
    return clockOffsetNanoseconds &+ UInt64(bitPattern: Int64(now) + fast)
  }

  /// Virtual time between two ticks of the node's clock, in nanoseconds.
  func tickInterval(_ tickNanoseconds: UInt64) -> UInt64 {
    tickNanoseconds * 1_000_000 / UInt64(1_000_000 + clockRatePerMillion)
  }

  /// Forgets what a process forgets when it ends.
  func loseMemory() {
    core = nil
    incarnation += 1
    inbox.removeAll(keepingCapacity: true)
    ready = nil
    jobs.removeAll(keepingCapacity: true)
    jobsInFlight = 0
    finishedJobs.removeAll(keepingCapacity: true)
    applyJobs.removeAll(keepingCapacity: true)
    isApplying = false
    pendingWrites.removeAll(keepingCapacity: true)
    pendingReads.removeAll(keepingCapacity: true)
    armedCrash = nil
    isPaused = false
    pauses = 0
    restoredIndex = 0
  }
}
