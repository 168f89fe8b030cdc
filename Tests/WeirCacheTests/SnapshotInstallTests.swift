import Foundation
import Logging
import Synchronization
import Testing
import WeirCore
import WeirStorage
import WeirTransport

@testable import WeirCache

/// A node with files that had a state, was away for long, and is sent another one.
@Suite("States that are sent to nodes with files", .serialized)
struct SnapshotInstallTests {
  private static let groups = 300
  private static let groupKeys = 8
  private static let valueBytes = 1500

  /// What a node's disk is asked for while it is sent a state: tests look at it, hold it up, and let it fail.
  fileprivate final class Watch: Sendable {
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
  private final class Scene {
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

  private static func withScene(_ body: (Scene) throws -> Void) throws {
    let scene = try Scene()
    defer { scene.stop() }
    try body(scene)
  }

  private static func key(_ group: Int, _ number: Int) -> [UInt8] { Array("g\(group)-\(number)".utf8) }

  private static func isFinished(_ path: String) -> Bool { path.hasSuffix(".snapshot") }

  // MARK: What is seen of it

  /// Reads a group of keys at one moment, over and over, on a thread of its own.
  private final class Reader: Sendable {
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

  /// The loop turns, and hears the leader.
  private func expectGoesOn(_ node: Node, _ scene: Scene) {
    let turns = node.counters.turns
    #expect(eventually { node.counters.turns > turns + 20 && node.status.leader == scene.leader.id })
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
    #expect(status.contains("\"loading\":true"))
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

  // MARK: What goes wrong

  @Test("What is no state is refused as it arrives, or at its end, and leaves no file")
  func malformed() throws {
    let disk = SimulatedFileSystem()
    let snapshots = try SnapshotStore.open(fileSystem: disk, directory: "/snapshots")
    let metadata = SnapshotMetadata(index: 5, term: 2, configuration: .init(voters: [1]))
    let record: [UInt8] = [1, 0, 0, 0, 1, 0, 0, 0, 7, 8]
    for isTruncated in [false, true] {
      let file = SnapshotArrivalFile(snapshots, metadata)
      try file.append(record + record.prefix(5))
      #expect(try disk.list("/snapshots").count == 1)
      #expect(throws: SnapshotFailure.self) {
        if !isTruncated { try file.append([UInt8](repeating: 255, count: 8)) }
        try file.seal()
      }
      #expect(try disk.list("/snapshots").isEmpty)
      #expect(throws: SnapshotFailure.self) { try file.append(record) }
      #expect(throws: SnapshotFailure.self) { try file.seal() }
      #expect(try disk.list("/snapshots").isEmpty)
    }
    // Cut anywhere.
    let file = SnapshotArrivalFile(snapshots, metadata)
    for byte in record { try file.append([byte]) }
    try file.seal()
    let store = KeyValueStore(shardCount: 2, hashSeed: 1)
    #expect(try file.install(into: store) { true }.isEmpty)
    #expect(store.count == 1 && store.get([7]) == [8] && !store.isLoading)
  }

  @Test("A node that is killed between giving the file its name and having its state in place starts from it")
  func killedBeforeInPlace() throws {
    try Self.withScene { scene in
      let watch = Watch()
      let load = Gate()
      let late = try scene.late(watch)
      let store = late.store
      watch.set { operation, _ in if operation == .read, store.isLoading { load.pass() } }
      load.close()
      defer { load.open() }
      late.start()
      #expect(load.waitUntilReached())
      // What a power cut leaves at this moment.
      let found = scene.disks[2].copy(seed: 5)
      found.crash(survivalPerMille: 0)
      load.open()
      late.stop()
      let again = try scene.late(on: found)
      // Before it has heard of anybody.
      #expect(again.store.stateHash == scene.leader.store.stateHash)
      again.start()
      #expect(eventually { scene.isEven(again) })
    }
  }

  @Test("Without room for an arriving state the node refuses it, keeps what it has, and takes the next one")
  func diskFull() throws {
    try Self.withScene { scene in
      let watch = Watch()
      let refusals = Mutex(0)
      let isFull = Atomic<Bool>(true)
      watch.set { (operation, path) throws(FileError) in
        guard operation == .write, isFull.load(ordering: .relaxed) else { return }
        // Not at once: a part of it is on the disk by then.
        let number = refusals.withLock { count in
          count += 1
          return count
        }
        if number % 8 == 0 { throw FileError(operation: .write, path: path, code: ENOSPC) }
      }
      let late = try scene.late(watch)
      late.start()
      #expect(eventually { refusals.withLock { $0 } >= 16 }, "it was not sent another one")
      #expect(late.failure == nil && !late.isOutOfSpace && !late.store.isLoading)
      #expect(scene.holds(late, group: 5, generation: 1))
      expectGoesOn(late, scene)
      isFull.store(false, ordering: .relaxed)
      #expect(eventually { scene.isEven(late) })
      #expect(late.failure == nil)
      #expect(try scene.disks[2].list("/node-3/snapshots").allSatisfy(Self.isFinished))
    }
  }

  /// Where the disk fails while a state arrives and is put in place.
  enum Site: CaseIterable {
    case create, write, seal, verify, publish, directory, load

    func strikes(_ operation: FileError.Operation, _ path: String, isLoading: Bool) -> Bool {
      let isFinished = path.hasSuffix(".snapshot")
      return switch self {
      case .create: operation == .create
      case .write: operation == .write
      case .seal: operation == .synchronizeData
      case .verify: operation == .read && !isFinished
      case .publish: operation == .rename && !isFinished
      case .directory: operation == .synchronizeDirectory
      case .load: operation == .read && isLoading
      }
    }
  }

  @Test(
    "EIO ends the node, wherever it strikes, and after a restart it is sent a state again", arguments: Site.allCases)
  func inputOutputError(site: Site) throws {
    try Self.withScene { scene in
      let watch = Watch()
      let late = try scene.late(watch)
      let store = late.store
      let strikes = Mutex(0)
      watch.set { (operation, path) throws(FileError) in
        guard site.strikes(operation, path, isLoading: store.isLoading) else { return }
        strikes.withLock { $0 += 1 }
        throw FileError(operation: operation, path: path, code: EIO)
      }
      late.start()
      #expect(eventually { late.failure != nil })
      #expect(strikes.withLock { $0 } == 1)
      // Either it still has its old state, or none, and says so.
      #expect(late.store.isLoading == (site == .load))
      if site != .load { #expect(scene.holds(late, group: 9, generation: 1)) }
      late.stop()
      scene.disks[2].crash()
      let again = try scene.late()
      again.start()
      #expect(eventually { scene.isEven(again) })
    }
  }

  @Test("A bit that flips on the disk ends the node: before the old state is gone, or while the new one is read")
  func bitFlips() throws {
    for isVerified in [false, true] {
      try Self.withScene { scene in
        let watch = Watch()
        let late = try scene.late(watch)
        let disk = scene.disks[2]
        let flipped = Mutex<String?>(nil)
        watch.set { operation, path in
          // After it was synced, before it is checked; or after that, before it is loaded.
          guard operation == (isVerified ? .synchronizeDirectory : .open), isVerified || path.hasSuffix(".tmp"),
            flipped.withLock({ $0 == nil }),
            let names = try? disk.list("/node-3/snapshots"),
            let name = names.sorted().last(where: { $0.hasSuffix(isVerified ? ".snapshot" : ".tmp") })
          else { return }
          let path = "/node-3/snapshots/" + name
          disk.flipBit(3, ofByte: 2_000_000, in: path)
          flipped.withLock { $0 = path }
        }
        late.start()
        #expect(eventually { late.failure != nil })
        #expect(late.failure?.contains("damaged") == true)
        #expect(late.store.isLoading == isVerified)
        late.stop()
        disk.crash(survivalPerMille: 1000)
        // What is damaged is passed over: the state before it, with its log, is still there.
        let again = try scene.late()
        #expect(scene.holds(again, group: 9, generation: 1))
        again.start()
        #expect(eventually { scene.isEven(again) })
      }
    }
  }

  @Test("A state whose leader has been followed by another meanwhile is not wanted, and never gets a name")
  func unwanted() throws {
    try Self.withScene { scene in
      let watch = Watch()
      let seal = Gate()
      watch.set { operation, path in if operation == .synchronizeData { seal.pass() } }
      let late = try scene.late(watch)
      seal.close()
      defer { seal.open() }
      late.start()
      #expect(seal.waitUntilReached())
      let next = try #require(scene.nodes.first { $0.id != scene.leader.id })
      let term = late.status.term
      scene.leader.transferLeadership(to: next.id, completion: { _ in })
      #expect(eventually { next.isLeader && late.status.term > term && late.status.leader == next.id })
      #expect(!watch.operations.contains { $0.operation == .rename })
      let index = late.status.appliedIndex
      seal.open()
      #expect(eventually { watch.operations.contains { $0.operation == .remove && $0.path.hasSuffix(".tmp") } })
      #expect(late.status.appliedIndex >= index && late.failure == nil)
      // The next leader sends its own.
      #expect(eventually { next.store.stateHash == late.store.stateHash })
      #expect(scene.holds(late, group: 0, generation: 2))
      #expect(try scene.disks[2].list("/node-3/snapshots").allSatisfy(Self.isFinished))
    }
  }

  @Test("Stopped while a state arrives or is loaded, a node leaves nothing under way, and starts from what there is")
  func stopped() throws {
    for isLoading in [false, true] {
      try Self.withScene { scene in
        let watch = Watch()
        let gate = Gate()
        let late = try scene.late(watch)
        let store = late.store
        watch.set { operation, _ in
          if isLoading ? operation == .read && store.isLoading : operation == .write { gate.pass() }
        }
        gate.close()
        late.start()
        #expect(gate.waitUntilReached())
        let isOver = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
          late.stop()
          isOver.signal()
        }
        usleep(10_000)
        gate.open()
        isOver.wait()
        let names = try scene.disks[2].list("/node-3/snapshots")
        #expect(names.allSatisfy(Self.isFinished), "\(names)")
        let again = try scene.late()
        again.start()
        #expect(eventually { scene.isEven(again) })
      }
    }
  }
}
