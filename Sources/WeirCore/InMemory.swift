// Cost: 32 bytes in whatever contains it, never touched. What it saves is a copy of the whole at each call.

/// Keeps the type that has a field of it in memory.
///
/// The compiler (6.3) may load a struct of plain parts as a whole, also one that cannot be copied, and puts it back onto
/// the stack for each call that borrows it: of the log, 232 bytes copied to look up one term. An existential has no such
/// parts, so whatever contains one is always passed by address. It is never used.
struct InMemory {
  private let part: (any Sendable)? = nil
}
