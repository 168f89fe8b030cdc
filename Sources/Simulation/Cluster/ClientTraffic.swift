@_spi(Testing) import Raft
import WeirCore

// The clients' side, and how nodes answer them.
extension SimulatedCluster {
  /// Most operations a client begins after the cluster was healed.
  private static var operationsAfterHealing: Int { 12 }

  func clientTurn(_ position: Int) {
    guard !isOver, !clients[position].isWaiting else { return }
    if clients[position].operation == nil {
      let limit = plan.workload.operationsPerClient + (isHealing ? Self.operationsAfterHealing : 0)
      guard isHealing ? clients[position].answersSinceHealing < 4 : clients[position].operations < limit else { return }
      clients[position].begin(client: position, settings: plan.workload)
      let client = clients[position]
      clients[position].operation = history.call(
        client: position, kind: client.kind, key: client.key, version: client.version, at: now)
    }
    clients[position].attempt += 1
    clients[position].isWaiting = true
    let client = clients[position]
    record {
      "c\(position) asks n\(client.node + 1): \(client.kind) key \(client.key) \(client.kind.isWrite ? "\(client.version)" : "")"
    }
    let slot = requests.put(client.request(client: position))
    queue.push(at: now + network.clientDelay(), .request, subject: client.node, argument: slot)
    let timeout = UInt64(plan.workload.timeoutNanoseconds)
    queue.push(
      at: now + (isHealing ? min(timeout, 3 * plan.electionTimeoutNanoseconds) : timeout), .clientTimeout,
      subject: position, argument: client.attempt)
  }

  func clientAnswer(_ slot: Int) {
    guard let answer = answers.take(slot) else { return }
    let position = answer.client
    guard clients[position].isWaiting, clients[position].attempt == answer.attempt,
      let operation = clients[position].operation
    else { return }
    clients[position].isWaiting = false
    switch answer.outcome {
    case .done(let version):
      hash.add(version)
      record { "c\(position) is answered by n\(answer.node + 1): \(version)" }
      history.answer(operation, version: version, at: now)
      if isHealing { clients[position].answersSinceHealing += 1 }
      clients[position].operation = nil
      // Stay with a node that answers; wander sometimes, so that every node is asked.
      clients[position].node =
        clients[position].random.chance(perMillion: 150_000)
        ? clients[position].random.below(plan.nodeCount) : answer.node
      scheduleTurn(position, after: clients[position].random.below(2 * plan.workload.thinkNanoseconds + 1))
    case .refused:
      clients[position].refusals += 1
      if clients[position].refusals > 40 {
        abandon(position)
      } else {
        clients[position].node = nextNode(clients[position], after: answer.node)
      }
      scheduleTurn(position, after: 2_000_000 + clients[position].random.below(10_000_000))
    }
  }

  func clientTimeout(_ position: Int, attempt: Int) {
    guard clients[position].isWaiting, clients[position].attempt == attempt else { return }
    clients[position].isWaiting = false
    clients[position].mayHaveEffect = true
    clients[position].node = clients[position].random.below(plan.nodeCount)
    // The same operation again: the session keeps it from taking effect twice.
    if clients[position].retries < 2, clients[position].random.coin() {
      clients[position].retries += 1
    } else {
      abandon(position)
    }
    scheduleTurn(position, after: clients[position].random.below(2 * plan.workload.thinkNanoseconds + 1))
  }

  /// The client gives up: what it asked for was done, will be, or never.
  private func abandon(_ position: Int) {
    guard let operation = clients[position].operation else { return }
    if !clients[position].mayHaveEffect { history.refuse(operation, at: now) }
    clients[position].operation = nil
  }

  /// The leader, if anybody leads, or any other node.
  private func nextNode(_ client: Client, after node: Int) -> Int {
    let leader = leaderPosition()
    if let leader, leader != node { return leader }
    return (node + 1) % plan.nodeCount
  }

  func scheduleTurn(_ position: Int, after delay: Int) {
    queue.push(at: now + UInt64(delay), .clientTurn, subject: position)
  }

  // MARK: At the node

  /// A client's request reaches the driver.
  func serve(_ request: ClientRequest, _ node: SimulatedNode, _ core: Core) throws(Violation) {
    if request.kind == .get {
      serveRead(request, node, core)
      return
    }
    let command = Command(
      client: UInt32(request.client), sequence: request.sequence, key: UInt32(request.key), kind: request.kind,
      version: request.version)
    let size = Command.headerBytes + Int(request.version % UInt64(max(1, plan.workload.maximumPayloadBytes)))
    command.encode(
      sizeBytes: min(size, max(plan.workload.maximumPayloadBytes, Command.headerBytes)), into: &commandBytes)
    do throws(RaftError) {
      try core.propose(commandBytes)
    } catch {
      answer(request, .refused, node)
      return
    }
    if options.driverBugs.contains(.answersWhenAppended), core.state.role == .leader {
      answer(request, .done(request.version), node)
      return
    }
    node.pendingWrites.append(PendingWrite(request: request))
  }

  private func serveRead(_ request: ClientRequest, _ node: SimulatedNode, _ core: Core) {
    if options.driverBugs.contains(.readsLocally), core.state.role == .leader {
      answer(request, .done(node.machine.versions[request.key]), node)
      return
    }
    let context = node.nextReadContext
    node.nextReadContext += 1
    node.pendingReads.append(PendingRead(request: request, context: context, index: nil))
    core.raw.readIndex(context: context)
  }

  /// Reads that were confirmed, or that cannot be.
  func takeReads(_ ready: Ready, _ node: SimulatedNode) {
    guard !ready.readStates.isEmpty || !ready.refusedReads.isEmpty else { return }
    for state in ready.readStates {
      mark(.readConfirmed)
      if let core = node.core, core.raw.holdsLease(at: clockReading(node)) { mark(.leaseRead) }
      for position in node.pendingReads.indices where node.pendingReads[position].context == state.context {
        node.pendingReads[position].index = options.driverBugs.contains(.readsBeforeApplied) ? 0 : state.index
      }
    }
    for context in ready.refusedReads {
      mark(.readRefused)
      guard let position = node.pendingReads.firstIndex(where: { $0.context == context }) else { continue }
      answer(node.pendingReads.remove(at: position).request, .refused, node)
    }
    answerReads(node)
  }

  /// Answers the confirmed reads whose index is applied.
  func answerReads(_ node: SimulatedNode) {
    guard !node.pendingReads.isEmpty else { return }
    let applied = node.machine.appliedIndex
    node.pendingReads.removeAll { read in
      guard let index = read.index, index <= applied else { return false }
      answer(read.request, .done(node.machine.versions[read.request.key]), node)
      return true
    }
  }

  /// Answers the write that an applied command came from, if it was sent to this node.
  func answerWrite(_ command: Command, _ node: SimulatedNode) {
    guard
      let position = node.pendingWrites.firstIndex(where: {
        $0.request.client == Int(command.client) && $0.request.sequence == command.sequence
      })
    else { return }
    answer(node.pendingWrites.remove(at: position).request, .done(command.version), node)
  }

  func answer(_ request: ClientRequest, _ outcome: ClientAnswer.Outcome, _ node: SimulatedNode) {
    let slot = answers.put(
      ClientAnswer(client: request.client, attempt: request.attempt, node: node.position, outcome: outcome))
    queue.push(at: now + network.clientDelay(), .answer, subject: request.client, argument: slot)
  }

  /// What the node's clock shows the core.
  func clockReading(_ node: SimulatedNode) -> UInt64 {
    options.driverBugs.contains(.leaseClockStops)
      ? node.clock(at: now - node.pausedNanoseconds) : node.clock(at: now)
  }
}
