import ArgumentParser
import CWeir
import Foundation
import Load

/// `bench generator`: what the load generator itself costs.
struct Generator: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures the load generator alone, against a target that answers at once.")

  @Option(help: "Worker threads.")
  var workers = 2

  @Option(help: "Percent of reads.")
  var reads = 95

  @Option(help: "Seconds.")
  var seconds = 1.0

  @Option(help: "uniform, zipfian:θ, latest or hotspot.")
  var distribution = "uniform"

  func validate() throws {
    guard (1...64).contains(workers) else { throw ValidationError("--workers must be 1...64") }
    guard (0...100).contains(reads) else { throw ValidationError("--reads must be 0...100") }
    guard seconds > 0, seconds <= 60 else { throw ValidationError("--seconds must be above 0, and 60 at most") }
    guard KeyDistribution(distribution) != nil else {
      throw ValidationError("--distribution must be uniform, zipfian:θ, latest or hotspot")
    }
  }

  func run() throws {
    let headroom = try GeneratorHeadroom.measure(
      workers: workers, readPercent: reads, seconds: seconds,
      distribution: KeyDistribution(distribution) ?? .uniform)
    print(
      """
      generator alone: \(Int(headroom.opsPerSecond)) operations/s with \(workers) workers, \
      \(String(format: "%.1f", headroom.cpuNanosecondsPerOperation)) ns of CPU each
      """)
  }
}
