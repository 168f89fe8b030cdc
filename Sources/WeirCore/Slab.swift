// Cost of a slab: its memory, zeroed once, which is a page fault for each 4 KB where the allocator has it from the system
// (expected: 100 to 200 us for 1 MiB). It is used over and over, so that the steady state has none. A reference counted up
// and down: 2 to 5 ns each. Measured (`bench hot-paths --parts`, 2-core EPYC 9005): 7.3 to 10 us for 1 MiB
// that the allocator had already, which is the zeroing; one reference up and another down 12 ns.

/// What a batch of entries keeps alive: the one slab that its frames lie in, or a list of slices of several.
///
/// One reference of one type for both: a message is copied, moved and dropped for each hop, and every reference in it is
/// counted each time.
public class EntryMemory: @unchecked Sendable {
  // Sendable: a slab by its rule, a list of slices because it never changes; and there are no others.
  init() {}
}

/// A fixed block of memory that is shared by reference: a log segment, or a connection's receive buffer.
///
/// Bytes that have been handed out by reference (as an `EntryBatch`) are never written again while anybody holds them:
/// the log only appends behind them, and a receive buffer is reused only once it is uniquely referenced again.
/// That is why the class may cross threads: whoever holds bytes of it only reads them.
@safe
public final class Slab: EntryMemory, @unchecked Sendable {
  /// Size in bytes, below 4 GiB.
  public let capacity: Int

  @usableFromInline
  let storage: UnsafeMutableRawBufferPointer

  /// A zeroed block of `capacity` bytes, aligned to 64.
  public init(capacity: Int) {
    require(capacity > 0, "a slab has at least one byte")
    require(capacity <= Int(UInt32.max), "a slab has less than 4 GiB: offsets in it have 32 bits")
    self.capacity = capacity
    unsafe storage = .allocate(byteCount: capacity, alignment: 64)
    unsafe storage.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { unsafe storage.deallocate() }

  /// The whole block. The caller keeps the slab alive and keeps to the rule of the type: no write behind anybody's back.
  @unsafe
  @inlinable
  public var bytes: UnsafeMutableRawBufferPointer { unsafe storage }

  /// The bytes in `range`, for reading.
  @unsafe
  @inlinable
  public func bytes(in range: Range<Int>) -> UnsafeRawBufferPointer {
    precondition(range.lowerBound >= 0 && range.upperBound <= capacity, "range outside of the slab")
    return unsafe UnsafeRawBufferPointer(rebasing: storage[range])
  }
}
