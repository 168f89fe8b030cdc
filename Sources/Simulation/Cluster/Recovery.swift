@_spi(Testing) import Raft
import WeirCore

// Starting from real bytes: what they say is compared with what they have to say.
extension SimulatedCluster {
  func openStore(_ node: SimulatedNode) throws(Violation) -> (any DiskStore)? {
    guard plan.disk.kind == .writeAheadLog else { return nil }
    let position = node.position
    do throws(StoreFailure) {
      return try LogStore(owner: node.id, plan: plan) { [unowned self] index in
        checker.nodes[position].durable.chain(at: index) ?? checker.committedChain(at: index)
      }
    } catch {
      throw broken(.recovery, "n\(node.id) cannot make its log: \(error.text)")
    }
  }

  /// Reads what is on the node's disk. It must be what was durable, and of what was under way at the crash a prefix.
  /// - Returns: whether the node may start.
  func recover(_ node: SimulatedNode, _ store: any DiskStore) throws(Violation) -> Bool {
    let image: StableImage
    do throws(StoreFailure) {
      image = try store.recover()
    } catch {
      return try refuseToStart(node, store, error)
    }
    guard isLegal(image, node) else {
      throw broken(.recovery, "n\(node.id) comes back with \(describe(image)); durable was \(expectation(of: node))")
    }
    node.unsynced.removeAll()
    checker.recovered(node.position, image: image)
    return true
  }

  private func refuseToStart(_ node: SimulatedNode, _ store: any DiskStore, _ failure: StoreFailure) throws(Violation)
    -> Bool
  {
    guard failure.isExpected else {
      throw broken(.recovery, "n\(node.id) refuses to start after a power cut: \(failure.text)")
    }
    record { "n\(node.id) does not start: \(failure.text)" }
    guard failure.isFinal else {
      queue.push(at: now + plan.electionTimeoutNanoseconds, .restart, subject: node.position)
      return false
    }
    if options.driverBugs.contains(.startsEmptyWhenDamaged) {
      store.wipe()
      _ = try? store.recover()
      checker.recovered(node.position, image: StableImage())
      node.unsynced.removeAll()
      return true
    }
    mark(.refusedToStart)
    node.isRetired = true
    return false
  }

  /// The states that may be found: what was durable, with the first so many of the writes that were under way.
  private func isLegal(_ image: StableImage, _ node: SimulatedNode) -> Bool {
    var expected = checker.nodes[node.position].durable
    if matches(image, expected) { return true }
    for write in node.unsynced {
      // A received snapshot is a file of its own, complete before the log is told of it.
      if let snapshot = write.snapshot, write.snapshotReplacesLog {
        var early = expected
        early.snapshot = snapshot
        early.snapshotChain = write.snapshotChain
        if early.chain(at: snapshot.metadata.index) != write.snapshotChain || early.lastIndex < snapshot.metadata.index
        {
          early.reset(index: snapshot.metadata.index, term: snapshot.metadata.term, chain: write.snapshotChain)
        }
        if matches(image, early) { return true }
      }
      write.apply(to: &expected)
      if matches(image, expected) { return true }
    }
    return false
  }

  private func matches(_ image: StableImage, _ expected: StableImage) -> Bool {
    guard image.hardState.term == expected.hardState.term, image.hardState.vote == expected.hardState.vote else {
      return false
    }
    guard image.snapshot.metadata.index >= expected.snapshot.metadata.index else { return false }
    return image.lastIndex == expected.lastIndex && image.lastTerm == expected.lastTerm
      && (image.lastChain == expected.lastChain || image.lastIndex == 0)
  }

  private func describe(_ image: StableImage) -> String {
    "term \(image.hardState.term) vote \(image.hardState.vote) commit \(image.hardState.commit), log "
      + "\(image.anchorIndex + 1)...\(image.lastIndex) (last term \(image.lastTerm)), "
      + "snapshot \(image.snapshot.metadata.index)"
  }

  private func expectation(of node: SimulatedNode) -> String {
    describe(checker.nodes[node.position].durable) + " and \(node.unsynced.count) writes were under way"
  }

  /// Some of what is stored changes, and the process ends. The machine goes on: damage to the last durable batch
  /// together with a power cut, which takes the log's unsynced mark of it, is the one case that looks like a torn write.
  func damage(_ node: SimulatedNode) {
    guard node.isUp, let store = node.store else { return }
    mark(.damage)
    let goesAstray = node.jobsInFlight == 0 && store.misdirectWrite(&crashRandom)
    if goesAstray { mark(.writeWentAstray) }
    crash(node, losesPower: false)
    let what = goesAstray ? "a write lands elsewhere" : store.damage(&crashRandom)
    record { "n\(node.id): \(what)" }
    queue.push(at: now + plan.electionTimeoutNanoseconds, .restart, subject: node.position)
  }
}
