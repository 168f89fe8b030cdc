import CWeir
import Dispatch
import Synchronization
import WeirCore

/// The lane behind the node's async and callback faces: any number of threads put single commands in, and each is
/// called back once.
///
/// Commands of all callers are framed into one batch while the node is busy, so that they are proposed together. Every
/// command has two deadlines: until when it must be taken into the log, and until when it must be applied. They are
/// watched on a queue of their own, so that a caller hears of a node that is stuck.
///
/// Sendable: everything mutable lies under the lock or belongs to the node's queue.
final class CallbackLane: Lane, @unchecked Sendable {
  typealias Callback = @Sendable (Result<Applied, NodeError>) -> Void
  typealias ReadCallback = @Sendable (Result<Void, NodeError>) -> Void

  private enum Phase {
    case waiting
    case proposed
  }

  private struct Command {
    var callback: Callback?
    var phase: Phase
    var enqueueDeadline: UInt64
    var commitDeadline: UInt64
    var payload: [UInt8]
  }

  private struct State {
    var commands: [Command?] = []
    var free: [UInt32] = []
    var waitingTokens: [UInt32] = []
    var waitingBytes = 0
    var reads: [(ticket: UInt64, deadline: UInt64, callback: ReadCallback)] = []
    var isClosed = false
    var nextSweep = UInt64.max
  }

  private let state = Mutex(State())
  /// Belongs to the node's queue.
  private var delivered: [(Callback, Result<Applied, NodeError>)] = []
  /// Belongs to the node's queue: results that are numbers, of the completions that come next.
  private var numbers: [(position: Int, number: Int64)] = []
  private let sweeper = DispatchQueue(label: "weir.deadlines")
  private let maximumBytes: Int
  /// Who leads as far as is known, for the hint in errors.
  let leaderHint = Atomic<UInt64>(0)

  init(maximumBytes: Int) {
    self.maximumBytes = maximumBytes
    super.init()
  }

  // MARK: Callers, on any thread

  /// Takes a command in. `callback` is called exactly once, here if the command is refused.
  /// - Returns: whether the node has to be told.
  func submit(
    payload: [UInt8], enqueueDeadline: UInt64, commitDeadline: UInt64, _ callback: @escaping Callback
  ) -> Bool {
    let refusal: NodeError? = state.withLock { state in
      guard !state.isClosed else { return .shutdown }
      guard state.waitingBytes + payload.count <= maximumBytes || state.waitingTokens.isEmpty else {
        return .overloaded
      }
      let token = Self.allocate(
        Command(
          callback: callback, phase: .waiting, enqueueDeadline: enqueueDeadline, commitDeadline: commitDeadline,
          payload: payload), &state)
      state.waitingTokens.append(token)
      state.waitingBytes += payload.count
      return nil
    }
    if let refusal {
      callback(.failure(refusal))
      return false
    }
    scheduleSweep(enqueueDeadline)
    return true
  }

  /// Asks for leave to read. `callback` is called exactly once.
  func requestRead(deadline: UInt64, _ callback: @escaping ReadCallback) -> Bool {
    let taken = state.withLock { state in
      guard !state.isClosed else { return false }
      let ticket = requestedTicket.load(ordering: .relaxed) + 1
      state.reads.append((ticket, deadline, callback))
      requestedTicket.store(ticket, ordering: .releasing)
      return true
    }
    guard taken else {
      callback(.failure(.shutdown))
      return false
    }
    scheduleSweep(deadline)
    return true
  }

  // MARK: The node's queue

  /// A token for something that the node itself has put into the log.
  func adopt(commitDeadline: UInt64, _ callback: @escaping Callback) -> UInt32 {
    inFlight += 1
    scheduleSweep(commitDeadline)
    return state.withLock { state in
      Self.allocate(
        Command(
          callback: callback, phase: .proposed, enqueueDeadline: .max, commitDeadline: commitDeadline, payload: []),
        &state)
    }
  }

  /// Frames what waits as one batch. What has been given up meanwhile is left out.
  override func takeInbox(into batches: inout [EntryBatch], tokens: inout [UInt32]) {
    state.withLock { state in
      guard !state.waitingTokens.isEmpty else { return }
      var builder = EntryBatchBuilder(capacity: state.waitingBytes + state.waitingTokens.count * 40 + 64)
      var taken = 0
      for token in state.waitingTokens {
        let position = Int(token)
        guard let command = state.commands[position], command.callback != nil else {
          state.commands[position] = nil
          state.free.append(token)
          continue
        }
        builder.append(payload: command.payload)
        state.commands[position]?.phase = .proposed
        state.commands[position]?.payload = []
        tokens.append(token)
        taken += 1
      }
      state.waitingTokens.removeAll(keepingCapacity: true)
      state.waitingBytes = 0
      if taken > 0 { batches.append(builder.finish()) }
    }
  }

  /// Called with `publish`, when what they speak of is published and sent, and not on a thread that may hold a lock.
  override func deliver(_ completions: borrowing [UInt64], firstIndex: LogIndex) {
    hasNews = true
    var numbers = self.numbers[...]
    self.numbers.removeAll(keepingCapacity: true)
    state.withLock { state in
      for position in 0..<completions.count {
        var number: Int64?
        if let first = numbers.first, first.position == position {
          number = first.number
          numbers.removeFirst()
        }
        let completion = LaneCompletion(word: completions[position])
        let index = firstIndex == 0 ? 0 : firstIndex + UInt64(position)
        guard let command = state.commands[Int(completion.token)] else { continue }
        state.commands[Int(completion.token)] = nil
        state.free.append(completion.token)
        guard let callback = command.callback else { continue }
        delivered.append((callback, result(of: completion.outcome, index, number)))
      }
    }
  }

  override func deliver(numbers: [(position: Int, number: Int64)]) { self.numbers = numbers }

  override func publish() {
    hasNews = false
    var callbacks: [(Callback, Result<Applied, NodeError>)] = []
    swap(&callbacks, &delivered)
    for (callback, result) in callbacks { callback(result) }
    let settled = settledTicket.load(ordering: .relaxed)
    let failed = failedTicket.load(ordering: .relaxed)
    let done = state.withLock { state -> [(ticket: UInt64, deadline: UInt64, callback: ReadCallback)] in
      let end = state.reads.firstIndex { $0.ticket > settled } ?? state.reads.count
      guard end > 0 else { return [] }
      let done = Array(state.reads[..<end])
      state.reads.removeFirst(end)
      return done
    }
    for read in done { read.callback(read.ticket > failed ? .success(()) : .failure(.notLeader(hint: hint))) }
  }

  /// Answers everything that is still waiting for anything.
  func shutDown() {
    let (callbacks, reads) = state.withLock { state in
      state.isClosed = true
      let callbacks = state.commands.compactMap { $0?.callback }
      let reads = state.reads.map(\.callback)
      state.commands.removeAll()
      state.waitingTokens.removeAll()
      state.reads.removeAll()
      return (callbacks, reads)
    }
    for callback in callbacks { callback(.failure(.shutdown)) }
    for callback in reads { callback(.failure(.shutdown)) }
  }

  var hint: NodeID? {
    let leader = leaderHint.load(ordering: .relaxed)
    return leader == .none ? nil : leader
  }

  private func result(of outcome: Outcome, _ index: LogIndex, _ number: Int64?) -> Result<Applied, NodeError> {
    switch outcome {
    case .appliedFresh: .success(Applied(index: index, existed: false))
    case .appliedExisting: .success(Applied(index: index, existed: true))
    case .appliedNumber: .success(Applied(index: index, existed: true, number: number))
    case .conditionUnmet: .failure(.conditionUnmet)
    case .notANumber, .overflow: .failure(.notIncremented)
    case .refused: .failure(.invalidCommand(.malformed))
    case .notLeader: .failure(.notLeader(hint: hint))
    case .leadershipLost: .failure(.leadershipLost)
    case .overloaded: .failure(.overloaded)
    case .shutdown: .failure(.shutdown)
    case .outOfSpace: .failure(.outOfSpace)
    }
  }

  private static func allocate(_ command: Command, _ state: inout State) -> UInt32 {
    if let token = state.free.popLast() {
      state.commands[Int(token)] = command
      return token
    }
    state.commands.append(command)
    return UInt32(state.commands.count - 1)
  }

  // MARK: Deadlines

  private func scheduleSweep(_ deadline: UInt64) {
    guard deadline != .max else { return }
    let isEarlier = state.withLock { state in
      guard deadline < state.nextSweep else { return false }
      state.nextSweep = deadline
      return true
    }
    guard isEarlier else { return }
    sweeper.asyncAfter(deadline: DispatchTime(uptimeNanoseconds: deadline)) { [weak self] in self?.sweep() }
  }

  private func sweep() {
    let now = cweir_monotonic_nanoseconds()
    var callbacks: [(Callback, NodeError)] = []
    var readCallbacks: [ReadCallback] = []
    var next = UInt64.max
    state.withLock { state in
      guard state.nextSweep <= now else {
        next = .max
        return
      }
      state.nextSweep = .max
      for position in state.commands.indices {
        guard let command = state.commands[position], let callback = command.callback else { continue }
        let deadline = command.phase == .waiting ? command.enqueueDeadline : command.commitDeadline
        if deadline <= now {
          callbacks.append((callback, command.phase == .waiting ? .enqueueTimeout : .commitTimeout))
          // The place stays taken until the node has seen it, so that nobody else's answer is mistaken for this one's.
          state.commands[position]?.callback = nil
        } else {
          next = min(next, deadline)
        }
      }
      readCallbacks = state.reads.filter { $0.deadline <= now }.map(\.callback)
      state.reads.removeAll { $0.deadline <= now }
      for read in state.reads { next = min(next, read.deadline) }
    }
    for (callback, error) in callbacks { callback(.failure(error)) }
    for callback in readCallbacks { callback(.failure(.commitTimeout)) }
    scheduleSweep(next)
  }
}
