import Testing
import WeirCore

@testable import WeirCache

extension KeyValueStore {
  @discardableResult
  fileprivate func apply(bytes: [UInt8]) -> CommandResult { apply(bytes.span.bytes) }

  fileprivate func deadline(_ key: [UInt8]) -> UInt64? {
    lookUp(key.span.bytes) { value, deadline -> UInt64? in value == nil ? nil : deadline } ?? nil
  }
}

private func decode(_ payload: [UInt8]) throws -> Command.Layout { try Command.decode(payload.span.bytes) }
private func name(_ number: Int) -> [UInt8] { Array("key-\(number)".utf8) }
private func bytes(of number: Int64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } }

/// What a key is, as a plain program would keep it.
private struct Entry: Equatable {
  var value: [UInt8]
  var deadline: UInt64
}

/// The state machine as a dictionary: what the table has to do, without anything that makes it fast.
private struct Model {
  var entries: [[UInt8]: Entry] = [:]

  mutating func apply(
    _ operation: Command.Operation, _ key: [UInt8], _ value: [UInt8], _ options: Command.Options
  ) -> CommandResult {
    var wasExpired = false
    if options.asOfMilliseconds != 0, let entry = entries[key], entry.deadline != 0,
      entry.deadline <= options.asOfMilliseconds
    {
      entries[key] = nil
      wasExpired = true
    }
    let present = entries[key]
    switch operation {
    case .set:
      if options.condition == .ifAbsent, present != nil { return .unmet }
      if options.condition == .ifPresent, present == nil { return .unmet }
      let deadline = options.keepsDeadline ? present?.deadline ?? 0 : options.deadlineMilliseconds
      entries[key] = Entry(value: value, deadline: deadline)
      return .set(existed: present != nil)
    case .delete:
      entries[key] = nil
      return .deleted(existed: present != nil)
    case .increment:
      let text = present.map { String(decoding: $0.value, as: UTF8.self) } ?? "0"
      guard let old = Int64(text), String(old) == text else { return .notANumber }
      let delta = value.reversed().reduce(Int64(0)) { $0 << 8 | Int64($1) }
      let (sum, overflows) = old.addingReportingOverflow(delta)
      guard !overflows else { return .overflow }
      entries[key] = Entry(value: Array(String(sum).utf8), deadline: present?.deadline ?? 0)
      return .number(sum)
    case .expire:
      guard let present, present.deadline != 0 || options.deadlineMilliseconds != 0 else { return .set(existed: false) }
      entries[key]?.deadline = options.deadlineMilliseconds
      return .set(existed: true)
    case .removeExpired: return .deleted(existed: wasExpired)
    case .several: return .refused(.malformed)
    }
  }
}

@Suite struct StateMachineCommandTests {
  /// A command that may be anything the machine knows, at a time that runs.
  private struct Draw {
    var operation: Command.Operation
    var key: [UInt8]
    var value: [UInt8] = []
    var options: Command.Options

    init(time: UInt64, using generator: inout SplitMix64) {
      operation =
        [.set, .set, .set, .delete, .increment, .expire, .removeExpired].randomElement(using: &generator) ?? .set
      key = name(Int.random(in: 0..<60, using: &generator))
      options = Command.Options(asOfMilliseconds: time)
      let deadline = time + UInt64.random(in: 0..<40, using: &generator)
      switch operation {
      case .set:
        options.condition = [.always, .ifAbsent, .ifPresent].randomElement(using: &generator) ?? .always
        options.keepsDeadline = Int.random(in: 0..<4, using: &generator) == 0
        if !options.keepsDeadline, Bool.random(using: &generator) { options.deadlineMilliseconds = deadline }
        value =
          Bool.random(using: &generator)
          ? Array(String(Int64.random(in: -99...99, using: &generator)).utf8)
          : [UInt8](repeating: 7, count: .random(in: 0..<200, using: &generator))
      case .increment: value = bytes(of: [1, -1, .max, .random(in: -50...50, using: &generator)][Int(time % 4)])
      case .expire: options.deadlineMilliseconds = Bool.random(using: &generator) ? deadline : 0
      case .delete, .removeExpired, .several: break
      }
    }
  }

  /// Two replicas with other seeds and shards, one of which comes back from captures again and again, are equal to the model
  /// after every command.
  @Test(arguments: [UInt64(1), 2, 3, 4])
  func replicasDoWhatTheModelDoes(seed: UInt64) throws {
    var generator = SplitMix64(seed: seed)
    var model = Model()
    let first = KeyValueStore(shardCount: 4, hashSeed: generator.next())
    var second = KeyValueStore(shardCount: 16, hashSeed: generator.next())
    for step in 0..<6000 {
      let draw = Draw(time: 1000 + UInt64(step) / 4, using: &generator)
      let command = try Command.encode(draw.operation, key: draw.key, value: draw.value, options: draw.options)
      let expected = model.apply(draw.operation, draw.key, draw.value, draw.options)
      #expect(first.apply(bytes: command) == expected)
      #expect(second.apply(bytes: command) == expected)
      #expect(first.get(draw.key) == model.entries[draw.key]?.value)
      #expect(first.deadline(draw.key) == model.entries[draw.key]?.deadline)
      if step % 500 == 0 { second = try restored(second, &generator) }
      if step % 100 == 0 { #expect(first.stateHash == second.stateHash) }
    }
    #expect(first.stateHash == second.stateHash)
    #expect(first.count == model.entries.count && second.count == first.count)
    #expect(first.size?.deadlines == model.entries.values.count { $0.deadline != 0 })
    #expect(second.size?.deadlines == first.size?.deadlines)
    #expect(first.liveBytes == model.entries.reduce(0) { $0 + $1.key.count + $1.value.value.count })
  }

  private func restored(_ store: KeyValueStore, _ generator: inout SplitMix64) throws -> KeyValueStore {
    let capture = store.beginCapture()
    let copy = KeyValueStore(shardCount: store.shardCount, hashSeed: generator.next())
    let restore = StateRestore(into: copy)
    while let chunk = try capture.nextChunk(targetBytes: 512) {
      // Cut anywhere, as it arrives over a connection.
      let middle = Int.random(in: 0...chunk.count, using: &generator)
      try restore.append(Array(chunk[..<middle]))
      try restore.append(Array(chunk[middle...]))
    }
    try restore.finish()
    return copy
  }

  @Test func whatHasEndedIsFoundAndNothingElse() throws {
    let store = KeyValueStore(shardCount: 8, hashSeed: 3)
    for number in 0..<2000 {
      let options = Command.Options(deadlineMilliseconds: number.isMultiple(of: 2) ? UInt64(number + 1) : 0)
      store.apply(bytes: try Command.encode(.set, key: name(number), value: [1], options: options))
    }
    #expect(store.size?.deadlines == 1000)
    var search = KeyValueStore.ExpirySearch()
    var found: Set<[UInt8]> = []
    for _ in 0..<100 {
      let keys = store.collectExpired(asOf: 1000, &search, maximumSlots: 300, maximumKeys: 50)
      for key in keys {
        found.insert(key)
        let options = Command.Options(asOfMilliseconds: 1000)
        #expect(
          store.apply(bytes: try Command.encode(.removeExpired, key: key, options: options)) == .deleted(existed: true))
      }
    }
    #expect(found == Set((0..<1000).filter { $0.isMultiple(of: 2) }.map(name)))
    #expect(store.count == 1500 && store.size?.deadlines == 500)
    #expect(store.collectExpired(asOf: 1000, &search, maximumSlots: .max, maximumKeys: .max).isEmpty)
    #expect(store.collectExpired(asOf: 1001, &search, maximumSlots: .max, maximumKeys: .max) == [name(1000)])
  }

  @Test func severalCommandsTakeEffectTogetherOrNotAtAll() throws {
    let store = KeyValueStore(shardCount: 8, hashSeed: 3)
    let sets = try (0..<40).map { try Command.encode(.set, key: name($0), value: [UInt8($0)]) }
    #expect(store.apply(bytes: try Command.encodeSeveral(sets)) == .number(0))
    #expect((0..<40).allSatisfy { store.get(name($0)) == [UInt8($0)] })
    let deletes = try [1, 2, 2, 99].map { try Command.encode(.delete, key: name($0)) }
    #expect(store.apply(bytes: try Command.encodeSeveral(deletes)) == .number(2))
    #expect(store.count == 38)
    var broken = try Command.encodeSeveral(sets)
    // A length within the last of them.
    broken[broken.count - 14] ^= 0xFF
    let before = store.stateHash
    guard case .refused = store.apply(bytes: broken) else {
      Issue.record("a broken one was applied")
      return
    }
    #expect(store.stateHash == before)
  }

  @Test func severalHoldNothingButSetsAndDeletes() throws {
    let increment = try Command.encode(.increment, key: [1], value: bytes(of: 1))
    #expect(throws: CommandError.malformed) { try Command.encodeSeveral([increment]) }
    let nested = try Command.encodeSeveral([try Command.encode(.delete, key: [1])])
    #expect(throws: CommandError.malformed) { try Command.encodeSeveral([nested]) }
    #expect(throws: CommandError.malformed) { try Command.encodeSeveral([]) }
  }
}

@Suite struct CommandFormatTests {
  /// The bytes of each kind, as they lie in logs: they do not change.
  @Test func commandsAreWrittenAsTheyAlwaysWere() throws {
    var conditional = Command.Options(asOfMilliseconds: 0x0102, deadlineMilliseconds: 0x0304)
    conditional.condition = .ifAbsent
    let key: [UInt8] = [9]
    let times: [UInt8] = [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]
    let asOf: [UInt8] = [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    let golden: [([UInt8], [UInt8])] = [
      (try Command.encode(.set, key: key, value: [5, 6]), [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 9, 5, 6]),
      (try Command.encode(.delete, key: key), [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]),
      (
        try Command.encode(.set, key: key, value: [5], options: conditional),
        [0, 9, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0] + times + [9, 5]
      ),
      (
        try Command.encode(.increment, key: key, value: bytes(of: -2)),
        [2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 9, 254, 255, 255, 255, 255, 255, 255, 255]
      ),
      (
        try Command.encode(
          .expire, key: key, options: .init(asOfMilliseconds: 0x0102, deadlineMilliseconds: 0x0304)),
        [3, 8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] + times + [9]
      ),
      (
        try Command.encode(.removeExpired, key: key, options: .init(asOfMilliseconds: 0x0102)),
        [4, 8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] + asOf + [9]
      ),
      (
        try Command.encodeSeveral([try Command.encode(.delete, key: key)]),
        [5, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 13, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]
      ),
    ]
    for (bytes, expected) in golden {
      #expect(bytes == expected)
      #expect(throws: Never.self) { try decode(bytes) }
    }
  }

  /// A capture of keys without deadlines is what it was; one with a deadline has it behind the value.
  @Test func capturesAreWrittenAsTheyAlwaysWere() throws {
    let store = KeyValueStore(shardCount: 1, hashSeed: 3)
    store.apply(bytes: try Command.encode(.set, key: [9], value: [5, 6]))
    #expect(try store.beginCapture().nextChunk() == [1, 0, 0, 0, 2, 0, 0, 0, 9, 5, 6])
    store.apply(
      bytes: try Command.encode(.set, key: [9], value: [5, 6], options: .init(deadlineMilliseconds: 0x0304)))
    #expect(
      try store.beginCapture().nextChunk() == [1, 0, 0, 0, 2, 0, 0, 128, 9, 5, 6, 4, 3, 0, 0, 0, 0, 0, 0])
  }

  static let unsound: [[UInt8]] = [
    [6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9],  // no such operation
    [0, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9],  // if absent and if present
    [0, 16, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9],  // no such flag
    [1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9],  // a condition on a delete
    [0, 8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9],  // times that are not there
    [2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7],  // seven bytes of a number
    [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9],  // a new deadline without times
    [5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  // several, but none
    [5, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255],
  ]

  @Test(arguments: unsound)
  func whatMeansNothingIsRefused(bytes: [UInt8]) {
    #expect(throws: CommandError.self) { try decode(bytes) }
  }

  /// No byte of any command, and no cut, does anything worse than to be refused.
  @Test func everyFlippedBitAndEveryCutIsRefusedOrHarmless() throws {
    let set = try Command.encode(
      .set, key: [1, 2, 3], value: [4], options: .init(asOfMilliseconds: 5, deadlineMilliseconds: 6))
    let several = try Command.encodeSeveral([set, try Command.encode(.delete, key: [1])])
    for command in [set, several, try Command.encode(.increment, key: [1], value: bytes(of: 1))] {
      for length in 0..<command.count { #expect(throws: CommandError.self) { try decode(Array(command[..<length])) } }
      for bit in 0..<command.count * 8 {
        var flipped = command
        flipped[bit / 8] ^= 1 << (bit % 8)
        let store = KeyValueStore(shardCount: 2, hashSeed: 0)
        if case .refused = store.apply(bytes: flipped) { #expect(store.count == 0) }
      }
    }
  }
}

@Suite struct DecimalNumberTests {
  @Test(arguments: ["0", "1", "-1", "9223372036854775807", "-9223372036854775808", "1000"])
  func numbersAreRead(text: String) { #expect(DecimalNumber.parse(Array(text.utf8)) == Int64(text)) }

  @Test(arguments: [
    "", "-", "+1", "01", "-0", "00", " 1", "1 ", "1x", "9223372036854775808", "-9223372036854775809",
    "99999999999999999999",
  ])
  func otherSpellingsAreNone(text: String) { #expect(DecimalNumber.parse(Array(text.utf8)) == nil) }
}
