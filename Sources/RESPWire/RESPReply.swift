/// Answers as bytes (Redis serialization protocol, version 2), written behind what stands in `output`.
public enum RESPReply {
  /// `+OK`, and other words without a line break.
  public static func appendSimple(_ text: StaticString, to output: inout [UInt8]) {
    output.append(UInt8(ascii: "+"))
    text.withUTF8Buffer { output.append(contentsOf: $0) }
    appendLineEnd(to: &output)
  }

  /// An error: its first word is what programs look at. Line breaks would end it, so they become blanks.
  public static func appendError(_ text: String, to output: inout [UInt8]) {
    output.append(UInt8(ascii: "-"))
    for byte in text.utf8 { output.append(byte == 0x0A || byte == 0x0D ? 0x20 : byte) }
    appendLineEnd(to: &output)
  }

  public static func appendInteger(_ number: Int64, to output: inout [UInt8]) {
    output.append(UInt8(ascii: ":"))
    appendDecimal(number, to: &output)
    appendLineEnd(to: &output)
  }

  /// Bytes of any kind.
  public static func appendBulk(_ value: RawSpan, to output: inout [UInt8]) {
    output.append(UInt8(ascii: "$"))
    appendDecimal(Int64(value.byteCount), to: &output)
    appendLineEnd(to: &output)
    value.withUnsafeBytes { output.append(contentsOf: $0) }
    appendLineEnd(to: &output)
  }

  public static func appendBulk(_ value: some Collection<UInt8>, to output: inout [UInt8]) {
    output.append(UInt8(ascii: "$"))
    appendDecimal(Int64(value.count), to: &output)
    appendLineEnd(to: &output)
    output.append(contentsOf: value)
    appendLineEnd(to: &output)
  }

  public static func appendBulk(_ text: String, to output: inout [UInt8]) { appendBulk(text.utf8, to: &output) }

  /// That there is no value.
  public static func appendNull(to output: inout [UInt8]) {
    output.append(contentsOf: [UInt8(ascii: "$"), UInt8(ascii: "-"), UInt8(ascii: "1")])
    appendLineEnd(to: &output)
  }

  /// That `count` answers follow as one.
  public static func appendArray(_ count: Int, to output: inout [UInt8]) {
    output.append(UInt8(ascii: "*"))
    appendDecimal(Int64(count), to: &output)
    appendLineEnd(to: &output)
  }

  private static func appendLineEnd(to output: inout [UInt8]) {
    output.append(UInt8(ascii: "\r"))
    output.append(UInt8(ascii: "\n"))
  }

  private static func appendDecimal(_ number: Int64, to output: inout [UInt8]) {
    if number < 0 { output.append(UInt8(ascii: "-")) }
    var rest = number.magnitude
    let start = output.count
    repeat {
      output.append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10))
      rest /= 10
    } while rest > 0
    output[start...].reverse()
  }
}
