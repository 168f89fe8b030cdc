import Foundation
import Testing

@_spi(Testing) @testable import Simulation

/// What the simulator is worth: mistakes that somebody really made, switched on one at a time, must be found.
@Suite("Planted bugs")
struct MutantTests {
  @Test("A seed that is known to find it still does", arguments: Mutant.all.map(\.name))
  func replay(_ name: String) throws {
    let mutant = try #require(Mutant.all.first { $0.name == name })
    let report = Simulator.run(seed: mutant.knownSeed, profile: mutant.profile, options: mutant.options)
    #expect(report.violation != nil, "seed \(mutant.knownSeed) of \(mutant.profile.rawValue) breaks nothing")
    let clean = Simulator.run(seed: mutant.knownSeed, profile: mutant.profile)
    #expect(clean.violation == nil, "the seed breaks something without the bug")
  }

  @Test(
    "Each is found within 2,000 seeds",
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
    print(
      "| \(name) | \(mutant.source) | \(mutant.profile.rawValue) | \(found.seeds) | \(found.violation.invariant.rawValue) |"
    )
  }
}
