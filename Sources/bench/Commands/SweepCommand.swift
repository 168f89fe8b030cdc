import ArgumentParser
import Foundation
import Load
import Report
import WeirTransport

/// `bench sweep`: what an operation costs as one thing grows and the others stay.
struct Sweep: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Measures the cost of an operation as nodes, values, workers, connections or outstanding operations grow.",
    discussion: """
      Each point is a closed loop against a fresh cluster within this process, or for --connections against nodes that \
      are processes of their own. With no list, each dimension is swept on its own while the others keep their base \
      values; with lists, their combinations are measured. The points and their plots go to a folder of their own.
      """)

  @Option(help: "write, safe or lease.")
  var workload = ProbeWorkload.write

  @Option(help: "Numbers of nodes, e.g. 1,3,5,7.")
  var nodes: String?

  @Option(help: "Sizes of a value in bytes, e.g. 16,128,1024.")
  var valueSize: String?

  @Option(help: "Numbers of worker threads, e.g. 1,2,4.")
  var workers: String?

  @Option(help: "Operations in flight, over all workers, e.g. 1,64,1024.")
  var outstanding: String?

  @Option(help: "Connections to the leader's process, over all workers, e.g. 2,8,64.")
  var connections: String?

  @Option(help: "Seconds of measuring for each point.")
  var seconds = 1.0

  @Option(help: ArgumentHelp("Folder in which each bench makes its own.", valueName: "folder"))
  var results = "results/runs"

  @OptionGroup var storage: StorageOptions

  @OptionGroup var eventLoop: EventLoopOptions

  func validate() throws {
    guard seconds >= 0.1, seconds <= 60 else { throw ValidationError("--seconds must be 0.1...60") }
    _ = try groups()
  }

  /// Points in which one thing grows.
  private struct Group {
    var title: String
    var dimension: String
    var value: (ClusterProbe) -> Double
    var points: [ClusterProbe]
  }

  func run() throws {
    let interrupts = EndOnInterrupt()
    defer { withExtendedLifetime(interrupts) {} }
    try storage.checkWritable()
    let idleStates = try CPULatencyRequest.asked(eventLoop.cpuLatency)
    defer { withExtendedLifetime(idleStates) {} }
    let machine = MachineReader.fingerprint()
    let groups = try groups()
    let files = try ResultFiles(parent: results, started: Date(), revision: machine.shortRevision)
    let settings = "closed loop, \(workload.rawValue), \(storage.summary().text), loopback TCP, \(eventLoop.text)"
    print(settings)
    var lines = ["group,nodes,value_bytes,workers,outstanding,connections,ops_per_second,cpu_us,p50_us,p99_us"]
    var charts: [SweepChart] = []
    do {
      for group in groups {
        print("\n\(group.title)\n\(Self.heads)")
        var chart = SweepChart(title: group.title, dimension: group.dimension, points: [])
        for point in group.points {
          let result = try point.run()
          print(Self.row(point, result))
          lines.append(Self.csv(group.title, point, result))
          chart.points.append(Self.mark(group.value(point), point, result))
        }
        charts.append(chart)
        Self.plot(chart)
      }
      try files.write(text: lines.joined(separator: "\n") + "\n", to: "sweep.csv")
      let page = SweepReport.html(
        title: "The cost of a \(workload.rawValue == "write" ? "write" : "\(workload.rawValue) read") as things grow",
        subtitle: settings, machine: machine, charts: charts)
      try files.write(text: page, to: "sweep.html")
    } catch {
      files.remove()
      throw error
    }
    print("\nfiles        \(files.folder.relativePath)/")
  }

  // MARK: Printing

  private static let heads =
    "nodes  value B  workers  outstanding  connections       ops/s   CPU µs/op   p50 µs   p99 µs  msgs/op  wakes/op"

  private static func latency(_ point: ClusterProbe, _ result: RunResult, _ quantile: Double) -> Double {
    Double((point.workload == .write ? result.writes : result.reads).response.quantile(quantile)) / 1000
  }

  private static func row(_ point: ClusterProbe, _ result: RunResult) -> String {
    let operations = Double(max(result.completedInWindow, 1))
    let connections = point.connections.map(String.init) ?? "-"
    return String(format: "%5d %8d %8d %12d", point.nodes, point.valueBytes, point.workers, point.outstanding)
      + String(repeating: " ", count: max(1, 13 - connections.count)) + connections
      + String(
        format: " %11.0f %11.3f %8.1f %8.1f %8.4f %9.5f", result.opsPerSecond,
        result.cpuNanosecondsPerOperation / 1000, latency(point, result, 0.5), latency(point, result, 0.99),
        result.messagesPerOperation ?? 0, Double(result.counters.wakeups ?? 0) / operations)
      + (result.errors > 0 ? "  \(result.errors) ERRORS" : "")
  }

  private static func csv(_ title: String, _ point: ClusterProbe, _ result: RunResult) -> String {
    "\(title),\(point.nodes),\(point.valueBytes),\(point.workers),\(point.outstanding),"
      + "\(point.connections.map(String.init) ?? ""),\(result.opsPerSecond),"
      + "\(result.cpuNanosecondsPerOperation / 1000),\(latency(point, result, 0.5)),\(latency(point, result, 0.99))"
  }

  private static func mark(_ value: Double, _ point: ClusterProbe, _ result: RunResult) -> SweepChart.Point {
    SweepChart.Point(
      value: value, cpuMicroseconds: result.cpuNanosecondsPerOperation / 1000,
      wallMicroseconds: result.opsPerSecond > 0 ? 1e6 / result.opsPerSecond : .nan,
      p50Microseconds: latency(point, result, 0.5))
  }

  /// Bars on a logarithmic scale: the costs span three orders of magnitude.
  private static func plot(_ chart: SweepChart) {
    let costs = chart.points.map { max($0.cpuMicroseconds, 0.001) }
    guard costs.count > 1, let least = costs.min(), let most = costs.max() else { return }
    print("CPU µs per operation over \(chart.dimension)")
    for (point, cost) in zip(chart.points, costs) {
      let share = most > least ? log(cost / least) / log(most / least) : 0
      let bar = String(repeating: "█", count: 1 + Int(share * 50))
      print(String(format: "%9.0f  ", point.value) + "\(bar) \(String(format: "%.3f", cost))")
    }
  }

  // MARK: Points

  private func groups() throws -> [Group] {
    var base = ClusterProbe()
    base.workload = workload
    base.seconds = seconds
    base.eventLoop = eventLoop.configuration
    base.sync = storage.sync
    base.dataDir = storage.dataDir
    let lists = [nodes, valueSize, workers, outstanding, connections]
    if lists.allSatisfy({ $0 == nil }) { return Self.dimensions(base) }
    var points = [base]
    points = try Self.expand(points, nodes, "--nodes", 1...9) { $0.nodes = $1 }
    points = try Self.expand(points, valueSize, "--value-size", 16...(1 << 20)) { $0.setValueBytes($1) }
    points = try Self.expand(points, workers, "--workers", 1...64) { $0.workers = $1 }
    points = try Self.expand(points, outstanding, "--outstanding", 1...(1 << 16)) { $0.outstanding = $1 }
    points = try Self.expand(points, connections, "--connections", 1...1024) { $0.connections = $1 }
    let known = Self.dimensions(base)
    // What is drawn over is the list that varies most; combinations are told apart in the table.
    let counts = lists.map { $0?.split(separator: ",").count ?? 0 }
    let position = counts.firstIndex(of: counts.max() ?? 0) ?? 0
    var group = known[position]
    group.points = points
    return [group]
  }

  private static func dimensions(_ base: ClusterProbe) -> [Group] {
    func group(
      _ title: String, _ dimension: String, _ values: [Int], _ value: @escaping (ClusterProbe) -> Double,
      _ set: (inout ClusterProbe, Int) -> Void
    ) -> Group {
      let points = values.map { value in
        var point = base
        set(&point, value)
        return point
      }
      return Group(title: title, dimension: dimension, value: value, points: points)
    }
    return [
      group("more nodes", "nodes", [1, 3, 5, 7], { Double($0.nodes) }) { $0.nodes = $1 },
      group(
        "larger values", "bytes of a value", [16, 128, 1024, 16 << 10, 128 << 10, 1 << 20], { Double($0.valueBytes) }
      ) { $0.setValueBytes($1) },
      group("more workers", "worker threads", [1, 2, 4], { Double($0.workers) }) { $0.workers = $1 },
      group("more in flight", "operations in flight", [1, 16, 64, 256, 1024], { Double($0.outstanding) }) {
        $0.outstanding = $1
      },
      group(
        "more connections to another process", "connections", [2, 4, 16, 64, 256], { Double($0.connections ?? 0) }
      ) { $0.connections = $1 },
    ]
  }

  private static func expand(
    _ points: [ClusterProbe], _ list: String?, _ name: String, _ range: ClosedRange<Int>,
    _ set: (inout ClusterProbe, Int) -> Void
  ) throws -> [ClusterProbe] {
    guard let list else { return points }
    let values = try list.split(separator: ",").map { text in
      guard let value = Int(text), range.contains(value) else {
        throw ValidationError("\(name) takes numbers from \(range.lowerBound) to \(range.upperBound), not '\(text)'")
      }
      return value
    }
    guard !values.isEmpty else { throw ValidationError("\(name) takes at least one number") }
    return points.flatMap { point in
      values.map { value in
        var changed = point
        set(&changed, value)
        return changed
      }
    }
  }
}

extension ClusterProbe {
  /// Sets the size, and keys and operations in flight that together stay within memory.
  fileprivate mutating func setValueBytes(_ size: Int) {
    valueBytes = size
    keys = min(keys, max(16, (64 << 20) / size))
    outstanding = min(outstanding, max(4, (16 << 20) / size))
  }
}
