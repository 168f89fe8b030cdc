import WeirCore

/// How reads through `RawNode.readIndex(context:)` are confirmed.
public enum ReadMode: UInt8, Sendable, Hashable {
  /// By a heartbeat round that a quorum answers: right whatever the clocks do.
  case safe
  /// By the lease, without messages, while it holds; by a heartbeat round while it does not. Right as long as no clock
  /// runs faster or slower than `leaseDriftBoundNanoseconds` allows for.
  case leaseBased
}

/// The settings of one node. Times are counted in ticks; the driver decides how long one is.
public struct RaftConfiguration: Sendable {
  /// This node; neither 0 nor one of the two local threads.
  public var id: NodeID
  /// Ticks without a word from the leader after which a follower may campaign; the timeout in force is drawn anew from
  /// `electionTicks ..< 2 * electionTicks`. Should be about ten times `heartbeatTicks`.
  public var electionTicks = 10
  /// Ticks between heartbeats of a leader.
  public var heartbeatTicks = 1
  /// Bytes of entries (frames) in one append message; at least one entry always goes.
  public var maximumMessageBytes = Int.max
  /// Bytes of committed entries handed out and not yet applied; at least one entry always goes. 0: `maximumMessageBytes`.
  public var maximumCommittedBytesPerReady = 0
  /// Payload bytes (padded to 8) that may wait to be committed before proposals are refused. 0: no limit.
  public var maximumUncommittedBytes = 0
  /// Append messages in flight to one follower.
  public var maximumInflightMessages = 256
  /// Payload bytes in flight to one follower. 0: no limit.
  public var maximumInflightBytes = 0
  /// Storing and applying are asked for by messages to local threads instead of by `Ready`'s fields.
  public var asynchronousStorageWrites = false
  /// A leader steps down if no quorum was heard from within `electionTicks`; followers that hear from a leader ignore
  /// vote requests.
  public var checkQuorum = false
  /// Campaigns begin by asking whether they could be won, so that a node that was cut off does not raise the term.
  public var preVote = false
  public var readMode = ReadMode.safe
  /// Followers refuse proposals instead of passing them on to the leader.
  public var disableProposalForwarding = false
  /// Configuration changes are not checked when proposed; for applications that check them themselves.
  public var disableConfigurationChangeValidation = false
  /// A leader that is removed or made a learner steps down once the change is applied.
  public var stepDownOnRemoval = false
  /// Seed of the randomized election timeouts. Nodes of one cluster should have different ones.
  public var randomSeed: UInt64 = 0

  /// Length of a tick in nanoseconds; only leases use it.
  public var tickNanoseconds: UInt64 = 100_000_000
  /// How much the length of an election timeout, measured by two nodes' clocks, may differ, in nanoseconds.
  public var leaseDriftBoundNanoseconds: UInt64 = 100_000_000
  /// After hearing from a leader, this node neither votes nor campaigns for an election timeout of its own clock, whatever
  /// term comes along: what a lease rests on. Leadership transfers are exempt, since the leader gave up its lease first.
  public var refuseVotesWithinLease = false
  /// The same for one election timeout after the start: what was promised before a restart is not remembered.
  /// A cluster that has never run can do without.
  public var refuseVotesAfterStart = false
  /// Reads that wait, for a round or for the first commit of the term; what is beyond is refused.
  public var maximumPendingReads = 1 << 16

  public init(id: NodeID, electionTicks: Int = 10, heartbeatTicks: Int = 1) {
    self.id = id
    self.electionTicks = electionTicks
    self.heartbeatTicks = heartbeatTicks
  }

  /// Checks every setting.
  /// - Throws: `RaftError.invalidConfiguration` with the setting's name.
  public func validate() throws(RaftError) {
    guard id != .none else { throw .invalidConfiguration("cannot use none as id") }
    guard id < .applyThread else { throw .invalidConfiguration("cannot use local target as id") }
    guard heartbeatTicks > 0 else { throw .invalidConfiguration("heartbeat tick must be greater than 0") }
    guard electionTicks > heartbeatTicks else {
      throw .invalidConfiguration("election tick must be greater than heartbeat tick")
    }
    guard electionTicks <= 1 << 20 else { throw .invalidConfiguration("election tick must be at most 1048576") }
    guard maximumMessageBytes >= 0, maximumCommittedBytesPerReady >= 0, maximumUncommittedBytes >= 0 else {
      throw .invalidConfiguration("size limits must not be negative")
    }
    guard maximumInflightMessages > 0 else {
      throw .invalidConfiguration("max inflight messages must be greater than 0")
    }
    guard maximumInflightBytes == 0 || maximumInflightBytes >= maximumMessageBytes else {
      throw .invalidConfiguration("max inflight bytes must be >= max message size")
    }
    guard maximumPendingReads > 0 else { throw .invalidConfiguration("max pending reads must be greater than 0") }
    try validateLease()
  }

  private func validateLease() throws(RaftError) {
    guard readMode == .leaseBased else { return }
    guard checkQuorum else {
      throw .invalidConfiguration("CheckQuorum must be enabled when ReadOnlyOption is ReadOnlyLeaseBased")
    }
    guard tickNanoseconds > 0, tickNanoseconds < 1 << 40 else {
      throw .invalidConfiguration("a tick must last between 1 ns and 2^40 ns when reads are lease based")
    }
  }

  /// How long a lease lasts from the moment its heartbeat round was sent; 0 if the drift bound leaves nothing.
  public var leaseNanoseconds: UInt64 {
    let timeout = UInt64(electionTicks) * tickNanoseconds
    return timeout > leaseDriftBoundNanoseconds ? timeout - leaseDriftBoundNanoseconds : 0
  }
}
