/// Hands a stream's bytes over in pieces of `pieceBytes`, the last one shorter, as a socket may.
/// - Parameter body: is given each piece, and how many bytes have come with it.
public func forEachPiece<Failure: Error>(
  of bytes: UnsafeBufferPointer<UInt8>, pieceBytes: Int,
  _ body: (_ piece: Slice<UnsafeBufferPointer<UInt8>>, _ comeBytes: Int) throws(Failure) -> Void
) throws(Failure) {
  var position = 0
  while position < bytes.count {
    let end = min(position + pieceBytes, bytes.count)
    try body(bytes[position..<end], end)
    position = end
  }
}

/// Reads an input as a whole and in pieces, whose size its first byte says, and holds one against the other: a stream means
/// the same however it is cut.
/// - Parameter read: what is made of bytes that come in pieces of that size.
/// - Returns: what was read; nil of an input that is too long.
public func readHoweverCut<Reading: Equatable>(
  _ input: UnsafeBufferPointer<UInt8>, _ read: (_ bytes: UnsafeBufferPointer<UInt8>, _ pieceBytes: Int) -> Reading
) -> Reading? {
  guard let choice = input.first, input.count <= 4096 else { return nil }
  let bytes = UnsafeBufferPointer(rebasing: input.dropFirst())
  let whole = read(bytes, max(bytes.count, 1))
  precondition(whole == read(bytes, 1 + Int(choice) % 32), "where the bytes are cut matters")
  return whole
}
