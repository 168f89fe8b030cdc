import Foundation
import Raft
import Testing
import WeirCore
import WeirTransport

@testable import WeirCache

/// Where members are has to survive the log that said so.
@Suite struct SnapshotAddressTests {
  private func makeNode(_ id: NodeID, voters: [NodeID], port: UInt16, directory: String) throws -> Node {
    var configuration = NodeConfiguration(
      id: id, clusterID: 31, listenAddress: try SocketAddress(host: "127.0.0.1", port: port), initialVoters: voters,
      seed: id, log: quietLog())
    configuration.tickNanoseconds = 20_000_000
    configuration.storage = .files(directory: "\(directory)/\(id)", sync: .off)
    configuration.snapshotAfterBytes = 16 << 10
    return try Node(configuration)
  }

  /// Waits for a node that leads and is sure of it.
  private func leader(of nodes: [Node]) throws -> Node {
    _ = eventually { nodes.contains { $0.holdsLease } }
    return try #require(nodes.first { $0.holdsLease })
  }

  private func write(_ count: UInt32, _ value: String, to leader: Node) throws {
    let client = try TestClient(leader)
    for start in stride(from: UInt32(0), to: count, by: 50) {
      #expect(client.submit((start..<start + 50).map { ($0, setCommand("key\($0)", value)) }))
      #expect(client.wait(for: Int(start) + 50))
    }
  }

  /// The first index that a node's log still has, and the indexes of the newest snapshots on its disk.
  private func newestSnapshot(_ directory: String, _ id: NodeID) -> LogIndex {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(directory)/\(id)/snapshots")) ?? []
    return names.filter { $0.hasSuffix(".snapshot") }.compactMap { LogIndex($0.prefix(16), radix: 16) }.max() ?? 0
  }

  /// Nobody is told of anybody at the second start. The snapshots say where all of them are: those that the cluster
  /// began with, the one that was added, and each its own address to the others.
  @Test func membersFindEachOtherAfterARestartBehindASnapshot() async throws {
    let directory = NSTemporaryDirectory() + "weir-test-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let ids: [NodeID] = [1, 2, 3, 4]
    var nodes = try ids.map { try makeNode($0, voters: $0 < 4 ? [1, 2, 3] : [], port: 0, directory: directory) }
    let addresses = nodes.compactMap(\.address)
    #expect(addresses.count == 4)
    for node in nodes.prefix(3) {
      for (id, address) in zip(ids, addresses).prefix(3) where id != node.id { node.addPeer(id, address: address) }
    }
    for node in nodes { node.start() }
    var leading = try leader(of: nodes)
    let change = try await leading.addVoter(4, address: addresses[3])
    // Each node's snapshot has to replace the entry that added the fourth.
    var rounds = 0
    while ids.contains(where: { newestSnapshot(directory, $0) <= change }), rounds < 50 {
      try write(500, "round \(rounds)", to: leading)
      rounds += 1
    }
    #expect(ids.allSatisfy { newestSnapshot(directory, $0) > change })
    for node in nodes { node.stop() }

    nodes = try zip(ids, addresses).map { id, address in
      try makeNode(id, voters: id < 4 ? [1, 2, 3] : [], port: address.port, directory: directory)
    }
    for node in nodes { node.start() }
    defer { for node in nodes { node.stop() } }
    leading = try leader(of: nodes)
    try write(500, "after", to: leading)
    #expect(eventually { nodes.allSatisfy { $0.status.appliedIndex == leading.status.commitIndex } })
    #expect(Set(nodes.map(\.store.stateHash)).count == 1)
    // Whoever leads can send any of them its state, for which it has to know where they are.
    for node in nodes {
      let membership = try await node.membership()
      #expect(membership.addresses == Dictionary(uniqueKeysWithValues: zip(ids, addresses.map(\.description))))
    }
    #expect(nodes[3].store.get(Array("key499".utf8)) == Array("after".utf8))
  }

  /// No entry of the log says who the cluster began with. A node that believed itself alone would elect itself.
  @Test func whoJoinsKnowsTheWholeConfiguration() async throws {
    let cluster = try EmbeddedCluster(nodeCount: 3, seed: 33, log: quietLog()) { $0.tickNanoseconds = 20_000_000 }
    defer { cluster.stop() }
    let leading = try #require(cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)))
    var configuration = NodeConfiguration(
      id: 4, clusterID: 33, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [], seed: 4,
      log: quietLog())
    configuration.tickNanoseconds = 20_000_000
    let joiner = try Node(configuration)
    joiner.start()
    defer { joiner.stop() }
    let change = try await leading.addVoter(4, address: try #require(joiner.address))
    #expect(eventually { joiner.status.appliedIndex >= change })
    let membership = try await joiner.membership()
    #expect(membership.configuration.voters == [1, 2, 3, 4])
    #expect(membership.addresses.keys.sorted() == [1, 2, 3, 4])
    // Alone, it must not come to lead.
    cluster.stop()
    #expect(!eventually(3) { joiner.isLeader })
    let error = await #expect(throws: NodeError.self) { _ = try await joiner.apply(setCommand("a", "b")) }
    #expect(error == .notLeader(hint: nil) || error == .notLeader(hint: leading.id))
  }

  /// What a follower is sent in place of the log says it too, and what it was told directly counts for more.
  @Test func aStateThatIsSentSaysWhereTheMembersAre() throws {
    let store = KeyValueStore(shardCount: 2, hashSeed: 5)
    let (key, value): ([UInt8], [UInt8]) = ([1, 2, 3], [4])
    _ = store.set(key.span.bytes, to: value.span.bytes)
    let capture = store.beginCapture()
    capture.setMembers([9: "[::1]:700", 2: "127.0.0.1:4711"])
    var chunks: [[UInt8]] = []
    while let chunk = try capture.nextChunk(targetBytes: 16) { chunks.append(chunk) }
    let target = KeyValueStore(shardCount: 2, hashSeed: 5)
    let restore = StateRestore(into: target)
    // In pieces of any size.
    for byte in chunks.joined() { try restore.append([byte]) }
    try restore.finish()
    #expect(restore.memberAddresses == [9: "[::1]:700", 2: "127.0.0.1:4711"])
    #expect(target.stateHash == store.stateHash)
    for length in 1..<17 {
      let value = [UInt8](repeating: 0xC8, count: length)
      let record = [0, 0, 0, 0, UInt8(length), 0, 0, 0] + value
      #expect(throws: StateRestoreError.malformedMembers) { try StateRestore(into: store).append(record) }
    }
  }
}
