import Dispatch
import Testing
import WeirCore

@testable import WeirCache

private func key(_ number: Int) -> [UInt8] { Array("key-\(number)".utf8) }

extension KeyValueStore {
  @discardableResult
  fileprivate func set(_ key: [UInt8], _ value: [UInt8]) -> Bool { set(key.span.bytes, to: value.span.bytes) }
  @discardableResult
  fileprivate func remove(_ key: [UInt8]) -> Bool { remove(key.span.bytes) }
  @discardableResult
  fileprivate func apply(_ payload: [UInt8]) -> CommandResult { apply(payload.span.bytes) }

  /// What `readEach` calls its closure with.
  fileprivate func readAll(_ keys: [UInt8], keyBytes: Int) -> [(position: Int, value: [UInt8]?)] {
    var found: [(position: Int, value: [UInt8]?)] = []
    let isComplete = readEach(keys.span.bytes, keyBytes: keyBytes) { position, value in
      guard let value else { return found.append((position, nil)) }
      found.append((position, value.withUnsafeBytes { [UInt8]($0) }))
    }
    return isComplete ? found : []
  }
}

private func decode(_ payload: [UInt8]) throws -> Command.Layout { try Command.decode(payload.span.bytes) }

private func restored(_ chunks: [[UInt8]], shardCount: Int) throws -> KeyValueStore {
  let store = KeyValueStore(shardCount: shardCount, hashSeed: 77)
  let restore = StateRestore(into: store)
  for chunk in chunks { try restore.append(chunk) }
  try restore.finish()
  return store
}

@Suite struct KeyValueStoreTests {
  @Test(arguments: [1, 2, 16], [UInt64(1), 2, 3])
  func behavesLikeADictionary(shardCount: Int, seed: UInt64) throws {
    var generator = SplitMix64(seed: seed)
    let store = KeyValueStore(shardCount: shardCount, hashSeed: generator.next())
    var model: [[UInt8]: [UInt8]] = [:]
    for _ in 0..<20_000 {
      let name = key(Int.random(in: 0..<500, using: &generator))
      switch Int.random(in: 0..<10, using: &generator) {
      case 0..<6:
        let value = [UInt8](
          repeating: .random(in: 0...255, using: &generator), count: .random(in: 0..<300, using: &generator))
        let result = store.apply(try Command.encode(.set, key: name, value: value))
        #expect(result == .set(existed: model[name] != nil))
        model[name] = value
      case 6..<9:
        let result = store.apply(try Command.encode(.delete, key: name))
        #expect(result == .deleted(existed: model.removeValue(forKey: name) != nil))
      default:
        #expect(store.get(name) == model[name])
      }
    }
    #expect(store.count == model.count)
    #expect(store.liveBytes == model.reduce(0) { $0 + $1.key.count + $1.value.count })
    for (name, value) in model { #expect(store.get(name) == value) }
  }

  @Test(arguments: [0, 1, 2, 15, 16, 17, 31, 32, 33, 300])
  func aBatchOfReadsFindsWhatSingleReadsFind(count: Int) {
    var generator = SplitMix64(seed: UInt64(count))
    let store = KeyValueStore(shardCount: 8, hashSeed: generator.next())
    func name(_ number: Int) -> [UInt8] { Array("key-\(number + 100_000)".utf8) }
    for number in 0..<200 { store.set(name(number), [UInt8](repeating: UInt8(number), count: number % 40)) }
    // Half of the keys are not there; some come twice.
    let numbers = (0..<count).map { _ in Int.random(in: 0..<400, using: &generator) }
    let found = store.readAll(numbers.flatMap(name), keyBytes: name(0).count)
    #expect(found.map(\.position) == Array(0..<count))
    #expect(found.map(\.value) == numbers.map { store.get(name($0)) })
  }

  @Test func equalStatesHaveEqualHashesWhateverTheirHistory() throws {
    let first = KeyValueStore(shardCount: 4, hashSeed: 1)
    let second = KeyValueStore(shardCount: 16, hashSeed: 2)
    for number in 0..<1000 { first.set(key(number), key(number + 1)) }
    for number in (0..<2000).reversed() { second.set(key(number), key(7)) }
    #expect(first.stateHash != second.stateHash)
    for number in (1000..<2000) { second.remove(key(number)) }
    for number in (0..<1000).reversed() { second.set(key(number), key(number + 1)) }
    #expect(first.stateHash == second.stateHash)
    second.set(key(5), [UInt8]())
    #expect(first.stateHash != second.stateHash)
  }

  @Test(arguments: [UInt64(1), 2, 3, 4, 5, 6, 7, 8])
  func aCaptureHoldsTheStateOfItsBeginning(seed: UInt64) throws {
    var generator = SplitMix64(seed: seed)
    let store = KeyValueStore(shardCount: 4, hashSeed: 77)
    func change(_ range: Range<Int>) {
      let name = key(Int.random(in: range, using: &generator))
      if Int.random(in: 0..<4, using: &generator) == 0 {
        store.remove(name)
      } else {
        let value = [UInt8](
          repeating: .random(in: 0...255, using: &generator), count: .random(in: 0..<100, using: &generator))
        store.set(name, value)
      }
    }
    for _ in 0..<2000 { change(0..<1000) }
    for _ in 0..<3 {
      let expected = (store.stateHash, store.count, store.liveBytes)
      let capture = store.beginCapture()
      var chunks: [[UInt8]] = []
      while let chunk = try capture.nextChunk(targetBytes: .random(in: 64..<4096, using: &generator)) {
        chunks.append(chunk)
        for _ in 0..<Int.random(in: 0..<200, using: &generator) { change(0..<3000) }
      }
      let copy = try restored(chunks, shardCount: 4)
      #expect((copy.stateHash, copy.count, copy.liveBytes) == expected)
      #expect(store.stateHash != expected.0)
    }
  }

  @Test func aCaptureGivenUpLeavesNothingBehind() throws {
    let store = KeyValueStore(shardCount: 2, hashSeed: 5)
    for number in 0..<500 { store.set(key(number), key(number)) }
    let memory = store.memoryBytes
    var capture: StateCapture? = store.beginCapture()
    _ = try capture?.nextChunk(targetBytes: 100)
    for number in 0..<500 { store.set(key(number), key(number + 1000)) }
    #expect(store.memoryBytes > memory)
    capture = nil
    for number in 0..<500 { store.set(key(number), key(number)) }
    #expect(store.memoryBytes <= memory + 500 * 16)
  }

  /// A store of `count` keys with values of 100 bytes each, and what it takes in memory.
  private func filled(_ count: Int) -> (store: KeyValueStore, memoryBytes: Int) {
    let store = KeyValueStore(shardCount: 4, hashSeed: 5)
    for number in 0..<count { store.set(key(number), [UInt8](repeating: 1, count: 100)) }
    return (store, store.memoryBytes)
  }

  @Test("Keys are overwritten ten times each while a capture is read: what is kept for it stays within its bound")
  func overwritingEverythingMeanwhile() throws {
    let count = 20_000
    let (store, memory) = filled(count)
    let expected = store.stateHash
    let bound = 400_000
    let capture = store.beginCapture(mostPreservedBytes: bound)
    var chunks: [[UInt8]] = []
    var most = 0
    var next = 0
    while let chunk = try capture.nextChunk(targetBytes: 32 << 10) {
      chunks.append(chunk)
      // Whoever reads it rests between two pieces, for as long as it takes to write 3000 keys, but not while it is pressed.
      var left = 3000
      while left > 0, !capture.isPressed {
        // Of sizes that need other records.
        for round in 0..<10 { store.set(key(next % count), [UInt8](repeating: 2, count: 90 + round % 3 * 60)) }
        next += 1
        left -= 1
      }
      most = max(most, store.preservedBytes)
    }
    #expect(next > count / 2, "many keys were overwritten")
    #expect(most > bound / 4, "much had to be kept, or this shows nothing")
    #expect(most <= bound)
    #expect(store.preservedBytes == 0)
    #expect(try restored(chunks, shardCount: 4).stateHash == expected)
    // The newest of each key, in records of at most 16 + 16 + 210 bytes, and no other.
    #expect(store.memoryBytes <= memory + count * 120)
  }

  @Test("A capture that nobody reads holds no more than its bound, and is of no use beyond it")
  func outgrownCapture() throws {
    let count = 20_000
    let (store, memory) = filled(count)
    let bound = 400_000
    var capture: StateCapture? = store.beginCapture(mostPreservedBytes: bound)
    _ = try capture?.nextChunk(targetBytes: 32 << 10)
    var most = 0
    for round in 0..<5 {
      for number in 0..<count {
        store.set(key(number), [UInt8](repeating: UInt8(round), count: 100))
        most = max(most, store.memoryBytes)
      }
    }
    // One record may go beyond it.
    #expect(store.preservedBytes > bound / 2 && store.preservedBytes <= bound + 200)
    #expect(most <= memory + bound + 200)
    for number in 0..<count / 2 { store.remove(key(number)) }
    #expect(store.preservedBytes <= bound + 200)
    #expect(throws: StateCaptureError.outgrown) { try capture?.nextChunk() }
    capture = nil
    #expect(store.preservedBytes == 0)
    #expect(store.memoryBytes < memory)
    // The next one has the whole state again.
    let expected = store.stateHash
    let again = store.beginCapture()
    var chunks: [[UInt8]] = []
    while let chunk = try again.nextChunk() { chunks.append(chunk) }
    #expect(try restored(chunks, shardCount: 4).stateHash == expected)
  }

  @Test("The numbers of captures begin again, and no record counts as taken by one that had its number before")
  func captureNumbersBeginAgain() throws {
    let store = KeyValueStore(shardCount: 1, hashSeed: 5)
    for number in 0..<20 { store.set(key(number), [1]) }
    let most = Int(RecordTable.mostCaptureNumbers)
    for count in 1...2 * most + 3 {
      // Most are given up at once, some halfway: then some records have their number, and others have an older one.
      let isWhole = count % most < 3 || count % 1000 == 0
      let expected = store.stateHash
      let capture = store.beginCapture()
      var chunks: [[UInt8]] = []
      if count % 7 == 0 { if let chunk = try capture.nextChunk(targetBytes: 40) { chunks.append(chunk) } }
      store.set(key(count % 5), [UInt8(truncatingIfNeeded: count)])
      guard isWhole else { continue }
      while let chunk = try capture.nextChunk(targetBytes: 40) { chunks.append(chunk) }
      #expect(try restored(chunks, shardCount: 1).stateHash == expected, "capture \(count)")
    }
  }

  @Test("The largest key and value, and the smallest, are held as they are")
  func sizes() {
    let store = KeyValueStore(shardCount: 1, hashSeed: 5)
    let sizes = [(1, 0), (1, 1), (Command.maximumKeyBytes, 0), (Command.maximumKeyBytes, Command.maximumValueBytes)]
    for (round, (keyBytes, valueBytes)) in sizes.enumerated() {
      let name = [UInt8](repeating: UInt8(round), count: keyBytes)
      store.set(name, [UInt8](repeating: 0xFF, count: valueBytes))
      #expect(store.get(name) == [UInt8](repeating: 0xFF, count: valueBytes))
      #expect(store.liveBytes == sizes[0...round].reduce(0) { $0 + $1.0 + $1.1 })
    }
    for (round, (keyBytes, _)) in sizes.enumerated() { store.remove([UInt8](repeating: UInt8(round), count: keyBytes)) }
    #expect(store.liveBytes == 0 && store.count == 0)
  }

  @Test func brokenSnapshotsAreRefusedAndChangeNothing() throws {
    let store = KeyValueStore(shardCount: 2, hashSeed: 5)
    store.set([1], [2])
    let before = store.stateHash
    let truncated = StateReplacement(of: store)
    try truncated.append([1, 0, 0, 0, 4, 0, 0, 0, 9])
    #expect(throws: StateRestoreError.truncated) { try truncated.finish() }
    #expect(throws: StateRestoreError.malformedMembers) {
      try StateReplacement(of: store).append([0, 0, 0, 0, 1, 0, 0, 0, 9])
    }
    #expect(throws: StateRestoreError.invalidLength(keyBytes: .max, valueBytes: .max)) {
      try StateReplacement(of: store).append([UInt8](repeating: 255, count: 8))
    }
    #expect(store.stateHash == before)
    let whole = StateReplacement(of: store)
    try whole.append([1, 0, 0, 0, 1, 0, 0, 0, 7, 8])
    try whole.finish()
    #expect(store.stateHash == before)
    whole.commit()
    #expect(store.count == 1 && store.get([7]) == [8] && store.get([1]) == nil)
  }

  @Test("While a state is being loaded, every look-up says that there is none, and finds it whole afterwards")
  func nothingIsReadFromAStateThatIsBeingLoaded() throws {
    let store = KeyValueStore(shardCount: 4, hashSeed: 9)
    let keys = (0..<32).flatMap { [UInt8($0)] }
    let places = (0..<32).map { $0..<$0 + 1 }
    for number in keys { store.set([number], [number, 1]) }
    func found() -> (one: [UInt8]?, several: Bool, each: Int, deadline: Bool) {
      let one = store.get([5])
      let several = store.lookUpTogether(places, in: keys.span.bytes) { _, _, _ in }
      let each = store.readAll(keys, keyBytes: 1).count
      let five: [UInt8] = [5]
      return (one, several, each, store.lookUp(five.span.bytes) { value, _ in value != nil } ?? false)
    }
    #expect(found() == ([5, 1], true, 32, true))
    #expect(store.size?.keys == 32 && store.size?.liveBytes == 32 * 3)
    store.beginLoading()
    #expect(store.isLoading && store.count == 0 && store.liveBytes == 0)
    #expect(found() == (nil, false, 0, false) && store.size == nil)
    let restore = StateRestore(into: store)
    for number in keys.dropLast() { try restore.append([1, 0, 0, 0, 1, 0, 0, 0, number, 2]) }
    #expect(found() == (nil, false, 0, false) && store.count == 31 && store.size == nil)
    try restore.finish()
    store.endLoading()
    #expect(!store.isLoading && store.size?.keys == 31 && store.size?.liveBytes == 31 * 2)
    #expect(found() == ([2], true, 32, true))
  }

  @Test func readersOnOtherThreadsSeeWholeValues() {
    let store = KeyValueStore(shardCount: 2, hashSeed: 5)
    let name = key(1)
    store.set(name, [UInt8](repeating: 0, count: 64))
    DispatchQueue.concurrentPerform(iterations: 3) { worker in
      for round in 0..<20_000 {
        if worker == 0 {
          store.set(name, [UInt8](repeating: UInt8(round & 0xFF), count: 64))
        } else if let value = store.get(name) {
          #expect(value.allSatisfy { $0 == value[0] })
        }
      }
    }
  }
}

@Suite struct CommandTests {
  @Test func roundTrips() throws {
    let bytes = try Command.encode(.set, key: [1, 2, 3], value: [4, 5])
    #expect(bytes == [0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5])
    #expect(try decode(bytes) == .init(operation: .set, key: 12..<15, value: 15..<17))
  }

  @Test func refusesWhatIsOverALimit() {
    #expect(throws: CommandError.emptyKey) { try Command.encode(.set, key: []) }
    #expect(throws: CommandError.keyTooLarge(bytes: 4097)) {
      try Command.encode(.set, key: [UInt8](repeating: 1, count: 4097))
    }
    #expect(throws: CommandError.valueTooLarge(bytes: 1_048_577)) {
      try Command.encode(.set, key: [1], value: [UInt8](repeating: 1, count: 1_048_577))
    }
  }

  @Test func everyTruncationAndEveryFlippedHeaderBitIsRefusedOrHarmless() throws {
    let bytes = try Command.encode(.set, key: [1, 2, 3], value: [4, 5])
    for length in 0..<bytes.count {
      #expect(throws: CommandError.self) { try decode(Array(bytes[..<length])) }
    }
    for bit in 0..<Command.headerBytes * 8 {
      var flipped = bytes
      flipped[bit / 8] ^= 1 << (bit % 8)
      let store = KeyValueStore(shardCount: 1, hashSeed: 0)
      if case .refused = store.apply(flipped) { #expect(store.count == 0) }
    }
  }
}
