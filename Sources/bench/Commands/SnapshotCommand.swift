import ArgumentParser
import Dispatch
import Foundation
import Load
import Measure
import Synchronization
import WeirCache

/// `bench snapshot`: what writing a snapshot does to the writes that go on meanwhile.
struct SnapshotCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "snapshot",
    abstract: "Measures writes while the nodes write snapshots, against writes while none does.",
    discussion: """
      Rounds of three windows, open loops at one rate: in the first nothing else goes on; in the second the nodes write \
      the whole state to their disks one after the other without a break, as their schedule has them take turns; in the \
      third all of them do so at once, as they would if they were told to. The second lasts until each node has written \
      its snapshot, the first as long.
      """)

  @OptionGroup var state: StateOptions

  @Option(help: "Writes per second.")
  var rate = 10_000.0

  @Option(help: "Rounds.")
  var rounds = 3

  @Option(help: "Writes the results as JSON to this file; - is standard output, in place of the table.")
  var json: String?

  @OptionGroup var storage: StorageOptions

  /// What `--json` writes, under `snapshot`.
  struct Results: Codable {
    struct Round: Codable {
      var without: LatencySummary
      var inTurn: LatencySummary
      var atOnce: LatencySummary
      /// Snapshots that the node with the fewest finished within the second window.
      var snapshotsInTurn: Int
      /// How long one took, in seconds: the mean where they take turns, and the longest where all write at once.
      var secondsInTurn: Double
      var secondsAtOnce: Double
    }

    struct Body: Codable {
      var schemaVersion = 2
      var storage: StorageSummary
      var nodes: Int
      var keys: Int
      var valueBytes: Int
      var ratePerSecond: Double
      var rounds: [Round]
      /// Medians over the rounds of p99 meanwhile over p99 without.
      var p99RatioInTurn: Double
      var p99RatioAtOnce: Double
    }

    var snapshot: Body
  }

  func validate() throws {
    guard rate >= 1000, rate <= 1_000_000 else { throw ValidationError("--rate must be 1000...1000000") }
    guard (1...20).contains(rounds) else { throw ValidationError("--rounds must be 1...20") }
    guard storage.sync != .memory else { throw ValidationError("a cluster in memory writes no snapshots") }
  }

  func run() throws {
    let interrupts = EndOnInterrupt()
    defer { withExtendedLifetime(interrupts) {} }
    try storage.checkWritable()
    let disk = storage.summary()
    var factory = EmbeddedTargetFactory()
    // Only those that are asked for.
    factory.snapshotAfterBytes = .max
    guard
      let target = try factory.startCluster(
        ClusterConfiguration(nodes: state.nodes, durability: storage.sync, directory: storage.dataDir))
        as? EmbeddedTarget
    else { throw UsageError("the embedded cluster did not start") }
    defer { target.shutdown() }
    let preload = plan(
      "preload", state.preload, .closed(outstanding: 1024), 1, seconds: 300)
    _ = try LoadGenerator.run(preload, on: target, history: Self.noHistory)
    var measured: [Results.Round] = []
    for round in 0..<rounds { measured.append(try measure(round, target)) }
    func median(_ meanwhile: KeyPath<Results.Round, LatencySummary>) -> Double {
      let ratios = measured.map { Self.ratio($0[keyPath: meanwhile], $0.without) }.sorted()
      return ratios[ratios.count / 2]
    }
    try show(
      Results(
        snapshot: .init(
          storage: disk, nodes: state.nodes, keys: state.keys, valueBytes: state.valueSize, ratePerSecond: rate,
          rounds: measured,
          p99RatioInTurn: median(\.inTurn), p99RatioAtOnce: median(\.atOnce))))
  }

  private static let noHistory = HistoryBudget(selection: HistorySelection(seed: 0, threshold: 0), operations: 0)

  private func plan(
    _ name: String, _ workload: Workload, _ loop: LoopMode, _ client: UInt32, seconds: Double
  ) -> RunPlan {
    RunPlan(
      name: name, workload: workload, readMode: .safe, loop: loop, workers: 2,
      warmUpNanoseconds: loop.isOpen ? 200_000_000 : 0, durationNanoseconds: UInt64(seconds * 1e9),
      operationLimit: loop.isOpen ? nil : UInt64(state.keys), seed: UInt64(client), client: client)
  }

  private static func ratio(_ meanwhile: LatencySummary, _ without: LatencySummary) -> Double {
    Double(meanwhile.p99 ?? 0) / Double(max(without.p99 ?? 1, 1))
  }

  private func measure(_ round: Int, _ target: EmbeddedTarget) throws -> Results.Round {
    let open = LoopMode.open(ratePerSecond: rate, arrival: .poisson, outstandingLimit: 65_536)
    // What one snapshot takes at its pace.
    let one = max(0.5, Double(state.snapshotBytes) / Double(target.snapshotBytesPerSecond))
    func run(_ name: String, _ number: Int, seconds: Double) throws -> LatencySummary {
      let plan = plan(name, state.writes, open, UInt32(10 + 3 * round + number), seconds: seconds)
      return LatencySummary(try LoadGenerator.run(plan, on: target, history: Self.noHistory).writes.response)
    }
    let window = one * Double(state.nodes) * 1.2
    // What the last snapshots replaced is taken off the disks.
    Thread.sleep(forTimeInterval: 2 * one)
    let without = try run("without", 0, seconds: window)
    let turns = SnapshotTurns(target.cluster.nodes)
    let inTurn = try run("in turn", 1, seconds: window)
    let (finished, seconds) = try turns.finish()
    let all = SnapshotWatch(target.cluster.nodes)
    let atOnce = try run("at once", 2, seconds: one)
    return Results.Round(
      without: without, inTurn: inTurn, atOnce: atOnce, snapshotsInTurn: finished, secondsInTurn: seconds,
      secondsAtOnce: try all.wait())
  }

  private func show(_ results: Results) throws {
    if let json {
      try JSONOutput.write(results, to: json)
      if json == "-" { return }
    }
    print(
      "\(state.nodes) nodes, \(state.text), \(results.snapshot.storage.text), \(Int(rate)) writes/s, open loop"
    )
    print("       without              nodes write in turn                    all nodes write at once")
    print("round  p50 µs  p99 µs   p50 µs  p99 µs  each s  ratio  finished    p50 µs  p99 µs  each s  ratio")
    for (number, round) in results.snapshot.rounds.enumerated() {
      func micro(_ value: UInt64?) -> Double { Double(value ?? 0) / 1000 }
      print(
        String(
          format: "%5d %7.0f %7.0f  %7.0f %7.0f %7.2f %6.2f %9d   %7.0f %7.0f %7.2f %6.2f", number + 1,
          micro(round.without.p50), micro(round.without.p99), micro(round.inTurn.p50), micro(round.inTurn.p99),
          round.secondsInTurn, Self.ratio(round.inTurn, round.without), round.snapshotsInTurn,
          micro(round.atOnce.p50), micro(round.atOnce.p99), round.secondsAtOnce,
          Self.ratio(round.atOnce, round.without)))
    }
    print(
      String(
        format: "p99 meanwhile, over p99 without: %.2f in turn, %.2f at once (medians)",
        results.snapshot.p99RatioInTurn,
        results.snapshot.p99RatioAtOnce))
    if results.snapshot.rounds.contains(where: { $0.snapshotsInTurn == 0 }) {
      print("Not every node finished its snapshot while it was measured: the rate is more than this machine carries.")
    }
  }
}

/// Nodes that write snapshots one after the other, without a break, until told to end.
private final class SnapshotTurns: Sendable {
  private struct State {
    var finished: [Int]
    var isEnding = false
    var failure: NodeError?
  }

  private let nodes: [Node]
  private let state: Mutex<State>
  private let begin = DispatchTime.now()
  private let isOver = DispatchSemaphore(value: 0)

  init(_ nodes: [Node]) {
    self.nodes = nodes
    state = Mutex(State(finished: nodes.map { _ in 0 }))
    write(0)
  }

  private func write(_ position: Int) {
    nodes[position].writeSnapshot { [self] result in
      let goesOn = state.withLock { state in
        if case .failure(let error) = result { state.failure = error } else { state.finished[position] += 1 }
        return !state.isEnding && state.failure == nil
      }
      if goesOn { write((position + 1) % nodes.count) } else { isOver.signal() }
    }
  }

  /// Lets the one that is being written end.
  /// - Returns: how many snapshots each node has finished at least by now, and how long one took, in seconds.
  func finish() throws -> (least: Int, seconds: Double) {
    let finished = state.withLock { state in
      state.isEnding = true
      return state.finished
    }
    isOver.wait()
    if let failure = state.withLock({ $0.failure }) { throw failure }
    let elapsed = Double(DispatchTime.now().uptimeNanoseconds - begin.uptimeNanoseconds) / 1e9
    return (finished.min() ?? 0, elapsed / Double(state.withLock { $0.finished.reduce(0, +) }))
  }
}

/// Snapshots that were asked for on several nodes at once.
private final class SnapshotWatch: Sendable {
  private let group = DispatchGroup()
  private let failure = Mutex<NodeError?>(nil)
  private let begin = DispatchTime.now()

  init(_ nodes: [Node]) {
    for node in nodes {
      group.enter()
      node.writeSnapshot { [self] result in
        if case .failure(let error) = result { failure.withLock { $0 = error } }
        group.leave()
      }
    }
  }

  /// Waits for all of them; returns how long they took, in seconds.
  func wait() throws -> Double {
    group.wait()
    if let failure = failure.withLock({ $0 }) { throw failure }
    return Double(DispatchTime.now().uptimeNanoseconds - begin.uptimeNanoseconds) / 1e9
  }
}
