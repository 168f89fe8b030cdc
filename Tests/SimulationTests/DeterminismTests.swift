import Foundation
import Testing

@testable import Simulation

/// The same seed gives the same trace in another process too, whatever seed that process hashes with.
@Suite("Determinism")
struct DeterminismTests {
  private static let seeds: Range<UInt64> = 0..<20
  private static let marker = "trace-hash-of-all"

  private static var hash: String {
    var hash = TraceHash()
    for seed in seeds { hash.add(Simulator.run(seed: seed).traceHash) }
    for seed in seeds.prefix(5) { hash.add((try? gossipTrace(seed: seed)) ?? 0) }
    return String(hash.value, radix: 16)
  }

  /// What the processes below run: only its output counts.
  @Test("Prints a hash", .enabled(if: ProcessInfo.processInfo.environment["WEIR_PRINT_TRACE_HASH"] != nil))
  func prints() { print("\(Self.marker) \(Self.hash)") }

  @Test(
    "Equal trace hashes in other processes, with random and with deterministic hashing",
    .enabled(if: ProcessInfo.processInfo.environment["WEIR_PRINT_TRACE_HASH"] == nil))
  func processes() throws {
    let expected = Self.hash
    for hashing in [nil, nil, "1"] {
      #expect(try Self.hashOfAnotherProcess(deterministicHashing: hashing) == expected)
    }
  }

  /// Runs this very test binary again, for the one test that prints.
  private static func hashOfAnotherProcess(deterministicHashing: String?) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try executable())
    process.arguments = ["--testing-library", "swift-testing", "--filter", "DeterminismTests/prints"]
    var environment = ProcessInfo.processInfo.environment
    environment["WEIR_PRINT_TRACE_HASH"] = "1"
    environment["SWIFT_DETERMINISTIC_HASHING"] = deterministicHashing
    process.environment = environment
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    try process.run()
    let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    let line = try #require(output.split(separator: "\n").first { $0.contains(marker) }, "\(output.suffix(2000))")
    return String(line.split(separator: " ").last ?? "")
  }

  private static func executable() throws -> String {
    try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
  }
}
