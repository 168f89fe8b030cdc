import ArgumentParser
import CWeir
import Foundation
import Load
import Measure
import WeirStorage

extension Durability: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
  public static var allValueStrings: [String] { ["always", "interval:<ms>", "off", "memory"] }
  public var defaultValueDescription: String { description }

  /// As the write-ahead log takes it; nil where there is none.
  var syncPolicy: SyncPolicy? {
    switch self {
    case .memory: nil
    case .always: .always
    case .interval(let milliseconds): .interval(milliseconds: milliseconds)
    case .off: .off
    }
  }
}

/// Where the nodes' logs lie, and when they are durable: the same in every command that starts nodes.
struct StorageOptions: ParsableArguments {
  @Option(
    help: """
      When a log is on the disk: always (before anything is answered), interval:<ms>, off (when the kernel likes), or \
      memory (no log on a disk at all).
      """)
  var sync = Durability.always

  @Option(
    name: .customLong("data-dir"),
    help: ArgumentHelp(
      "Folder in which the nodes' logs are kept while they run, in one of their own that goes with them.",
      valueName: "dir"))
  var dataDir: String?

  /// Seen before anything is started: what would otherwise fail in the middle.
  func checkWritable() throws {
    guard sync != .memory else { return }
    let folder = try TemporaryFolder(in: dataDir)
    folder.remove()
  }

  /// What is known of the disk, with the cost of one bare write that is made durable there.
  func summary() -> StorageSummary {
    let probe = sync == .memory ? nil : try? StorageProbe.measure(in: dataDir, sync: sync)
    return StorageSummary(
      sync: sync.description, writeMode: probe?.mode.rawValue, fileSystem: probe?.fileSystem,
      bareSyncNanoseconds: sync == .always ? probe.map { LatencySummary($0.write) } : nil)
  }
}

extension StorageSummary {
  /// As a heading names it: `sync always, direct on ext4`.
  var text: String {
    guard let writeMode, let fileSystem else { return sync == "memory" ? "log in memory" : "sync \(sync)" }
    return "sync \(sync), \(writeMode) on \(fileSystem)"
  }
}
