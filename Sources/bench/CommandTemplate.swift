import Load
import WeirCache

/// Commands as the generator's sessions need them: one array that is written once, of which each operation changes the
/// key and the value's name.
struct CommandTemplate {
  private var set: [UInt8] = []
  private var delete: [UInt8]

  init() throws {
    delete = try Command.encode(.delete, key: [UInt8](repeating: 0, count: KeySpelling.keyBytes))
  }

  /// Calls `body` with the command of a `.set` or `.delete`.
  mutating func withCommand(_ operation: Load.Operation, _ body: (RawSpan) -> Void) {
    let (low, high) = KeySpelling.words(operation.keyNumber)
    guard operation.kind == .set else {
      Self.store(low, high, at: Command.headerBytes, in: &delete)
      return body(delete.span.bytes)
    }
    let valueBytes = Int(operation.valueBytes)
    let size = Command.encodedBytes(keyBytes: KeySpelling.keyBytes, valueBytes: valueBytes)
    if set.count != size { set = Self.makeSet(valueBytes: valueBytes) }
    let (valueLow, valueHigh) = operation.value.words
    Self.store(low, high, at: Command.headerBytes, in: &set)
    Self.store(valueLow, valueHigh, at: Command.headerBytes + KeySpelling.keyBytes, in: &set)
    body(set.span.bytes)
  }

  private static func store(_ low: UInt64, _ high: UInt64, at offset: Int, in command: inout [UInt8]) {
    command.withUnsafeMutableBytes { bytes in
      bytes.storeBytes(of: low.littleEndian, toByteOffset: offset, as: UInt64.self)
      bytes.storeBytes(of: high.littleEndian, toByteOffset: offset + 8, as: UInt64.self)
    }
  }

  private static func makeSet(valueBytes: Int) -> [UInt8] {
    let key = [UInt8](repeating: 0, count: KeySpelling.keyBytes)
    let value = [UInt8](repeating: ValueID.filler, count: valueBytes)
    return (try? Command.encode(.set, key: key, value: value)) ?? []
  }
}
