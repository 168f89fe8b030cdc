@_spi(Testing) import Raft
import WeirCore

// What goes wrong, and what the administrator asks for.
extension SimulatedCluster {
  /// The node that leads the highest term, if one does.
  func leaderPosition() -> Int? {
    var best: (position: Int, term: Term)?
    for node in nodes {
      guard let core = node.core else { continue }
      let state = core.state
      if state.role == .leader, state.term > (best?.term ?? 0) { best = (node.position, state.term) }
    }
    return best?.position
  }

  func resolve(_ target: Target) -> Int {
    switch target {
    case .node(let position): return position % plan.nodeCount
    case .leader: return leaderPosition() ?? 0
    case .follower(let offset):
      let position = offset % plan.nodeCount
      return position == leaderPosition() ? (position + 1) % plan.nodeCount : position
    }
  }

  func beginFault(_ number: Int) throws(Violation) {
    let fault = plan.faults[number]
    guard !isHealing else { return }
    record { "fault: \(fault.action) for \(milliseconds(fault.durationNanoseconds))" }
    switch fault.action {
    case .crash(let target, let point): beginCrash(nodes[resolve(target)], point, fault)
    case .crashAll:
      for node in nodes where node.isUp { beginCrash(node, .atOnce, fault) }
    case .pause(let target): pause(number, nodes[resolve(target)])
    case .partition(let shape):
      mark(.partition)
      cutLinks[number] = shape.links(nodeCount: plan.nodeCount, resolve: resolve)
      network.cut(cutLinks[number], by: 1)
    case .clog(let from, let to, let delay): network.clog(Link(from: from, to: to), by: delay)
    case .lossBurst(let perMillion): network.burst(by: perMillion)
    case .slowDisk(let target):
      faultNodes[number] = resolve(target)
      nodes[faultNodes[number]].slowDisks += 1
    case .fullDisk(let target): fillDisk(number, nodes[resolve(target)])
    case .damage(let target): damage(nodes[resolve(target)])
    case .transfer, .campaign, .forgetLeader, .change: try ask(fault.action, number)
    }
  }

  func endFault(_ number: Int) throws(Violation) {
    let fault = plan.faults[number]
    guard !isHealing else { return }
    switch fault.action {
    case .pause: try resume(number)
    case .partition:
      network.cut(cutLinks[number], by: -1)
      cutLinks[number] = []
    case .clog(let from, let to, let delay): network.clog(Link(from: from, to: to), by: -delay)
    case .lossBurst(let perMillion): network.burst(by: -perMillion)
    case .slowDisk:
      guard faultNodes[number] >= 0 else { return }
      nodes[faultNodes[number]].slowDisks -= 1
      faultNodes[number] = -1
    case .fullDisk: makeSpace(number)
    case .crash(let target, _):
      // A crash that nobody walked into by now does not happen.
      if case .node(let position) = target { nodes[position % plan.nodeCount].armedCrash = nil }
    case .crashAll, .damage, .transfer, .campaign, .forgetLeader, .change: break
    }
  }

  private func beginCrash(_ node: SimulatedNode, _ point: CrashPoint, _ fault: Fault) {
    guard node.isUp else { return }
    guard point == .atOnce else {
      node.armedCrash = point
      node.armedRestartNanoseconds = now + fault.durationNanoseconds
      return
    }
    crash(node)
    queue.push(
      at: now + max(fault.durationNanoseconds, 1), .restart, subject: node.position, incarnation: node.incarnation)
  }

  private func pause(_ number: Int, _ node: SimulatedNode) {
    guard node.isUp else { return }
    mark(.pause)
    faultNodes[number] = node.position
    faultIncarnations[number] = node.incarnation
    node.pauses += 1
    if !node.isPaused {
      node.isPaused = true
      node.pauseBeganNanoseconds = now
    }
  }

  private func resume(_ number: Int) throws(Violation) {
    guard faultNodes[number] >= 0 else { return }
    let node = nodes[faultNodes[number]]
    faultNodes[number] = -1
    // A process that ended meanwhile is not paused any more.
    guard faultIncarnations[number] == node.incarnation else { return }
    node.pauses -= 1
    if node.pauses == 0 { try resume(node) }
  }

  func resume(_ node: SimulatedNode) throws(Violation) {
    guard node.isPaused else { return }
    node.isPaused = false
    node.pausedNanoseconds += now - node.pauseBeganNanoseconds
    guard node.isUp else { return }
    record { "n\(node.id) goes on" }
    node.core?.raw.nowNanoseconds = clockReading(node)
    if !node.finishedJobs.isEmpty { try reactToDisk(node) }
    try takeInbox(node)
    try drain(node)
  }

  private func ask(_ action: FaultAction, _ number: Int) throws(Violation) {
    switch action {
    case .transfer(let target):
      guard let leader = leaderPosition() else { return }
      mark(.transfer)
      try command(nodes[leader]) { $0.raw.transferLeadership(to: SafetyChecker.id(resolve(target))) }
    case .campaign(let target): try command(nodes[resolve(target)]) { $0.campaign() }
    case .forgetLeader(let target): try command(nodes[resolve(target)]) { $0.forgetLeader() }
    case .change(let request): membershipRequests.append((request, number))
    default: break
    }
  }

  /// An order from outside, to a node that can take it.
  private func command(_ node: SimulatedNode, _ body: (Core) -> Void) throws(Violation) {
    guard node.canRun, let core = node.core else { return }
    core.raw.nowNanoseconds = clockReading(node)
    body(core)
    try drain(node)
  }

  // MARK: Membership

  /// Looks after membership changes now and then, and at the end after the cluster's coming together.
  func administer() throws(Violation) {
    queue.push(at: now + plan.electionTimeoutNanoseconds / 2, .administration)
    if let leader = leaderPosition(), nodes[leader].canRun { try changeMembership(nodes[leader]) }
    if isHealing { try lookAfterHealing() }
  }

  private func changeMembership(_ leader: SimulatedNode) throws(Violation) {
    let configuration = leader.configuration
    if !configuration.votersOutgoing.isEmpty {
      if !configuration.autoLeave { try propose(.leaveJoint, number: 0, leader) }
      return
    }
    guard !isHealing, !membershipRequests.isEmpty else { return }
    let (request, number) = membershipRequests.removeFirst()
    try propose(request, number: number, leader)
  }

  private func propose(_ request: MembershipRequest, number: Int, _ leader: SimulatedNode) throws(Violation) {
    let changes = memberChanges(request, leader.configuration)
    guard request == .leaveJoint || !changes.isEmpty else { return }
    record { "administrator asks n\(leader.id): \(request)" }
    try command(leader) { core in
      if changes.count == 1, number.isMultiple(of: 2), let change = changes.first {
        core.propose(ConfigurationChange(id: UInt64(number), change))
      } else {
        let transitions: [ConfigurationChangeV2.Transition] = [.auto, .jointImplicit, .jointExplicit]
        let transition = request == .leaveJoint ? .auto : transitions[number % 3]
        core.propose(ConfigurationChangeV2(transition: transition, changes: changes))
      }
    }
  }

  /// The changes that make sense in a configuration: nobody is added who is there, and voters stay.
  private func memberChanges(_ request: MembershipRequest, _ state: ConfigurationState) -> [MemberChange] {
    var changes: [MemberChange] = []
    switch request {
    case .addVoter(let node):
      if !state.voters.contains(SafetyChecker.id(node)) { changes = [MemberChange(.addVoter, SafetyChecker.id(node))] }
    case .addLearner(let node):
      if !state.voters.contains(SafetyChecker.id(node)), !state.learners.contains(SafetyChecker.id(node)) {
        changes = [MemberChange(.addLearner, SafetyChecker.id(node))]
      }
    case .remove(let target):
      let id = SafetyChecker.id(resolve(target))
      if state.learners.contains(id) || state.voters.contains(id) { changes = [MemberChange(.remove, id)] }
    case .joint(let add, let remove, let demote):
      let removed = Set(remove + demote)
      for node in add where !removed.contains(node) && !state.voters.contains(SafetyChecker.id(node)) {
        changes.append(MemberChange(.addVoter, SafetyChecker.id(node)))
      }
      for node in remove where state.voters.contains(SafetyChecker.id(node)) {
        changes.append(MemberChange(.remove, SafetyChecker.id(node)))
      }
      for node in demote where !remove.contains(node) && state.voters.contains(SafetyChecker.id(node)) {
        changes.append(MemberChange(.addLearner, SafetyChecker.id(node)))
      }
    case .leaveJoint: break
    }
    let voters = changes.reduce(into: Set(state.voters)) { voters, change in
      if change.kind == .addVoter { voters.insert(change.nodeID) } else { voters.remove(change.nodeID) }
    }
    return voters.isEmpty ? [] : changes
  }
}
