import CWeir
import Synchronization
import WeirCore

/// The stages of a write, in order; each is named by what has happened at its end.
public enum WriteStage: Int, Sendable, CaseIterable {
  /// The caller has put the command into its lane.
  case enqueued
  /// The leader's queue has taken it out.
  case drained
  /// It is framed and in the leader's log.
  case appended
  /// The write to the followers' sockets has returned.
  case sent
  /// The first follower has it in its log.
  case followerAppended
  /// That follower's acknowledgement is written to its socket.
  case acknowledged
  /// The leader knows that a quorum has it.
  case committed
  /// It is in the leader's state machine.
  case applied
  /// Its completion is in the caller's lane.
  case answered
}

/// Follows one write at a time through the nodes of a process, and collects when it passed each stage.
///
/// Exact with one operation in flight. With more, it follows the batch that the first free moment finds.
/// A node without a board pays one comparison with nil a turn.
public final class StageBoard: Sendable {
  private let times: [Box]
  /// The index of the write that is followed; 0: none yet.
  let index = Atomic<UInt64>(0)
  private let isBusy = Atomic<Bool>(false)
  private let samples = Mutex<[[UInt64]]>([])

  private final class Box: Sendable {
    let value = Atomic<UInt64>(0)
  }

  public init() { times = WriteStage.allCases.map { _ in Box() } }

  /// Nanoseconds of CLOCK_MONOTONIC at each stage, for each write that was followed to its end.
  public var collected: [[UInt64]] { samples.withLock { $0 } }

  /// A caller is about to hand a write over.
  func begin() {
    guard !isBusy.exchange(true, ordering: .acquiringAndReleasing) else { return }
    pass(.enqueued)
  }

  /// Notes a stage, once.
  func pass(_ stage: WriteStage) {
    let box = times[stage.rawValue]
    guard box.value.load(ordering: .relaxed) == 0 else { return }
    _ = box.value.compareExchange(
      expected: 0, desired: cweir_monotonic_nanoseconds(), ordering: .acquiringAndReleasing)
  }

  /// The leader has taken proposals out of a lane. They are not those of the followed write while it is not handed over:
  /// the next caller may be ahead of the end of the last.
  func drained() {
    if hasPassed(.enqueued) { pass(.drained) }
  }

  func hasPassed(_ stage: WriteStage) -> Bool { times[stage.rawValue].value.load(ordering: .acquiring) != 0 }

  /// The leader has put the followed write into its log at `index`.
  func appended(at index: LogIndex) {
    guard isBusy.load(ordering: .acquiring), self.index.load(ordering: .relaxed) == 0 else { return }
    pass(.appended)
    self.index.store(index, ordering: .releasing)
  }

  /// The followed write is answered: keep its times and wait for the next.
  func finish() {
    pass(.answered)
    let passed = times.map { $0.value.load(ordering: .acquiring) }
    if passed.allSatisfy({ $0 != 0 }) { samples.withLock { $0.append(passed) } }
    for box in times { box.value.store(0, ordering: .relaxed) }
    index.store(0, ordering: .releasing)
    isBusy.store(false, ordering: .releasing)
  }
}

extension NodeLoop {
  /// A follower's part: what it has in its log after reading, and that the answer is written after the flush.
  func noteFollowerAppend(_ board: StageBoard) {
    let index = board.index.load(ordering: .acquiring)
    if role != .leader, index != 0, raft.lastIndex >= index { board.pass(.followerAppended) }
  }

  func noteFlush(_ board: StageBoard) {
    let index = board.index.load(ordering: .acquiring)
    guard index != 0 else { return }
    if role == .leader {
      board.pass(.sent)
    } else if durable?.durableIndex ?? raft.lastIndex >= index, board.hasPassed(.followerAppended) {
      board.pass(.acknowledged)
    }
  }

  func noteCommit(_ board: StageBoard, _ committed: LogIndex) {
    let index = board.index.load(ordering: .acquiring)
    if index != 0, committed >= index { board.pass(.committed) }
  }

  /// The leader's part at the end of a turn: whether the followed write has been answered in it.
  func noteAnswers(_ board: StageBoard) {
    let index = board.index.load(ordering: .acquiring)
    if role == .leader, index != 0, appliedIndex >= index { board.finish() }
  }
}
