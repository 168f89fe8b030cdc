import ArgumentParser
import Foundation

/// The load-test suite's command line: one subcommand a file, in `Commands/`.
///
/// The entry point is synchronous: the generator's workers are threads of their own, and an asynchronous one would
/// put libdispatch's thread pool and signal mask under tools that count instructions.
@main
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Load-tests an embedded Raft cluster and checks that its answers were right.",
    discussion: """
      With no subcommand it runs the default suite: starts three nodes on loopback TCP, drives writes and both \
      kinds of linearizable reads, prints a summary, and writes results/runs/<UTC>-<sha>/.

      Exit codes: 0 ok, 1 usage or internal error, 2 regression, 3 threshold missed, 4 invalid run, 5 inconclusive,
      130 interrupted.
      """,
    subcommands: subcommandList,
    defaultSubcommand: DefaultSuite.self)

  /// Every subcommand, in the order the help shows.
  static let subcommandList: [any ParsableCommand.Type] = [
    DefaultSuite.self,
    Reads.self,
    Writes.self,
    Run.self,
    GateCommand.self,
    BaselineCommand.self,
    Generator.self,
    HotPathsCommand.self,
    Machine.self,
    GossipCommand.self,
    Sweep.self,
    Explain.self,
    Processes.self,
    StoppedPeer.self,
    NodeProcess.self,
    Simulate.self,
    GossipWire.self,
    WAL.self,
    SnapshotCommand.self,
    MemoryCommand.self,
  ]

  static func main() {
    Foundation.exit(run(Array(CommandLine.arguments.dropFirst())))
  }

  /// Parses and runs; returns the process's exit code. Bad usage is one line on standard error and code 1.
  static func run(_ arguments: [String]) -> Int32 {
    do {
      var command = try parseAsRoot(arguments)
      try command.run()
      return ExitStatus.ok.rawValue
    } catch let status as ExitStatus {
      return status.rawValue
    } catch {
      return report(error)
    }
  }

  private static func report(_ error: any Error) -> Int32 {
    let code = exitCode(for: error)
    if code == .success {
      // A request for help or the version, which ArgumentParser also throws.
      print(fullMessage(for: error))
      return ExitStatus.ok.rawValue
    }
    let text = message(for: error).split(separator: "\n").joined(separator: " ")
    let line = "bench: \(text.hasPrefix("Error: ") ? String(text.dropFirst(7)) : text)\n"
    FileHandle.standardError.write(Data(line.utf8))
    return ExitStatus.usage.rawValue
  }
}

/// How `bench` ends; scripts rely on the numbers. Thrown by a subcommand that has already said why.
enum ExitStatus: Int32, Error {
  case ok = 0
  /// Usage or internal error.
  case usage = 1
  case regression = 2
  case thresholdMissed = 3
  case invalidRun = 4
  case inconclusive = 5
  /// Ended by its user (Ctrl-C); what a shell reports of a program that SIGINT ended.
  case interrupted = 130
}

/// Bad input that only the command itself can see; one clear line, before anything is started.
struct UsageError: Error, CustomStringConvertible {
  var description: String

  init(_ description: String) {
    self.description = description
  }
}
