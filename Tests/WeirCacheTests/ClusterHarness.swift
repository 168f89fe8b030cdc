import CWeir
import Foundation
import Logging
import Raft
import Synchronization
import WeirCore
import WeirTransport

@testable import WeirCache

/// Nanoseconds of CLOCK_MONOTONIC, `seconds` from now.
func deadline(inSeconds seconds: Double) -> UInt64 { cweir_monotonic_nanoseconds() + UInt64(seconds * 1e9) }

/// Waits for a condition; false if it did not come true within a generous time.
func eventually(_ seconds: Double = 60, _ condition: () -> Bool) -> Bool {
  let end = deadline(inSeconds: seconds)
  while cweir_monotonic_nanoseconds() < end {
    if condition() { return true }
    usleep(1000)
  }
  return condition()
}

/// A logger that keeps errors only: tests provoke the rest.
func quietLog() -> Logger {
  var log = Logger(label: "test")
  log.logLevel = .critical
  return log
}

/// Runs `body` with a cluster that has a leader, and stops it.
func withCluster(
  _ nodeCount: Int = 3, seed: UInt64 = 1, adjust: (inout NodeConfiguration) -> Void = { _ in },
  _ body: (EmbeddedCluster, Node) throws -> Void
) throws {
  let cluster = try EmbeddedCluster(nodeCount: nodeCount, seed: seed, log: quietLog()) { configuration in
    configuration.tickNanoseconds = 20_000_000
    adjust(&configuration)
  }
  defer { cluster.stop() }
  guard let leader = cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)) else {
    throw HarnessError("no leader within a minute")
  }
  try body(cluster, leader)
}

extension EmbeddedCluster {
  /// Has the first node stand for election until somebody leads. For clusters with an election timeout so long that no load
  /// on the machine lets a leader lose its place: they would take as long to find their first one.
  func elect() throws -> Node {
    let end = deadline(inSeconds: 60)
    while cweir_monotonic_nanoseconds() < end {
      nodes[0].request({ try? $0.raft.campaign() }) {}
      if let leader = waitForLeader(deadlineNanoseconds: deadline(inSeconds: 0.2)) { return leader }
    }
    throw HarnessError("no leader within a minute")
  }
}

struct HarnessError: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// One client thread's lane, for tests: submits commands and waits for their outcomes.
final class TestClient {
  let node: Node
  let lane: SessionLane
  let parker = Parker()
  private var builder = EntryBatchBuilder()
  private(set) var outcomes: [UInt32: Outcome] = [:]

  init(_ node: Node, capacity: Int = 4096) throws {
    self.node = node
    lane = try node.openLane(capacity: capacity, parker: parker)
  }

  deinit { node.close(lane) }

  /// Submits one command for each token; returns whether the lane took them.
  func submit(_ commands: [(token: UInt32, command: [UInt8])]) -> Bool {
    for (_, command) in commands { builder.append(payload: command) }
    return node.submit(builder.finish(), tokens: commands.map(\.token), lane: lane)
  }

  /// Waits until `count` outcomes are there in all.
  func wait(for count: Int, seconds: Double = 60) -> Bool {
    let end = deadline(inSeconds: seconds)
    while outcomes.count < count {
      lane.drain { outcomes[$0.token] = $0.outcome }
      if outcomes.count >= count { return true }
      guard cweir_monotonic_nanoseconds() < end else { return false }
      node.park(parker, lane: lane, untilNanoseconds: end)
    }
    return true
  }

  /// Waits for leave to read; nil if it did not come, false if it was refused.
  func confirmRead(seconds: Double = 60) -> Bool? {
    let ticket = node.requestReads(1, lane: lane)
    let end = deadline(inSeconds: seconds)
    while true {
      let (settled, failed) = lane.settledReads
      if settled >= ticket { return ticket > failed }
      guard cweir_monotonic_nanoseconds() < end else { return nil }
      node.park(parker, lane: lane, untilNanoseconds: end)
    }
  }
}

func setCommand(_ key: String, _ value: String) -> [UInt8] {
  do { return try Command.encode(.set, key: Array(key.utf8), value: Array(value.utf8)) } catch { return [] }
}

/// Holds threads up while it is closed.
final class Gate: Sendable {
  private let state = Mutex((isOpen: true, isReached: false))

  func pass() {
    state.withLock { $0.isReached = $0.isReached || !$0.isOpen }
    while !state.withLock({ $0.isOpen }) { usleep(1000) }
  }

  func close() { state.withLock { $0.isOpen = false } }
  func open() { state.withLock { $0.isOpen = true } }
  func waitUntilReached() -> Bool { eventually { state.withLock { $0.isReached } } }
}
