import Foundation

/// A process that is killed with the one that started it, however that ends: a test run that is killed can let nothing go,
/// and what it started would outlive it.
///
/// A second process watches: its standard input ends with whoever holds the other end, and if no line came before that, it
/// kills the first. The kernel's own means for this (PR_SET_PDEATHSIG) goes by the thread that started a process, and a test's
/// thread ends before the test run does. The watcher is no shell around the process either: Foundation learns of an end by
/// a socket that the process inherits, which the shell would keep open, and a shell that waits inherits that SIGCHLD is
/// blocked, with which Debian's waits for ever.
final class WatchedProcess {
  private let process: Process
  private let watcher = Process()
  private let lifeline = Pipe()

  /// Runs `process`.
  init(starting process: Process) throws {
    self.process = process
    try process.run()
    watcher.executableURL = URL(fileURLWithPath: "/bin/sh")
    watcher.arguments = ["-c", "read -r _ || kill -9 $0", "\(process.processIdentifier)"]
    // Another watcher that held this end as well would keep this one waiting, and the other way round.
    _ = fcntl(lifeline.fileHandleForWriting.fileDescriptor, F_SETFD, FD_CLOEXEC)
    watcher.standardInput = lifeline
    do { try watcher.run() } catch {
      kill()
      throw error
    }
  }

  var isRunning: Bool { process.isRunning }

  /// Kills and reaps it. The second time it does nothing.
  func end() {
    kill()
    guard watcher.isRunning else { return }
    // It must not kill who gets the number next.
    try? lifeline.fileHandleForWriting.write(contentsOf: Data("\n".utf8))
    watcher.waitUntilExit()
  }

  private func kill() {
    guard process.isRunning else { return }
    Foundation.kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }
}
