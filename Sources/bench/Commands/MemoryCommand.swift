import ArgumentParser
import CWeir
import Foundation
import Load
import Measure
import Synchronization
import WeirCore

/// `bench memory`: how much memory a node needs for what it holds.
struct MemoryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "memory",
    abstract: "Measures the memory of nodes, each a process of its own, beside what they hold.",
    discussion: """
      The nodes are filled, then written to while each of them writes snapshots one after the other, then stopped and \
      started again from their disks, and then written to as fast as they take it while each writes one snapshot, so \
      slowly that all keys would be overwritten several times meanwhile. Then they are started once more, with the log of \
      that behind their snapshots, and a follower is frozen while all keys are overwritten, so that it has to be sent the \
      state when it goes on, in place of the one that it holds (neither with one node). After each of these, the most \
      memory that a node's process has had resident so far (VmHWM) is shown for the node with the most, or that follower, \
      beside the bound: one and a half times its keys and values, and 128 MiB. Exits with 3 if it is exceeded.
      """)

  @OptionGroup var state: StateOptions

  @Option(help: "Writes per second while snapshots are written; as many as the nodes take, if it is 0.")
  var rate = 10_000.0

  @Option(help: "Seconds of writing meanwhile.")
  var seconds = 10.0

  @Option(help: "How often each key is overwritten while one snapshot is written in the last part, at its slow pace.")
  var overwrites = 6

  @Option(help: "Writes the results as JSON to this file; - is standard output, in place of the table.")
  var json: String?

  @OptionGroup var storage: StorageOptions

  /// What `--json` writes, under `memory`.
  struct Results: Codable {
    struct Phase: Codable {
      var name: String
      /// Bytes of keys and values of the node with the most memory, and what it had resident at most so far.
      var liveBytes: UInt64
      var peakResidentBytes: UInt64
      var boundBytes: UInt64
    }

    struct Body: Codable {
      var schemaVersion = 2
      var storage: StorageSummary
      var nodes: Int
      var keys: Int
      var valueBytes: Int
      var writesPerSecond: Double
      var snapshots: Int
      /// How often each key was overwritten in the last part, and how many snapshots all nodes finished meanwhile. Those that
      /// were refused had been given up, or another was being written.
      var overwrites: Double
      var snapshotsMeanwhile: Int
      var snapshotsRefusedMeanwhile: Int
      var phases: [Phase]
    }

    var memory: Body
  }

  func validate() throws {
    guard rate == 0 || (1000...1_000_000).contains(rate) else {
      throw ValidationError("--rate must be 0 or 1000...1000000")
    }
    guard (1...100).contains(overwrites) else { throw ValidationError("--overwrites must be 1...100") }
    guard (1...600).contains(seconds) else { throw ValidationError("--seconds must be 1...600") }
    guard storage.sync != .memory else { throw ValidationError("what is in memory only is not recovered") }
  }

  func run() throws {
    let interrupts = EndOnInterrupt()
    defer { withExtendedLifetime(interrupts) {} }
    try storage.checkWritable()
    let disk = storage.summary()
    let folder = try TemporaryFolder(in: storage.dataDir)
    defer { folder.remove() }
    let cluster = ClusterConfiguration(nodes: state.nodes, durability: storage.sync, directory: folder.path)
    var phases: [Results.Phase] = []
    var target = try ProcessTargetFactory().start(cluster, in: folder.path)
    defer { target.shutdown() }
    let filled = try LoadGenerator.run(
      plan("fill", state.preload, .closed(outstanding: 1024), limit: UInt64(state.keys), 300), on: target,
      history: Self.noHistory)
    phases.append(try measure("filled", target))
    let turns = SnapshotLoop(target.children)
    let loop: LoopMode =
      rate == 0
      ? .closed(outstanding: 1024) : .open(ratePerSecond: rate, arrival: .poisson, outstandingLimit: 65_536)
    let written = try LoadGenerator.run(
      plan("write", state.writes, loop, limit: nil, seconds), on: target, history: Self.noHistory)
    let snapshots = try turns.finish()
    phases.append(try measure("written to, \(snapshots) snapshots", target))
    target.shutdown()
    let overwriting = Double(overwrites) * Double(filled.windowNanoseconds) / 1e9
    target = try ProcessTargetFactory(snapshotBytesPerSecond: Int(Double(state.snapshotBytes) / overwriting))
      .start(cluster, in: folder.path)
    phases.append(try measure("started again", target))
    let meanwhile = SnapshotLoop(target.children)
    let overwritten = try LoadGenerator.run(
      plan("overwrite", state.writes, .closed(outstanding: 1024), limit: UInt64(overwrites * state.keys), 600),
      on: target, history: Self.noHistory)
    let finished = try meanwhile.finish()
    phases.append(try measure("overwritten \(overwrites) times, \(finished) snapshots", target))
    if state.nodes > 1 {
      target.shutdown()
      target = try ProcessTargetFactory().start(cluster, in: folder.path)
      phases.append(try measure("started again, with a long log", target))
      phases.append(try measureCatchingUp(target))
    }
    try show(
      Results(
        memory: .init(
          storage: disk, nodes: state.nodes, keys: state.keys, valueBytes: state.valueSize,
          writesPerSecond: Double(written.writes.response.count) / seconds, snapshots: snapshots,
          overwrites: Double(overwritten.writes.response.count) / Double(state.keys),
          snapshotsMeanwhile: finished, snapshotsRefusedMeanwhile: meanwhile.refused, phases: phases)))
    if phases.contains(where: { $0.peakResidentBytes > $0.boundBytes }) { throw ExitStatus.thresholdMissed }
  }

  private static let noHistory = HistoryBudget(selection: HistorySelection(seed: 0, threshold: 0), operations: 0)

  private func plan(
    _ name: String, _ workload: Workload, _ loop: LoopMode, limit: UInt64?, _ seconds: Double
  ) -> RunPlan {
    RunPlan(
      name: name, workload: workload, readMode: .safe, loop: loop, workers: 2, warmUpNanoseconds: 0,
      durationNanoseconds: UInt64(seconds * 1e9), operationLimit: limit, seed: 1, client: limit == nil ? 2 : 1)
  }

  /// Freezes a follower until the entries that it would need are not held any more, and lets it be sent the state.
  private func measureCatchingUp(_ target: ProcessTarget) throws -> Results.Phase {
    _ = try target.replicaHashes(deadlineNanoseconds: cweir_monotonic_nanoseconds() + 60_000_000_000)
    guard let leader = try target.leader(deadlineNanoseconds: cweir_monotonic_nanoseconds() + 30_000_000_000),
      let follower = target.children.first(where: { $0 !== leader })
    else { throw TargetError("nobody leads") }
    let before = try follower.report().snapshotsInstalled
    follower.setStopped(true)
    defer { follower.setStopped(false) }
    _ = try LoadGenerator.run(
      plan("overwrite", state.preload, .closed(outstanding: 1024), limit: UInt64(state.keys), 300),
      on: LeaderOnly(target, leader), history: Self.noHistory)
    follower.setStopped(false)
    var phase = try measure("a follower that was sent it", target, [follower])
    // A small state is no more than the log that a leader holds in any case.
    if try follower.report().snapshotsInstalled == before { phase.name = "a follower, by the log" }
    return phase
  }

  private func measure(
    _ name: String, _ target: ProcessTarget, _ children: [ChildNode]? = nil
  ) throws -> Results.Phase {
    _ = try target.replicaHashes(deadlineNanoseconds: cweir_monotonic_nanoseconds() + 60_000_000_000)
    let reports = try (children ?? target.children).map { try $0.report() }
    guard let most = reports.max(by: { $0.peakResidentBytes < $1.peakResidentBytes }) else {
      throw UsageError("there are no nodes")
    }
    return Results.Phase(
      name: name, liveBytes: most.liveBytes, peakResidentBytes: most.peakResidentBytes,
      boundBytes: most.liveBytes * 3 / 2 + (128 << 20))
  }

  private func show(_ results: Results) throws {
    if let json {
      try JSONOutput.write(results, to: json)
      if json == "-" { return }
    }
    let body = results.memory
    print(
      "\(state.nodes) nodes, each a process; \(state.text), \(body.storage.text), \(Int(body.writesPerSecond)) writes/s"
    )
    print("                                   live MiB   peak resident MiB   bound MiB   of bound")
    for phase in body.phases {
      func mebibytes(_ bytes: UInt64) -> Double { Double(bytes) / 1_048_576 }
      print(
        phase.name.padding(toLength: 32, withPad: " ", startingAt: 0)
          + String(
            format: "%11.1f %19.1f %11.1f %9.0f%%", mebibytes(phase.liveBytes), mebibytes(phase.peakResidentBytes),
            mebibytes(phase.boundBytes), 100 * Double(phase.peakResidentBytes) / Double(phase.boundBytes)))
    }
  }
}

/// Has each of some nodes write snapshots, all of them at once and over again, until told to end.
private final class SnapshotLoop: Sendable {
  private let group = DispatchGroup()
  private let state = Mutex((isEnding: false, count: 0, refused: 0, failure: String?.none))

  init(_ children: [ChildNode]) {
    for child in children {
      group.enter()
      Thread.detachNewThread { [self] in
        defer { group.leave() }
        do {
          var isOver = false
          while !isOver {
            try write(child)
            isOver = state.withLock { state in
              state.count += 1
              return state.isEnding
            }
          }
        } catch {
          state.withLock { $0.failure = "\(error)" }
        }
      }
    }
  }

  /// Has a node write a snapshot, and waits for it. The conversation stays free for others meanwhile.
  private func write(_ child: ChildNode) throws {
    let before = try child.report()
    let deadline = cweir_monotonic_nanoseconds() + 300_000_000_000
    var refused = before.snapshotsRefused
    _ = try child.ask("snapshot")
    while true {
      usleep(50_000)
      let report = try child.report()
      if report.snapshots > before.snapshots { return }
      guard cweir_monotonic_nanoseconds() < deadline else { throw TargetError("node \(child.id) wrote no snapshot") }
      // It was writing one by itself, or gave this one up.
      if report.snapshotsRefused > refused {
        refused = report.snapshotsRefused
        state.withLock { $0.refused += 1 }
        _ = try child.ask("snapshot")
      }
    }
  }

  /// Waits for those that are being written; returns how many there were.
  func finish() throws -> Int {
    state.withLock { $0.isEnding = true }
    group.wait()
    let (_, count, _, failure) = state.withLock { $0 }
    if let failure { throw TargetError(failure) }
    return count
  }

  /// How often one that was asked for was not written.
  var refused: Int { state.withLock { $0.refused } }
}
