import Dispatch
import Synchronization

/// Starts something and blocks the calling thread until it has called back, once, from any thread. Not from a task, nor from
/// the queue that is to call.
@discardableResult
public func waitForCallback<Value: Sendable>(_ start: (@escaping @Sendable (Value) -> Void) -> Void) -> Value {
  let answer = CallbackAnswer<Value>()
  start { value in
    answer.value.withLock { $0 = value }
    answer.isThere.signal()
  }
  answer.isThere.wait()
  guard let value = answer.value.withLock({ $0 }) else { preconditionFailure("signalled without an answer") }
  return value
}

private final class CallbackAnswer<Value: Sendable>: Sendable {
  let value = Mutex<Value?>(nil)
  let isThere = DispatchSemaphore(value: 0)
}
