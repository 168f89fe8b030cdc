import ArgumentParser
import CWeir
import Load
import Measure
import WeirCache
import WeirTransport

extension ReadinessMechanism: ExpressibleByArgument {}

extension EventLoopConfiguration {
  /// As results state it.
  var readiness: Readiness {
    Readiness(
      mechanism: mechanism.rawValue, repollMicroseconds: Double(repollNanoseconds) / 1000,
      callersDrive: isDrivenByCallers)
  }
}

/// What to measure in `sweep`, `explain` and `processes`.
enum ProbeWorkload: String, ExpressibleByArgument, CaseIterable {
  case write, safe, lease

  var readPercent: Int { self == .write ? 0 : 100 }
  var readMode: ReadMode { self == .lease ? .lease : .safe }
}

/// The settings of an event loop, the same in every command that starts nodes.
struct EventLoopOptions: ParsableArguments {
  @Option(help: "How readiness reaches a node's queue: poll or dispatch.")
  var mechanism: ReadinessMechanism = EventLoopConfiguration().mechanism

  @Option(help: "Microseconds that a node polls again before it sleeps.")
  var repoll = Int(EventLoopConfiguration().repollNanoseconds / 1000)

  @Flag(
    inversion: .prefixedNo,
    help: "Whether threads that ask something of a sleeping node run its loop themselves (poll loops only).")
  var callersDrive = EventLoopConfiguration().callersDrive

  @Option(help: "Microseconds that such a thread polls again before it sleeps.")
  var callerRepoll = Int(EventLoopConfiguration().callerRepollNanoseconds / 1000)

  @Option(
    help: ArgumentHelp(
      """
      Keeps the machine's processors, while this runs, from idle states that take longer than so many µs to leave; 0: they \
      poll. Usually for root only. (default: they are left as they are)
      """, valueName: "µs"))
  var cpuLatency: Int32?

  func validate() throws {
    guard (cpuLatency ?? 0) >= 0 else { throw ValidationError("--cpu-latency must be 0 or more") }
    guard (0...10_000).contains(callerRepoll) else { throw ValidationError("--caller-repoll must be 0...10000") }
    guard (0...10_000).contains(repoll) else { throw ValidationError("--repoll must be 0...10000") }
  }

  /// In words, as part of what is printed.
  var text: String {
    "\(mechanism.rawValue) loop, " + (configuration.isDrivenByCallers ? "driven by callers, " : "") + "re-poll "
      + (repoll > 0 ? "\(repoll) µs" : "off") + (cpuLatency.map { ", idle states of \($0) µs at most" } ?? "")
  }

  var configuration: EventLoopConfiguration {
    EventLoopConfiguration(
      mechanism: mechanism, repollNanoseconds: UInt64(repoll) * 1000, callersDrive: callersDrive,
      callerRepollNanoseconds: UInt64(callerRepoll) * 1000)
  }
}

/// One point of a sweep: a closed loop against a fresh embedded cluster.
struct ClusterProbe {
  var workload = ProbeWorkload.write
  var nodes = 3
  var valueBytes = 128
  var workers = 2
  var outstanding = 256
  var keys = 10_000
  var warmUpSeconds = 0.3
  var seconds = 1.0
  var eventLoop = EventLoopConfiguration()
  var sync = Durability.always
  var dataDir: String?
  /// Connections of all workers together to a leader in another process; nil: the nodes are in this one.
  var connections: Int?

  private var factory: any TargetFactory {
    guard let connections else { return EmbeddedTargetFactory(eventLoop: eventLoop) }
    return ProcessTargetFactory(
      eventLoop: eventLoop, connectionsPerSession: max(1, connections / min(workers, outstanding)))
  }

  func run() throws -> RunResult {
    let target = try factory.startCluster(ClusterConfiguration(nodes: nodes, durability: sync, directory: dataDir))
    defer { target.shutdown() }
    let noHistory = HistoryBudget(selection: HistorySelection(seed: 0, threshold: 0), operations: 0)
    if workload != .write {
      let preload = plan(
        "preload", .preload(keys: keys, valueBytes: valueBytes), client: 1, seconds: 60, limit: UInt64(keys))
      _ = try LoadGenerator.run(preload, on: target, history: noHistory)
    }
    let measured = plan(
      workload.rawValue, Workload(readPercent: workload.readPercent, keys: keys, valueBytes: valueBytes), client: 2,
      seconds: seconds, limit: nil)
    return try LoadGenerator.run(measured, on: target, history: noHistory)
  }

  private func plan(
    _ name: String, _ workload: Workload, client: UInt32, seconds: Double, limit: UInt64?
  ) -> RunPlan {
    RunPlan(
      name: name, workload: workload, readMode: self.workload.readMode, loop: .closed(outstanding: outstanding),
      workers: min(workers, outstanding), warmUpNanoseconds: limit == nil ? UInt64(warmUpSeconds * 1e9) : 0,
      durationNanoseconds: UInt64(seconds * 1e9), operationLimit: limit, seed: 1, client: client)
  }
}
