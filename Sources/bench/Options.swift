import ArgumentParser
import Foundation
import Load

extension ReadMode: ExpressibleByArgument {}
extension Arrival: ExpressibleByArgument {}

extension KeyDistribution: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
  public static var allValueStrings: [String] { ["uniform", "zipfian:0.99", "latest", "hotspot:0.2:0.8"] }
}

/// What every suite takes.
struct SuiteOptions: ParsableArguments {
  @Option(help: "Nodes of the cluster; an odd number, 1...9.")
  var nodes = 3

  @OptionGroup var storage: StorageOptions

  @Option(help: "Load worker threads.")
  var workers = 2

  @Option(help: "Keys that are preloaded and used.")
  var keys = 100_000

  @Option(help: ArgumentHelp("Bytes of each value; the first 16 name the write.", valueName: "bytes"))
  var valueSize = 128

  @Option(help: "Which keys: uniform, zipfian:θ, latest, hotspot or hotspot:<keys>:<operations>.")
  var distribution = KeyDistribution.uniform

  @Option(help: "Seed of the operations, their keys and their times. The same seed sends the same operations.")
  var seed: UInt64 = 1

  @Option(help: ArgumentHelp("Also write the summary there; - prints it, and nothing else.", valueName: "file|-"))
  var json: String?

  @Option(help: ArgumentHelp("Write the checked history there, as JSON lines.", valueName: "file"))
  var history: String?

  @Option(help: ArgumentHelp("Folder in which each bench makes its own.", valueName: "folder"))
  var results = "results/runs"

  @OptionGroup var eventLoop: EventLoopOptions

  static let mostWorkers = 4 * ProcessInfo.processInfo.activeProcessorCount

  func validate() throws {
    guard (1...9).contains(nodes), !nodes.isMultiple(of: 2) else {
      throw ValidationError("--nodes must be odd, 1...9")
    }
    guard (1...Self.mostWorkers).contains(workers) else {
      throw ValidationError(
        "--workers must be 1...\(Self.mostWorkers): more than four a core would measure each other")
    }
    guard (1...10_000_000).contains(keys) else { throw ValidationError("--keys must be 1...10000000") }
    switch distribution {
    case .zipfian, .latest:
      guard keys <= KeyDistribution.mostZipfianKeys else {
        throw ValidationError("--keys must be \(KeyDistribution.mostZipfianKeys) at most with \(distribution)")
      }
    default: break
    }
    guard (ValueID.encodedBytes...1_048_576).contains(valueSize) else {
      throw ValidationError("--value-size must be \(ValueID.encodedBytes)...1048576 bytes")
    }
    guard keys * valueSize <= 1 << 30 else {
      throw ValidationError("--keys times --value-size must stay below 1 GiB: every node keeps them in memory")
    }
  }

  var cluster: ClusterConfiguration {
    ClusterConfiguration(nodes: nodes, durability: storage.sync, directory: storage.dataDir, seed: seed)
  }

  var factory: SuiteFactory {
    SuiteFactory(
      cluster: cluster, workers: workers, keys: keys, valueBytes: valueSize, distribution: distribution, seed: seed)
  }
}

/// A span of time as people write it: `500ms`, `10s`, `2m`.
struct TimeSpan: ExpressibleByArgument, Equatable {
  var seconds: Double

  init?(argument: String) {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)]
    for (unit, factor) in units where argument.hasSuffix(unit) {
      guard let number = Double(argument.dropLast(unit.count)), number >= 0, number.isFinite else { return nil }
      seconds = number * factor
      return
    }
    return nil
  }

  init(seconds: Double) {
    self.seconds = seconds
  }

  var defaultValueDescription: String { seconds < 1 ? "\(Int(seconds * 1000))ms" : "\(Int(seconds))s" }
}

/// What a run consists of: `read`, `write` or `mixed:<percent reads>`.
struct WorkloadKind: ExpressibleByArgument, Equatable {
  var readPercent: Int

  init?(argument: String) {
    switch argument {
    case "read": readPercent = 100
    case "write": readPercent = 0
    default:
      guard argument.hasPrefix("mixed:"), let percent = Int(argument.dropFirst(6)), (0...100).contains(percent) else {
        return nil
      }
      readPercent = percent
    }
  }

  static var allValueStrings: [String] { ["read", "write", "mixed:95"] }
}
