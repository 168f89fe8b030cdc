import ArgumentParser
import CWeir
import Foundation
import Load
import WeirTransport

/// `bench stopped-peer`: what a follower that hangs costs the leader and the clients.
struct StoppedPeer: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Freezes a follower under full load: what that costs the leader's memory, and the clients.",
    discussion: """
      Each node is a process of its own. Writes run as fast as they go; then a follower is stopped (SIGSTOP: its \
      connections stay open and take nothing) while they go on, and thawed at the end, when it must catch up. The \
      leader may grow by --limit MiB at most over what it was at its largest before: exit code 3 if it grows by more, \
      4 if an operation failed or the replicas differ in the end.
      """)

  @Option(help: "Nodes.")
  var nodes = 3

  @Option(help: "Seconds for which the follower stands still.")
  var seconds = 60.0

  @Option(help: "Seconds of load before, to compare with.")
  var before = 5.0

  @Option(help: "Operations in flight.")
  var outstanding = 1024

  @Option(help: "Size of a value in bytes.")
  var valueSize = 128

  @Option(help: "By how many MiB the leader may grow.")
  var limit = 64.0

  @OptionGroup var storage: StorageOptions

  @OptionGroup var eventLoop: EventLoopOptions

  func validate() throws {
    guard (3...9).contains(nodes) else { throw ValidationError("--nodes must be 3...9: a quorum has to be left") }
    guard (16...(1 << 20)).contains(valueSize) else { throw ValidationError("--value-size must be 16...1048576") }
    guard (1...(1 << 16)).contains(outstanding) else { throw ValidationError("--outstanding must be 1...65536") }
    for value in [seconds, before] where !(0.1...3600).contains(value) {
      throw ValidationError("--seconds and --before must be 0.1...3600")
    }
  }

  func run() throws {
    let interrupts = EndOnInterrupt()
    defer { withExtendedLifetime(interrupts) {} }
    try storage.checkWritable()
    let idleStates = try CPULatencyRequest.asked(eventLoop.cpuLatency)
    defer { withExtendedLifetime(idleStates) {} }
    let factory = ProcessTargetFactory(eventLoop: eventLoop.configuration)
    let target = try factory.start(
      ClusterConfiguration(nodes: nodes, durability: storage.sync, directory: storage.dataDir))
    defer { target.shutdown() }
    guard let leader = try target.leader(deadlineNanoseconds: 0),
      let follower = target.children.first(where: { $0 !== leader })
    else { throw UsageError("nobody leads") }
    // Long enough for everything that grows to its size once to have done so: the table, the log, the buffers.
    _ = try load("fill", client: 1, seconds: max(before, 3), on: target, leader)
    let healthy = try load("healthy", client: 2, seconds: before, on: target, leader)
    follower.setStopped(true)
    let frozen = try load("frozen", client: 3, seconds: seconds, on: target, leader)
    follower.setStopped(false)
    let replicas = try target.replicaHashes(deadlineNanoseconds: cweir_monotonic_nanoseconds() + 120_000_000_000)
    let growth = frozen.mostMemory > healthy.mostMemory ? frozen.mostMemory - healthy.mostMemory : 0
    print(
      "\(nodes) processes, \(valueSize)-byte values, \(outstanding) in flight; \(storage.summary().text), \(eventLoop.text)"
    )
    Self.printRow("all \(nodes) nodes", before, healthy)
    Self.printRow("one frozen", seconds, frozen)
    let agree = Set(replicas.map(\.hash)).count == 1
    print(
      String(format: "the leader grew by %.1f MiB; limit %.0f MiB\n", Double(growth) / 1048576, limit)
        + "thawed: \(agree ? "the replicas hold the same" : "THE REPLICAS DIFFER")")
    guard agree, healthy.result.errors + frozen.result.errors == 0 else { throw ExitStatus.invalidRun }
    guard Double(growth) <= limit * 1048576 else { throw ExitStatus.thresholdMissed }
  }

  private struct Part {
    var result: RunResult
    /// The most that the leader's process held in memory, in bytes.
    var mostMemory: UInt64
  }

  private func load(
    _ name: String, client: UInt32, seconds: Double, on target: ProcessTarget, _ leader: ChildNode
  ) throws -> Part {
    let keys = max(16, min(10_000, (64 << 20) / valueSize))
    let plan = RunPlan(
      name: name, workload: Workload(readPercent: 0, keys: keys, valueBytes: valueSize), readMode: .safe,
      loop: .closed(outstanding: outstanding), workers: min(2, outstanding), warmUpNanoseconds: 0,
      durationNanoseconds: UInt64(seconds * 1e9), seed: 1, client: client)
    let noHistory = HistoryBudget(selection: HistorySelection(seed: 0, threshold: 0), operations: 0)
    var most: UInt64 = 0
    let result = try LoadGenerator.run(plan, on: LeaderOnly(target, leader), history: noHistory) { _ in
      most = max(most, Self.residentBytes(leader.processID))
    }
    return Part(result: result, mostMemory: max(most, Self.residentBytes(leader.processID)))
  }

  private static func printRow(_ name: String, _ seconds: Double, _ part: Part) {
    let response = part.result.writes.response
    print(
      name.padding(toLength: 12, withPad: " ", startingAt: 0)
        + String(
          format: " %5.0f s %11.0f writes/s  p50 %8.1f µs  p99 %8.1f µs  errors %d  leader %.1f MiB", seconds,
          part.result.opsPerSecond, Double(response.quantile(0.5)) / 1000, Double(response.quantile(0.99)) / 1000,
          Int(part.result.errors), Double(part.mostMemory) / 1048576))
  }

  /// What of a process is in memory, in bytes; 0 if it cannot be read.
  private static func residentBytes(_ process: Int32) -> UInt64 {
    let status = (try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)) ?? ""
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
    return (line?.split(separator: " ").compactMap { UInt64($0) }.first ?? 0) * 1024
  }
}
