import CWeir
import Foundation
import Raft
import Synchronization
import TestSupport
import Testing
import WeirCore
import WeirTransport

@testable import WeirCache

/// Threads that run a node's loop while they ask it for something.
@Suite struct CallerDrivenNodeTests {
  private static let ways: [EventLoopConfiguration] = [
    EventLoopConfiguration(mechanism: .pollLoop, callersDrive: true),
    EventLoopConfiguration(mechanism: .pollLoop, callersDrive: true, callerRepollNanoseconds: 0),
    EventLoopConfiguration(mechanism: .pollLoop, callersDrive: false),
    EventLoopConfiguration(mechanism: .dispatchSources),
  ]

  /// Blocking and with callbacks at once, one operation of each at a time: every one is answered once, and the nodes agree.
  @Test(arguments: ways)
  func blockingAndCallbackFacesAtOnce(eventLoop: EventLoopConfiguration) throws {
    try withCluster(3, seed: 71, adjust: { $0.eventLoop = eventLoop }) { cluster, leader in
      let good = Counter()
      let perThread = 60
      onThreads(6) { number in
        let write = number.isMultiple(of: 2) ? Self.writeBlocking : Self.writeWithCallbacks
        good.count.wrappingAdd(write(leader, number, perThread), ordering: .relaxed)
      }
      #expect(good.count.load(ordering: .relaxed) == 6 * perThread)
      #expect(cluster.waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)))
      #expect(Set(cluster.nodes.map(\.store.stateHash)).count == 1)
      #expect(leader.store.count == 6 * perThread)
    }
  }

  private static func writeBlocking(_ node: Node, _ number: Int, _ count: Int) -> Int {
    guard let client = try? TestClient(node) else { return 0 }
    var good = 0
    for step in 0..<count {
      guard client.submit([(UInt32(step), setCommand("\(number)-\(step)", "x"))]), client.wait(for: step + 1) else {
        break
      }
      if step % 5 == 0, client.confirmRead() != true { break }
      if client.outcomes[UInt32(step)] == .appliedFresh { good += 1 }
    }
    return good
  }

  private static func writeWithCallbacks(_ node: Node, _ number: Int, _ count: Int) -> Int {
    let good = Counter()
    for step in 0..<count {
      let done = DispatchSemaphore(value: 0)
      node.apply(setCommand("\(number)-\(step)", "x")) { result in
        if case .success = result { good.count.wrappingAdd(1, ordering: .relaxed) }
        done.signal()
      }
      done.wait()
    }
    return good.count.load(ordering: .relaxed)
  }

  /// In tasks of its own: a test that blocks one of the few threads on which tasks run keeps them from running.
  @Test(arguments: ways)
  func asyncCallersOfOneNode(eventLoop: EventLoopConfiguration) async throws {
    let cluster = try EmbeddedCluster(nodeCount: 3, seed: 74, log: quietLog()) { configuration in
      configuration.tickNanoseconds = 20_000_000
      configuration.eventLoop = eventLoop
    }
    defer { cluster.stop() }
    let leader = try #require(cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)))
    let good = await withTaskGroup(of: Int.self) { group in
      for number in 0..<4 {
        group.addTask {
          var good = 0
          for step in 0..<60 where (try? await leader.apply(setCommand("\(number)-\(step)", "x"))) != nil {
            let value = try? await leader.read(Array("\(number)-\(step)".utf8), .safe)
            if value == Array("x".utf8) { good += 1 }
          }
          return good
        }
      }
      return await group.reduce(0, +)
    }
    #expect(good == 240)
  }

  private final class Counter: Sendable {
    let count = Atomic<Int>(0)
  }

  /// A caller may hold a lock that its callback, or that of another, takes: no callback comes on the caller's stack, also
  /// where its own turn has the answer at once, as in a cluster of one node.
  @Test(arguments: ways, [1, 3])
  func aCallbackMayTakeALockThatItsCallerHolds(eventLoop: EventLoopConfiguration, nodeCount: Int) throws {
    try withCluster(nodeCount, seed: 72, adjust: { $0.eventLoop = eventLoop }) { cluster, leader in
      let lock = NSLock()
      let answers = Counter()
      let readers = Counter()
      _ = leader.observe { _ in
        lock.lock()
        lock.unlock()
      }
      onThreads(3) { number in
        for step in 0..<50 {
          lock.lock()
          leader.apply(setCommand("\(number)-\(step)", "x")) { _ in
            lock.lock()
            answers.count.wrappingAdd(1, ordering: .relaxed)
            lock.unlock()
          }
          leader.read(Array("0-0".utf8), .safe) { _ in
            lock.lock()
            readers.count.wrappingAdd(1, ordering: .relaxed)
            lock.unlock()
          }
          lock.unlock()
          if step % 4 == 0 { usleep(500) }
        }
      }
      #expect(
        eventually { answers.count.load(ordering: .relaxed) == 150 && readers.count.load(ordering: .relaxed) == 150 })
    }
  }

  /// Each answer's callback asks for the next: as deep as the stack would allow if they were nested.
  @Test(arguments: ways, [1, 3])
  func aCallbackMayAskForMore(eventLoop: EventLoopConfiguration, nodeCount: Int) throws {
    try withCluster(nodeCount, seed: 73, adjust: { $0.eventLoop = eventLoop }) { _, leader in
      let chain = Chain(leader, length: nodeCount == 1 ? 20_000 : 500)
      chain.next()
      #expect(eventually { chain.isDone })
    }
  }

  private final class Chain: Sendable {
    let node: Node
    let length: Int
    let count = Atomic<Int>(0)

    init(_ node: Node, length: Int) {
      self.node = node
      self.length = length
    }

    var isDone: Bool { count.load(ordering: .acquiring) == length }

    func next() {
      node.apply(setCommand("chain", "x")) { [self] _ in
        if count.wrappingAdd(1, ordering: .acquiringAndReleasing).newValue < length { next() }
      }
    }
  }

  /// The leader ends while threads run its loop: each of them gets an answer to what it asked, and nobody waits for ever.
  @Test(arguments: ways)
  func aNodeIsStoppedUnderItsCallers(eventLoop: EventLoopConfiguration) throws {
    for round in 0..<4 {
      try withCluster(3, seed: 80 + UInt64(round), adjust: { $0.eventLoop = eventLoop }) { _, leader in
        let stopper = Thread {
          usleep(UInt32(2000 + round * 3000))
          leader.stop()
        }
        stopper.start()
        onThreads(4) { number in
          let client = number < 2 ? try? TestClient(leader) : nil
          var step: UInt32 = 0
          while true {
            if let client {
              guard client.submit([(step, setCommand("k", "v"))]) else { return }
              guard client.wait(for: Int(step) + 1) else {
                Issue.record("a write was never answered")
                return
              }
              guard client.confirmRead() != nil else {
                Issue.record("a read was never answered")
                return
              }
              if client.outcomes[step] == .shutdown { return }
            } else {
              let done = DispatchSemaphore(value: 0)
              let isOver = Counter()
              leader.apply(setCommand("k", "v")) { result in
                if result == .failure(.shutdown) { isOver.count.store(1, ordering: .relaxed) }
                done.signal()
              }
              done.wait()
              if isOver.count.load(ordering: .relaxed) == 1 { return }
            }
            step += 1
          }
        }
      }
    }
  }
}
