import WeirCore

/// Applying commands, on the one thread that does.
extension KeyValueStore {
  /// Applies the payload of one committed entry. A payload that is no command changes nothing, on all replicas alike.
  @discardableResult
  public func apply(_ payload: RawSpan) -> CommandResult {
    let layout: Command.Layout
    do { layout = try Command.decode(payload) } catch { return .refused(error) }
    return apply(layout, payload, hash: ByteHash.hash(payload.extracting(layout.key), seed: hashSeed))
  }

  /// As `apply(_:)`, with the hash of the command's key.
  func apply(_ payload: RawSpan, hash: UInt64) -> CommandResult {
    let layout: Command.Layout
    do { layout = try Command.decode(payload) } catch { return .refused(error) }
    return apply(layout, payload, hash: hash)
  }

  @inline(__always)
  private func apply(_ layout: Command.Layout, _ payload: RawSpan, hash: UInt64) -> CommandResult {
    let key = payload.extracting(layout.key)
    switch layout.operation {
    case .set where layout.flags == 0:
      return .set(existed: set(key, to: payload.extracting(layout.value), hash: hash))
    case .delete where layout.flags == 0: return .deleted(existed: remove(key, hash: hash))
    case .several: return applySeveral(payload)
    case .set, .delete, .increment, .expire, .removeExpired: return applyOne(layout, payload, hash)
    }
  }

  private func applyOne(_ layout: Command.Layout, _ payload: RawSpan, _ hash: UInt64) -> CommandResult {
    change(hash) { $0.apply(layout, payload, hash: hash) }
  }

  private func applySeveral(_ payload: RawSpan) -> CommandResult {
    var commands: [(range: Range<Int>, layout: Command.Layout)] = []
    do throws(CommandError) {
      try Command.forEach(ofSeveral: payload) { commands.append(($0, $1)) }
    } catch { return .refused(error) }
    var places: [ShardPlace] = []
    places.reserveCapacity(commands.count)
    for (position, command) in commands.enumerated() {
      places.append(place(of: payload.extracting(command.range).extracting(command.layout.key), position))
    }
    var existing: Int64 = 0
    withTables(of: places) { table, place in
      let (range, layout) = commands[place.position]
      let result = change(&table, at: place.shard) {
        $0.apply(layout, payload.extracting(range), hash: place.hash)
      }
      switch result {
      case .set(true), .deleted(true): existing += 1
      default: break
      }
    }
    return .number(existing)
  }

  func set(_ key: RawSpan, to value: RawSpan, deadline: UInt64 = 0) -> Bool {
    set(key, to: value, deadline: deadline, hash: ByteHash.hash(key, seed: hashSeed))
  }

  private func set(_ key: RawSpan, to value: RawSpan, deadline: UInt64 = 0, hash: UInt64) -> Bool {
    change(hash) { $0.set(key: key, value: value, hash: hash, deadline: deadline) }
  }

  func remove(_ key: RawSpan) -> Bool { remove(key, hash: ByteHash.hash(key, seed: hashSeed)) }

  private func remove(_ key: RawSpan, hash: UInt64) -> Bool {
    change(hash) { $0.remove(key: key, hash: hash) }
  }

  /// Changes the table where keys with this hash lie.
  @inline(__always)
  private func change<Result>(_ hash: UInt64, _ body: (inout RecordTable) -> Result) -> Result {
    let position = shards.position(of: hash)
    return shards.withTable(at: position) { change(&$0, at: position, body) }
  }

  /// Changes a table that is locked, and notes what others see of it without the lock. What a capture under way still
  /// needs is kept for it, unless it has been outgrown.
  @inline(__always)
  private func change<Result>(
    _ table: inout RecordTable, at position: Int, _ body: (inout RecordTable) -> Result
  ) -> Result {
    let before = table.preservedBytes
    table.preserves = !captureBound.isOutgrown
    let result = body(&table)
    shards.noteSlots(of: table, at: position)
    if table.deadlineCount > 0 { mayHaveDeadlines.store(true, ordering: .relaxed) }
    if table.preservedBytes > before { captureBound.preserved(bytes: table.preservedBytes - before) }
    return result
  }

  // MARK: Looking ahead, on the applying thread

  /// Begins to fetch what applying `payload` will look at first. Applying a batch in three passes (this for all,
  /// `prefetchRecord` for all, `apply` for all) overlaps the cache misses of its commands, which are most of its cost:
  /// two for each command, one behind the other.
  /// - Returns: the hash of the command's key, for the other passes; nil if the payload is no command.
  func prefetchSlot(_ payload: RawSpan) -> UInt64? {
    guard let layout = try? Command.decode(payload) else { return nil }
    // Its keys are looked for when it is applied.
    guard layout.operation != .several else { return 0 }
    let hash = ByteHash.hash(payload.extracting(layout.key), seed: hashSeed)
    shards.prefetchSlot(hash: hash)
    return hash
  }

  func prefetchRecord(hash: UInt64) { shards.prefetchRecord(hash: hash) }
}
