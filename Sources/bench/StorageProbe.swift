import CWeir
import Foundation
import Load
import Measure
import WeirStorage

/// What the disk under a folder does with a small write.
struct StorageProbe {
  var mode: WriteMode
  var fileSystem: String
  var write = LatencyHistogram()

  /// Writes blocks of 4 KiB one after the other, each made durable as the log would.
  static func measure(in directory: String?, sync: Durability) throws -> StorageProbe {
    let folder = try TemporaryFolder(in: directory)
    defer { folder.remove() }
    let file = try ProbeFile(folder.path + "/probe", wanted: sync == .always ? .direct : .buffered)
    var probe = StorageProbe(mode: file.mode, fileSystem: fileSystemName(of: folder.path))
    guard sync == .always else { return probe }
    for number in 0..<200 {
      let begin = cweir_monotonic_nanoseconds()
      try file.writeDurably(block: number)
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

/// A file as the log's segments are, its blocks written once before: one block of it is made durable at a time.
struct ProbeFile {
  static let blockBytes = 4096
  private static let blocks = 64

  let mode: WriteMode
  private let file: any File
  private let bytes = AlignedBytes(count: blockBytes)

  /// - Parameter wanted: how to write. Not every file system knows direct writes; as the log does, this falls back.
  init(_ path: String, wanted: WriteMode) throws {
    let files = RealFileSystem()
    var mode = wanted
    do {
      file = try files.create(path, mode: mode)
    } catch {
      mode = .buffered
      try? files.remove(path)
      file = try files.create(path, mode: mode)
    }
    self.mode = mode
    for number in 0..<Self.blocks { try bytes.write(Self.blockBytes, to: file, at: number * Self.blockBytes) }
    try file.synchronizeData()
  }

  func writeDurably(block number: Int) throws {
    try bytes.write(Self.blockBytes, to: file, at: number % Self.blocks * Self.blockBytes)
    if mode == .buffered { try file.synchronizeData() }
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
