// Cost where the condition holds: a compare and a branch that is always guessed right; what is said lies behind it, in a
// function of its own. Where the compiler joins several preconditions into one test it does not join these: 120 instructions
// more an encoded message, 4 more an acknowledgement. So the hottest three (the codec's header, a quorum's slot, a slab's
// range) stay preconditions.

/// `precondition` that says what was wrong, and where, in release builds too: there the compiler turns a precondition into
/// an instruction that ends the process without a word. For what a caller may get wrong; what only this module could get
/// wrong stays a precondition.
@inlinable
@inline(__always)
func require(
  _ condition: @autoclosure () -> Bool, _ message: StaticString, file: StaticString = #fileID, line: UInt = #line
) {
  if !_fastPath(condition()) { misuse(message, file: file, line: line) }
}

@usableFromInline
@inline(never)
func misuse(_ message: StaticString, file: StaticString, line: UInt) -> Never {
  fatalError("\(message)", file: file, line: line)
}
