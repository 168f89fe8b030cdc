// Cost per frame: the checksum over its bytes, and a compare of length, index, term and kind with what they must be, which
// never mispredicts on good input. Nothing is copied. Frames that are alike (of one length from 121 to 512 bytes, of one
// term and kind, eight or more) are verified four at a time: see frame_groups.c.
//
// Measured (`bench hot-paths message-decode`, 2-core EPYC 9004 with AVX-512, less a heartbeat): 3.2 ns an entry of 128 bytes
// among 64, 25 for one alone in its message, 10 of them in the loop over frames. memcpy of the same bytes out of the
// first-level cache takes 1.6.
//
// The floor for the 152 bytes under such a checksum is what its instructions take when nothing is looked at but their
// number: 2.1 ns (`bench hot-paths --parts checksums`: 137 to 141 ns for 64 entries). Each of the two units alone would
// need 1.6 there: three 512-bit multiplications a frame at 2 cycles each, six CRC instructions at one. One checksum over
// the whole batch would be cheaper, and would have to be thrown away on arrival: it is the frame's own that goes into the
// follower's log and onto its disk, and it is the only one that covers the entries on their way.

import CWeir

/// Why a run of frames is not a run of entries: which entry, and what about it.
public struct EntryRunError: Error, Sendable, Hashable {
  public enum Reason: Sendable, Hashable {
    case frame(EntryFrameError)
    /// Entries follow each other by one.
    case indexNotConsecutive(expected: LogIndex, found: LogIndex)
    /// The number behind the last index does not exist.
    case indexOutOfRange
    /// Terms never fall along the log.
    case termBelowPrevious(previous: Term, found: Term)
    /// An entry is not younger than the message that carries it; proposals have no term yet.
    case termAboveMessage(message: Term, found: Term)
    /// More entries than were announced.
    case moreThanAnnounced(Int)
    /// Fewer entries than were announced.
    case fewerThanAnnounced(Int)
  }

  /// Position of the entry in the run, from 0.
  public var entry: Int
  /// Where its frame begins, in bytes from the start of the run.
  public var byteOffset: Int
  public var reason: Reason

  public init(entry: Int, byteOffset: Int, reason: Reason) {
    self.entry = entry
    self.byteOffset = byteOffset
    self.reason = reason
  }
}

/// What must hold along a run of frames.
@usableFromInline
struct EntryRunRule {
  /// What the first entry's index must be; nil takes any.
  @usableFromInline var firstIndex: LogIndex?
  @usableFromInline var lowestTerm: Term = 0
  @usableFromInline var highestTerm: Term = .max
  /// Proposals have neither index nor term yet.
  @usableFromInline var isProposal = false
  @usableFromInline var announcedCount: Int?

  @usableFromInline init() {}
}

extension EntryBatch {
  /// Checks a run of frames that came from a wire or a disk, and hands them out by reference. Every length, checksum,
  /// kind and reserved byte is checked, that indexes follow each other by one, and that terms never fall.
  ///
  /// - Parameters:
  ///   - slab: holds the bytes, which nobody writes from now on.
  ///   - range: the frames, without a byte more; it may be empty.
  ///   - firstIndex: what the first entry's index must be; nil takes any, 0 included (then the entries are proposals:
  ///     index and term of each are 0).
  ///   - lowestTerm: the term of the entry in front, which the first one is not below.
  @inlinable
  public static func verifying(
    slab: Slab, range: Range<Int>, firstIndex: LogIndex? = nil, lowestTerm: Term = 0
  ) throws(EntryRunError) -> EntryBatch {
    var rule = EntryRunRule()
    rule.firstIndex = firstIndex
    rule.lowestTerm = lowestTerm
    return try verified(slab: slab, range: range, rule: rule)
  }

  @usableFromInline
  static func verified(slab: Slab, range: Range<Int>, rule: EntryRunRule) throws(EntryRunError) -> EntryBatch {
    var batch = EntryBatch()
    try batch.becomeVerified(slab: slab, range: range, rule: rule)
    return batch
  }

  /// Becomes the run of frames in `range`. One whose entries lie in the same slab already, as with message after message
  /// out of one receive buffer, keeps its reference: counting the same one down and up again takes 10 ns.
  @inline(__always)
  mutating func becomeVerified(slab: Slab, range: Range<Int>, rule: EntryRunRule) throws(EntryRunError) {
    let run = try Self.check(slab: slab, range: range, rule: rule)
    if run.count == 0 {
      if count > 0 { self = EntryBatch() }
    } else if memory === slab {
      move(to: run, offset: range.lowerBound, byteCount: range.count)
    } else {
      self = EntryBatch(
        firstIndex: run.firstIndex, count: run.count, slab: slab, offset: range.lowerBound, byteCount: range.count,
        marks: run.marks)
    }
  }

  /// What a run of frames was found to be.
  struct VerifiedRun {
    var firstIndex: LogIndex
    var count: Int
    var marks: Marks
  }

  private static func check(
    slab: Slab, range: Range<Int>, rule: EntryRunRule
  ) throws(EntryRunError) -> VerifiedRun {
    let bytes = unsafe slab.bytes(in: range)
    guard bytes.count > 0, let base = bytes.baseAddress else {
      if let announced = rule.announcedCount, announced > 0 {
        throw EntryRunError(entry: 0, byteOffset: 0, reason: .fewerThanAnnounced(announced))
      }
      return VerifiedRun(firstIndex: 0, count: 0, marks: .none)
    }
    let announced = rule.announcedCount ?? .max
    let first =
      unsafe bytes.count >= EntryFrame.headerBytes
      ? EntryFrame.unverifiedIdentity(base) : (index: 0 as LogIndex, term: 0 as Term)
    let firstIndex = rule.isProposal ? 0 : rule.firstIndex ?? first.index
    let highestTerm = firstIndex == 0 ? 0 : rule.highestTerm
    if announced == 1, firstIndex != 0 {
      let kind = unsafe cweir_verify_frame(
        base, bytes.count, firstIndex, rule.lowestTerm, highestTerm, EntryFrame.maximumKind,
        EntryFrame.headerBytes + EntryFrame.maximumPayloadBytes)
      if kind >= 0 {
        return VerifiedRun(
          firstIndex: firstIndex, count: 1, marks: EntryBatch.Marks.isOfOneTerm.with(.isNormal, if: kind == 0))
      }
    }
    var run = cweir_frame_run()
    run.index = firstIndex
    run.index_step = firstIndex == 0 ? 0 : 1
    run.term = rule.lowestTerm
    run.highest_term = highestTerm
    run.maximum_kind = EntryFrame.maximumKind
    run.maximum_length = EntryFrame.headerBytes + EntryFrame.maximumPayloadBytes
    run.maximum_entries = announced
    // Nearly always that is all. What is not good is looked at again below, to say what is wrong with it.
    var position = unsafe cweir_verify_frames(base, bytes.count, &run)
    var count = run.entries
    var expectedIndex = run.index
    var previousTerm = run.term
    var isNormal = run.kinds == 0
    while position < bytes.count {
      let reason: EntryRunError.Reason
      do {
        let header = try unsafe EntryFrame.verify(base + position, availableBytes: bytes.count - position)
        if header.index != expectedIndex {
          reason = .indexNotConsecutive(expected: expectedIndex, found: header.index)
        } else if header.index == .max {
          // Behind it there would be no next index: every sum of an index and a count would have to be checked.
          reason = .indexOutOfRange
        } else if header.term < previousTerm {
          reason = .termBelowPrevious(previous: previousTerm, found: header.term)
        } else if header.term > highestTerm {
          reason = .termAboveMessage(message: highestTerm, found: header.term)
        } else if count >= announced {
          reason = .moreThanAnnounced(announced)
        } else {
          previousTerm = header.term
          if header.kind != .normal { isNormal = false }
          // Entries without an index stay without one.
          if firstIndex != 0 { expectedIndex += 1 }
          count += 1
          position += EntryFrame.occupiedBytes(payloadBytes: header.payloadBytes)
          continue
        }
      } catch {
        reason = .frame(error)
      }
      throw EntryRunError(entry: count, byteOffset: position, reason: reason)
    }
    if count != announced, rule.announcedCount != nil {
      throw EntryRunError(entry: count, byteOffset: position, reason: .fewerThanAnnounced(announced))
    }
    let marks = EntryBatch.Marks.none.with(.isNormal, if: isNormal).with(.isOfOneTerm, if: previousTerm == first.term)
    return VerifiedRun(firstIndex: firstIndex, count: count, marks: marks)
  }
}
