import ArgumentParser
import Foundation
import Load
import Measure
import WeirTransport

/// `bench processes`: the default suite with each node a process of its own.
struct Processes: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "The default suite with each node a process of its own.",
    discussion: """
      The load generator is a process too: it talks to the leader over sockets, with batches of operations and of \
      answers. Everything else is as in the default suite, the history check and the comparison of the replicas among \
      it. The CPU time of an operation is that of all processes together. The nodes end with this process, whatever way \
      it ends. With --compare the same suite follows with all nodes in one process, so that what sharing one hides can \
      be read off.
      """)

  @OptionGroup var options: SuiteOptions

  @Flag(help: "A suite of a few seconds, to see that everything works; its tails say nothing.")
  var short = false

  @Option(help: .hidden)
  var scale = 1.0

  @Flag(help: "Run the suite in one process as well, and print both side by side.")
  var compare = false

  @Option(help: "Connections of each load worker to the leader.")
  var connections = 1

  func validate() throws {
    guard (1...64).contains(connections) else { throw ValidationError("--connections must be 1...64") }
    guard (0.01...1).contains(scale) else { throw ValidationError("--scale must be 0.01...1") }
    guard !compare || options.json != "-" else { throw ValidationError("--compare and --json - exclude each other") }
  }

  func run() throws {
    var suites = options.factory
    suites.scale = short ? 0.2 : scale
    let plan = suites.everything()
    let apart = try SuiteSession.measure(
      plan, options: options,
      factory: ProcessTargetFactory(
        eventLoop: options.eventLoop.configuration, connectionsPerSession: connections))
    // A run that a busy machine made invalid is still compared, and says so by its exit code; one that was stopped is not.
    guard compare, !apart.aborted else { return try SuiteSession.conclude(apart) }
    var rest = options
    rest.json = nil
    rest.history = nil
    print("")
    let together = try SuiteSession.measure(plan, options: rest)
    Self.show(apart, beside: together)
    try SuiteSession.conclude(apart)
    try SuiteSession.conclude(together)
  }

  /// Each run of the one beside that of the same name in the other.
  private static func show(_ apart: BenchSummary, beside together: BenchSummary) {
    let columns = ["ops/s", "CPU µs", "p50 µs", "p99 µs"].map { String(repeating: " ", count: 14) + $0 }.joined()
    print("\nprocesses, one process" + columns)
    for left in apart.runs {
      guard let right = together.runs.first(where: { $0.name == left.name && $0.operation == left.operation }) else {
        continue
      }
      print(row(left, right))
    }
  }

  private static func row(_ apart: RunSummary, _ together: RunSummary) -> String {
    func microseconds(_ nanoseconds: UInt64?) -> Double { Double(nanoseconds ?? 0) / 1000 }
    let isMixed = apart.readPercent > 0 && apart.readPercent < 100
    let name = isMixed ? "\(apart.name) \(apart.operation)" : apart.name
    return name.padding(toLength: 26, withPad: " ", startingAt: 0)
      + String(
        format: "%11.0f %11.0f %9.2f %9.2f %9.1f %9.1f %9.1f %9.1f", apart.opsPerSecond, together.opsPerSecond,
        apart.cpuMicrosecondsPerOp, together.cpuMicrosecondsPerOp, microseconds(apart.responseNanoseconds.p50),
        microseconds(together.responseNanoseconds.p50), microseconds(apart.responseNanoseconds.p99),
        microseconds(together.responseNanoseconds.p99))
  }
}
