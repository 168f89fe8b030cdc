import WeirCore

/// The bytes of a span as an array.
func bytes(of span: RawSpan) -> [UInt8] { span.withUnsafeBytes { [UInt8]($0) } }

/// A slab that holds exactly `bytes`.
func slab(of bytes: [UInt8]) -> Slab {
  let slab = Slab(capacity: max(bytes.count, 1))
  slab.bytes.copyBytes(from: bytes)
  return slab
}
