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
    abstract: "Measures writes while every node writes a snapshot, against writes while none does.",
    discussion: """
      Rounds of two windows: in one nothing else goes on, in the other all nodes write the whole state to their disks. \
      The windows are open loops at one rate, and as long as a snapshot takes.
      """)

  @Option(help: "Nodes; an odd number, 1...9.")
  var nodes = 3

  @Option(help: "Keys in the state.")
  var keys = 1_000_000

  @Option(help: "Size of a value in bytes.")
  var valueSize = 128

  @Option(help: "Writes per second.")
  var rate = 10_000.0

  @Option(help: "Rounds.")
  var rounds = 4

  @Option(help: "Writes the results as JSON to this file; - is standard output, in place of the table.")
  var json: String?

  @OptionGroup var storage: StorageOptions

  /// What `--json` writes, under `snapshot`.
  struct Results: Codable {
    struct Round: Codable {
      var without: LatencySummary
      var during: LatencySummary
      var snapshotSeconds: Double
    }

    struct Body: Codable {
      var schemaVersion = 1
      var storage: StorageSummary
      var nodes: Int
      var keys: Int
      var valueBytes: Int
      var ratePerSecond: Double
      var rounds: [Round]
      /// Median over the rounds of p99 during over p99 without.
      var p99Ratio: Double
    }

    var snapshot: Body
  }

  func validate() throws {
    guard (1...9).contains(nodes), !nodes.isMultiple(of: 2) else { throw ValidationError("--nodes must be odd, 1...9") }
    guard (1000...10_000_000).contains(keys) else { throw ValidationError("--keys must be 1000...10000000") }
    guard (16...(1 << 16)).contains(valueSize) else { throw ValidationError("--value-size must be 16...65536") }
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
        ClusterConfiguration(nodes: nodes, durability: storage.sync, directory: storage.dataDir)) as? EmbeddedTarget
    else { throw UsageError("the embedded cluster did not start") }
    defer { target.shutdown() }
    let preload = plan(
      "preload", .preload(keys: keys, valueBytes: valueSize), .closed(outstanding: 1024), 1, seconds: 300)
    _ = try LoadGenerator.run(preload, on: target, history: Self.noHistory)
    var measured: [Results.Round] = []
    for round in 0..<rounds { measured.append(try measure(round, target)) }
    let ratios = measured.map { Double($0.during.p99 ?? 0) / Double(max($0.without.p99 ?? 1, 1)) }.sorted()
    try show(
      Results(
        snapshot: .init(
          storage: disk, nodes: nodes, keys: keys, valueBytes: valueSize, ratePerSecond: rate, rounds: measured,
          p99Ratio: ratios[ratios.count / 2])))
  }

  private static let noHistory = HistoryBudget(selection: HistorySelection(seed: 0, threshold: 0), operations: 0)

  private func plan(
    _ name: String, _ workload: Workload, _ loop: LoopMode, _ client: UInt32, seconds: Double
  ) -> RunPlan {
    RunPlan(
      name: name, workload: workload, readMode: .safe, loop: loop, workers: 2,
      warmUpNanoseconds: loop.isOpen ? 200_000_000 : 0, durationNanoseconds: UInt64(seconds * 1e9),
      operationLimit: loop.isOpen ? nil : UInt64(keys), seed: UInt64(client), client: client)
  }

  private func measure(_ round: Int, _ target: EmbeddedTarget) throws -> Results.Round {
    let workload = Workload(readPercent: 0, keys: keys, valueBytes: valueSize)
    let open = LoopMode.open(ratePerSecond: rate, arrival: .poisson, outstandingLimit: 65_536)
    let window = max(1, Double(keys * (valueSize + 24)) / Double(target.snapshotBytesPerSecond))
    let client = UInt32(10 + 2 * round)
    let without = try LoadGenerator.run(
      plan("without", workload, open, client, seconds: window), on: target, history: Self.noHistory)
    let watch = SnapshotWatch(target.cluster.nodes)
    let during = try LoadGenerator.run(
      plan("during", workload, open, client + 1, seconds: window), on: target, history: Self.noHistory)
    let seconds = try watch.wait()
    return Results.Round(
      without: LatencySummary(without.writes.response), during: LatencySummary(during.writes.response),
      snapshotSeconds: seconds)
  }

  private func show(_ results: Results) throws {
    if let json {
      try JSONOutput.write(results, to: json)
      if json == "-" { return }
    }
    print(
      "\(nodes) nodes, \(keys) keys of \(valueSize) bytes, \(results.snapshot.storage.text), \(Int(rate)) writes/s, open loop"
    )
    print("          without                      while all nodes write a snapshot")
    print("round     p50 µs     p99 µs   p99.9      p50 µs     p99 µs   p99.9 µs   snapshot s   p99 ratio")
    for (number, round) in results.snapshot.rounds.enumerated() {
      func micro(_ value: UInt64?) -> Double { Double(value ?? 0) / 1000 }
      print(
        String(
          format: "%5d %10.0f %10.0f %8.0f  %10.0f %10.0f %10.0f %12.2f %11.2f", number + 1, micro(round.without.p50),
          micro(round.without.p99), micro(round.without.p999), micro(round.during.p50), micro(round.during.p99),
          micro(round.during.p999), round.snapshotSeconds,
          micro(round.during.p99) / max(micro(round.without.p99), 0.001)
        ))
    }
    print(String(format: "p99 while snapshots are written, over p99 without: %.2f (median)", results.snapshot.p99Ratio))
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
