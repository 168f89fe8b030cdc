import Foundation
import Testing

@_spi(Testing) @testable import Raft
@_spi(Testing) @testable import Simulation

/// What the simulator is worth: mistakes that somebody really made, switched on one at a time, must be found.
@Suite("Planted bugs")
struct MutantTests {
  @Test("Each is found by its seed, and the module's documentation says so")
  func table() throws {
    var rows: [String] = []
    for mutant in Mutant.all {
      let report = Simulator.run(seed: mutant.knownSeed, profile: mutant.profile, options: mutant.options)
      guard let violation = report.violation else {
        Issue.record("\(mutant.name): seed \(mutant.knownSeed) of \(mutant.profile.rawValue) breaks nothing")
        continue
      }
      let clean = Simulator.run(seed: mutant.knownSeed, profile: mutant.profile)
      #expect(clean.violation == nil, "\(mutant.name): seed \(mutant.knownSeed) breaks something without the bug too")
      rows.append(mutant.row(seeds: mutant.knownSeed + 1, breaks: violation.invariant))
    }
    print("| bug | source | profile | seeds | what it breaks |\n|---|---|---|---|---|")
    for row in rows { print(row) }
    let lines = try Self.documentation().split(separator: "\n").map(String.init)
    #expect(Set(rows) == Set(lines.filter { $0.hasPrefix("| `") }))
    #expect(rows.count >= 12)
  }

  @Test("None of the core's is left out")
  func completeness() {
    let names = Set(Mutant.all.map(\.name))
    #expect(names.count == Mutant.all.count)
    for (name, _) in PlantedBugs.all { #expect(names.contains(name)) }
    #expect(Mutant.all.allSatisfy { $0.knownSeed < 2000 })
  }

  @Test(
    "Each is found within 2,000 seeds, and no earlier than the table says",
    .enabled(
      if: ProcessInfo.processInfo.environment["WEIR_LONG_TESTS"] == "1", "a search of minutes: WEIR_LONG_TESTS=1"),
    arguments: Mutant.all.map(\.name))
  func search(_ name: String) throws {
    let chosen = ProcessInfo.processInfo.environment["WEIR_MUTANT"]
    guard chosen == nil || chosen == name else { return }
    let mutant = try #require(Mutant.all.first { $0.name == name })
    guard let found = mutant.search(limit: 2000) else {
      Issue.record("\(name) was not found in 2,000 seeds of \(mutant.profile.rawValue)")
      return
    }
    print(mutant.row(seeds: found.seeds, breaks: found.violation.invariant))
    #expect(found.seed == mutant.knownSeed)
  }

  private static func documentation() throws -> String {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    return try String(
      contentsOf: root.appendingPathComponent("Sources/Simulation/Simulation.docc/Simulation.md"), encoding: .utf8)
  }
}
