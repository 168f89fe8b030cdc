import Foundation
import Synchronization
import Testing
import WeirCore

@testable import WeirTransport

@Suite struct TCPTransportTests {
  @Test(arguments: ReadinessMechanism.allCases, [0, 50_000] as [UInt64])
  func messagesArriveInOrderBothWays(mechanism: ReadinessMechanism, repoll: UInt64) throws {
    try withConnectedPair(
      Endpoint(1, mechanism: mechanism, repoll: repoll), Endpoint(2, mechanism: mechanism, repoll: repoll)
    ) { first, second in
      #expect(
        eventually { first.seen.withLock { $0.connected == [2] } && second.seen.withLock { $0.connected == [1] } })
      let rounds = 200
      for round in 0..<rounds {
        first.perform { $0.send(makeAppend(from: 1, to: 2, index: UInt64(round * 7), count: 7)) }
        second.perform { transport in
          var answer = Message(type: .appendResponse, to: 1, from: 2, term: UInt64(round + 1))
          answer.index = UInt64(round)
          transport.send(answer)
        }
      }
      #expect(eventually { second.seen.withLock { $0.messages.count } == rounds })
      #expect(eventually { first.seen.withLock { $0.messages.count } == rounds })
      #expect(second.seen.withLock { $0.messages.map(\.index) } == (0..<rounds).map { UInt64($0 * 7) })
      #expect(first.seen.withLock { $0.messages.map(\.index) } == (0..<rounds).map { UInt64($0) })
      let payloads = second.seen.withLock { seen in
        var total = 0
        for message in seen.messages { message.entries.forEach { _, payload in total += payload.byteCount } }
        return total
      }
      #expect(payloads == rounds * 7 * 128)
    }
  }

  @Test(arguments: ReadinessMechanism.allCases)
  func framesLargerThanTheReceiveBufferPass(mechanism: ReadinessMechanism) throws {
    try withConnectedPair(
      Endpoint(1, mechanism: mechanism), Endpoint(2, mechanism: mechanism) { $0.receiveBufferBytes = 16 << 10 }
    ) { first, second in
      for round in 0..<8 as Range<UInt64> {
        first.perform {
          $0.send(makeAppend(from: 1, to: 2, index: round * 3, count: 3, payloadBytes: Int(round) * 100_000))
        }
      }
      #expect(eventually { second.seen.withLock { $0.messages.count } == 8 })
      let sizes = second.seen.withLock { $0.messages.map(\.entries.byteCount) }
      #expect(sizes == (0..<8).map { 3 * EntryFrame.occupiedBytes(payloadBytes: $0 * 100_000) })
    }
  }

  @Test func manyMessagesOfOneTurnLeaveInFewWrites() throws {
    try withConnectedPair(Endpoint(1), Endpoint(2)) { first, second in
      let before = first.seen.withLock { $0.counters }
      first.perform { transport in
        for index in 0..<100 as Range<UInt64> { transport.send(makeAppend(from: 1, to: 2, index: index, count: 1)) }
      }
      #expect(eventually { second.seen.withLock { $0.messages.count } == 100 })
      #expect(eventually { first.seen.withLock { $0.counters.messagesSent } == before.messagesSent + 100 })
      let after = first.seen.withLock { $0.counters }
      #expect(after.writeCalls - before.writeCalls <= 2)
    }
  }

  @Test func nodesOfOtherClustersVersionsOrAddressesAreRefused() throws {
    let home = try Endpoint(1)
    let stranger = try Endpoint(2, clusterID: 78)
    let lost = try Endpoint(3)
    home.transport.addPeer(2, address: stranger.address)
    home.transport.addPeer(4, address: lost.address)
    stranger.transport.addPeer(1, address: home.address)
    for endpoint in [home, stranger, lost] { endpoint.start() }
    defer { for endpoint in [home, stranger, lost] { endpoint.stop() } }
    #expect(eventually { stranger.lines.contains("another cluster") })
    #expect(eventually { home.lines.contains("another cluster") })
    #expect(eventually { lost.lines.contains("looks for another node") })
    #expect(eventually { home.lines.contains("refused this node") })
    #expect(home.seen.withLock { $0.connected.isEmpty })

    let socket = try RawClient(home.address)
    var hello = Hello(channel: .messages, clusterID: 77, from: 2, to: 1, instance: 9)
    hello.version = FrameHeader.version + 1
    socket.write(hello.encoded())
    #expect(Hello(parsing: socket.read(Hello.bytes))?.verdict == .otherVersion)
    #expect(home.lines.contains("another version"))
  }

  @Test func unknownNodesAreRefusedUnlessAdmitted() throws {
    let closed = try Endpoint(1)
    let open = try Endpoint(2) { $0.admitsUnknownNodes = true }
    closed.start()
    open.start()
    defer {
      closed.stop()
      open.stop()
    }
    for (endpoint, expected) in [(closed, HelloVerdict.unknownNode), (open, .welcome)] {
      let socket = try RawClient(endpoint.address)
      socket.write(Hello(channel: .messages, clusterID: 77, from: 9, to: endpoint.id, instance: 3).encoded())
      #expect(Hello(parsing: socket.read(Hello.bytes))?.verdict == expected)
    }
  }

  @Test func whoClaimsTheIdOfALiveNodeIsRefused() throws {
    try withConnectedPair(
      Endpoint(1) { $0.impostorWindowNanoseconds = 60_000_000_000 }, Endpoint(2)
    ) { first, second in
      let socket = try RawClient(first.address)
      socket.write(Hello(channel: .messages, clusterID: 77, from: 2, to: 1, instance: 12345).encoded())
      #expect(Hello(parsing: socket.read(Hello.bytes))?.verdict == .impostor)
      #expect(first.lines.contains("same id is connected already"))
      let own = try RawClient(first.address)
      own.write(Hello(channel: .messages, clusterID: 77, from: 1, to: 1, instance: 12345).encoded())
      #expect(Hello(parsing: own.read(Hello.bytes))?.verdict == .impostor)
      second.perform { $0.send(Message(type: .vote, to: 1, from: 2, term: 3)) }
      #expect(eventually { first.seen.withLock { $0.messages.map(\.term) } == [3] })
    }
  }

  @Test func bytesThatAreNoHelloEndTheConnection() throws {
    let node = try Endpoint(1)
    node.start()
    defer { node.stop() }
    let socket = try RawClient(node.address)
    socket.write(Array("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody\r\nAccept: */*\r\n\r\n".utf8))
    #expect(socket.read(1).isEmpty)
    #expect(eventually { node.lines.contains("not the hello of a node") })
  }

  enum Damage: CaseIterable {
    case frameChecksum, frameLength, hugeLength, messageChecksum, entryChecksum, sender, kind
  }

  @Test(arguments: Damage.allCases)
  func aBrokenFrameEndsTheConnectionAndNothingOfItIsDelivered(damage: Damage) throws {
    let node = try Endpoint(1) { $0.admitsUnknownNodes = true }
    node.start()
    defer { node.stop() }
    let socket = try RawClient(node.address)
    socket.write(Hello(channel: .messages, clusterID: 77, from: 2, to: 1, instance: 3).encoded())
    #expect(Hello(parsing: socket.read(Hello.bytes))?.verdict == .welcome)
    let good = RawClient.frame(makeAppend(from: 2, to: 1, index: 0, count: 2), clusterID: 77, sender: 2)
    socket.write(good)
    #expect(eventually { node.seen.withLock { $0.messages.count } == 1 })
    var bad = good
    switch damage {
    case .frameChecksum: bad[16] ^= 1
    case .frameLength: bad[0] = 8; bad[1] = 0; bad[2] = 0; bad[3] = 0
    case .hugeLength: bad[3] = 0x7F
    case .messageChecksum: bad[FrameHeader.bytes + 30] ^= 1
    case .entryChecksum: bad[bad.count - 20] ^= 1
    case .sender: bad = RawClient.frame(makeAppend(from: 3, to: 1, index: 0, count: 2), clusterID: 77, sender: 3)
    case .kind:
      bad = RawClient.frame(
        makeAppend(from: 2, to: 1, index: 0, count: 2), clusterID: 77, sender: 2, kind: .snapshotChunk)
    }
    socket.write(bad + good)
    #expect(socket.read(1).isEmpty)
    #expect(eventually { node.seen.withLock { $0.connected.isEmpty } })
    #expect(node.seen.withLock { $0.messages.count } == 1)
    #expect(node.lines.contains("connection to node 2 ended"))
  }

  @Test func aStoppedPeerCostsBoundedMemoryAndIsReported() throws {
    let limit = 1 << 20
    let sender = try Endpoint(1) {
      $0.maximumQueuedBytesPerPeer = limit
      $0.admitsUnknownNodes = true
    }
    sender.start()
    defer { sender.stop() }
    let socket = try RawClient(sender.address)
    socket.write(Hello(channel: .messages, clusterID: 77, from: 2, to: 1, instance: 3).encoded())
    #expect(Hello(parsing: socket.read(Hello.bytes))?.verdict == .welcome)
    #expect(eventually { sender.seen.withLock { $0.connected == [2] } })
    // The peer reads nothing: the kernel's buffers fill, then ours, then messages are dropped.
    let message = makeAppend(from: 1, to: 2, index: 0, count: 64, payloadBytes: 4096)
    for _ in 0..<200 { sender.perform { transport in for _ in 0..<16 { transport.send(message) } } }
    #expect(eventually { sender.seen.withLock { $0.unreachable.contains(2) } })
    let dropped = sender.seen.withLock { $0.counters.messagesDropped }
    #expect(dropped > 1000)
    let queued = Mutex(0)
    sender.perform { transport in
      guard let link = (transport as? TCPTransport)?.link(of: 2) else { return }
      queued.withLock { $0 = link.outbound.queuedBytes }
    }
    #expect(queued.withLock { $0 } > 0)
    #expect(queued.withLock { $0 } <= limit)
  }

  @Test func connectionsComeBackAfterAPeerRestarts() throws {
    let first = try Endpoint(1)
    var second = try Endpoint(2)
    let port = second.address.port
    connectPair(first, second)
    defer { first.stop() }
    #expect(eventually { first.seen.withLock { $0.connected == [2] } })
    second.stop()
    #expect(eventually { first.seen.withLock { $0.connected.isEmpty } })
    first.perform { $0.send(makeAppend(from: 1, to: 2, index: 0, count: 1)) }
    #expect(eventually { first.seen.withLock { $0.unreachable.contains(2) } })
    second = try Endpoint(2, port: port) { $0.seed = 6 }
    second.transport.addPeer(1, address: first.address)
    second.start()
    defer { second.stop() }
    #expect(eventually { first.seen.withLock { $0.connected == [2] } })
    first.perform { $0.send(Message(type: .vote, to: 2, from: 1, term: 8)) }
    #expect(eventually { second.seen.withLock { $0.messages.last?.term } == 8 })
  }

  @Test(arguments: [0, 1, 300_000, 3_000_000])
  func snapshotsTravelBesideTheMessages(size: Int) throws {
    try withConnectedPair(Endpoint(1), Endpoint(2)) { first, second in
      let data = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      first.sendSnapshot(data)
      #expect(eventually { first.seen.withLock { $0.snapshotsSent == [true] } })
      second.seen.withLock { seen in
        #expect(seen.snapshots.count == 1)
        #expect(seen.snapshots.first?.data == data)
        #expect(seen.snapshots.first?.message.snapshot?.metadata.index == 99)
      }
      #expect(first.seen.withLock { $0.connected == [2] })
    }
  }

  @Test("A snapshot whose connection breaks, seen by either side first, goes on where it was", arguments: [1, 2])
  func snapshotsAreResumed(breaker: NodeID) throws {
    try withConnectedPair(Endpoint(1), Endpoint(2)) { first, second in
      let data = distinctData(kilobytes: 12_000)
      // Further apart, and further from the end, than a window: what is under way when one comes does not reach the next, at
      // which there might be no connection to break.
      let breaks = Mutex([8_000_000, 4_500_000, 1_000_000])
      let breaking = breaker == 1 ? first : second
      second.onSnapshotBytes.withLock {
        $0 = { count in
          let isDue = breaks.withLock { breaks in
            guard let next = breaks.last, next <= count else { return false }
            breaks.removeLast()
            return true
          }
          guard isDue else { return }
          // In the next turn of a loop without which the transfer does not go on: it has not ended by then.
          breaking.post(loseTransfers)
        }
      }
      first.sendSnapshot(data)
      #expect(eventually { first.seen.withLock { !$0.snapshotsSent.isEmpty } })
      #expect(first.seen.withLock { $0.snapshotsSent } == [true])
      second.seen.withLock { seen in
        #expect(seen.snapshotsBegun == 1, "it began anew")
        // Apart: a difference of megabytes takes minutes to print.
        let isEqual = seen.snapshots.first?.data == data
        #expect(isEqual)
      }
      #expect(breaks.withLock { $0.isEmpty })
      #expect(snapshotsResumed(second) == 3)
    }
  }

  @Test func aSnapshotThatNobodyWantsIsReportedAsFailed() throws {
    try withConnectedPair(Endpoint(1), Endpoint(2)) { first, second in
      second.seen.withLock { $0.wantsSnapshots = false }
      first.sendSnapshot([1])
      #expect(eventually { first.seen.withLock { $0.snapshotsSent == [false] } })
    }
  }

  @Test func progressOfSnapshotsIsReadAsItWasWritten() {
    for (taken, verdict) in [(0, SnapshotProgress.Verdict.continues), (77 << 33, .whole), (1, .refused)] {
      let progress = SnapshotProgress(takenBytes: taken, verdict: verdict)
      #expect(SnapshotProgress(parsing: progress.encoded()) == progress)
    }
    let bytes = SnapshotProgress(takenBytes: 5, verdict: .whole).encoded()
    #expect(SnapshotProgress(parsing: Array(bytes.dropLast())) == nil)
    for (position, value) in [(7, UInt8(0x80)), (8, 3), (9, 1), (15, 1)] {
      var broken = bytes
      broken[position] = value
      #expect(SnapshotProgress(parsing: broken) == nil)
    }
  }

  @Test func aSnapshotToNobodyIsReportedAsFailed() throws {
    let first = try Endpoint(1) { $0.helloTimeoutNanoseconds = 300_000_000 }
    first.transport.addPeer(2, address: try SocketAddress(host: "127.0.0.1", port: 1))
    first.start()
    defer { first.stop() }
    first.sendSnapshot([1])
    #expect(eventually { first.seen.withLock { $0.snapshotsSent == [false] } })
  }

  @Test func stoppingClosesEveryDescriptor() throws {
    for mechanism in ReadinessMechanism.allCases {
      let before = openDescriptors()
      for _ in 0..<5 {
        try withConnectedPair(
          Endpoint(1, mechanism: mechanism), Endpoint(2, mechanism: mechanism)
        ) { _, _ in }
      }
      // Other tests open descriptors of their own meanwhile: only a leak grows with the rounds.
      #expect(eventually { openDescriptors() <= before + 60 })
    }
  }

  private func openDescriptors() -> Int {
    (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
  }
}

final class ArraySource: SnapshotSource {
  private var rest: ArraySlice<UInt8>
  init(_ bytes: [UInt8]) { rest = bytes[...] }
  func nextChunk(targetBytes: Int) -> [UInt8]? {
    guard !rest.isEmpty else { return nil }
    let chunk = Array(rest.prefix(targetBytes))
    rest = rest.dropFirst(targetBytes)
    return chunk
  }
}

/// A blocking socket that speaks whatever a test wants.
final class RawClient {
  private let descriptor: Int32

  init(_ address: SocketAddress) throws {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    let result = unsafe address.withSocketAddress { unsafe connect(descriptor, $0, $1) }
    try #require(result == 0)
    var timeout = timeval(tv_sec: 20, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit { close(descriptor) }

  func write(_ bytes: [UInt8]) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes {
        send(descriptor, $0.baseAddress.map { $0 + sent }, $0.count - sent, Int32(MSG_NOSIGNAL))
      }
      guard count > 0 else { return }
      sent += count
    }
  }

  /// Up to `count` bytes; fewer only at the end of the connection.
  func read(_ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      var chunk = [UInt8](repeating: 0, count: count - bytes.count)
      let got = recv(descriptor, &chunk, chunk.count, 0)
      guard got > 0 else { break }
      bytes += chunk[..<got]
    }
    return bytes
  }

  static func frame(
    _ message: Message, clusterID: UInt64, sender: NodeID, kind: FrameHeader.Kind = .message
  ) -> [UInt8] {
    let headBytes = MessageCodec.encodedHeaderBytes(of: message)
    var bytes = [UInt8](repeating: 0, count: FrameHeader.bytes + headBytes)
    bytes.withUnsafeMutableBytes { buffer in
      unsafe MessageCodec.encodeHeader(
        of: message, into: UnsafeMutableRawBufferPointer(rebasing: buffer[FrameHeader.bytes...]))
      let header = FrameHeader(
        frameBytes: FrameHeader.bytes + headBytes + message.entries.byteCount, kind: kind, coveredBytes: 0,
        clusterID: clusterID, sender: sender)
      if let base = buffer.baseAddress { unsafe header.seal(base) }
    }
    message.entries.forEachSlice { slice in
      bytes += unsafe [UInt8](slice.slab.bytes(in: slice.offset..<slice.offset + slice.byteCount))
    }
    return bytes
  }
}
