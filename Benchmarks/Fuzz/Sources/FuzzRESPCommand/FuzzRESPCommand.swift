import CFuzzDriver
import FuzzSupport
import RESPWire

// Bytes from a cache client: commands or a refusal, the same however the bytes are cut, within the limits, and what is kept
// of them is never more than what arrived. What was read, written again, reads as the same. The first byte of the input
// says how it is cut.

private let limits = RESPLimits(
  maximumArguments: 16, maximumBulkBytes: 128, maximumCommandBytes: 512, maximumInlineBytes: 64)

private struct Reading: Equatable {
  var commands: [[[UInt8]]] = []
  var refusal: RESPError?
}

private func read(_ bytes: UnsafeBufferPointer<UInt8>, pieceBytes: Int) -> Reading {
  var reader = RESPCommandReader(limits: limits)
  var reading = Reading()
  do throws(RESPError) {
    try forEachPiece(of: bytes, pieceBytes: pieceBytes) { piece, comeBytes throws(RESPError) in
      reader.append(piece)
      while try reader.next() {
        reading.commands.append(reader.arguments.map { Array(reader.bytes[$0]) })
        reader.consume()
      }
      precondition(reader.pendingBytes <= comeBytes, "more is kept than came")
    }
  } catch {
    reading.refusal = error
  }
  return reading
}

private func check(_ input: UnsafeBufferPointer<UInt8>) {
  guard let whole = readHoweverCut(input, { read($0, pieceBytes: $1) }) else { return }
  var written: [UInt8] = []
  for command in whole.commands {
    precondition(!command.isEmpty && command.count <= limits.maximumInlineBytes, "too many arguments")
    precondition(command.allSatisfy { $0.count <= limits.maximumBulkBytes }, "an argument beyond its limit")
    RESPReply.appendArray(command.count, to: &written)
    for argument in command { RESPReply.appendBulk(argument, to: &written) }
  }
  let again = written.withUnsafeBufferPointer { read($0, pieceBytes: 7) }
  precondition(again.refusal == nil && again.commands == whole.commands, "what was written reads otherwise")
}

@_cdecl("FuzzRESPCommand_main")
func fuzzRESPCommandMain(
  _ argumentCount: Int32, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?
) -> Int32 {
  cfuzz_run(argumentCount, arguments) { bytes, count in
    check(UnsafeBufferPointer(start: bytes, count: count))
    return 0
  }
}
