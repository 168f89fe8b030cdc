@_spi(Testing) import Raft
import WeirCore

// Liveness: once faults stop, the cluster has to come together (TigerBeetle's second phase of a seed).
extension SimulatedCluster {
  /// Ends all faults: links work, disks are quick, whoever is down starts again.
  func heal() throws(Violation) {
    isHealing = true
    healedNanoseconds = now
    record { "everything heals" }
    network.heal()
    for node in nodes {
      node.slowDisks = 0
      node.fullDisks = 0
      node.pauses = 0
      node.armedCrash = nil
      node.store?.heal()
      try resume(node)
      if !node.isUp { try restart(node) }
    }
    for position in clients.indices {
      // What was asked before is asked again: nobody waits for an answer that was lost.
      if clients[position].isWaiting { clientTimeout(position, attempt: clients[position].attempt) }
      if clients[position].operation == nil, !clients[position].isWaiting { scheduleTurn(position, after: 1_000_000) }
    }
  }

  /// Looks whether the cluster has come together; then the run is over.
  func lookAfterHealing() throws(Violation) {
    guard let leader = leaderPosition() else {
      try startNeededNodes()
      // Ten timeouts, each up to twice its length, on clocks that may be slow.
      if !leaderSinceHealing, !cannotRecover, now - healedNanoseconds > 25 * plan.electionTimeoutNanoseconds {
        throw broken(.liveness, "no leader: \(stateOfAffairs())")
      }
      return
    }
    leaderSinceHealing = true
    try retireRemovedNodes(nodes[leader])
    if isConverged(nodes[leader]) { isOver = true }
  }

  /// Without a leader the operator starts every node that one of those that run takes for a member: a node that was stopped
  /// because it was none may have been added again, and its vote be needed.
  private func startNeededNodes() throws(Violation) {
    for node in nodes where !node.isUp && nodes.contains(where: { $0.isUp && isMember(node, $0.configuration) }) {
      try restart(node)
    }
  }

  /// The operator stops nodes that are no members any more, and starts those that are again.
  private func retireRemovedNodes(_ leader: SimulatedNode) throws(Violation) {
    let configuration = leader.configuration
    for node in nodes where !node.isUp && isMember(node, configuration) { try restart(node) }
    guard let state = leader.core?.state, leader.machine.appliedIndex == checker.highestCommit,
      state.commit == checker.highestCommit, state.hasCommittedInTerm
    else { return }
    for node in nodes where node.isUp && !isMember(node, configuration) {
      if node === leader, !allMembersKnow(checker.highestCommit, configuration) { continue }
      record { "n\(node.id) is no member and is stopped" }
      crash(node)
    }
  }

  /// Whether every member that runs has heard of a commit index. A leader that was removed and does not step down refuses
  /// proposals, the one that leaves a joint configuration too, for as long as it runs; and if it is stopped before the
  /// others know that it was removed, they may need its vote.
  private func allMembersKnow(_ commit: LogIndex, _ configuration: ConfigurationState) -> Bool {
    nodes.allSatisfy { node in
      guard isMember(node, configuration), let core = node.core else { return true }
      return core.state.commit >= commit
    }
  }

  private func isMember(_ node: SimulatedNode, _ configuration: ConfigurationState) -> Bool {
    configuration.voters.contains(node.id) || configuration.learners.contains(node.id)
      || configuration.votersOutgoing.contains(node.id) || configuration.learnersNext.contains(node.id)
  }

  /// All members hold and have applied the same, and every client was answered.
  private func isConverged(_ leader: SimulatedNode) -> Bool {
    guard let state = leader.core?.state, leader.configuration.votersOutgoing.isEmpty else { return false }
    guard state.commit == state.lastIndex, state.hasCommittedInTerm else { return false }
    for node in nodes where isMember(node, leader.configuration) && !node.isRetired {
      guard let core = node.core, node.machine.appliedIndex == state.lastIndex, core.state.lastIndex == state.lastIndex,
        node.machine.digest == leader.machine.digest, node.configuration == leader.configuration
      else { return false }
    }
    return clients.allSatisfy { $0.answersSinceHealing >= 2 }
  }

  /// The time to come together is over.
  func reachEnd() throws(Violation) {
    isOver = true
    if let leader = leaderPosition(), isConverged(nodes[leader]) { return }
    if cannotRecover { return }
    throw broken(.liveness, stateOfAffairs())
  }

  /// Whether there is a reason that excuses the cluster.
  private var cannotRecover: Bool {
    if hasLostDisks { return true }
    guard isBlockedByRemovedVoter else { return false }
    mark(.removedVoterNeeded)
    return true
  }

  /// Voters were removed, know it, and never campaign again; the others do not know yet and need their votes, which they
  /// refuse if their logs are longer. Changes that take effect when they are applied have this hole, in etcd too
  /// (etcd-io/etcd #10563): the operator hands leadership over first.
  private var isBlockedByRemovedVoter: Bool {
    let removed = nodes.filter { node in
      let configuration = node.configuration
      return node.isUp && !configuration.voters.isEmpty
        && !(configuration.voters + configuration.votersOutgoing).contains(node.id)
    }.map(\.id)
    guard !removed.isEmpty else { return false }
    return nodes.contains { node in
      [node.configuration.voters, node.configuration.votersOutgoing].contains { half in
        !half.isEmpty && half.filter { !removed.contains($0) }.count < half.count / 2 + 1
      }
    }
  }

  /// A disk is damaged for good; with the changes of membership, that may be one voter too many.
  private var hasLostDisks: Bool { nodes.contains { $0.isRetired } }

  /// What keeps the cluster from having come together.
  private func stateOfAffairs() -> String {
    let states = nodes.map { node in
      guard let core = node.core else { return "n\(node.id) \(node.isRetired ? "damaged" : "down")" }
      let state = core.state
      return "n\(node.id) \(state.role) term \(state.term) commit \(state.commit) last \(state.lastIndex)"
        + " applied \(node.machine.appliedIndex) of \(node.configuration.voters)"
        + (state.role == .leader ? " uncommitted \(core.raw.uncommittedBytes) bytes" : "")
        + (node.configuration.votersOutgoing.isEmpty ? "" : " & \(node.configuration.votersOutgoing)")
        + (node.canRun ? "" : " (\(node.inbox.count) inputs wait, paused \(node.isPaused), \(node.jobs.count) writes)")
    }
    let answers = clients.map { String($0.answersSinceHealing) }.joined(separator: ", ")
    return "not converged \(milliseconds(now - healedNanoseconds)) after healing: "
      + states.joined(separator: "; ") + "; answers to clients since: \(answers)"
  }
}
