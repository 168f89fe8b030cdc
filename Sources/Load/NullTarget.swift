import CWeir

/// Answers every operation at once and stores nothing: what it takes is what the generator itself costs. Reads find
/// nothing, so a history of it means nothing.
public final class NullTarget: Target {
  public let name = "null"

  public init() {}

  public func makeSession(worker: Int, readMode: ReadMode) -> any TargetSession { NullSession() }
  public func counters() -> TargetCounters { TargetCounters() }
  public func replicaHashes(deadlineNanoseconds: UInt64) -> [ReplicaHash] { [] }
  public func shutdown() {}
}

private final class NullSession: TargetSession {
  func submit(_ batch: Span<Submission>, completions: inout [Completion]) {
    let now = cweir_monotonic_nanoseconds()
    for index in batch.indices {
      completions.append(Completion(token: batch[index].token, status: .ok, doneNanoseconds: now))
    }
  }

  func poll(into completions: inout [Completion], until deadlineNanoseconds: UInt64) {
    // Nothing is ever outstanding here: only an open loop comes by, to wait for its next operation.
    cweir_sleep_until_nanoseconds(deadlineNanoseconds)
  }

  func close() {}
}
