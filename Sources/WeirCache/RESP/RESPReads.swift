import RESPWire
import WeirCore

/// Reads, answered from the state as it is.
enum RESPReads {
  enum Result {
    case answered
    /// These keys are past their deadline and still there: they are to be removed before the read is answered.
    case expired([[UInt8]])
    /// There is no state to read from, see `KeyValueStore.isLoading`: nothing was answered.
    case loading
  }

  /// Answers a read behind what stands in `output`, unless it finds a key past its deadline.
  /// - Parameters:
  ///   - now: milliseconds since 1970.
  ///   - hidesExpired: treat such keys as gone, where this node cannot have them removed.
  static func answer(
    _ read: RESPConnection.Read, of connection: RESPConnection, _ store: KeyValueStore, now: UInt64,
    hidesExpired: Bool, maximumBytes: Int, to output: inout [UInt8]
  ) -> Result {
    switch read.verb {
    case .mget, .exists:
      answerTogether(read, connection, store, now, hidesExpired, maximumBytes, &output)
    default: answerOne(read, connection, store, now, hidesExpired, &output)
    }
  }

  private static func answerOne(
    _ read: RESPConnection.Read, _ connection: RESPConnection, _ store: KeyValueStore, _ now: UInt64,
    _ hidesExpired: Bool, _ output: inout [UInt8]
  ) -> Result {
    connection.withKeys(of: read) { places, bytes in
      guard let place = places.first else { return .answered }
      let isLate = unsafe store.lookUp(bytes.span.bytes.extracting(place)) { value, deadline in
        let isExpired = deadline != 0 && deadline <= now
        if isExpired, !hidesExpired { return true }
        append(read.verb, isExpired ? nil : value, deadline, now, &output)
        return false
      }
      guard let isLate else { return .loading }
      return isLate ? .expired([Array(bytes[place])]) : .answered
    }
  }

  private static func append(
    _ verb: RESPVerb, _ value: RawSpan?, _ deadline: UInt64, _ now: UInt64, _ output: inout [UInt8]
  ) {
    switch verb {
    case .get:
      if let value { RESPReply.appendBulk(value, to: &output) } else { RESPReply.appendNull(to: &output) }
    case .strlen: RESPReply.appendInteger(Int64(value?.byteCount ?? 0), to: &output)
    case .type:
      if value == nil {
        RESPReply.appendSimple("none", to: &output)
      } else {
        RESPReply.appendSimple("string", to: &output)
      }
    default: RESPReply.appendInteger(time(verb, isThere: value != nil, deadline, now), to: &output)
    }
  }

  /// As Redis answers: -2 without a key, -1 without a deadline.
  private static func time(_ verb: RESPVerb, isThere: Bool, _ deadline: UInt64, _ now: UInt64) -> Int64 {
    guard isThere else { return -2 }
    guard deadline != 0 else { return -1 }
    let left = deadline - min(now, deadline)
    let milliseconds: UInt64 =
      switch verb {
      case .ttl: (left + 500) / 1000
      case .pttl: left
      case .expiretime: deadline / 1000
      default: deadline
      }
    return Int64(clamping: milliseconds)
  }

  /// Several keys, all as they were at one moment.
  private static func answerTogether(
    _ read: RESPConnection.Read, _ connection: RESPConnection, _ store: KeyValueStore, _ now: UInt64,
    _ hidesExpired: Bool, _ maximumBytes: Int, _ output: inout [UInt8]
  ) -> Result {
    connection.withKeys(of: read) { places, bytes in
      var values = [[UInt8]?](repeating: nil, count: places.count)
      var existing: Int64 = 0
      var total = 0
      var expired: [[UInt8]] = []
      let isReadable = unsafe store.lookUpTogether(Array(places), in: bytes.span.bytes) { position, value, deadline in
        guard let value else { return }
        guard deadline == 0 || deadline > now else {
          if !hidesExpired { expired.append(Array(bytes[places[places.startIndex + position]])) }
          return
        }
        existing += 1
        total += value.byteCount
        guard read.verb == .mget, total <= maximumBytes else { return }
        values[position] = unsafe value.withUnsafeBytes { unsafe [UInt8]($0) }
      }
      guard isReadable else { return .loading }
      guard expired.isEmpty else { return .expired(expired) }
      guard read.verb == .mget else {
        RESPReply.appendInteger(existing, to: &output)
        return .answered
      }
      guard total <= maximumBytes else {
        RESPReply.appendError("ERR the values are \(total) bytes, more than \(maximumBytes) in one answer", to: &output)
        return .answered
      }
      RESPReply.appendArray(values.count, to: &output)
      for value in values {
        if let value { RESPReply.appendBulk(value, to: &output) } else { RESPReply.appendNull(to: &output) }
      }
      return .answered
    }
  }
}
