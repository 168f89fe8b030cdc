import Dispatch
import Glibc
import Synchronization

/// SIGTERM and SIGINT of this process for as long as this lives: the first asks for an orderly end, every one after it for an
/// end at once.
public final class TerminationSignals {
  private final class Count: Sendable {
    let arrived = Atomic<Int>(0)
  }

  private var sources: [any DispatchSourceSignal] = []

  /// - Parameters:
  ///   - first: called on a queue of the system's, once.
  ///   - later: the same for each signal after that; ends the process.
  public init(first: @escaping @Sendable () -> Void, later: @escaping @Sendable () -> Void) {
    let count = Count()
    for number in [SIGTERM, SIGINT] {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        if count.arrived.wrappingAdd(1, ordering: .relaxed).oldValue == 0 { first() } else { later() }
      }
      source.activate()
      sources.append(source)
    }
  }
}
