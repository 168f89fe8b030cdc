/// Stops the process if the state machine's own state, or its use by the driver, contradicts itself: to go on would risk
/// what is replicated. What comes from elsewhere never gets here, it is refused by a `RaftError` before.
///
/// `precondition` does the same, but says nothing in an optimized build, where the text is needed most.
@inline(__always)
func invariant(
  _ holds: Bool, _ text: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line
) {
  if !holds { stop(text, file, line) }
}

/// Not inlined, so that the making of the text stays off the path of those that hold.
@inline(never)
private func stop(_ text: () -> String, _ file: StaticString, _ line: UInt) -> Never {
  fatalError("Raft invariant broken: \(text())", file: file, line: line)
}
