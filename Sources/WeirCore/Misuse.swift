// Cost where the condition holds: a compare and a branch that is always guessed right; what is said lies behind it, in a
// function of its own. That is not always as cheap as a precondition: with this in the codec's header, a quorum's slot and
// a slab's range, an encoded message took 120 instructions more and an acknowledgement 4. Those three stay preconditions.

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
