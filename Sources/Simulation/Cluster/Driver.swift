@_spi(Testing) import Raft
import WeirCore

// The driver: what a server does around the core. One input at a time, then everything the core has to say.
extension SimulatedCluster {
  /// Gives a node an input, now or once it can take it.
  func take(_ input: NodeInput, _ node: SimulatedNode) throws(Violation) {
    guard node.isUp else { return }
    guard node.canRun, node.inbox.isEmpty else {
      // A timer that fired while nobody looked fires once, not for every time it would have.
      if case .tick = input, node.isPaused, node.inbox.contains(where: { if case .tick = $0 { true } else { false } }) {
        return
      }
      node.inbox.append(input)
      try takeInbox(node)
      return
    }
    try feed(input, node)
    try drain(node)
  }

  /// Takes what waited while the node was paused or its disk worked.
  func takeInbox(_ node: SimulatedNode) throws(Violation) {
    guard node.canRun, !node.inbox.isEmpty else { return }
    let inputs = node.inbox
    node.inbox.removeAll(keepingCapacity: true)
    for (position, input) in inputs.enumerated() {
      try feed(input, node)
      // One message at a time, or all that waited at once: both are what servers do.
      if plan.core.handlesInputsOneByOne || position == inputs.count - 1 {
        try drain(node)
        guard node.isUp else { return }
        guard node.canRun else {
          node.inbox.insert(contentsOf: inputs[(position + 1)...], at: 0)
          return
        }
      }
    }
  }

  private func feed(_ input: NodeInput, _ node: SimulatedNode) throws(Violation) {
    guard let core = node.core else { return }
    switch input {
    case .tick: core.raw.tick()
    case .message(let message): try step(message, node, core)
    case .request(let request): try serve(request, node, core)
    case .report(let report):
      switch report.fate {
      case .unreachable: core.raw.reportUnreachable(report.peer)
      case .snapshotDelivered: core.raw.reportSnapshot(report.peer, succeeded: true)
      case .snapshotFailed: core.raw.reportSnapshot(report.peer, succeeded: false)
      }
    }
  }

  func step(_ message: Message, _ node: SimulatedNode, _ core: Core) throws(Violation) {
    do {
      try core.raw.step(message)
    } catch {
      // Proposals that cannot be taken, and answers from nodes that were removed, are no fault of anybody.
      switch error {
      case .proposalDropped, .stepPeerNotFound: break
      default: throw broken(.coreError, "n\(node.id) refuses \(message.type) from n\(message.from): \(error)")
      }
    }
  }

  /// Does everything the core has to say, and looks at it after each step.
  func drain(_ node: SimulatedNode) throws(Violation) {
    var rounds = 0
    while let core = node.core, node.ready == nil, !node.isPaused {
      rounds += 1
      if rounds > 10_000 { throw broken(.liveness, "n\(node.id)'s core has something to say without end") }
      guard core.raw.hasReady else {
        try observe(node)
        return
      }
      if plan.core.asynchronousStorage {
        try takeReadyAsynchronously(node, core)
      } else {
        try takeReady(node, core)
      }
    }
  }

  /// Compares the node with all others, and adds its state to the digest.
  func observe(_ node: SimulatedNode) throws(Violation) {
    guard let core = node.core else { return }
    let state = core.state
    hash.add(state.term << 3 | UInt64(state.role.rawValue))
    hash.add(state.commit << 32 ^ state.lastIndex)
    let view = checker.nodes[node.position]
    let isElected = state.role == .leader && !view.isLeader
    let hasCommitted = state.commit > view.commit
    try checker.observe(
      node.position, term: state.term, commit: state.commit, lastIndex: state.lastIndex, isLeader: state.role == .leader
    )
    if isElected {
      record { "n\(node.id) leads term \(state.term), log ends at \(state.lastIndex)" }
    }
    if state.role == .leader, hasCommitted {
      try checker.checkDurableQuorum(leader: node.position, commit: state.commit, configuration: node.configuration)
    }
  }

  // MARK: Synchronous storage

  private func takeReady(_ node: SimulatedNode, _ core: Core) throws(Violation) {
    var ready = Ready()
    core.raw.ready(into: &ready)
    let (write, isEmpty) = stableWrite(ready, node)
    if !isEmpty { try hand(write, node) }
    try observe(node)
    takeReads(ready, node)
    if options.driverBugs.contains(.sendsBeforeSync) { try send(ready.messages, from: node) }
    guard !isEmpty, ready.mustSync || ready.snapshot != nil else {
      // Only the commit index moved: it is written, and synced with whatever comes next.
      if !isEmpty { node.jobs.append(DiskJob(write: write, entries: ready.entries)) }
      try settle(ready, node, core)
      return
    }
    node.ready = ready
    node.jobs.append(DiskJob(write: write, entries: ready.entries))
    try beginSync(node)
  }

  /// The batch is durable: its messages leave, its entries are applied.
  func finishReady(_ node: SimulatedNode) throws(Violation) {
    guard let ready = node.ready, let core = node.core else { return }
    node.ready = nil
    if crashIfArmed(.afterSync, node) { return }
    try settle(ready, node, core)
    guard node.isUp else { return }
    try drain(node)
    try takeInbox(node)
  }

  private func settle(_ ready: Ready, _ node: SimulatedNode, _ core: Core) throws(Violation) {
    if !options.driverBugs.contains(.sendsBeforeSync) { try send(ready.messages, from: node) }
    guard node.isUp else { return }
    if crashIfArmed(.beforeApply, node) { return }
    if let snapshot = ready.snapshot { try restore(snapshot, node) }
    try apply(ready.committedEntries, node, core)
    core.raw.advance(ready)
    try makeSnapshotIfDue(node)
  }

  // MARK: Asynchronous storage

  private func takeReadyAsynchronously(_ node: SimulatedNode, _ core: Core) throws(Violation) {
    var ready = Ready()
    core.raw.ready(into: &ready)
    takeReads(ready, node)
    var network: [Message] = []
    for message in ready.messages {
      switch message.to {
      case .appendThread:
        let (write, _) = stableWrite(message, node)
        try hand(write, node)
        node.jobs.append(DiskJob(write: write, entries: message.entries, responses: message.responses))
      case .applyThread:
        try checker.checkAppliedIsDurable(message.entries, by: node.position)
        node.applyJobs.append(ApplyJob(entries: message.entries, responses: message.responses))
      default: network.append(message)
      }
    }
    try observe(node)
    try send(network, from: node)
    guard node.isUp else { return }
    if node.jobsInFlight == 0, !node.jobs.isEmpty {
      try beginSync(node)
    }
    beginApply(node)
  }

  private func beginApply(_ node: SimulatedNode) {
    guard !node.isApplying, !node.applyJobs.isEmpty else { return }
    node.isApplying = true
    queue.push(at: now + applyDuration(node), .applyDone, subject: node.position, incarnation: node.incarnation)
  }

  private func applyDuration(_ node: SimulatedNode) -> UInt64 {
    let duration = UInt64(10_000 + node.disk.below(200_000))
    guard !isHealing, node.disk.chance(perMillion: plan.core.slowApplyPerMillion) else { return duration }
    return duration + UInt64(node.disk.below(plan.core.slowApplyNanoseconds))
  }

  func applyDone(_ node: SimulatedNode) throws(Violation) {
    guard let core = node.core, node.isApplying, !node.applyJobs.isEmpty else { return }
    if node.isPaused {
      queue.push(at: now + 5_000_000, .applyDone, subject: node.position, incarnation: node.incarnation)
      return
    }
    node.isApplying = false
    let job = node.applyJobs.removeFirst()
    if crashIfArmed(.beforeApply, node) { return }
    try apply(job.entries, node, core)
    try deliverResponses(job.responses, node, core)
    guard node.isUp else { return }
    try makeSnapshotIfDue(node)
    guard node.isUp else { return }
    beginApply(node)
    try drain(node)
  }

  /// What follows from a write or an application that is done: messages to the node itself are stepped, others sent.
  func deliverResponses(_ responses: [Message], _ node: SimulatedNode, _ core: Core) throws(Violation) {
    for response in responses {
      guard node.isUp else { return }
      if response.to == node.id {
        try step(response, node, core)
      } else {
        try send([response], from: node)
      }
    }
  }

  // MARK: Messages

  func send(_ messages: [Message], from node: SimulatedNode) throws(Violation) {
    for (position, message) in messages.enumerated() {
      if position == messages.count / 2, crashIfArmed(.whileSending, node) { return }
      try checker.send(message, from: node.position)
      if try replacesSnapshot(message, node) { continue }
      guard node.isUp else { return }
      guard message.to >= 1, message.to <= UInt64(nodes.count), message.to != node.id else { continue }
      transmit(message, from: node, to: Int(message.to) - 1)
    }
  }

  /// A snapshot from before the receiver became a member is refused by it: the leader has to make a newer one, and says
  /// that this one failed.
  private func replacesSnapshot(_ message: Message, _ node: SimulatedNode) throws(Violation) -> Bool {
    guard let snapshot = message.snapshot, message.type == .snapshot, let core = node.core else { return false }
    mark(.snapshotSent)
    let state = snapshot.metadata.configuration
    guard !(state.voters + state.learners + state.votersOutgoing).contains(message.to) else { return false }
    push(DeliveryReport(peer: message.to, fate: .snapshotFailed), to: node, delay: 1_000_000)
    if snapshot.metadata.index < node.machine.appliedIndex { try makeSnapshot(node, core) }
    return true
  }

  private func transmit(_ message: Message, from node: SimulatedNode, to peer: Int) {
    let fate = network.fate(from: node.position, to: peer)
    guard let first = fate.first else {
      mark(.messageLost)
      reportLoss(of: message, node)
      return
    }
    push(message, to: peer, delay: first)
    if let second = fate.second {
      mark(.messageDuplicated)
      push(message, to: peer, delay: second)
    }
  }

  private func push(_ message: Message, to peer: Int, delay: UInt64) {
    let slot = messages.put(message)
    queue.push(at: now + delay, .deliver, subject: peer, argument: slot)
  }

  /// Some losses are noticed by the sender, others are not; the fate of a snapshot always is, in the end.
  private func reportLoss(of message: Message, _ node: SimulatedNode) {
    if message.type == .snapshot {
      push(DeliveryReport(peer: message.to, fate: .snapshotFailed), to: node, delay: 20_000_000)
    } else if message.index & 3 == 0 {
      push(DeliveryReport(peer: message.to, fate: .unreachable), to: node, delay: 2_000_000)
    }
  }

  private func push(_ report: DeliveryReport, to node: SimulatedNode, delay: UInt64) {
    let slot = reports.put(report)
    queue.push(
      at: now + delay, .report, subject: node.position, argument: slot, incarnation: node.incarnation)
  }

  func deliver(_ message: Message, _ node: SimulatedNode) throws(Violation) {
    hash.add(UInt64(message.type.rawValue) | message.from << 8 | message.to << 16 | message.term << 24)
    hash.add(message.index << 32 ^ message.commit ^ message.context << 48)
    let sender = nodes[Int(message.from) - 1]
    let isLost = !node.isUp || (network.dropsInFlight && network.isCut(from: sender.position, to: node.position))
    if message.type == .snapshot {
      push(
        DeliveryReport(peer: message.to, fate: isLost ? .snapshotFailed : .snapshotDelivered), to: sender,
        delay: 1_000_000)
    }
    guard !isLost else { return }
    record { "n\(message.from) → n\(message.to)  \(describe(message))" }
    guard network.encodes else {
      try take(.message(message), node)
      return
    }
    mark(.encodedMessage)
    switch MessageTransfer.roundTrip(message) {
    case .success(let copy): try take(.message(copy), node)
    case .failure(let error):
      throw broken(.coreError, "\(message.type) from n\(message.from) does not survive encoding: \(error)")
    }
  }
}
