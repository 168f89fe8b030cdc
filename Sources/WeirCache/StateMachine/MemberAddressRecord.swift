import WeirCore

/// Where the members of a configuration are: the context of an entry that changes it, and, since a snapshot replaces those
/// entries, the value of a record with an empty key in a captured state. For each member in the order of the ids:
///
///     offset  size  field
///          0     8  node id, little-endian
///          8     1  length of the address
///          9     n  address, `host:port`
enum MemberAddressRecord {
  private static let fixedBytes = 9

  /// Adds the record of a captured state.
  static func append(_ addresses: [NodeID: String], to output: inout [UInt8]) {
    let value = encoded(addresses)
    append(0, bytes: 4, to: &output)
    append(UInt64(value.count), bytes: 4, to: &output)
    output.append(contentsOf: value)
  }

  /// The members as bytes. Addresses that are longer than 255 bytes, or beyond what a record holds, are left out: their
  /// members have to be introduced again.
  static func encoded(_ addresses: [NodeID: String]) -> [UInt8] {
    var value: [UInt8] = []
    for (member, address) in addresses.sorted(by: { $0.key < $1.key }) {
      let bytes = Array(address.utf8)
      guard bytes.count <= 255, value.count + fixedBytes + bytes.count <= Command.maximumValueBytes else { continue }
      append(member, bytes: 8, to: &value)
      value.append(UInt8(bytes.count))
      value.append(contentsOf: bytes)
    }
    return value
  }

  /// The members that such bytes name.
  static func decode(_ value: ArraySlice<UInt8>) throws(StateRestoreError) -> [NodeID: String] {
    var addresses: [NodeID: String] = [:]
    var rest = value
    while !rest.isEmpty {
      guard rest.count >= fixedBytes else { throw .malformedMembers }
      let member = rest.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      let length = Int(rest[rest.startIndex + 8])
      rest = rest.dropFirst(fixedBytes)
      guard rest.count >= length, let text = String(validating: rest.prefix(length), as: UTF8.self) else {
        throw .malformedMembers
      }
      addresses[member] = text
      rest = rest.dropFirst(length)
    }
    return addresses
  }

  private static func append(_ value: UInt64, bytes count: UInt64, to output: inout [UInt8]) {
    for shift in stride(from: UInt64(0), to: 8 * count, by: 8) {
      output.append(UInt8(truncatingIfNeeded: value >> shift))
    }
  }
}
