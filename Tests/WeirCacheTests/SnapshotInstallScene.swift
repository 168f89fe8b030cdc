import Foundation
import Logging
import Synchronization
import Testing
import WeirCore
import WeirStorage
import WeirTransport

@testable import WeirCache

/// The cluster that a state is sent in, and what is looked at meanwhile.
extension SnapshotInstallTests {
  static let groups = 300
  static let groupKeys = 8
  static let valueBytes = 1500

  /// What a node's disk is asked for while it is sent a state: tests look at it, hold it up, and let it fail.
  final class Watch: Sendable {
    typealias Hook = @Sendable (FileError.Operation, String) throws(FileError) -> Void

    private let hook = Mutex<Hook?>(nil)
    private let seen = Mutex<[(operation: FileError.Operation, path: String)]>([])

    var operations: [(operation: FileError.Operation, path: String)] { seen.withLock { $0 } }

    func set(_ body: Hook?) { hook.withLock { $0 = body } }

    func intercept(_ operation: FileError.Operation, _ path: String) throws(FileError) {
      guard path.contains("/snapshots") else { return }
      seen.withLock { $0.append((operation, path)) }
      if let body = hook.withLock({ $0 }) { try body(operation, path) }
    }
  }

  /// Two nodes that go on, and the third's disk as it was when that one went away.
  final class Scene {
    let network = InMemoryNetwork()
    let disks = (1...3).map { SimulatedFileSystem(seed: $0) }
    private(set) var nodes: [Node] = []
    private(set) var leader: Node
    private var client: TestClient?
    private var others: [Node] = []

    init() throws {
      let (disks, network) = (disks, network)
      let first = try (1...3).map { try Scene.makeNode($0, disks[Int($0) - 1], network) }
      leader = try Scene.start(first)
      do {
        defer { for node in first { node.stop() } }
        client = try TestClient(leader)
        try write(generation: 1)
        // Twice: a node learns of the last commit of all, but need not keep that over a restart.
        for _ in 0..<2 {
          guard EmbeddedCluster(nodes: first).waitUntilEven(deadlineNanoseconds: deadline(inSeconds: 60)) else {
            throw HarnessError("the nodes do not become even")
          }
          try write(generation: 1, groups: 0..<3)
        }
        client = nil
      }
      nodes = try (1...2).map { try Scene.makeNode($0, disks[Int($0) - 1], network) }
      leader = try Scene.start(nodes)
      client = try TestClient(leader)
      try write(generation: 2)
    }

    func stop() {
      client = nil
      for node in nodes + others { node.stop() }
    }

    static func makeNode(_ id: NodeID, _ disk: any FileSystem, _ network: InMemoryNetwork) throws -> Node {
      var configuration = NodeConfiguration(
        id: id, clusterID: 9, listenAddress: try SocketAddress(host: "127.0.0.1", port: 0), initialVoters: [1, 2, 3],
        seed: id, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
      configuration.tickNanoseconds = 20_000_000
      configuration.storage = .files(directory: "/node-\(id)", sync: .always)
      configuration.fileSystem = disk
      configuration.logOptions = LogOptions(segmentBytes: 1 << 20, writeMode: .buffered, zeroFill: false)
      configuration.maximumLogBytes = 64 << 10
      configuration.trailingLogBytes = 4 << 10
      return try Node(configuration, network: network)
    }

    private static func start(_ nodes: [Node]) throws -> Node {
      for node in nodes { node.start() }
      let cluster = EmbeddedCluster(nodes: nodes)
      guard let leader = cluster.waitForLeader(deadlineNanoseconds: deadline(inSeconds: 60)) else {
        throw HarnessError("no leader")
      }
      return leader
    }

    /// Sets all keys of each group at one moment, to one value.
    func write(generation: Int, groups: Range<Int> = 0..<SnapshotInstallTests.groups) throws {
      guard let client else { throw HarnessError("no client") }
      let before = client.outcomes.count
      for (number, group) in groups.enumerated() {
        let commands = try (0..<SnapshotInstallTests.groupKeys).map {
          try Command.encode(.set, key: SnapshotInstallTests.key(group, $0), value: Scene.value(generation, group))
        }
        #expect(client.submit([(UInt32(before + number), try Command.encodeSeveral(commands))]))
      }
      guard client.wait(for: before + groups.count), client.outcomes.values.allSatisfy(\.isApplied) else {
        throw HarnessError("not written")
      }
    }

    static func value(_ generation: Int, _ group: Int) -> [UInt8] {
      let head = Array("\(generation)-\(group)-".utf8)
      return head + [UInt8](repeating: 7, count: SnapshotInstallTests.valueBytes - head.count)
    }

    /// The third node, on its disk or on another one that it might have found.
    func late(_ watch: Watch? = nil, on other: SimulatedFileSystem? = nil) throws -> Node {
      let disk = other ?? disks[2]
      let node = try Scene.makeNode(
        3,
        watch.map { watch in
          InterceptedFileSystem(disk) { (operation, path) throws(FileError) in try watch.intercept(operation, path) }
        } ?? disk, network)
      others.append(node)
      return node
    }

    func holds(_ node: Node, group: Int, generation: Int) -> Bool {
      (0..<SnapshotInstallTests.groupKeys).allSatisfy {
        node.store.get(SnapshotInstallTests.key(group, $0)) == Scene.value(generation, group)
      }
    }

    func isEven(_ node: Node) -> Bool {
      node.status.appliedIndex >= leader.status.commitIndex && node.store.stateHash == leader.store.stateHash
    }
  }

  static func withScene(_ body: (Scene) throws -> Void) throws {
    let scene = try Scene()
    defer { scene.stop() }
    try body(scene)
  }

  static func key(_ group: Int, _ number: Int) -> [UInt8] { Array("g\(group)-\(number)".utf8) }

  static func isFinished(_ path: String) -> Bool { path.hasSuffix(".snapshot") }

  /// The loop turns, and hears the leader.
  func expectGoesOn(_ node: Node, _ scene: Scene) {
    let turns = node.counters.turns
    #expect(eventually { node.counters.turns > turns + 20 && node.status.leader == scene.leader.id })
  }

  /// Reads a group of keys at one moment, over and over, on a thread of its own.
  final class Reader: Sendable {
    struct Seen {
      var answered = 0
      var refused = 0
      var torn = 0
      /// How often a group was found as of each generation.
      var went = [0, 0, 0, 0]
    }

    private let state = Mutex((isDone: false, seen: Seen()))
    private let isOver = DispatchSemaphore(value: 0)

    init(_ store: KeyValueStore) {
      Thread.detachNewThread { [self] in
        var group = 0
        while !state.withLock({ $0.isDone }) {
          group = (group + 1) % SnapshotInstallTests.groups
          read(store, group)
        }
        isOver.signal()
      }
    }

    private func read(_ store: KeyValueStore, _ group: Int) {
      var bytes: [UInt8] = []
      var places: [Range<Int>] = []
      for number in 0..<SnapshotInstallTests.groupKeys {
        let key = SnapshotInstallTests.key(group, number)
        places.append(bytes.count..<bytes.count + key.count)
        bytes += key
      }
      var generations: [UInt8?] = []
      let isReadable = store.lookUpTogether(places, in: bytes.span.bytes) { _, value, _ in
        guard let value else { return generations.append(nil) }
        generations.append(value.withUnsafeBytes { $0[0] })
      }
      state.withLock { state in
        guard isReadable else { return state.seen.refused += 1 }
        state.seen.answered += 1
        let known = generations[0].map { Int($0) - 48 } ?? 0
        if Set(generations).count != 1 || known == 0 { state.seen.torn += 1 }
        state.seen.went[known] += 1
      }
    }

    var seen: Seen { state.withLock { $0.seen } }

    func stop() {
      state.withLock { $0.isDone = true }
      isOver.wait()
    }
  }
}
