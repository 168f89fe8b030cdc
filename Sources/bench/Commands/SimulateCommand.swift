import ArgumentParser
import Foundation
import Simulation

/// `bench simulate`: whole clusters in virtual time, one per seed, with every invariant checked after every event.
struct Simulate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "simulate",
    abstract: "Runs seeded clusters in virtual time under faults and checks every invariant.",
    discussion: """
      A failing seed is made as small as possible and told event by event. The same seed gives the same trace hash \
      in every process. Exit codes: 0 no violation, 1 usage, 4 a violation was found.
      """)

  @Option(help: "How many seeds to run.")
  var seeds: UInt64 = 500

  @Option(help: "The first seed.")
  var seedFrom: UInt64 = 0

  @Option(help: "Stops after so many minutes, whether all seeds were run or not.")
  var minutes: Double?

  @Option(help: "One kind of trouble for all seeds: \(Profile.allCases.map(\.rawValue).joined(separator: ", ")).")
  var profile: String?

  @Flag(help: "Prints a line for each seed: seed, trace hash, events.")
  var traceHash = false

  @Flag(help: "Prints the last events of the (single) seed.")
  var trace = false

  func validate() throws {
    guard seeds > 0, seeds <= 1 << 40 else { throw ValidationError("--seeds must be between 1 and 2^40") }
    guard seedFrom <= .max - seeds else { throw ValidationError("--seed-from is too large") }
    if let minutes, !(minutes > 0) { throw ValidationError("--minutes must be above 0") }
    if let profile, Profile(rawValue: profile) == nil {
      let known = Profile.allCases.map(\.rawValue).joined(separator: ", ")
      throw ValidationError("no profile \(profile); there are \(known)")
    }
  }

  func run() throws {
    var summary = CampaignSummary()
    var expected = 0
    let chosen = profile.flatMap(Profile.init(rawValue:))
    let clock = ContinuousClock()
    let begin = clock.now
    for seed in seedFrom..<seedFrom + seeds {
      if let minutes, begin.duration(to: clock.now) >= .seconds(minutes * 60) { break }
      let profile = chosen ?? Simulator.mixedProfile(of: seed)
      let plan = Simulator.plan(seed: seed, profile: profile)
      var options = RunOptions()
      options.recordsTrace = trace
      options.traceLines = 1_000_000
      let report = Simulator.run(plan, options: options)
      summary.add(report, plan: plan, profile: profile)
      if traceHash { print("\(seed) \(String(report.traceHash, radix: 16)) \(report.events)") }
      if trace { report.trace.forEach { print($0) } }
      guard let violation = report.violation else { continue }
      // Beyond the drift bound a lease breaks its promise, as it says it does.
      if profile == .leaseBeyondBound, violation.invariant == .linearizability {
        expected += 1
        continue
      }
      if summary.failedSeeds - expected <= 3 { print(Simulator.explain(plan, violation: violation)) }
    }
    printSummary(summary, expected: expected, elapsed: begin.duration(to: clock.now))
    if summary.failedSeeds > expected { throw ExitStatus.invalidRun }
  }

  private func printSummary(_ summary: CampaignSummary, expected: Int, elapsed: Duration) {
    let seconds = max(Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18, 1e-9)
    let virtualHours = Double(summary.virtualNanoseconds) / 3.6e12
    print(
      """
      \(summary.seeds) seeds from \(seedFrom), \(summary.seedsOnRealLog) of them on the real log; \
      \(summary.failedSeeds - expected) violations\(expected > 0 ? ", and \(expected) expected beyond the bound" : "")
      \(formatted(Double(summary.seeds) / seconds)) seeds/s, \(formatted(Double(summary.events) / seconds)) events/s, \
      \(formatted(virtualHours * 60)) virtual minutes in \(formatted(seconds)) s
      \(summary.elections) elections, \(summary.committedEntries) committed entries, \
      \(summary.answeredOperations) of \(summary.operations) operations answered
      passed through: \(marks(summary))
      trace hash of all: \(String(summary.traceHash.value, radix: 16))
      """)
    for failure in summary.failures where failure.profile != .leaseBeyondBound {
      print("failed: seed \(failure.seed) (\(failure.profile.rawValue)): \(failure.violation)")
    }
  }

  private func marks(_ summary: CampaignSummary) -> String {
    Mark.allCases.map { "\($0) \(summary[$0])" }.joined(separator: ", ")
  }

  private func formatted(_ value: Double) -> String { String(format: value < 100 ? "%.1f" : "%.0f", value) }
}
