/// What is accepted of one command.
public struct RESPLimits: Sendable, Hashable {
  public var maximumArguments: Int
  /// The longest argument in bytes.
  public var maximumBulkBytes: Int
  /// All of a command, in bytes.
  public var maximumCommandBytes: Int
  /// The longest command that is a line of words, in bytes.
  public var maximumInlineBytes: Int

  public init(
    maximumArguments: Int = 64 << 10, maximumBulkBytes: Int = 1 << 20, maximumCommandBytes: Int = 4 << 20,
    maximumInlineBytes: Int = 64 << 10
  ) {
    self.maximumArguments = maximumArguments
    self.maximumBulkBytes = maximumBulkBytes
    self.maximumCommandBytes = maximumCommandBytes
    self.maximumInlineBytes = maximumInlineBytes
  }
}

/// Why bytes are not commands. Nothing more can be read from a connection then: where the next one begins is not known.
public enum RESPError: Error, Sendable, Hashable, CustomStringConvertible {
  /// The number of arguments is none, or above the limit.
  case invalidCount
  /// The length of an argument is none, or above the limit.
  case invalidLength
  /// An argument does not begin with `$`.
  case expectedBulk(UInt8)
  /// An argument does not end where its length says.
  case unterminated
  /// All arguments together are above the limit.
  case commandTooLarge
  /// A line of words is too long.
  case lineTooLarge
  /// A line of words has quotes, which mean something only to people.
  case quotes

  /// As Redis words it, where it has the same.
  public var description: String {
    switch self {
    case .invalidCount: "Protocol error: invalid multibulk length"
    case .invalidLength: "Protocol error: invalid bulk length"
    case .expectedBulk(let byte):
      "Protocol error: expected '$', got \((0x21...0x7E).contains(byte) ? "'\(UnicodeScalar(byte))'" : "byte \(byte)")"
    case .unterminated: "Protocol error: an argument does not end where its length says"
    case .commandTooLarge: "Protocol error: too big command"
    case .lineTooLarge: "Protocol error: too big inline request"
    case .quotes: "Protocol error: quotes are not understood in inline requests"
    }
  }
}
