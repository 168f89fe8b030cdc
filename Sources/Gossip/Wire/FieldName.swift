/// A key of a msgpack map on the wire, packed into two words so that reading one is two loads and comparing one is two
/// compares, whatever its length.
struct FieldName: Hashable, Sendable {
  let byteCount: Int
  /// The first eight bytes (all of them, if fewer), the last of them in the lowest place.
  let first: UInt64
  /// The bytes after the eighth, likewise.
  let rest: UInt64

  /// Longer keys are of no message that this code knows.
  static let longestByteCount = 16

  /// `Addr`
  static let addr = FieldName(byteCount: 4, first: 0x4164_6472, rest: 0x0)
  /// `Algo`
  static let algo = FieldName(byteCount: 4, first: 0x416C_676F, rest: 0x0)
  /// `Buf`
  static let buf = FieldName(byteCount: 3, first: 0x42_7566, rest: 0x0)
  /// `Error`
  static let error = FieldName(byteCount: 5, first: 0x45_7272_6F72, rest: 0x0)
  /// `From`
  static let from = FieldName(byteCount: 4, first: 0x4672_6F6D, rest: 0x0)
  /// `Incarnation`
  static let incarnation = FieldName(byteCount: 11, first: 0x496E_6361_726E_6174, rest: 0x69_6F6E)
  /// `Join`
  static let join = FieldName(byteCount: 4, first: 0x4A6F_696E, rest: 0x0)
  /// `Meta`
  static let meta = FieldName(byteCount: 4, first: 0x4D65_7461, rest: 0x0)
  /// `Nack`
  static let nack = FieldName(byteCount: 4, first: 0x4E61_636B, rest: 0x0)
  /// `Name`
  static let name = FieldName(byteCount: 4, first: 0x4E61_6D65, rest: 0x0)
  /// `Node`
  static let node = FieldName(byteCount: 4, first: 0x4E6F_6465, rest: 0x0)
  /// `Nodes`
  static let nodes = FieldName(byteCount: 5, first: 0x4E_6F64_6573, rest: 0x0)
  /// `Payload`
  static let payload = FieldName(byteCount: 7, first: 0x50_6179_6C6F_6164, rest: 0x0)
  /// `Port`
  static let port = FieldName(byteCount: 4, first: 0x506F_7274, rest: 0x0)
  /// `SeqNo`
  static let seqNo = FieldName(byteCount: 5, first: 0x53_6571_4E6F, rest: 0x0)
  /// `SourceAddr`
  static let sourceAddr = FieldName(byteCount: 10, first: 0x536F_7572_6365_4164, rest: 0x6472)
  /// `SourceNode`
  static let sourceNode = FieldName(byteCount: 10, first: 0x536F_7572_6365_4E6F, rest: 0x6465)
  /// `SourcePort`
  static let sourcePort = FieldName(byteCount: 10, first: 0x536F_7572_6365_506F, rest: 0x7274)
  /// `State`
  static let state = FieldName(byteCount: 5, first: 0x53_7461_7465, rest: 0x0)
  /// `Target`
  static let target = FieldName(byteCount: 6, first: 0x5461_7267_6574, rest: 0x0)
  /// `UserMsgLen`
  static let userMsgLen = FieldName(byteCount: 10, first: 0x5573_6572_4D73_674C, rest: 0x656E)
  /// `UserStateLen`
  static let userStateLen = FieldName(byteCount: 12, first: 0x5573_6572_5374_6174, rest: 0x654C_656E)
  /// `Vsn`
  static let vsn = FieldName(byteCount: 3, first: 0x56_736E, rest: 0x0)
}
