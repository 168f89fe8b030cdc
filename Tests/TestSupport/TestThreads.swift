import Dispatch
import Foundation

/// Calls `body` on `count` threads of their own at once, with the number of each, and waits for all of them.
public func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
  let done = DispatchGroup()
  for number in 0..<count {
    done.enter()
    Thread {
      body(number)
      done.leave()
    }.start()
  }
  done.wait()
}
