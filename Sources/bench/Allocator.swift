import CWeir

// The import alone links jemalloc, where its header is installed; nothing of it is called.
#if canImport(CJemalloc)
  import CJemalloc
#endif

/// Which allocator serves this process, asked of the running process: it may be linked, preloaded, or absent.
func allocatorInUse() -> String {
  let capacity = 128
  let version = withUnsafeTemporaryAllocation(of: CChar.self, capacity: capacity) { buffer -> String? in
    guard let start = buffer.baseAddress, cweir_jemalloc_version(start, capacity) == 1 else { return nil }
    return String(cString: start)
  }
  guard let version else { return "system malloc" }
  // "5.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c": the commit after the second dash helps nobody.
  return "jemalloc \(version.prefix { $0 != "-" })"
}
