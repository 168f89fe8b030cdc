import ArgumentParser
import Load

/// A cluster and what it holds: the same in every command that measures what keeping a state costs.
struct StateOptions: ParsableArguments {
  @Option(help: "Nodes; an odd number, 1...9.")
  var nodes = 3

  @Option(help: "Keys in the state.")
  var keys = 1_000_000

  @Option(help: "Size of a value in bytes.")
  var valueSize = 128

  func validate() throws {
    guard (1...9).contains(nodes), !nodes.isMultiple(of: 2) else { throw ValidationError("--nodes must be odd, 1...9") }
    guard (1000...10_000_000).contains(keys) else { throw ValidationError("--keys must be 1000...10000000") }
    guard (16...(1 << 16)).contains(valueSize) else { throw ValidationError("--value-size must be 16...65536") }
  }

  /// Writes of all keys, without any reads.
  var writes: Workload { Workload(readPercent: 0, keys: keys, valueBytes: valueSize) }

  /// Each key once.
  var preload: Workload { .preload(keys: keys, valueBytes: valueSize) }

  /// About what a snapshot of it has, in bytes.
  var snapshotBytes: Int { keys * (valueSize + 16) }

  /// In words, as part of what is printed.
  var text: String { "\(keys) keys of \(valueSize) bytes" }
}
