@_spi(Testing) import Raft
import WeirCore

/// Holds the core of one life of a node: a value that cannot be copied needs somebody who owns it.
final class Core {
  var raw: RawNode

  /// What the checks look at after each event.
  struct State {
    var term: Term
    var commit: LogIndex
    var lastIndex: LogIndex
    var role: Role
    var hasCommittedInTerm: Bool
  }

  /// Starts the core from what is durable.
  init(node: SimulatedNode, image: StableImage, cluster: SimulatedCluster) throws(RaftError) {
    let plan = cluster.plan
    var configuration = RaftConfiguration(id: node.id)
    configuration.electionTicks = plan.core.electionTicks
    configuration.heartbeatTicks = plan.core.heartbeatTicks
    configuration.preVote = plan.core.preVote
    configuration.checkQuorum = plan.core.checkQuorum
    configuration.asynchronousStorageWrites = plan.core.asynchronousStorage
    configuration.maximumMessageBytes = plan.core.maximumBytesPerMessage
    configuration.maximumInflightMessages = plan.core.maximumInflightMessages
    configuration.maximumUncommittedBytes = plan.core.maximumUncommittedBytes
    configuration.maximumCommittedBytesPerReady = plan.core.maximumCommittedBytesPerReady
    configuration.disableProposalForwarding = plan.core.disablesProposalForwarding
    configuration.stepDownOnRemoval = plan.core.stepsDownOnRemoval
    configuration.randomSeed = node.timeouts.next()
    if plan.workload.readMode == .lease { Self.addLease(to: &configuration, cluster) }

    var log = LogBuffer(
      configuration: .init(segmentBytes: 16 << 10, maximumSpareSegments: 2), anchorIndex: image.anchorIndex,
      anchorTerm: image.anchorTerm)
    for entry in image.entries { _ = log.append(term: entry.term, kind: entry.kind, payload: entry.payload.span.bytes) }
    var hardState = image.hardState
    // The stored commit index may be older than a snapshot of what was committed.
    if !hardState.isEmpty { hardState.commit = max(hardState.commit, image.snapshot.metadata.index) }
    raw = try RawNode(
      configuration: configuration, log: log, hardState: hardState, configurationState: node.configuration,
      applied: node.machine.appliedIndex, availableSnapshot: image.snapshot.isEmpty ? nil : image.snapshot)
    raw.plantedBugs = cluster.options.plantedBugs
    raw.nowNanoseconds = cluster.clockReading(node)
  }

  private static func addLease(to configuration: inout RaftConfiguration, _ cluster: SimulatedCluster) {
    let plan = cluster.plan
    configuration.readMode = .leaseBased
    configuration.tickNanoseconds = plan.core.tickNanoseconds
    configuration.leaseDriftBoundNanoseconds =
      plan.electionTimeoutNanoseconds * UInt64(plan.core.leaseDriftPerMillion) / 1_000_000
    configuration.refuseVotesWithinLease = true
    configuration.refuseVotesAfterStart = cluster.now > 0 && !cluster.options.driverBugs.contains(.votesAfterRestart)
  }

  var state: State {
    State(
      term: raw.term, commit: raw.commit, lastIndex: raw.lastIndex, role: raw.role,
      hasCommittedInTerm: raw.term(at: raw.commit) == raw.term)
  }

  /// Applies a configuration change that was committed.
  func applyChange(_ kind: EntryKind, _ payload: RawSpan) throws -> ConfigurationState {
    if kind == .configurationChange {
      return try raw.applyConfigurationChange(ConfigurationChange(decoding: payload).v2)
    }
    return try raw.applyConfigurationChange(ConfigurationChangeV2(decoding: payload))
  }

  func propose(_ payload: [UInt8]) throws(RaftError) { try raw.propose(payload: payload.span.bytes) }

  /// Proposes a change; one that is refused is forgotten.
  func propose(_ change: ConfigurationChange) { try? raw.propose(change) }

  /// Proposes a change; one that is refused is forgotten.
  func propose(_ change: ConfigurationChangeV2) { try? raw.propose(change) }

  func campaign() { try? raw.campaign() }

  func forgetLeader() { try? raw.forgetLeader() }

  /// Forgets entries in front of a snapshot, which followers that need them get instead.
  func compact(through index: LogIndex, snapshot: Snapshot) {
    raw.setAvailableSnapshot(snapshot)
    if index > 0 { raw.compact(through: index) }
  }
}
