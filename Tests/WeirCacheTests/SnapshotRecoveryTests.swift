import Logging
import Raft
import Testing
import WeirCore
import WeirStorage
import WeirTransport

@testable import WeirCache

@Suite("Starting from snapshots and logs", .serialized)
struct SnapshotRecoveryTests {
  private static func makeNode(_ disk: any FileSystem) throws -> Node {
    var configuration = NodeConfiguration(
      id: 1, clusterID: 9, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [1], seed: 3,
      log: quietLog())
    configuration.storage = .files(directory: "/node", sync: .always)
    configuration.fileSystem = disk
    configuration.logOptions = LogOptions(segmentBytes: 16 << 10, writeMode: .buffered, zeroFill: false)
    configuration.snapshotAfterBytes = 24 << 10
    configuration.tickNanoseconds = 2_000_000
    return try Node(configuration, network: InMemoryNetwork())
  }

  private static func start(_ disk: any FileSystem) throws -> Node {
    let node = try makeNode(disk)
    node.start()
    guard eventually(60, { node.isLeader && node.status.appliedIndex == node.status.lastIndex }) else {
      node.stop()
      throw HarnessError("no leader, or its log is not applied")
    }
    return node
  }

  private static func snapshots(_ disk: SimulatedFileSystem) throws -> [SnapshotStore.Stored] {
    try SnapshotStore.open(fileSystem: disk, directory: "/node/snapshots").list()
  }

  @Test("the newest snapshot is damaged: the one before it still finds its log, and nothing is lost")
  func fallback() throws {
    let disk = SimulatedFileSystem(seed: 4)
    var node = try Self.start(disk)
    let client = try TestClient(node)
    for number in 0..<600 {
      #expect(
        client.submit([
          (UInt32(number), setCommand("k\(number % 200)", "\(number)" + String(repeating: "x", count: 300)))
        ]))
      #expect(client.wait(for: number + 1))
    }
    // Index and term are in the files' names. Opening the store would remove what is being written.
    #expect(
      eventually {
        let names = ((try? disk.list("/node/snapshots")) ?? []).filter { $0.hasSuffix(".snapshot") }
        return names.count == 2 && names.allSatisfy { UInt64($0.prefix(16), radix: 16).map { $0 > 100 } ?? false }
      })
    let hash = node.store.stateHash
    node.stop()
    let stored = try Self.snapshots(disk)
    try #require(stored.count == 2 && stored[1].metadata.index > 100)
    disk.flipBit(3, ofByte: stored[0].fileBytes / 2, in: stored[0].path)
    disk.kill()
    node = try Self.start(disk)
    #expect(node.store.stateHash == hash && node.store.count == 200)
    node.stop()
    // Both of them: there is no state to begin the log from, and the node says so.
    disk.flipBit(3, ofByte: stored[1].fileBytes / 2, in: stored[1].path)
    for newer in try Self.snapshots(disk) where newer.metadata.index > stored[0].metadata.index {
      disk.flipBit(3, ofByte: newer.fileBytes / 2, in: newer.path)
    }
    disk.kill()
    #expect(throws: StorageError.self) { try Self.makeNode(disk) }
  }

  @Test("changes of the configuration in the log lead where they led before")
  func configurations() throws {
    let start = SnapshotMetadata(index: 10, term: 1, configuration: ConfigurationState(voters: [1, 2, 3]))
    var log = LogBuffer(anchorIndex: 10, anchorTerm: 1)
    func command(_ text: String) -> [UInt8] { setCommand(text, text + "!") }
    func change(_ changes: [MemberChange], _ addresses: [NodeID: String]) -> [UInt8] {
      ConfigurationChangeV2(changes: changes, context: MemberAddressRecord.encoded(addresses)).encoded()
    }
    func append(_ payload: [UInt8], _ kind: EntryKind = .normal) {
      log.append(term: 2, kind: kind, payload: payload.span.bytes)
    }
    append([])
    append(command("a"))
    append(change([MemberChange(.addLearner, 4)], [4: "127.0.0.1:4004"]), .configurationChangeV2)
    append(command("b"))
    append(change([MemberChange(.remove, 3)], [4: "127.0.0.1:4004"]), .configurationChangeV2)
    append([9, 9, 9], .configurationChangeV2)
    append(command("c"))
    let store = KeyValueStore(shardCount: 4, hashSeed: 3)
    let recovery = LogRecovery(
      store: store, snapshot: start, memberAddresses: [2: "127.0.0.1:4002", 3: "127.0.0.1:4003"], log: quietLog())
    recovery.apply(log.batch(from: 11, through: 13))
    #expect(recovery.configuration == ConfigurationState(voters: [1, 2, 3], learners: [4]))
    recovery.apply(log.batch(from: 14, through: 17))
    #expect(recovery.configuration == ConfigurationState(voters: [1, 2], learners: [4]))
    #expect(recovery.configurationIndex == 15)
    #expect(recovery.memberAddresses == [2: "127.0.0.1:4002", 4: "127.0.0.1:4004"])
    #expect(["a", "b", "c"].allSatisfy { store.get(Array($0.utf8)) == Array(($0 + "!").utf8) })
    #expect(recovery.appliedBytes == log.liveBytes)
  }
}
