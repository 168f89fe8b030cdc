import ArgumentParser
import Foundation
import Load
import WeirTransport

/// `bench sweep`: what an operation costs as one thing grows and the others stay.
struct Sweep: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures the cost of an operation as nodes, values, workers or outstanding operations grow.",
    discussion: """
      Each point is a closed loop against a fresh embedded cluster. With no list, each dimension is swept on its own \
      while the others keep their base values; with lists, their combinations are measured.
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

  @Option(help: "Seconds of measuring for each point.")
  var seconds = 1.0

  @OptionGroup var storage: StorageOptions

  @OptionGroup var eventLoop: EventLoopOptions

  func validate() throws {
    guard seconds >= 0.1, seconds <= 60 else { throw ValidationError("--seconds must be 0.1...60") }
    _ = try points()
  }

  func run() throws {
    let interrupts = EndOnInterrupt()
    defer { withExtendedLifetime(interrupts) {} }
    try storage.checkWritable()
    print(
      "closed loop, \(storage.summary().text), loopback TCP, \(workload.rawValue), \(eventLoop.mechanism.rawValue) loop, "
        + "re-poll \(eventLoop.repoll) µs")
    print("nodes  value B  workers  outstanding       ops/s   CPU µs/op   p50 µs   p99 µs  msgs/op  wakes/op")
    var rows: [(label: String, cpu: Double)] = []
    for point in try points() {
      let result = try point.run()
      print(Self.row(point, result))
      rows.append((Self.label(point), result.cpuNanosecondsPerOperation / 1000))
    }
    print("\nCPU µs per operation")
    Self.plot(rows)
  }

  private static func row(_ point: ClusterProbe, _ result: RunResult) -> String {
    let response = point.workload == .write ? result.writes.response : result.reads.response
    let operations = Double(max(result.completedInWindow, 1))
    return String(
      format: "%5d %8d %8d %12d %11.0f %11.3f %8.1f %8.1f %8.4f %9.5f", point.nodes, point.valueBytes, point.workers,
      point.outstanding, result.opsPerSecond, result.cpuNanosecondsPerOperation / 1000,
      Double(response.quantile(0.5)) / 1000, Double(response.quantile(0.99)) / 1000, result.messagesPerOperation ?? 0,
      Double(result.counters.wakeups ?? 0) / operations) + (result.errors > 0 ? "  \(result.errors) ERRORS" : "")
  }

  private static func label(_ point: ClusterProbe) -> String {
    "n\(point.nodes) v\(point.valueBytes) w\(point.workers) o\(point.outstanding)"
  }

  /// Bars on a logarithmic scale: the costs span three orders of magnitude.
  private static func plot(_ rows: [(label: String, cpu: Double)]) {
    let costs = rows.map { max($0.cpu, 0.001) }
    guard let least = costs.min(), let most = costs.max() else { return }
    let width = rows.map(\.label.count).max() ?? 0
    for (row, cost) in zip(rows, costs) {
      let share = most > least ? log(cost / least) / log(most / least) : 0
      let bar = String(repeating: "█", count: 1 + Int(share * 50))
      print(
        "\(row.label.padding(toLength: width, withPad: " ", startingAt: 0))  \(bar) \(String(format: "%.3f", cost))")
    }
  }

  // MARK: Points

  private func points() throws -> [ClusterProbe] {
    var base = ClusterProbe()
    base.workload = workload
    base.seconds = seconds
    base.eventLoop = eventLoop.configuration
    base.sync = storage.sync
    base.dataDir = storage.dataDir
    if nodes == nil, valueSize == nil, workers == nil, outstanding == nil { return Self.defaultPoints(base) }
    var points = [base]
    points = try Self.expand(points, nodes, "--nodes", 1...9) { $0.nodes = $1 }
    points = try Self.expand(points, valueSize, "--value-size", 16...(1 << 20)) { $0.valueBytes = $1 }
    points = try Self.expand(points, workers, "--workers", 1...64) { $0.workers = $1 }
    return try Self.expand(points, outstanding, "--outstanding", 1...(1 << 16)) { $0.outstanding = $1 }
  }

  private static func defaultPoints(_ base: ClusterProbe) -> [ClusterProbe] {
    func vary(_ values: [Int], _ set: (inout ClusterProbe, Int) -> Void) -> [ClusterProbe] {
      values.map { value in
        var point = base
        set(&point, value)
        return point
      }
    }
    return vary([1, 3, 5, 7]) { $0.nodes = $1 }
      + vary([16, 1024, 16 << 10, 128 << 10, 1 << 20]) { point, size in
        point.valueBytes = size
        // Keys and operations in flight that together stay within memory.
        point.keys = min(point.keys, max(16, (64 << 20) / size))
        point.outstanding = min(point.outstanding, max(4, (16 << 20) / size))
      } + vary([1, 4]) { $0.workers = $1 } + vary([1, 16, 64, 1024]) { $0.outstanding = $1 }
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
    return points.flatMap { point in
      values.map { value in
        var changed = point
        set(&changed, value)
        return changed
      }
    }
  }
}
