import Raft
import Testing
import WeirCore

/// How much may be under way to a member that does not answer.
@Suite struct FlowControlTests {
  /// A leader whose member 2 is sent everything and is not heard.
  private func unanswered(
    _ proposals: Int, payloadBytes: Int = 64, configure: @escaping (inout RaftConfiguration) -> Void
  ) throws -> TestCluster {
    var cluster = try TestCluster(voters: [1, 2], configure: configure)
    try cluster.elect(1)
    cluster.sent = []
    cluster.passes = { $0.from != 2 }
    for _ in 0..<proposals {
      try cluster.node(1).raw.propose(payload: [UInt8](repeating: 7, count: payloadBytes).span.bytes)
      try cluster.settle()
    }
    return cluster
  }

  private func appends(_ cluster: TestCluster) -> [Message] {
    cluster.sent.filter { $0.type == .append && !$0.entries.isEmpty }
  }

  @Test func messagesInFlightAreLimited() throws {
    let cluster = try unanswered(10) { $0.maximumInflightMessages = 3 }
    #expect(appends(cluster).count == 3)
    let progress = cluster.node(1).raw.status.progress[1]
    #expect(progress.inflights.count == 3 && progress.inflights.isFull)
    #expect(progress.next == progress.match + 4)
  }

  @Test func bytesInFlightAreLimited() throws {
    let cluster = try unanswered(10) {
      $0.maximumMessageBytes = 100
      $0.maximumInflightBytes = 200
    }
    // 3 x 64 bytes are below the limit; the fourth message reaches it.
    #expect(appends(cluster).count == 4)
    #expect(cluster.node(1).raw.status.progress[1].inflights.isFull)
  }

  /// The bytes of a window that was given up must not count in the next one (etcd raft e419ba5).
  @Test func aNewWindowBeginsEmpty() throws {
    var cluster = try unanswered(10) {
      $0.maximumMessageBytes = 100
      $0.maximumInflightBytes = 200
    }
    for _ in 0..<5 {
      cluster.node(1).raw.reportUnreachable(2)
      #expect(cluster.node(1).raw.status.progress[1].inflights.count == 0)
    }
    cluster.passes = { _ in true }
    cluster.node(1).raw.tick()
    try cluster.settle()
    let progress = cluster.node(1).raw.status.progress[1]
    #expect(progress.match == cluster.node(1).raw.lastIndex && progress.state == .replicate)
    #expect(progress.inflights.count == 0 && !progress.inflights.isFull)
    #expect(cluster.node(2).appliedPayloads.count == 11)
  }

  /// If all that is in a full window was lost, only an empty message can find out.
  @Test func aFullWindowOpensAgainAfterItsMessagesWereLost() throws {
    var cluster = try TestCluster(voters: [1, 2]) { $0.maximumInflightMessages = 2 }
    try cluster.elect(1)
    cluster.passes = { $0.to != 2 }
    for text in ["a", "b", "c", "d"] {
      try cluster.propose(text, at: 1)
      try cluster.settle()
    }
    #expect(cluster.node(2).raw.lastIndex == 1)
    cluster.passes = { _ in true }
    cluster.node(1).raw.tick()
    try cluster.settle()
    #expect(cluster.node(2).raw.lastIndex == 5 && cluster.node(2).raw.commit == 5)
  }

  @Test func aMessageHoldsWhatFitsAndAtLeastOneEntry() throws {
    for limit in [0, 1, 200, 1 << 20] {
      var cluster = try TestCluster(voters: [1, 2]) { $0.maximumMessageBytes = limit }
      try cluster.elect(1)
      cluster.passes = { $0.to != 2 }
      for _ in 0..<9 { try cluster.node(1).raw.propose(payload: [UInt8](repeating: 1, count: 64).span.bytes) }
      try cluster.settle()
      cluster.node(1).raw.reportUnreachable(2)
      cluster.sent = []
      cluster.passes = { _ in true }
      cluster.node(1).raw.tick()
      try cluster.settle()
      let sizes = appends(cluster).map(\.entries.count)
      #expect(sizes.reduce(0, +) == 9, "limit \(limit)")
      #expect(limit > 1000 ? sizes == [9] : limit == 200 ? sizes.allSatisfy { $0 == 2 || $0 == 1 } : sizes.count == 9)
      #expect(appends(cluster).allSatisfy { $0.entries.count == 1 || $0.entries.byteCount <= limit })
    }
  }

  /// What waits to be committed is limited, and counts until it is applied.
  @Test func uncommittedBytesAreLimited() throws {
    var cluster = try TestCluster(voters: [1, 2]) { $0.maximumUncommittedBytes = 200 }
    try cluster.elect(1)
    cluster.passes = { _ in false }
    let payload = [UInt8](repeating: 1, count: 64)
    for _ in 0..<3 { try cluster.node(1).raw.propose(payload: payload.span.bytes) }
    #expect(cluster.node(1).raw.uncommittedBytes == 192)
    #expect(throws: RaftError.proposalDropped(.uncommittedLimit)) {
      try cluster.node(1).raw.propose(payload: payload.span.bytes)
    }
    // Without a size there is nothing to refuse.
    try cluster.node(1).raw.propose(payload: [UInt8]().span.bytes)
    cluster.passes = { _ in true }
    cluster.node(1).raw.reportUnreachable(2)
    cluster.node(1).raw.tick()
    try cluster.settle()
    #expect(cluster.node(1).raw.uncommittedBytes == 0)
    try cluster.node(1).raw.propose(payload: payload.span.bytes)
    // A single entry is taken whatever its size, or it could never be.
    try cluster.settle()
    try cluster.node(1).raw.propose(payload: [UInt8](repeating: 1, count: 4000).span.bytes)
  }
}
