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

/// What the disk under a folder does with a small write.
struct StorageProbe {
  var mode: WriteMode
  var fileSystem: String
  var write = LatencyHistogram()

  /// Writes blocks of 4 KiB one after the other, each made durable as the log would.
  static func measure(in directory: String?, sync: Durability) throws -> StorageProbe {
    let folder = try TemporaryFolder(in: directory)
    defer { folder.remove() }
    let files = RealFileSystem()
    var mode = sync == .always ? WriteMode.direct : .buffered
    let path = folder.path + "/probe"
    let file: any File
    do {
      file = try files.create(path, mode: mode)
    } catch {
      // Not every file system knows direct writes; the log falls back as well.
      mode = .buffered
      try? files.remove(path)
      file = try files.create(path, mode: mode)
    }
    var probe = StorageProbe(mode: mode, fileSystem: fileSystemName(of: folder.path))
    let block = AlignedBytes(count: 4096)
    let blocks = 64
    for number in 0..<blocks { try block.write(4096, to: file, at: number * 4096) }
    try file.synchronizeData()
    guard sync == .always else { return probe }
    for number in 0..<200 {
      let begin = cweir_monotonic_nanoseconds()
      try block.write(4096, to: file, at: number % blocks * 4096)
      if mode == .buffered { try file.synchronizeData() }
      probe.write.record(cweir_monotonic_nanoseconds() - begin)
    }
    return probe
  }

  /// The kind of file system that a folder lies on, by the longest mount point that the folder is below.
  static func fileSystemName(of path: String) -> String {
    let resolved = URL(fileURLWithPath: path).resolvingSymlinksInPath().path
    let mounts = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
    var best: (point: String, kind: String)?
    for line in mounts.split(separator: "\n") {
      let words = line.split(separator: " ")
      guard words.count >= 3 else { continue }
      let point = String(words[1])
      let isAbove = point == "/" || resolved == point || resolved.hasPrefix(point + "/")
      if isAbove, point.count >= best?.point.count ?? 0 { best = (point, String(words[2])) }
    }
    return best?.kind ?? "unknown"
  }
}

/// Page-aligned bytes to write, as direct writes need them.
final class AlignedBytes {
  private let memory: UnsafeMutableRawBufferPointer

  init(count: Int) {
    memory = .allocate(byteCount: count, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0x5A)
  }

  deinit { memory.deallocate() }

  func write(_ count: Int, to file: any File, at offset: Int) throws {
    try file.write(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(rebasing: memory[..<count])), at: offset)
  }
}
