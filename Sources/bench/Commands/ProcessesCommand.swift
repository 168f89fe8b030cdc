import ArgumentParser
import CWeir
import Foundation
import Load
import WeirCache
import WeirTransport

/// `bench processes`: the same load with each node a process of its own.
struct Processes: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs writes and both kinds of reads with each node a process of its own.",
    discussion: """
      The load generator lives in the process of the node that leads, as an application does that embeds one; the other \
      nodes are children, which end with this process whatever way it ends. The same runs follow with all nodes in one \
      process, so that what sharing a process hides can be read off.
      """)

  @Option(help: "Nodes.")
  var nodes = 3

  @Option(help: "Operations in flight, over all workers, e.g. 1,256,1024.")
  var outstanding = "1,256,1024"

  @Option(help: "Worker threads.")
  var workers = 2

  @Option(help: "Size of a value in bytes.")
  var valueSize = 128

  @Option(help: "Seconds for each run.")
  var seconds = 1.0

  @OptionGroup var storage: StorageOptions

  @OptionGroup var eventLoop: EventLoopOptions

  func validate() throws {
    guard (2...9).contains(nodes) else { throw ValidationError("--nodes must be 2...9") }
    guard (1...64).contains(workers) else { throw ValidationError("--workers must be 1...64") }
    guard (16...(1 << 20)).contains(valueSize) else { throw ValidationError("--value-size must be 16...1048576") }
    guard seconds >= 0.1, seconds <= 60 else { throw ValidationError("--seconds must be 0.1...60") }
    guard levels.allSatisfy({ (1...(1 << 16)).contains($0) }), !levels.isEmpty else {
      throw ValidationError("--outstanding takes numbers from 1 to 65536")
    }
  }

  private var levels: [Int] { outstanding.split(separator: ",").map { Int($0) ?? 0 } }

  func run() throws {
    let interrupts = EndOnInterrupt()
    defer { withExtendedLifetime(interrupts) {} }
    try storage.checkWritable()
    print("\(nodes) nodes, \(valueSize)-byte values, \(storage.summary().text), loopback TCP, closed loop")
    print("where      operation  outstanding       ops/s   CPU µs/op   p50 µs   p99 µs  errors")
    let group = try ProcessGroup(nodes: nodes, eventLoop: eventLoop, storage: storage)
    defer { group.end() }
    try runAll("processes", on: group.target) { try group.childCPUNanoseconds() }
    try group.checkReplicas()
    group.end()
    let shared = try EmbeddedTargetFactory(eventLoop: eventLoop.configuration).startCluster(
      ClusterConfiguration(nodes: nodes, durability: storage.sync, directory: storage.dataDir))
    defer { shared.shutdown() }
    try runAll("threads", on: shared) { 0 }
    print("replicas of both clusters hold the same; the child processes have ended")
  }

  private func runAll(_ place: String, on target: any Target, otherCPU: () throws -> UInt64) throws {
    var client: UInt32 = 1
    let keys = max(16, min(10_000, (64 << 20) / valueSize))
    let noHistory = HistoryBudget(selection: HistorySelection(seed: 0, threshold: 0), operations: 0)
    func plan(_ name: String, _ workload: Workload, _ mode: ReadMode, _ level: Int, limit: UInt64?) -> RunPlan {
      client += 1
      return RunPlan(
        name: name, workload: workload, readMode: mode, loop: .closed(outstanding: level),
        workers: min(workers, level), warmUpNanoseconds: 0,
        durationNanoseconds: limit == nil ? UInt64(seconds * 1e9) : 60_000_000_000, operationLimit: limit, seed: 1,
        client: client)
    }
    let preload = plan(
      "preload", .preload(keys: keys, valueBytes: valueSize), .safe, 256, limit: UInt64(keys))
    _ = try LoadGenerator.run(preload, on: target, history: noHistory)
    for workload in ProbeWorkload.allCases {
      for level in levels {
        let before = try otherCPU()
        let run = plan(
          workload.rawValue, Workload(readPercent: workload.readPercent, keys: keys, valueBytes: valueSize),
          workload.readMode, level, limit: nil)
        let result = try LoadGenerator.run(run, on: target, history: noHistory)
        let cpu = result.processCPUNanoseconds + (try otherCPU()) - before
        printRow(place, workload, level, result, cpu)
      }
    }
  }

  private func printRow(_ place: String, _ workload: ProbeWorkload, _ level: Int, _ result: RunResult, _ cpu: UInt64) {
    let response = workload == .write ? result.writes.response : result.reads.response
    print(
      place.padding(toLength: 10, withPad: " ", startingAt: 0) + " "
        + workload.rawValue.padding(toLength: 9, withPad: " ", startingAt: 0)
        + String(
          format: " %12d %11.0f %11.3f %8.1f %8.1f %7d", level, result.opsPerSecond,
          Double(cpu) / 1000 / Double(max(result.completedInWindow, 1)), Double(response.quantile(0.5)) / 1000,
          Double(response.quantile(0.99)) / 1000, Int(result.errors)))
  }
}

/// A cluster of which one node, the leader, lives here and the others are children.
private final class ProcessGroup {
  let target: EmbeddedTarget
  private let own: Node
  private var children: [ChildNode] = []
  /// The logs of all nodes, each in a folder of its own.
  private let folder: TemporaryFolder?

  init(nodes: Int, eventLoop: EventLoopOptions, storage: StorageOptions) throws {
    let cluster = UInt64(getpid()) | 1
    let folder = storage.sync == .memory ? nil : try TemporaryFolder(in: storage.dataDir)
    self.folder = folder
    func directory(_ id: UInt64) -> String? { folder.map { "\($0.path)/node-\(id)" } }
    own = try NodeProcess.makeNode(
      id: 1, nodes: nodes, cluster: cluster, eventLoop: eventLoop.configuration,
      storage: NodeProcess.storage(storage.sync, in: directory(1)))
    target = EmbeddedTarget(cluster: EmbeddedCluster(nodes: [own]))
    for id in 2...UInt64(nodes) {
      children.append(
        try ChildNode(
          id: id, nodes: nodes, cluster: cluster, eventLoop: eventLoop, sync: storage.sync, directory: directory(id)))
    }
    try connect()
    try takeLeadership()
  }

  private func connect() throws {
    guard let address = own.address else { throw UsageError("the own node does not listen") }
    let all: [(id: UInt64, address: String)] =
      [(1, address.description)] + children.map { ($0.id, $0.address) }
    for child in children {
      for (id, address) in all where id != child.id { try child.send("peer \(id) \(address)") }
      guard try child.ask("start") == "started" else { throw UsageError("node process \(child.id) did not start") }
      own.addPeer(child.id, address: try SocketAddress(parsing: child.address))
    }
    own.start()
  }

  /// The generator drives the leader from within its process: whoever was elected hands over to this one.
  private func takeLeadership() throws {
    let end = cweir_monotonic_nanoseconds() + 30_000_000_000
    while !own.holdsLease {
      guard cweir_monotonic_nanoseconds() < end else { throw UsageError("no leader within 30 s") }
      let leader = own.status.leader
      if leader > 1, let child = children.first(where: { $0.id == leader }) { _ = try child.ask("transfer 1") }
      usleep(10_000)
    }
  }

  func childCPUNanoseconds() throws -> UInt64 {
    try children.reduce(0) { $0 + (try $1.report()).cpuNanoseconds }
  }

  /// Waits until all have applied the same, and compares what they hold.
  func checkReplicas() throws {
    let end = cweir_monotonic_nanoseconds() + 30_000_000_000
    while true {
      let reports = try children.map { try $0.report() }
      let applied = own.status.commitIndex
      if own.status.appliedIndex == applied, reports.allSatisfy({ $0.appliedIndex == applied }) {
        guard reports.allSatisfy({ $0.stateHash == own.store.stateHash }) else {
          throw UsageError("the replicas hold different states")
        }
        return
      }
      guard cweir_monotonic_nanoseconds() < end else { throw UsageError("the replicas are not even after 30 s") }
      usleep(5000)
    }
  }

  func end() {
    for child in children { child.end() }
    children.removeAll()
    own.stop()
    folder?.remove()
  }
}
