import WeirCore

/// Commands that look at what is there before they change it. Each is a function of the table and of the command alone: no
/// clock, no chance, so replicas stay equal.
extension RecordTable {
  /// Applies one command that is not `several`, under the shard's lock.
  /// - Parameter layout: as `Command.decode` found it in `payload`.
  mutating func apply(_ layout: Command.Layout, _ payload: RawSpan, hash: UInt64) -> CommandResult {
    let key = payload.extracting(layout.key)
    let options = Command.options(of: layout, payload)
    let wasExpired = removeIfExpired(key, hash, asOf: options.asOfMilliseconds)
    switch layout.operation {
    case .set: return set(payload.extracting(layout.value), options, key, hash)
    case .delete: return .deleted(existed: remove(key: key, hash: hash))
    case .increment: return increment(key, hash, by: Self.number(payload.extracting(layout.value)))
    case .expire:
      // Taking away a deadline that is not there is nothing.
      guard let present = copy(key, hash), present.deadline != 0 || options.deadlineMilliseconds != 0 else {
        return .set(existed: false)
      }
      return .set(existed: put(key, present.value, hash, deadline: options.deadlineMilliseconds))
    case .removeExpired: return .deleted(existed: wasExpired)
    case .several: return .refused(.malformed)
    }
  }

  private mutating func set(
    _ value: RawSpan, _ options: Command.Options, _ key: RawSpan, _ hash: UInt64
  ) -> CommandResult {
    let present = lookUp(key: key, hash: hash) { value, deadline in (exists: value != nil, deadline: deadline) }
    switch options.condition {
    case .ifAbsent where present.exists, .ifPresent where !present.exists: return .unmet
    case .always, .ifAbsent, .ifPresent: break
    }
    let deadline = options.keepsDeadline ? present.deadline : options.deadlineMilliseconds
    return .set(existed: set(key: key, value: value, hash: hash, deadline: deadline))
  }

  private mutating func increment(_ key: RawSpan, _ hash: UInt64, by delta: Int64) -> CommandResult {
    var old: Int64? = 0
    let present = copy(key, hash)
    if let present { old = DecimalNumber.parse(present.value) }
    guard let old else { return .notANumber }
    let (sum, overflows) = old.addingReportingOverflow(delta)
    guard !overflows else { return .overflow }
    _ = put(key, Array(String(sum).utf8), hash, deadline: present?.deadline ?? 0)
    return .number(sum)
  }

  private mutating func removeIfExpired(_ key: RawSpan, _ hash: UInt64, asOf: UInt64) -> Bool {
    guard asOf != 0 else { return false }
    let deadline = lookUp(key: key, hash: hash) { _, deadline in deadline }
    guard deadline != 0, deadline <= asOf else { return false }
    return remove(key: key, hash: hash)
  }

  /// A copy, since the record is about to be written over.
  private func copy(_ key: RawSpan, _ hash: UInt64) -> (value: [UInt8], deadline: UInt64)? {
    lookUp(key: key, hash: hash) { value, deadline in
      guard let value else { return nil }
      return (unsafe value.withUnsafeBytes { unsafe [UInt8]($0) }, deadline)
    }
  }

  private mutating func put(_ key: RawSpan, _ value: [UInt8], _ hash: UInt64, deadline: UInt64) -> Bool {
    unsafe set(key: key, value: value.span.bytes, hash: hash, deadline: deadline)
  }

  private static func number(_ bytes: RawSpan) -> Int64 {
    guard bytes.byteCount == 8 else { return 0 }
    // Safe: eight bytes are there.
    return unsafe Int64(littleEndian: bytes.unsafeLoadUnaligned(as: Int64.self))
  }
}

/// Decimal numbers as Redis keeps them: a value that a client sees as text and increments as a number.
enum DecimalNumber {
  /// The number that these bytes spell, the only way it is spelt: no plus, no blanks, no zeros in front; nil if none.
  static func parse(_ bytes: [UInt8]) -> Int64? {
    let isNegative = bytes.first == UInt8(ascii: "-")
    let digits = isNegative ? bytes.dropFirst() : bytes[...]
    guard let first = digits.first, digits.count <= 19 else { return nil }
    guard first != UInt8(ascii: "0") || bytes.count == 1 else { return nil }
    var number: Int64 = 0
    for digit in digits {
      guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(digit) else { return nil }
      // Counted downwards, where there is one number more.
      let (product, overflows) = number.multipliedReportingOverflow(by: 10)
      let (difference, underflows) = product.subtractingReportingOverflow(Int64(digit - UInt8(ascii: "0")))
      guard !overflows, !underflows else { return nil }
      number = difference
    }
    guard !isNegative else { return number }
    return number == .min ? nil : -number
  }
}
