import Foundation
import Synchronization
import Testing
import WeirCore
import WeirStorage
import WeirTransport

@testable import WeirCache

/// A node with files that had a state, was away for long, and is sent another one.
@Suite("States that are sent to nodes with files", .serialized)
struct SnapshotInstallTests {
  @Test("The old state is read until the new one is whole on the disk, none while that is loaded, then the new one")
  func readers() throws {
    try Self.withScene { scene in
      let watch = Watch()
      let (arrival, load) = (Gate(), Gate())
      let late = try scene.late(watch)
      let store = late.store
      watch.set { operation, _ in
        if operation == .write { arrival.pass() }
        if operation == .read, store.isLoading { load.pass() }
      }
      arrival.close()
      load.close()
      defer {
        arrival.open()
        load.open()
      }
      let reader = Reader(late.store)
      defer { reader.stop() }
      late.start()
      #expect(arrival.waitUntilReached(), "no state arrived")
      // It is arriving: the old one answers, and the leader has not heard that anything arrived.
      expectGoesOn(late, scene)
      #expect(!late.store.isLoading && scene.holds(late, group: 0, generation: 1))
      #expect(scene.holds(late, group: 299, generation: 1))
      arrival.open()
      #expect(load.waitUntilReached(), "nothing is loaded")
      #expect(late.store.isLoading)
      let refused = reader.seen.refused
      #expect(eventually { reader.seen.refused > refused })
      try expectRefusals(late)
      // Heartbeats are answered and entries taken meanwhile; nothing of either is lost.
      let applied = late.status.appliedIndex
      try scene.write(generation: 3, groups: 0..<2)
      expectGoesOn(late, scene)
      #expect(eventually { late.status.lastIndex >= scene.leader.status.lastIndex })
      #expect(late.status.appliedIndex == applied)
      load.open()
      #expect(eventually { scene.isEven(late) })
      #expect(!late.store.isLoading && scene.holds(late, group: 0, generation: 3))
      let seen = reader.seen
      #expect(seen.torn == 0 && seen.went[1] > 0 && seen.went[1] + seen.went[2] + seen.went[3] == seen.answered)
      #expect(late.failure == nil)
      // Nothing is left but what counts.
      #expect(try scene.disks[2].list("/node-3/snapshots").allSatisfy(Self.isFinished))
      late.stop()
      scene.disks[2].crash(survivalPerMille: 0)
      let again = try scene.late()
      again.start()
      #expect(eventually { scene.isEven(again) })
    }
  }

  /// What clients are told while there is no state.
  private func expectRefusals(_ node: Node) throws {
    let results = Mutex<[Result<[UInt8]?, NodeError>]>([])
    node.read(Self.key(0, 0), .stale) { result in results.withLock { $0.append(result) } }
    #expect(results.withLock { $0 } == [.failure(.loading)])
    let server = try RESPServer(
      node: node,
      configuration: RESPServerConfiguration(listenAddress: try SocketAddress(host: "127.0.0.1", port: 0)),
      log: quietLog()
    ) { [:] }
    defer { server.stop() }
    let client = try RawRESPClient(server.address)
    #expect(try client.ask("READONLY") == .ok)
    #expect(try client.ask("GET", "g0-0").code == "LOADING")
    #expect(try client.ask("MGET", "g0-0", "g0-1").code == "LOADING")
    #expect(try client.ask("TTL", "g0-0").code == "LOADING")
    #expect(try client.ask("DBSIZE").code == "LOADING")
    guard case .bulk(let text) = try client.ask("INFO") else { throw HarnessError("INFO is no text") }
    #expect(text.contains("loading:1\r\n") && text.hasSuffix("# Keyspace\r\n"))
    let doors = try HTTPServer(
      handler: NodeAPI(node: node, httpAddress: { _ in nil }),
      configuration: HTTPServerConfiguration(listenAddress: try SocketAddress(host: "127.0.0.1", port: 0)),
      log: quietLog())
    defer { doors.stop() }
    let web = try RawHTTPClient(doors.address)
    func get(_ target: String) throws -> RawHTTPClient.Answer {
      try web.send("GET \(target) HTTP/1.1\r\nHost: h\r\n\r\n")
      return try web.receive()
    }
    let answer = try get("/get?key=g0-0&consistency=stale")
    #expect(answer.code == 503 && answer.fields["retry-after"] == "1")
    let status = try get("/status").text
    #expect(status.contains("\"isLoading\":true"))
    #expect(!status.contains("\"keys\"") && !status.contains("\"liveBytes\""))
    let metrics = try get("/metrics").text
    #expect(metrics.contains("\nweir_state_loading 1\n") && metrics.contains("\nweir_store_memory_bytes "))
    #expect(!metrics.contains("weir_store_keys") && !metrics.contains("weir_store_live_bytes"))
  }

  @Test("There are never two states: the old one is in memory while the new one arrives, and gone before that is read")
  func memory() throws {
    struct Sample {
      var operation: FileError.Operation
      var isFinished: Bool
      var isLoading: Bool
      var memoryBytes: Int
    }
    try Self.withScene { scene in
      let watch = Watch()
      let late = try scene.late(watch)
      let store = late.store
      let old = store.memoryBytes
      let samples = Mutex<[Sample]>([])
      watch.set { operation, path in
        let sample = Sample(
          operation: operation, isFinished: Self.isFinished(path), isLoading: store.isLoading,
          memoryBytes: store.memoryBytes)
        samples.withLock { $0.append(sample) }
      }
      late.start()
      #expect(eventually { scene.isEven(late) })
      let all = samples.withLock { $0 }
      let new = store.memoryBytes
      let loading = all.filter { $0.isLoading && $0.operation == .read && $0.isFinished }
      // Written as it arrives, beside nothing but the old state.
      let writes = all.filter { $0.operation == .write }
      #expect(!writes.isEmpty && writes.allSatisfy { !$0.isLoading && $0.memoryBytes == old })
      // The first part is read when the old state is gone: empty tables are left, of 16 slots of 16 bytes in each shard.
      let empty = 256 * 16 * 16
      try #require(loading.count >= 3)
      #expect(loading[0].memoryBytes <= empty)
      #expect(zip(loading, loading.dropFirst()).allSatisfy { $0.memoryBytes <= $1.memoryBytes })
      #expect(Set(loading.map(\.memoryBytes)).count >= 3)
      #expect(all.allSatisfy { $0.memoryBytes <= max(old, new) })
      // What it gave up is read once more than it needs to be: whole, before the old state goes.
      #expect(all.contains { !$0.isLoading && $0.operation == .read && !$0.isFinished && $0.memoryBytes == old })
    }
  }

  @Test("On real files it is the same")
  func realFiles() throws {
    let directory = NSTemporaryDirectory() + "weir-test-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let network = InMemoryNetwork()
    func make(_ id: NodeID) throws -> Node {
      var configuration = NodeConfiguration(
        id: id, clusterID: 9, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [1, 2, 3],
        seed: id, log: quietLog())
      configuration.tickNanoseconds = 20_000_000
      configuration.storage = .files(directory: "\(directory)/\(id)", sync: .always)
      configuration.maximumLogBytes = 64 << 10
      configuration.trailingLogBytes = 4 << 10
      return try Node(configuration, network: network)
    }
    let nodes = try [make(1), make(2)]
    defer { for node in nodes { node.stop() } }
    for node in nodes { node.start() }
    let cluster = EmbeddedCluster(nodes: nodes)
    guard let leader = cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)) else {
      throw HarnessError("no leader")
    }
    let client = try TestClient(leader)
    // With the largest value that there may be, whose record no chunk of a file can hold.
    let large = [UInt8](repeating: 9, count: Command.maximumValueBytes)
    #expect(client.submit([(0, try Command.encode(.set, key: Array("large".utf8), value: large))]))
    for number in 1..<400 {
      #expect(client.submit([(UInt32(number), setCommand("k\(number)", String(repeating: "x", count: 3000)))]))
    }
    #expect(client.wait(for: 400))
    for _ in 0..<2 {
      let late = try make(3)
      defer { late.stop() }
      late.start()
      #expect(eventually { late.status.appliedIndex >= leader.status.commitIndex })
      #expect(late.store.stateHash == leader.store.stateHash && late.failure == nil)
      let names = try FileManager.default.contentsOfDirectory(atPath: "\(directory)/3/snapshots")
      #expect(names.count == 2 && names.allSatisfy(Self.isFinished))
    }
  }
}
