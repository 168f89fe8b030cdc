/// How urgent a line of the protocol's log is.
public enum RaftLogLevel: Int, Sendable, Comparable, CaseIterable {
  case debug = 0
  case info = 1
  case warning = 2
  case error = 3

  public static func < (a: RaftLogLevel, b: RaftLogLevel) -> Bool { a.rawValue < b.rawValue }
}

/// Receives the lines that the state machine writes about its decisions, in the words of etcd's raft.
///
/// A node without a logger builds no text at all: every line is made in a closure that runs only if somebody listens.
public protocol RaftLogger: AnyObject {
  /// Lines below this level are not made.
  var minimumLevel: RaftLogLevel { get }
  /// Takes one line, without a line end.
  func log(_ level: RaftLogLevel, _ text: String)
}

extension Optional where Wrapped == any RaftLogger {
  @inline(__always)
  func write(_ level: RaftLogLevel, _ text: () -> String) {
    guard let logger = self else { return }
    emit(logger, level, text)
  }

  @inline(never)
  private func emit(_ logger: any RaftLogger, _ level: RaftLogLevel, _ text: () -> String) {
    if level >= logger.minimumLevel { logger.log(level, text()) }
  }
}

extension FixedWidthInteger {
  /// Lower-case hexadecimal without padding: how node ids appear in the log.
  var hex: String { String(self, radix: 16) }
}
