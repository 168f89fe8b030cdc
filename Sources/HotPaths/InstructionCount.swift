import Foundation

/// Instructions of one operation, counted by callgrind: unlike time, the same on every run of the same binary.
public struct InstructionCount: Sendable, Codable {
  public var name: String
  public var instructionsPerOp: Double

  public enum Failure: Error, CustomStringConvertible {
    case valgrindMissing
    case failed(String)

    public var description: String {
      switch self {
      case .valgrindMissing: "valgrind is not installed (Debian: apt-get install valgrind)"
      case .failed(let text): text
      }
    }
  }

  /// How many operations are counted, after as many that are not.
  public static let operations = 20_000

  /// Counts for each of `paths` by running this executable again under callgrind, with collection toggled on
  /// `weirCountedRegion`, so that nothing but the operations is counted.
  /// - Parameter arguments: what makes this executable call `runCounted` for the path of that name.
  public static func measure(
    paths: [HotPath], arguments: (_ name: String) -> [String]
  ) throws -> [InstructionCount] {
    guard let valgrind = find("valgrind") else { throw Failure.valgrindMissing }
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
      "weir-callgrind-\(ProcessInfo.processInfo.processIdentifier)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    // Without debugging information: valgrind stops on that of large binaries.
    let copy = folder.appendingPathComponent("stripped")
    guard let strip = find("strip") else { throw Failure.failed("strip is not installed (Debian: binutils)") }
    let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    _ = try run(strip, ["-g", "-o", copy.path, own.path])
    return try paths.map { path in
      let text = try run(
        valgrind,
        [
          "--tool=callgrind", "--toggle-collect=*weirCountedRegion*", "--callgrind-out-file=/dev/null", copy.path,
        ] + arguments(path.name))
      // Zero where it did not find the region: that is no count.
      guard let count = collected(text), count > 0 else {
        throw Failure.failed("callgrind counted nothing for \(path.name): \(text)")
      }
      return InstructionCount(name: path.name, instructionsPerOp: Double(count) / Double(operationsDone(path)))
    }
  }

  /// What the process under callgrind does.
  public static func runCounted(_ path: HotPath) {
    let workload = path.makeWorkload()
    workload.run(operations)
    weirCountedRegion(workload, operations: operations)
  }

  private static func operationsDone(_ path: HotPath) -> Int {
    let step = path.makeWorkload().operationsPerStep
    return (operations + step - 1) / step * step
  }

  /// One line a path, under a headline.
  public static func table(_ counts: [InstructionCount]) -> String {
    let lines = counts.map { count in
      let number = String(format: "%.1f", count.instructionsPerOp)
      return String(repeating: " ", count: max(0, 15 - number.count)) + number + "  " + count.name
    }
    return (["instructions/op  path"] + lines).joined(separator: "\n")
  }

  /// The number behind "Collected :".
  private static func collected(_ text: String) -> UInt64? {
    for line in text.split(separator: "\n") {
      guard let range = line.range(of: "Collected :") else { continue }
      return UInt64(line[range.upperBound...].trimmingCharacters(in: .whitespaces))
    }
    return nil
  }

  private static func find(_ tool: String) -> URL? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    return path.split(separator: ":").map { URL(fileURLWithPath: String($0)).appendingPathComponent(tool) }
      .first { FileManager.default.isExecutableFile(atPath: $0.path) }
  }

  /// Standard output and error together.
  private static func run(_ tool: URL, _ arguments: [String]) throws -> String {
    let process = Process()
    process.executableURL = tool
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failure.failed("\(tool.lastPathComponent) ended with \(process.terminationStatus): \(text)")
    }
    return text
  }
}

/// The region that callgrind collects, which finds it by this name.
@inline(never)
public func weirCountedRegion(_ workload: any Workload, operations: Int) {
  workload.run(operations)
}
