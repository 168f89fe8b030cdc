import ArgumentParser
import CWeir
import Foundation
import Load
import Measure
import WeirCache
import WeirTransport

/// `bench explain`: where the time of a write goes.
struct Explain: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows where the time of a write goes, beside what bare sockets and a bare disk do.",
    discussion: """
      One write in flight gives the budget of each stage (medians of writes followed from the caller through the nodes \
      and back); many in flight give what one costs in system calls, bytes and wake-ups. With --sync always, a write is \
      also held against the least that it could take: a bare round trip, and as many threads as nodes that each make 4 \
      KiB durable at the same time, until a quorum of them is through.
      """)

  @Option(help: "Nodes.")
  var nodes = 3

  @Option(help: "Size of a value in bytes.")
  var valueSize = 128

  @Option(help: "Operations in flight for the second part.")
  var outstanding = 1024

  @Option(help: "Seconds for each part.")
  var seconds = 1.0

  @OptionGroup var storage: StorageOptions

  @OptionGroup var eventLoop: EventLoopOptions

  func validate() throws {
    guard (2...9).contains(nodes) else { throw ValidationError("--nodes must be 2...9: with one nothing is sent") }
    guard (16...(1 << 20)).contains(valueSize) else { throw ValidationError("--value-size must be 16...1048576") }
    guard (1...(1 << 16)).contains(outstanding) else { throw ValidationError("--outstanding must be 1...65536") }
    guard seconds >= 0.1, seconds <= 60 else { throw ValidationError("--seconds must be 0.1...60") }
  }

  func run() throws {
    let interrupts = EndOnInterrupt()
    defer { withExtendedLifetime(interrupts) {} }
    try storage.checkWritable()
    let idleStates = try CPULatencyRequest.asked(eventLoop.cpuLatency)
    defer { withExtendedLifetime(idleStates) {} }
    let disk = storage.summary()
    let board = StageBoard()
    let alone = try measure(outstanding: 1, board: board)
    let together = try measure(outstanding: outstanding, board: nil)
    let bytes = alone.after.bytesSent - alone.before.bytesSent
    let messages = max(alone.after.messagesSent - alone.before.messagesSent, 1)
    let limit = try LoopbackLimit.measure(
      requestBytes: max(Int(bytes / messages) * 2 - 160, 64), answerBytes: 128, messagesPerWrite: 64,
      seconds: seconds)
    let quorumWrite =
      storage.sync == .always
      ? try QuorumWriteLimit.measure(nodes: nodes, in: storage.dataDir, seconds: seconds) : nil
    print("\(nodes) nodes, \(valueSize)-byte values, \(disk.text), loopback TCP, \(eventLoop.text)")
    printStages(board, alone.result)
    print("\nper operation                 1 in flight   \(outstanding) in flight")
    printCosts(alone, together)
    printLimit(limit, alone.result, together.result)
    if let quorumWrite { printLimit(quorumWrite, roundTrip: limit.roundTrip, alone.result) }
  }

  // MARK: Measuring

  private struct Part {
    var result: RunResult
    var before: NodeCounters
    var after: NodeCounters
    /// Sleeps and wake-ups of the callers' threads.
    var callerSleeps: UInt64
    var callerWakes: UInt64
  }

  private func measure(outstanding: Int, board: StageBoard?) throws -> Part {
    let factory = EmbeddedTargetFactory(eventLoop: eventLoop.configuration, stageBoard: board)
    guard
      let target = try factory.startCluster(
        ClusterConfiguration(nodes: nodes, durability: storage.sync, directory: storage.dataDir)) as? EmbeddedTarget
    else {
      throw UsageError("the embedded cluster did not start")
    }
    defer { target.shutdown() }
    let keys = max(16, min(10_000, (64 << 20) / valueSize))
    let plan = RunPlan(
      name: "explain", workload: Workload(readPercent: 0, keys: keys, valueBytes: valueSize), readMode: .safe,
      loop: .closed(outstanding: outstanding), workers: min(2, outstanding), warmUpNanoseconds: 0,
      durationNanoseconds: UInt64(seconds * 1e9), seed: 1, client: 1)
    let noHistory = HistoryBudget(selection: HistorySelection(seed: 0, threshold: 0), operations: 0)
    let before = Self.sum(target.cluster.nodes.map(\.counters))
    let callers = Parker.systemCalls
    let result = try LoadGenerator.run(plan, on: target, history: noHistory)
    let callersAfter = Parker.systemCalls
    return Part(
      result: result, before: before, after: Self.sum(target.cluster.nodes.map(\.counters)),
      callerSleeps: callersAfter.sleeps - callers.sleeps, callerWakes: callersAfter.wakes - callers.wakes)
  }

  private static func sum(_ counters: [NodeCounters]) -> NodeCounters {
    var start = NodeCounters()
    start.loopSystemCalls = counters.first?.loopSystemCalls.map { _ in .none }
    return counters.reduce(into: start) { total, node in
      if let calls = node.loopSystemCalls {
        total.loopSystemCalls?.waits += calls.waits
        total.loopSystemCalls?.notifications += calls.notifications
      }
      total.messagesSent += node.messagesSent
      total.bytesSent += node.bytesSent
      total.writeCalls += node.writeCalls
      total.readCalls += node.readCalls
      total.turns += node.turns
      total.wakeups += node.wakeups
      total.proposalBatches += node.proposalBatches
      total.proposals += node.proposals
    }
  }

  // MARK: Printing

  /// The write to the sockets is left out of the chain: a follower may have the entry before the leader's call returns.
  private static let steps: [(from: WriteStage, to: WriteStage, text: String)] = [
    (.enqueued, .drained, "the leader's queue wakes and takes it"),
    (.drained, .appended, "framed into the leader's log"),
    (.appended, .followerAppended, "sent; a follower wakes, reads, checks, appends"),
    (.followerAppended, .acknowledged, "stored (to the disk with sync always), acknowledged"),
    (.acknowledged, .committed, "the leader wakes, reads, counts the quorum"),
    (.committed, .applied, "applied to the state machine"),
    (.applied, .answered, "completion in the caller's lane, caller woken"),
  ]

  /// The stages of writes whose whole time lies in the middle tenth, averaged: medians of the stages, each taken for
  /// itself, would not add up to anything.
  private func printStages(_ board: StageBoard, _ result: RunResult) {
    let samples = board.collected.sorted { Self.whole($0) < Self.whole($1) }
    guard !samples.isEmpty else { return print("no write was followed to its end") }
    let middle = samples[samples.count * 45 / 100...samples.count * 55 / 100]
    func mean(_ from: WriteStage, _ to: WriteStage) -> Double {
      let sum = middle.reduce(0.0) { $0 + Double(Int64(bitPattern: $1[to.rawValue] &- $1[from.rawValue])) }
      return sum / Double(middle.count) / 1000
    }
    print("\nstages of a write, 1 in flight (middle tenth of \(samples.count))      µs   share")
    let followed = mean(.enqueued, .answered)
    let total = max(Double(result.writes.response.quantile(0.5)) / 1000, followed, 0.001)
    for step in Self.steps { print(Self.line(step.text, mean(step.from, step.to), total)) }
    print(Self.line("the caller prepares it, and runs again once woken", total - followed, total))
    print(Self.line("response time, p50", total, total))
    print(Self.line("(within it: the leader's writes to all sockets)", mean(.appended, .sent), total))
  }

  private static func whole(_ sample: [UInt64]) -> UInt64 {
    sample[WriteStage.answered.rawValue] &- sample[WriteStage.enqueued.rawValue]
  }

  private static func line(_ text: String, _ microseconds: Double, _ total: Double) -> String {
    text.padding(toLength: 52, withPad: " ", startingAt: 0)
      + String(format: "%8.1f   %3.0f %%", microseconds, 100 * microseconds / total)
  }

  private func printCosts(_ alone: Part, _ together: Part) {
    func row(_ name: String, _ value: (Part) -> Double) {
      print(
        name.padding(toLength: 28, withPad: " ", startingAt: 0)
          + String(format: "%13.4f %15.4f", value(alone), value(together)))
    }
    func each(_ part: Part, _ path: KeyPath<NodeCounters, UInt64>) -> Double {
      Double(part.after[keyPath: path] - part.before[keyPath: path]) / Double(max(part.result.completed, 1))
    }
    row("CPU µs, all threads") { $0.result.cpuNanosecondsPerOperation / 1000 }
    func perOperation(_ part: Part, _ count: UInt64) -> Double {
      Double(count) / Double(max(part.result.completed, 1))
    }
    func loops(_ part: Part, _ path: KeyPath<EventLoopSystemCalls, UInt64>) -> Double {
      guard let after = part.after.loopSystemCalls, let before = part.before.loopSystemCalls else { return .nan }
      return perOperation(part, after[keyPath: path] - before[keyPath: path])
    }
    row("sendmsg") { each($0, \.writeCalls) }
    row("recv") { each($0, \.readCalls) }
    row("epoll_wait") { loops($0, \.waits) }
    row("eventfd, to wake a node") { loops($0, \.notifications) }
    row("futex, callers that sleep") { perOperation($0, $0.callerSleeps) }
    row("futex, to wake a caller") { perOperation($0, $0.callerWakes) }
    row("system calls together") {
      each($0, \.writeCalls) + each($0, \.readCalls) + loops($0, \.waits) + loops($0, \.notifications)
        + perOperation($0, $0.callerSleeps + $0.callerWakes)
    }
    row("wake-ups of nodes") { each($0, \.wakeups) }
    row("wake-ups of callers") { perOperation($0, $0.callerWakes) }
    row("peer messages") { each($0, \.messagesSent) }
    row("peer bytes") { each($0, \.bytesSent) }
    row("proposals per batch") { part in
      Double(part.after.proposals - part.before.proposals)
        / Double(max(part.after.proposalBatches - part.before.proposalBatches, 1))
    }
  }

  private func printLimit(_ limit: LoopbackLimit, _ alone: RunResult, _ together: RunResult) {
    print("\nbare loopback, same sizes, this run")
    print(
      String(
        format: "  ping-pong: p50 %.1f µs, %.1f µs of CPU; a write takes %.1f times that",
        Double(limit.roundTrip.quantile(0.5)) / 1000, limit.roundTripCPUNanoseconds / 1000,
        Double(alone.writes.response.quantile(0.5)) / Double(max(limit.roundTrip.quantile(0.5), 1))))
    print(
      String(
        format: "  stream of %d a write: %.0f messages/s, %.3f µs of CPU each; writes reach %.1f %% of that rate",
        limit.messagesPerWrite, limit.streamMessagesPerSecond, limit.streamCPUNanoseconds / 1000,
        100 * together.opsPerSecond / max(limit.streamMessagesPerSecond, 1)))
  }
  private func printLimit(_ limit: QuorumWriteLimit, roundTrip: LatencyHistogram, _ alone: RunResult) {
    let disk = Double(limit.quorum.quantile(0.5))
    let least = disk + Double(roundTrip.quantile(0.5))
    print("\nbare disk, this run")
    print(
      String(
        format: "  \(nodes) threads make 4 KiB durable at once: number \(nodes / 2 + 1) is through after %.1f µs (p50)",
        disk / 1000))
    print(
      String(
        format: "  with the ping-pong %.1f µs, the least that a write can take here; one takes %.2f times that",
        least / 1000, Double(alone.writes.response.quantile(0.5)) / max(least, 1)))
  }
}
