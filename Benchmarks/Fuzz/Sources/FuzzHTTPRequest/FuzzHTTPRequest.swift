import CFuzzDriver
import FuzzSupport
import HTTPWire

// Bytes from an HTTP client: requests or a refusal, the same however the bytes are cut, within the limits, and what is
// kept of them is never more than what arrived. The first byte of the input says how it is cut.

private let limits = HTTPLimits(maximumHeadBytes: 512, maximumFields: 8, maximumBodyBytes: 64)

private struct Reading: Equatable {
  var requests: [HTTPRequest] = []
  var refusal: HTTPError?
}

private func read(_ bytes: UnsafeBufferPointer<UInt8>, pieceBytes: Int) -> Reading {
  var reader = HTTPRequestReader(limits: limits)
  var reading = Reading()
  do throws(HTTPError) {
    try forEachPiece(of: bytes, pieceBytes: pieceBytes) { piece, comeBytes throws(HTTPError) in
      reader.append(piece)
      while let request = try reader.next() { reading.requests.append(request) }
      precondition(reader.pendingBytes <= comeBytes, "more is kept than came")
      precondition(
        reader.pendingBytes <= limits.maximumHeadBytes + limits.maximumBodyBytes + pieceBytes, "a limit is passed")
      _ = reader.takeContinue()
    }
  } catch {
    reading.refusal = error
  }
  return reading
}

private func check(_ input: UnsafeBufferPointer<UInt8>) {
  guard let whole = readHoweverCut(input, { read($0, pieceBytes: $1) }) else { return }
  for request in whole.requests {
    precondition(request.target.utf8.first == UInt8(ascii: "/"), "a target that is no path")
    precondition(!request.target.utf8.contains { $0 <= 0x20 || $0 >= 0x7F }, "a target that could split a field")
    precondition(request.body.count <= limits.maximumBodyBytes, "a body beyond its limit")
    precondition(!request.path.isEmpty, "a path without a segment")
  }
}

@_cdecl("FuzzHTTPRequest_main")
func fuzzHTTPRequestMain(
  _ argumentCount: Int32, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
  cfuzz_run(argumentCount, arguments) { bytes, count in
    check(UnsafeBufferPointer(start: bytes, count: count))
    return 0
  }
}
