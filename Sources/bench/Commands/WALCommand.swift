import ArgumentParser
import Foundation
import Measure
import WeirStorage

/// `bench wal`: the write-ahead log alone, beside the bare disk.
struct WAL: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wal",
    abstract: "Measures the write-ahead log alone, beside a bare loop of pwrite and fdatasync.",
    discussion: """
      For each number of waiting entries and each way of writing, the log and the bare loop take turns; the bare \
      loop writes as many bytes at a time as the log did on average, into a file that was written before. The log is \
      measured from when its segments, too, lie in files that were used before. The best round of each is shown.
      """)

  @Option(help: "How many entries wait for the disk at a time, separated by commas.")
  var waiting = "1,16,256,4096"

  @Option(help: "Ways of writing: buffered (pwrite and fdatasync), direct (O_DIRECT and O_DSYNC), or both.")
  var mode = "both"

  @Option(help: "When the log is synced: always, interval:<ms> or off.")
  var sync = "always"

  @Option(name: .customLong("value-bytes"), help: "Size of a value in bytes.")
  var valueBytes = 128

  @Option(help: "How long each measurement takes, in seconds.")
  var seconds = 0.5

  @Option(help: "How often each measurement is repeated.")
  var rounds = 3

  @Option(
    name: .customLong("data-dir"), help: "Where the files are made while it runs; where temporary files go if left out."
  )
  var dataDir: String?

  @Option(help: "Writes the results as JSON to this file; - is standard output, in place of the table.")
  var json: String?

  /// What `--json` writes, under `wal`.
  struct Results: Codable {
    struct Body: Codable {
      var schemaVersion = 1
      var sync: String
      var valueBytes: Int
      var cells: [LogCell]
      var recovery: LogRecovery
      var fileSystem: String
    }

    var wal: Body
  }

  func validate() throws {
    _ = try levels()
    _ = try modes()
    _ = try policy()
    guard (0...1 << 20).contains(valueBytes) else { throw ValidationError("--value-bytes must be from 0 to 1048576") }
    guard seconds > 0, seconds <= 600 else { throw ValidationError("--seconds must be above 0 and at most 600") }
    guard (1...100).contains(rounds) else { throw ValidationError("--rounds must be from 1 to 100") }
  }

  private func levels() throws -> [Int] {
    let levels = waiting.split(separator: ",").map { Int($0) ?? 0 }
    guard !levels.isEmpty, levels.allSatisfy({ (1...65_536).contains($0) }) else {
      throw ValidationError("--waiting takes numbers from 1 to 65536, separated by commas")
    }
    return levels
  }

  private func modes() throws -> [WriteMode] {
    if mode == "both" { return [.buffered, .direct] }
    guard let one = WriteMode(rawValue: mode) else {
      throw ValidationError("--mode is buffered, direct or both")
    }
    return [one]
  }

  private func policy() throws -> SyncPolicy {
    if let policy = SyncPolicy(sync) { return policy }
    throw ValidationError("--sync is always, interval:<ms> or off")
  }

  func run() throws {
    let interrupts = EndOnInterrupt()
    defer { withExtendedLifetime(interrupts) {} }
    let folder = try TemporaryFolder(in: dataDir)
    defer { folder.remove() }
    let directory = folder.path
    let benchmark = LogBenchmark(
      directory: directory, valueBytes: valueBytes, seconds: seconds, sync: try policy())
    var cells: [LogCell] = []
    for waiting in try levels() { cells += try measure(benchmark, waiting: waiting) }
    let recovery = try benchmark.runRecovery(entries: 1_000_000)
    let results = Results(
      wal: .init(
        sync: sync, valueBytes: valueBytes, cells: cells, recovery: recovery,
        fileSystem: StorageProbe.fileSystemName(of: directory)))
    try show(results)
  }

  /// The best round of the log and of the bare loop in each mode, which take turns.
  private func measure(_ benchmark: LogBenchmark, waiting: Int) throws -> [LogCell] {
    var best: [String: LogCell] = [:]
    var order: [String] = []
    for _ in 0..<rounds {
      for mode in try modes() {
        let log = try benchmark.runLog(mode: mode, waiting: waiting)
        for cell in [log, try benchmark.runBare(mode: mode, like: log)] {
          let name = cell.subject + cell.mode
          if best[name] == nil { order.append(name) }
          if cell.megabytesPerSecond > best[name]?.megabytesPerSecond ?? -1 { best[name] = cell }
        }
      }
    }
    return order.compactMap { best[$0] }
  }

  private func show(_ results: Results) throws {
    if let json {
      try JSONOutput.write(results, to: json)
      if json == "-" { return }
    }
    print("write-ahead log, sync \(sync), values of \(valueBytes) bytes, on \(results.wal.fileSystem)")
    print(
      "waiting mode     what    entries/s     MB/s   syncs/s  entries/sync   p50 us   p99 us  CPU us/entry  recycled/filled"
    )
    for cell in results.wal.cells { print(line(cell)) }
    let recovery = results.wal.recovery
    print(
      String(
        format: "recovery: %d entries, %.0f MB in %.3f s: %.2f M entries/s, %.0f MB/s", recovery.entries,
        Double(recovery.bytes) / 1e6, recovery.seconds, recovery.entriesPerSecond / 1e6,
        recovery.megabytesPerSecond))
  }

  private func line(_ cell: LogCell) -> String {
    let name = cell.mode.padding(toLength: 8, withPad: " ", startingAt: 0)
    let subject = cell.subject.padding(toLength: 4, withPad: " ", startingAt: 0)
    return String(format: "%7d ", cell.waiting) + name + " " + subject
      + String(
        format: " %12.0f %8.1f %9.0f %13.1f %8.1f %8.1f %13.3f", cell.entriesPerSecond, cell.megabytesPerSecond,
        Double(cell.syncs) / cell.seconds, cell.entriesPerSync, Double(cell.commit.p50 ?? 0) / 1e3,
        Double(cell.commit.p99 ?? 0) / 1e3, cell.cpuMicrosecondsPerEntry)
      + (cell.recycledSegments.map { "  \($0)/\(cell.zeroFilledSegments ?? 0)" } ?? "")
  }
}
