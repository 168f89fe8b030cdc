import RESPWire
import WeirCore
import WeirTransport

/// What clients of a Redis cluster ask to find their way: all slots are the leader's, and the others are its replicas.
extension RESPServing {
  /// A member that serves RESP.
  private struct Member {
    var id: NodeID
    var host: String
    var port: UInt16
    /// What such clients call it: 40 hexadecimal digits.
    var name: String
  }

  func cluster(_ words: RESPWords, _ output: inout [UInt8]) {
    switch (words.text(1).lowercased(), words.count) {
    case ("slots", 2): slots(&output)
    case ("nodes", 2): RESPReply.appendBulk(nodesText, to: &output)
    case ("info", 2): RESPReply.appendBulk(clusterText, to: &output)
    case ("myid", 2): RESPReply.appendBulk(Self.name(node.id), to: &output)
    case ("keyslot", 3): RESPReply.appendInteger(Int64(words.with(2) { RESPKeySlot.slot(of: $0) }), to: &output)
    default:
      RESPReply.appendError(RESPRefusal.unsupported("CLUSTER \(words.text(1).prefix(32))").text, to: &output)
    }
  }

  /// The leader first.
  private var members: [Member] {
    let leader = node.status.leader
    return directory()
      .compactMap { id, text in
        guard let address = SocketAddress(numeric: text) else { return nil }
        return Member(id: id, host: address.host, port: address.port, name: Self.name(id))
      }
      .sorted { ($0.id == leader ? 0 : 1, $0.id) < ($1.id == leader ? 0 : 1, $1.id) }
  }

  private static func name(_ id: NodeID) -> String {
    let digits = String(id, radix: 16)
    return String(repeating: "0", count: 40 - digits.count) + digits
  }

  private func slots(_ output: inout [UInt8]) {
    let members = members
    guard let first = members.first, first.id == node.status.leader else {
      return RESPReply.appendArray(0, to: &output)
    }
    RESPReply.appendArray(1, to: &output)
    RESPReply.appendArray(2 + members.count, to: &output)
    RESPReply.appendInteger(0, to: &output)
    RESPReply.appendInteger(Int64(RESPKeySlot.count - 1), to: &output)
    for member in members {
      RESPReply.appendArray(3, to: &output)
      RESPReply.appendBulk(member.host, to: &output)
      RESPReply.appendInteger(Int64(member.port), to: &output)
      RESPReply.appendBulk(member.name, to: &output)
    }
  }

  private var nodesText: String {
    let status = node.status
    let leader = status.leader == NodeID.none ? "-" : Self.name(status.leader)
    return members.reduce(into: "") { text, member in
      let isLeader = member.id == status.leader
      let flags = (member.id == node.id ? "myself," : "") + (isLeader ? "master" : "slave")
      text += "\(member.name) \(member.host):\(member.port)@0 \(flags) \(isLeader ? "-" : leader) 0 0 \(status.term)"
      text += " connected\(isLeader ? " 0-\(RESPKeySlot.count - 1)" : "")\n"
    }
  }

  private var clusterText: String {
    let status = node.status
    let isUp = status.leader != NodeID.none
    let count = isUp ? RESPKeySlot.count : 0
    return """
      cluster_enabled:1\r
      cluster_state:\(isUp ? "ok" : "fail")\r
      cluster_slots_assigned:\(count)\r
      cluster_slots_ok:\(count)\r
      cluster_known_nodes:\(members.count)\r
      cluster_size:1\r
      cluster_current_epoch:\(status.term)\r

      """
  }
}
