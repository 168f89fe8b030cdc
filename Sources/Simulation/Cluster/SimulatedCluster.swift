import Linearizability
@_spi(Testing) import Raft
import WeirCore

/// How a plan is run.
public struct RunOptions: Sendable {
  @_spi(Testing) public var plantedBugs: PlantedBugs = []
  @_spi(Testing) public var driverBugs: DriverBugs = []
  /// Whether a readable line is kept of every event.
  public var recordsTrace = false
  /// How many lines are kept, the last ones.
  public var traceLines = 400

  public init() {}
}

/// What came of a run.
public struct RunReport: Sendable {
  public var seed: UInt64
  /// Digest of all events; equal for every run of the same plan.
  public var traceHash: UInt64 = 0
  public var events = 0
  public var virtualNanoseconds: UInt64 = 0
  public var elections = 0
  public var committedEntries: UInt64 = 0
  public var operations = 0
  public var answeredOperations = 0
  /// What the run passed through, counted: a run that never did something proves nothing about it.
  public var marks: [Int] = Array(repeating: 0, count: Mark.allCases.count)
  public var violation: Violation?
  public var trace: [String] = []

  public subscript(mark: Mark) -> Int { marks[mark.rawValue] }
}

/// A whole cluster in virtual time, on one thread: one plan in, one report out.
final class SimulatedCluster {
  let plan: SimulationPlan
  let options: RunOptions
  var now: UInt64 = 0
  var queue = EventQueue(capacity: 4096)
  var messages = SlotPool<Message>()
  var requests = SlotPool<ClientRequest>()
  var answers = SlotPool<ClientAnswer>()
  var reports = SlotPool<DeliveryReport>()
  var network: Network
  var checker: SafetyChecker
  var history = History()
  var nodes: [SimulatedNode]
  var clients: [Client]
  var hash = TraceHash()
  var report: RunReport
  var trace: TraceRecorder?

  /// Links that each fault of the plan cut, to be undone.
  var cutLinks: [[Link]]
  /// The node that each fault of the plan hit.
  var faultNodes: [Int]
  /// The life of that node.
  var faultIncarnations: [UInt32]
  /// Membership changes that wait for a leader to take them.
  var membershipRequests: [(request: MembershipRequest, number: Int)] = []
  var isHealing = false
  var healedNanoseconds: UInt64 = 0
  var leaderSinceHealing = false
  var isOver = false
  var commandBytes: [UInt8] = []
  var crashRandom: RandomStream

  init(plan: SimulationPlan, options: RunOptions) {
    self.plan = plan
    self.options = options
    network = Network(settings: plan.network, nodeCount: plan.nodeCount, seed: plan.seed)
    checker = SafetyChecker(nodeCount: plan.nodeCount)
    nodes = (0..<plan.nodeCount).map { SimulatedNode(position: $0, plan: plan) }
    clients = (0..<plan.workload.clients).map { Client(seed: plan.seed, client: $0, nodeCount: plan.nodeCount) }
    report = RunReport(seed: plan.seed)
    cutLinks = Array(repeating: [], count: plan.faults.count)
    faultNodes = Array(repeating: -1, count: plan.faults.count)
    faultIncarnations = Array(repeating: 0, count: plan.faults.count)
    crashRandom = RandomStream(seed: plan.seed, purpose: .crashes)
    if options.recordsTrace { trace = TraceRecorder(limit: options.traceLines) }
  }

  /// Runs the plan to its end, or to the first violation.
  func run() -> RunReport {
    do throws(Violation) {
      try begin()
      while !isOver, let event = queue.pop() {
        now = event.time
        report.events += 1
        note(event)
        try handle(event)
      }
      try history.check(at: now)
    } catch {
      var violation = error
      violation.timeNanoseconds = now
      report.violation = violation
      record { "violation: \(violation)" }
    }
    return finish()
  }

  private func begin() throws(Violation) {
    for node in nodes {
      try bootstrap(node)
      node.store?.begin()
      try start(node)
    }
    for client in clients.indices {
      queue.push(at: UInt64(1 + clients[client].random.below(20_000_000)), .clientTurn, subject: client)
    }
    for (position, fault) in plan.faults.enumerated() {
      queue.push(at: fault.beginNanoseconds, .faultBegins, argument: position)
      queue.push(at: fault.beginNanoseconds + fault.durationNanoseconds, .faultEnds, argument: position)
    }
    queue.push(at: plan.electionTimeoutNanoseconds / 2, .administration)
    queue.push(at: plan.faultPhaseNanoseconds, .healing)
    queue.push(at: plan.faultPhaseNanoseconds + plan.healingNanoseconds, .end)
  }

  private func finish() -> RunReport {
    report.traceHash = hash.value
    report.virtualNanoseconds = now
    report.elections = checker.elections
    report.committedEntries = checker.highestCommit
    report.operations = history.operations.count
    report.answeredOperations = history.answered
    report.trace = trace?.lines ?? []
    return report
  }

  /// Adds an event to the digest.
  private func note(_ event: Event) {
    hash.add(event.time)
    hash.add(
      UInt64(event.kind.rawValue) | UInt64(UInt16(bitPattern: event.subject)) << 8 | UInt64(event.incarnation) << 32)
  }

  private func handle(_ event: Event) throws(Violation) {
    let subject = Int(event.subject)
    switch event.kind {
    case .tick, .diskDone, .applyDone, .wake, .restart, .deliver, .request, .report:
      try handleNode(event, nodes[subject])
    case .clientTurn: clientTurn(subject)
    case .answer: clientAnswer(event.argument)
    case .clientTimeout: clientTimeout(subject, attempt: event.argument)
    case .faultBegins: try beginFault(event.argument)
    case .faultEnds: try endFault(event.argument)
    case .administration: try administer()
    case .healing: try heal()
    case .end: try reachEnd()
    }
  }

  private func handleNode(_ event: Event, _ node: SimulatedNode) throws(Violation) {
    let isVoid = event.incarnation != 0 && event.incarnation != node.incarnation
    node.core?.raw.nowNanoseconds = clockReading(node)
    switch event.kind {
    case .tick where !isVoid:
      queue.push(
        at: now + node.tickInterval(plan.core.tickNanoseconds), .tick, subject: node.position,
        incarnation: node.incarnation)
      try take(.tick, node)
    case .diskDone where !isVoid: try diskDone(node)
    case .applyDone where !isVoid: try applyDone(node)
    case .wake where !isVoid: try takeInbox(node)
    case .restart where !isVoid: try restart(node)
    case .deliver:
      guard let message = messages.take(event.argument) else { return }
      try deliver(message, node)
    case .request:
      guard let request = requests.take(event.argument) else { return }
      // Nobody listens where no process is: the client knows at once that nothing was done.
      if node.isUp { try take(.request(request), node) } else { answer(request, .refused, node) }
    case .report:
      guard let report = reports.take(event.argument) else { return }
      if node.isUp, !isVoid { try take(.report(report), node) }
    default: break
    }
  }

  /// Adds a readable line, if anybody wants them.
  @inline(__always)
  func record(_ text: () -> String) {
    guard trace != nil else { return }
    trace?.add("\(milliseconds(now))  \(text())")
  }

  @inline(__always)
  func mark(_ mark: Mark) { report.marks[mark.rawValue] += 1 }

  func broken(_ invariant: Invariant, _ detail: String) -> Violation {
    Violation(invariant, detail, timeNanoseconds: now)
  }
}
