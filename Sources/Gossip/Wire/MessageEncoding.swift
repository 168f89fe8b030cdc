// Every `encode(into:)` appends the message with its type byte. The keys are in ascending order, as Go's encoder writes
// them, so that what is decoded and encoded again has the same bytes.

private typealias Size = OutputSpan<UInt8>.Size

extension Ping {
  public func encode(into buffer: inout [UInt8]) {
    let room = 2 + 2 * Size.integer + 2 * Size.head + Size.address + node.bytes.count + sourceNode.bytes.count
    buffer.append(addingCapacity: room) { output in
      output.append(MessageType.ping.rawValue)
      let optional = (sourceAddress == nil ? 0 : 1) + (sourceNode.isEmpty ? 0 : 1) + (sourcePort == 0 ? 0 : 1)
      output.writeMapHead(2 + optional)
      output.write(.node, node.bytes)
      output.write(.seqNo, unsigned: UInt64(sequenceNumber))
      output.writeSource(sourceAddress, sourceNode, sourcePort)
    }
  }
}

extension IndirectPing {
  public func encode(into buffer: inout [UInt8]) {
    let room =
      2 + 3 * Size.integer + 2 * Size.head + Size.boolean + 2 * Size.address + node.bytes.count
      + sourceNode.bytes.count
    buffer.append(addingCapacity: room) { output in
      output.append(MessageType.indirectPing.rawValue)
      let optional = (sourceAddress == nil ? 0 : 1) + (sourceNode.isEmpty ? 0 : 1) + (sourcePort == 0 ? 0 : 1)
      output.writeMapHead(5 + optional)
      output.write(.nack, wantsNack)
      output.write(.node, node.bytes)
      output.write(.port, unsigned: UInt64(port))
      output.write(.seqNo, unsigned: UInt64(sequenceNumber))
      output.writeSource(sourceAddress, sourceNode, sourcePort)
      output.write(.target, target)
    }
  }
}

extension OutputSpan where Element == UInt8 {
  /// The three fields that are left out when they are zero.
  fileprivate mutating func writeSource(_ address: IPAddress?, _ node: NodeName, _ port: UInt16) {
    if let address { write(.sourceAddr, address) }
    if !node.isEmpty { write(.sourceNode, node.bytes) }
    if port != 0 { write(.sourcePort, unsigned: UInt64(port)) }
  }
}

extension Ack {
  public func encode(into buffer: inout [UInt8]) {
    buffer.append(addingCapacity: 2 + Size.integer + Size.head + (payload?.count ?? 0)) { output in
      output.append(MessageType.ack.rawValue)
      output.writeMapHead(2)
      if let payload { output.write(.payload, payload) } else { output.writeNil(.payload) }
      output.write(.seqNo, unsigned: UInt64(sequenceNumber))
    }
  }
}

extension Nack {
  public func encode(into buffer: inout [UInt8]) {
    buffer.append(addingCapacity: 2 + Size.integer) { output in
      output.append(MessageType.nack.rawValue)
      output.writeMapHead(1)
      output.write(.seqNo, unsigned: UInt64(sequenceNumber))
    }
  }
}

extension Suspect {
  public func encode(into buffer: inout [UInt8]) {
    encodeAccusation(.suspect, incarnation: incarnation, node: node, from: from, into: &buffer)
  }
}

extension Dead {
  public func encode(into buffer: inout [UInt8]) {
    encodeAccusation(.dead, incarnation: incarnation, node: node, from: from, into: &buffer)
  }
}

private func encodeAccusation(
  _ type: MessageType, incarnation: UInt32, node: NodeName, from: NodeName, into buffer: inout [UInt8]
) {
  let room = 2 + Size.integer + 2 * Size.head + node.bytes.count + from.bytes.count
  buffer.append(addingCapacity: room) { output in
    output.append(type.rawValue)
    output.writeMapHead(3)
    output.write(.from, from.bytes)
    output.write(.incarnation, unsigned: UInt64(incarnation))
    output.write(.node, node.bytes)
  }
}

extension Alive {
  public func encode(into buffer: inout [UInt8]) {
    let room = 2 + 2 * Size.integer + 3 * Size.head + Size.address + node.bytes.count + meta.count + 6
    buffer.append(addingCapacity: room) { output in
      output.append(MessageType.alive.rawValue)
      output.writeMapHead(6)
      output.write(.addr, address.ip)
      output.write(.incarnation, unsigned: UInt64(incarnation))
      output.writeMeta(meta, isEmptyNil: isEmptyMetaNil)
      output.write(.node, node.bytes)
      output.write(.port, unsigned: UInt64(address.port))
      output.write(.vsn, versions)
    }
  }
}

extension OutputSpan where Element == UInt8 {
  fileprivate mutating func writeMeta(_ meta: [UInt8], isEmptyNil: Bool) {
    if meta.isEmpty, isEmptyNil { writeNil(.meta) } else { write(.meta, meta) }
  }
}

extension PushPullHeader {
  /// Appends the header alone: the type byte before it and the states after it are the exchange's.
  public func encode(into buffer: inout [UInt8]) {
    buffer.append(addingCapacity: 1 + 2 * Size.integer + Size.boolean) { output in
      output.writeMapHead(3)
      output.write(.join, isJoin)
      output.write(.nodes, signed: nodeCount)
      output.write(.userStateLen, signed: userStateByteCount)
    }
  }
}

extension PushPullNodeState {
  /// Appends the state alone.
  public func encode(into buffer: inout [UInt8]) {
    let room = 1 + 3 * Size.integer + 3 * Size.head + Size.address + name.bytes.count + meta.count + 6
    buffer.append(addingCapacity: room) { output in
      output.writeMapHead(7)
      output.write(.addr, address.ip)
      output.write(.incarnation, unsigned: UInt64(incarnation))
      output.writeMeta(meta, isEmptyNil: isEmptyMetaNil)
      output.write(.name, name.bytes)
      output.write(.port, unsigned: UInt64(address.port))
      output.write(.state, signed: Int(state.rawValue))
      output.write(.vsn, versions)
    }
  }
}

extension UserStreamHeader {
  /// Appends the header alone, without the type byte.
  public func encode(into buffer: inout [UInt8]) {
    buffer.append(addingCapacity: 1 + Size.integer) { output in
      output.writeMapHead(1)
      output.write(.userMsgLen, signed: byteCount)
    }
  }
}

extension ErrorResponse {
  public func encode(into buffer: inout [UInt8]) {
    buffer.append(addingCapacity: 2 + Size.head + message.count) { output in
      output.append(MessageType.error.rawValue)
      output.writeMapHead(1)
      output.write(.error, message)
    }
  }
}

extension GossipMessage {
  /// Appends the message with its type byte.
  public func encode(into buffer: inout [UInt8]) {
    switch self {
    case .ping(let message): message.encode(into: &buffer)
    case .indirectPing(let message): message.encode(into: &buffer)
    case .ack(let message): message.encode(into: &buffer)
    case .nack(let message): message.encode(into: &buffer)
    case .suspect(let message): message.encode(into: &buffer)
    case .alive(let message): message.encode(into: &buffer)
    case .dead(let message): message.encode(into: &buffer)
    case .user(let bytes):
      buffer.append(MessageType.user.rawValue)
      buffer.append(contentsOf: bytes)
    }
  }

  /// The message with its type byte, in an array of its own.
  public func encoded() -> [UInt8] {
    var buffer: [UInt8] = []
    encode(into: &buffer)
    return buffer
  }
}
