/// One thing that is done over and over. A step does a fixed number of operations, enough to make the call itself cheap.
public protocol Workload: AnyObject {
  /// How many operations one step does.
  var operationsPerStep: Int { get }
  /// Does them. What they compute ends up in stored properties, so that no optimizer can leave them out.
  func step()
}

extension Workload {
  /// Does at least `operations` of them.
  /// - Returns: how many it did.
  @discardableResult
  public func run(_ operations: Int) -> Int {
    let steps = (operations + operationsPerStep - 1) / operationsPerStep
    for _ in 0..<steps { step() }
    return steps * operationsPerStep
  }
}

/// The five suites: the four hot paths of the core, and the Raft core that stands on them.
public enum HotPathSuite: String, Sendable, Hashable, CaseIterable, Codable {
  case logAppend = "log-append"
  case messageEncoding = "message-encoding"
  case quorumCommit = "quorum-commit"
  case broadcastQueue = "broadcast-queue"
  case raftCore = "raft-core"
}

/// A named workload, and what it is held against in the same run.
public struct HotPath: Sendable {
  /// What the same work costs when it is done the plain way, or what no way can beat.
  public struct Reference: Sendable {
    public var name: String
    public var makeWorkload: @Sendable () -> any Workload
  }

  /// Lower-case words joined by hyphens; stable, since thresholds and baselines are kept by it.
  public var name: String
  public var suite: HotPathSuite
  /// What one operation is, in a few words.
  public var operation: String
  /// Bytes of payload that one operation moves; 0 where that means nothing.
  public var payloadBytes: Int
  /// Whether it must not allocate once it is warm.
  public var isAllocationFree = true
  public var reference: Reference?
  public var makeWorkload: @Sendable () -> any Workload
}

/// All hot paths, in the order of the report.
public enum HotPaths {
  public static let all: [HotPath] =
    logAppend + messageEncoding + quorumCommit + broadcastQueue + raftCore

  public static func suite(_ suite: HotPathSuite) -> [HotPath] { all.filter { $0.suite == suite } }

  /// The hot path or part of that name.
  public static func named(_ name: String) -> HotPath? { (all + parts).first { $0.name == name } }
}
