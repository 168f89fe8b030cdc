import ArgumentParser
import WeirStorage

/// `weir wal`: looks into a write-ahead log.
struct WAL: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wal",
    abstract: "Looks into a write-ahead log.",
    subcommands: [Dump.self, Verify.self, Torture.self])

  /// `weir wal dump`: every record, a line each.
  struct Dump: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Prints every record; ends with exit code 1 at the first that does not hold.")

    @Argument(help: "The log's directory, or the node's.")
    var directory: String

    func run() throws {
      try inspect(directory) { print($0) }
    }
  }

  /// `weir wal verify`: the sum only.
  struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Checks every record; ends with exit code 1 if one does not hold.")

    @Argument(help: "The log's directory, or the node's.")
    var directory: String

    func run() throws {
      try inspect(directory, observer: nil)
    }
  }
}

private func inspect(_ directory: String, observer: ((LogEvent) -> Void)?) throws {
  // A node keeps its log in a folder of its own, beside its snapshots.
  let isOfNode = try RealFileSystem().list(directory).contains("log")
  let report = try LogInspector.inspect(directory: isOfNode ? directory + "/log" : directory, observer: observer)
  guard report.segments > 0 else { throw ValidationError("there is no log in \(directory)") }
  print(
    "\(report.segments) segments (\(report.recycledSegments) in files used before), \(report.batches) batches, \(report.entries) entries, \(report.bytes) bytes; the log "
      + "holds entries \(report.anchorIndex + 1) to \(report.lastIndex)")
  if let cut = report.cut {
    print("torn tail: \(cut.path) ends at byte \(cut.offsetBytes) (\(cut.reason)); it is cut when the node starts")
  }
}
