/// The last lines of what happened, for a person.
struct TraceRecorder: Sendable {
  private let limit: Int
  private var ring: [String] = []
  private var next = 0

  init(limit: Int) { self.limit = max(limit, 1) }

  mutating func add(_ line: String) {
    if ring.count < limit {
      ring.append(line)
    } else {
      ring[next] = line
      next = (next + 1) % limit
    }
  }

  /// The lines kept, oldest first.
  var lines: [String] { ring.count < limit ? ring : Array(ring[next...] + ring[..<next]) }
}

/// Situations that the seeds of a test have to pass through, or they test less than they seem to.
public enum Mark: Int, Sendable, CaseIterable {
  case crash
  case crashWithUnsyncedWrites
  case restart
  case snapshotMade
  case snapshotSent
  case snapshotRestored
  case partition
  case pause
  case transfer
  case configurationApplied
  case jointConfiguration
  case crashInJointConfiguration
  case truncation
  case readConfirmed
  case readRefused
  case leaseRead
  case duplicateApplied
  case messageLost
  case messageDuplicated
  case encodedMessage
  case diskError
  case leaderRemoved
  case learnerPromoted
  /// The known hole of changes that take effect when they are applied: see `isBlockedByRemovedVoter`.
  case removedVoterNeeded
  case damage
  case refusedToStart
  case diskFull
  case writeWentAstray
}
