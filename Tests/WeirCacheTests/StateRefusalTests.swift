import Foundation
import Logging
import Synchronization
import TestSupport
import Testing
import WeirCore
import WeirStorage
import WeirTransport

@testable import WeirCache

/// A member that is sent a state for which its disk has no room.
@Suite("States that are refused")
struct StateRefusalTests {
  private static func makeNode(
    _ id: NodeID, _ log: Logger, _ adjust: (inout NodeConfiguration) -> Void
  ) throws -> Node {
    var configuration = NodeConfiguration(
      id: id, clusterID: 17, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [], seed: id,
      log: log)
    configuration.tickNanoseconds = 20_000_000
    adjust(&configuration)
    return try Node(configuration)
  }

  @Test("A pause doubles with each failure, up to the longest, whatever the time")
  func pauses() {
    for start: UInt64 in [0, 1_000_000] {
      var pause = RetryPause(leastNanoseconds: 1000, mostNanoseconds: 30_000)
      #expect(pause.isOver(nowNanoseconds: start))
      var now = start
      for expected: UInt64 in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        #expect(pause.failed(nowNanoseconds: now) == expected)
        #expect(!pause.isOver(nowNanoseconds: now + expected - 1) && pause.isOver(nowNanoseconds: now + expected))
        now += expected
      }
    }
    var constant = RetryPause(leastNanoseconds: 7, mostNanoseconds: 7)
    #expect([constant.failed(nowNanoseconds: 0), constant.failed(nowNanoseconds: 9)] == [7, 7])
  }

  @Test("Both sides say once, and where it can be looked up, that a state is not taken, and that it is at last")
  func refusedAndTaken() throws {
    let (said, heard) = (LogLines(), LogLines())
    let leader = try Self.makeNode(1, said.logger()) { $0.initialVoters = [1] }
    defer { leader.stop() }
    leader.start()
    #expect(eventually { leader.isLeader })
    let client = try TestClient(leader)
    #expect(client.submit((0..<400).map { ($0, setCommand("k\($0)", String(repeating: "x", count: 3000))) }))
    #expect(client.wait(for: 400))
    let isFull = Atomic<Bool>(true)
    let refusals = Atomic<Int>(0)
    let disk = InterceptedFileSystem(SimulatedFileSystem(seed: 1)) { (operation, path) throws(FileError) in
      guard operation == .write, path.contains("/snapshots"), isFull.load(ordering: .relaxed) else { return }
      refusals.wrappingAdd(1, ordering: .relaxed)
      throw FileError(operation: .write, path: path, code: ENOSPC)
    }
    let late = try Self.makeNode(2, heard.logger()) {
      $0.storage = .files(directory: "/node-2", sync: .always)
      $0.fileSystem = disk
    }
    defer { late.stop() }
    late.start()
    let address = try #require(late.address as SocketAddress?)
    leader.addLearner(2, address: address) { _ in }
    #expect(eventually { refusals.load(ordering: .relaxed) >= 2 && late.stateRefusal != nil })
    #expect(late.stateRefusal?.contains("disk is full") == true && late.failure == nil)
    let api = NodeAPI(node: late, httpAddress: { _ in nil })
    func status() -> String { String(decoding: NodeAPI.json(api.statusDocument).body, as: UTF8.self) }
    func metrics() -> String { String(decoding: api.metricsPage().body, as: UTF8.self) }
    #expect(status().contains("\"stateRefusal\":\"the disk"))
    #expect(metrics().contains("\nweir_state_refused 1\n"))
    // The core asks for the next attempt with each heartbeat; of all that are in vain the first is spoken of.
    #expect(said.count(of: "sends its state") == 1 && said.count(of: "could not send") == 1)
    #expect(said.count(of: "at last") == 0)
    isFull.store(false, ordering: .relaxed)
    #expect(eventually { late.status.appliedIndex >= leader.status.commitIndex && late.stateRefusal == nil })
    #expect(late.store.stateHash == leader.store.stateHash)
    #expect(!status().contains("stateRefusal"))
    #expect(metrics().contains("\nweir_state_refused 0\n"))
    #expect(eventually { said.count(of: "at last") == 1 })
    // Each attempt that filled the disk is spoken of there, with when the next one may come.
    #expect(heard.count(of: "does not take the state") == refusals.load(ordering: .relaxed))
    #expect(heard.count(of: "in 1 s at the earliest") == 1 && heard.count(of: "in 2 s at the earliest") == 1)
  }
}
