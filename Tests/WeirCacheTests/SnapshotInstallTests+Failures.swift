import Foundation
import Synchronization
import Testing
import WeirCore
import WeirStorage

@testable import WeirCache

/// What goes wrong while a state is sent.
extension SnapshotInstallTests {
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
