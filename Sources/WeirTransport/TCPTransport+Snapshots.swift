import CWeir
import WeirCore

/// Snapshots, each on a connection of its own; see `SnapshotSender` for how one travels.
extension TCPTransport {
  // MARK: Sending

  /// Sends a snapshot message and its data; the delegate hears how that ended. A connection that breaks on the way is made
  /// again, and the transfer goes on where it was.
  public func sendSnapshot(_ message: Message, source: any SnapshotSource) {
    let now = cweir_monotonic_nanoseconds()
    let sender = SnapshotSender(
      message: message, source: source, number: makeTransferNumber(),
      deadlineNanoseconds: now + configuration.snapshotPatienceNanoseconds)
    if !connect(sender, now) { delegate?.transportSnapshotSent(message.to, succeeded: false) }
  }

  private func connect(_ sender: SnapshotSender, _ now: UInt64) -> Bool {
    guard let address = link(of: sender.message.to)?.address,
      let connection = dial(sender.message.to, address, .snapshots, now)
    else { return false }
    connection.snapshotSender = sender
    return true
  }

  /// Writes what the sender of this connection may send now, and what the receiver of one has to say.
  func writeSnapshot(_ connection: Connection) {
    while true {
      if connection.writer.isEmpty {
        do {
          guard let frame = try connection.snapshotSender?.nextFrame() else { break }
          put(frame.kind, frame.body, connection)
        } catch {
          log.warning("a snapshot for node \(connection.peer) was given up: \(error)")
          return end(connection, succeeded: false)
        }
      }
      guard write(connection) else { return }
    }
    unblock(connection)
  }

  private func put(_ kind: FrameHeader.Kind, _ body: [UInt8], _ connection: Connection) {
    let total = FrameHeader.bytes + body.count
    let slab = Slab(capacity: total)
    unsafe UnsafeMutableRawBufferPointer(rebasing: slab.bytes[FrameHeader.bytes...]).copyBytes(from: body)
    let header = FrameHeader(
      frameBytes: total, kind: kind, coveredBytes: body.count, clusterID: configuration.clusterID,
      sender: configuration.nodeID)
    unsafe header.seal(slab.bytes.baseAddress.unsafelyUnwrapped)
    connection.writer.append(slab: slab, byteCount: total)
  }

  /// The receiver says how far it is.
  func receiveSnapshotProgress(_ body: [UInt8], _ connection: Connection) throws(FrameError) {
    guard let sender = connection.snapshotSender, let progress = SnapshotProgress(parsing: body) else {
      throw .invalidMessage("progress of no snapshot")
    }
    if progress.verdict == .refused { return end(connection, succeeded: false) }
    guard sender.note(takenBytes: progress.takenBytes), progress.verdict == .continues || sender.isDelivered else {
      end(connection, succeeded: false)
      return log.warning("node \(connection.peer) has taken other bytes of a snapshot than it was sent")
    }
    if progress.verdict == .whole { return end(connection, succeeded: true) }
    sender.deadlineNanoseconds = cweir_monotonic_nanoseconds() + configuration.snapshotPatienceNanoseconds
    sender.failedAttempts = 0
    writeSnapshot(connection)
  }

  private func end(_ connection: Connection, succeeded: Bool) {
    let peer = connection.peer
    // Before anybody is told: the end of the source ends the capture behind it.
    connection.snapshotSender = nil
    lose(connection, nil)
    delegate?.transportSnapshotSent(peer, succeeded: succeeded)
  }

  /// The connection of a transfer is lost. One that the receiver had begun to take is continued on another.
  func interrupted(_ sender: SnapshotSender, _ now: UInt64) {
    sender.pause()
    guard sender.hasBegun, sender.deadlineNanoseconds > now else {
      delegate?.transportSnapshotSent(sender.message.to, succeeded: false)
      return
    }
    sender.nextAttemptNanoseconds = now + backoff(afterAttempts: sender.failedAttempts)
    sender.failedAttempts += 1
    interruptedSenders.append(sender)
  }

  // MARK: Receiving

  func receiveSnapshotStart(
    _ message: Message, number: UInt64, _ connection: Connection
  ) throws(FrameError) {
    let arrival: SnapshotArrival
    if let known = takeArrival(from: connection.peer, instance: connection.instance, number: number) {
      arrival = known
      counters.snapshotsResumed += 1
    } else if let sink = delegate?.transportSnapshotBegan(message) {
      arrival = SnapshotArrival(peer: connection.peer, instance: connection.instance, number: number, sink: sink)
    } else {
      return answer(connection, SnapshotProgress(takenBytes: 0, verdict: .refused))
    }
    connection.snapshotArrival = arrival
    arrival.resume()
    answer(arrival)
  }

  /// What has arrived of this transfer so far. Whatever else has arrived from the same peer is given up: it sends one
  /// snapshot at a time. The connection that it came on may not have been seen to be gone.
  private func takeArrival(from peer: NodeID, instance: UInt64, number: UInt64) -> SnapshotArrival? {
    for connection in Array(connections.values) where connection.peer == peer && connection.snapshotArrival != nil {
      lose(connection, nil)
    }
    let arrival = interruptedArrivals.first {
      $0.peer == peer && $0.instance == instance && $0.number == number
    }
    interruptedArrivals.removeAll { $0.peer == peer }
    return arrival
  }

  func receiveSnapshotChunk(_ bytes: [UInt8], _ connection: Connection) throws(FrameError) {
    guard let arrival = connection.snapshotArrival else { throw .invalidMessage("a chunk without a start") }
    let note = { [weak self] (error: (any Error)?) in
      if let error { self?.log.warning("a snapshot from node \(arrival.peer) is not taken: \(error)") }
      self?.answer(arrival)
    }
    if bytes.isEmpty { arrival.finish(note: note) } else { try arrival.append(bytes, note: note) }
  }

  /// Says how far an arrival is, if it has a connection and there is something to say.
  private func answer(_ arrival: SnapshotArrival) {
    guard let connection = connections.values.first(where: { $0.snapshotArrival === arrival }),
      let progress = arrival.takeAnswer()
    else { return }
    // Refused, it stays until the sender hangs up: there may be chunks on their way.
    if progress.verdict == .whole { connection.snapshotArrival = nil }
    answer(connection, progress)
  }

  private func answer(_ connection: Connection, _ progress: SnapshotProgress) {
    put(.snapshotProgress, progress.encoded(), connection)
    if !connection.isBlocked { writeSnapshot(connection) }
  }

  /// The connection of an arriving snapshot is lost: the sender may go on with it on another.
  func interrupted(_ arrival: SnapshotArrival, _ now: UInt64) {
    guard arrival.isResumable else { return }
    arrival.deadlineNanoseconds = now + configuration.snapshotPatienceNanoseconds
    interruptedArrivals.append(arrival)
  }

  // MARK: Time

  /// Goes on with transfers whose connection was lost, and gives those up that have waited for too long.
  /// - Returns: when to be called again at the latest.
  func advanceSnapshots(_ now: UInt64) -> UInt64 {
    interruptedArrivals.removeAll { $0.deadlineNanoseconds <= now }
    var next = interruptedArrivals.reduce(UInt64.max) { min($0, $1.deadlineNanoseconds) }
    let senders = interruptedSenders
    interruptedSenders.removeAll()
    for sender in senders {
      if sender.nextAttemptNanoseconds > now, sender.deadlineNanoseconds > now {
        interruptedSenders.append(sender)
      } else if sender.deadlineNanoseconds <= now || !connect(sender, now) {
        interrupted(sender, now)
      }
    }
    for sender in interruptedSenders { next = min(next, sender.nextAttemptNanoseconds) }
    return next
  }
}
