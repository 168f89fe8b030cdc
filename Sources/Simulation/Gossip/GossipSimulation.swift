import Gossip

/// A cluster of memberships in virtual time: the same seed gives the same trace.
///
/// Packets carry the real encoded bytes and are decoded on arrival; what is counted is what a real node would send.
public struct GossipSimulation: ~Copyable {
  public struct Configuration: Sendable {
    public var nodeCount: Int
    public var seed: UInt64
    public var membership = MembershipConfiguration.lan
    public var network = GossipNetwork.calm
    /// Label, encryption and compression of the packets.
    public var wire = WireConfiguration()
    /// Whether packets are compressed, checksummed and sealed as configured. Off leaves them plain, which a long run with
    /// a network that never alters bytes can do without; sizes then are those of the plain packets with their checksum.
    public var sealsPackets = true

    public init(nodeCount: Int, seed: UInt64) {
      self.nodeCount = nodeCount
      self.seed = seed
    }
  }

  /// One member as the simulation sees it.
  final class Node {
    var membership: Membership
    var isCrashed = false
    var isPaused = false
    /// What arrived while paused, in order: kind and slot.
    var mail: [Event] = []
    /// Until then the member's packets and streams are held back, in both directions.
    var stallEnd: UInt64 = 0
    /// The time of the tick that is scheduled for it.
    var scheduledTick: UInt64 = .max

    init(_ membership: consuming Membership) { self.membership = membership }
  }

  /// A packet or a stream's message under way.
  struct Parcel {
    enum Content {
      case packet([UInt8])
      case streamPing(Ping, deadline: UInt64)
      case streamAck(sequenceNumber: UInt32, deadline: UInt64)
      case pushPull(PushPull)
      case pushPullAnswer(PushPull)
    }
    var from: Int
    var to: Int
    var content: Content
  }

  public let configuration: Configuration
  /// Virtual nanoseconds since the start.
  public private(set) var now: UInt64 = 0
  /// A digest of everything that happened.
  public private(set) var trace = TraceHash()
  /// What the members were told and did, in order.
  public private(set) var log: [GossipLogEntry] = []
  public private(set) var traffic = GossipTraffic()
  /// Events handled so far.
  public private(set) var eventCount = 0

  private var nodes: [Node] = []
  private var groups: [Int]
  private var queue = EventQueue(capacity: 4096)
  private var parcels = SlotPool<Parcel>()
  private var random: RandomStream
  private var codec: PacketCodec
  private var streamEncoder: StreamEncoder
  private var generator: RandomStream
  private var messages: [GossipMessage] = []
  private var indexOfName: [NodeName: Int] = [:]

  public init(_ configuration: Configuration) throws {
    self.configuration = configuration
    groups = Array(repeating: 0, count: configuration.nodeCount)
    random = RandomStream(seed: configuration.seed, purpose: .network)
    generator = RandomStream(seed: configuration.seed, purpose: .configuration)
    var wire = configuration.wire
    if !configuration.sealsPackets {
      wire.isCompressionEnabled = false
      wire.keyring = nil
      wire.label = []
    }
    codec = PacketCodec(wire)
    streamEncoder = StreamEncoder(wire)
    var membership = configuration.membership
    membership.packetOverheadBytes = wire.packetOverheadBytes
    for index in 0..<configuration.nodeCount {
      let seed = RandomStream(seed: configuration.seed, purpose: .timeouts, instance: UInt64(index))
      var seeds = seed
      let name = Self.name(index)
      nodes.append(
        Node(
          try Membership(
            name: name, address: Self.address(index), configuration: membership, seed: seeds.next(),
            nowNanoseconds: 0)))
      indexOfName[name] = index
    }
    for index in nodes.indices { settle(index) }
  }

  public static func name(_ index: Int) -> NodeName { NodeName("n\(index)") }

  static func address(_ index: Int) -> GossipAddress {
    GossipAddress(ip: IPAddress(v4: 0x0A00_0001 &+ UInt32(truncatingIfNeeded: index)), port: 7946)
  }

  private func index(of address: GossipAddress) -> Int? {
    let index = Int(address.ip.low) - 0x0A00_0001
    return nodes.indices.contains(index) ? index : nil
  }

  // MARK: What happens to the cluster

  /// Makes every member known to every other, as if they had all joined long ago.
  public mutating func joinAll() {
    let everybody = nodes.indices.map { index in
      PushPullNodeState(
        name: Self.name(index), address: Self.address(index), incarnation: 1, state: .alive,
        versions: configuration.membership.versions)
    }
    for index in nodes.indices {
      nodes[index].membership.mergeRemoteState(
        PushPull(isJoin: true, nodes: everybody), nowNanoseconds: now)
      settle(index)
    }
  }

  /// Has one member exchange full state with another.
  public mutating func join(_ index: Int, through other: Int) {
    openPushPull(from: index, to: other, isJoin: true)
  }

  /// Stops a member without a word.
  public mutating func crash(_ index: Int) {
    nodes[index].isCrashed = true
  }

  /// Lets a member stand still for so long: it neither reads nor acts, and what arrives waits.
  public mutating func pause(_ index: Int, nanoseconds: UInt64) {
    guard !nodes[index].isPaused, !nodes[index].isCrashed else { return }
    nodes[index].isPaused = true
    queue.push(at: now + nanoseconds, .faultEnds, subject: index)
  }

  /// Holds back for so long what a member sends and what it is sent, while its timers run on: a process that gets too
  /// little processor time for its network threads, or whose network stands still (the anomaly of the Lifeguard paper).
  public mutating func stall(_ index: Int, nanoseconds: UInt64) {
    nodes[index].stallEnd = max(nodes[index].stallEnd, now + nanoseconds)
  }

  /// Puts members into groups that cannot reach each other; one group number for each member.
  public mutating func partition(_ groups: [Int]) {
    precondition(groups.count == nodes.count, "one group for each member")
    self.groups = groups
  }

  /// Ends the partition.
  public mutating func heal() {
    groups = Array(repeating: 0, count: nodes.count)
  }

  public mutating func broadcast(_ payload: [UInt8], from index: Int) throws {
    try nodes[index].membership.broadcast(payload, nowNanoseconds: now)
    settle(index)
  }

  public mutating func leave(_ index: Int) throws {
    _ = try nodes[index].membership.leave(timeoutNanoseconds: 5_000_000_000, nowNanoseconds: now)
    settle(index)
  }

  // MARK: What can be seen

  /// How a member sees another; nil if it does not know it.
  public func state(of subject: Int, seenBy observer: Int) -> NodeStateKind? {
    nodes[observer].membership.member(named: Self.name(subject))?.state
  }

  public func memberCount(seenBy observer: Int) -> Int { nodes[observer].membership.members.count }
  public func healthScore(of index: Int) -> Int { nodes[index].membership.health.score }
  public func counters(of index: Int) -> MembershipCounters { nodes[index].membership.counters }

  /// Forgets what was logged and counted, to measure from here on.
  public mutating func resetMeasurements() {
    log.removeAll()
    traffic = GossipTraffic()
  }

  // MARK: Time

  /// Lets virtual time pass.
  public mutating func run(forNanoseconds duration: UInt64) {
    run(untilNanoseconds: now + duration) { _ in false }
  }

  /// Lets virtual time pass until `isDone` says so after an event, or until the time is reached.
  public mutating func run(untilNanoseconds end: UInt64, isDone: (borrowing GossipSimulation) -> Bool) {
    // An event without effect at the end lets time get there even when nothing else happens.
    queue.push(at: end, .end)
    while let event = queue.pop() {
      now = event.time
      eventCount += 1
      if event.kind == .end {
        if event.time >= end { return }
        continue
      }
      handle(event)
      if isDone(self) { return }
    }
  }

  private mutating func handle(_ event: Event) {
    let index = Int(event.subject)
    let node = nodes[index]
    if event.kind == .faultEnds {
      node.isPaused = false
      let mail = node.mail
      node.mail.removeAll()
      // Whoever wakes up reads first and acts on its overdue timers then, as the agent does.
      for event in mail { deliver(event.argument, to: index) }
      tick(index)
      return
    }
    guard !node.isCrashed else {
      if event.kind == .deliver { _ = parcels.take(event.argument) }
      return
    }
    switch event.kind {
    case .tick:
      guard event.time == node.scheduledTick, !node.isPaused else { return }
      tick(index)
    case .deliver:
      if node.isPaused {
        // The kernel's buffer holds some thousands of small packets and drops the rest.
        if node.mail.count < 4096 { node.mail.append(event) } else { _ = parcels.take(event.argument) }
      } else if now < node.stallEnd {
        queue.push(at: node.stallEnd, .deliver, subject: index, argument: event.argument)
      } else {
        deliver(event.argument, to: index)
      }
    default: break
    }
  }

  private mutating func tick(_ index: Int) {
    nodes[index].scheduledTick = .max
    nodes[index].membership.tick(nowNanoseconds: now)
    settle(index)
  }

  // MARK: Delivery

  private mutating func deliver(_ slot: Int, to index: Int) {
    guard let parcel = parcels.take(slot), !nodes[index].isCrashed else { return }
    trace.add(now ^ UInt64(parcel.from) << 48 ^ UInt64(index) << 32)
    switch parcel.content {
    case .packet(let bytes): receivePacket(bytes, from: parcel.from, to: index)
    case .streamPing(let ping, let deadline):
      guard let ack = nodes[index].membership.answer(ping) else { return }
      let content = Parcel.Content.streamAck(sequenceNumber: ack.sequenceNumber, deadline: deadline)
      sendSegment(content, from: index, to: parcel.from)
    case .streamAck(let sequenceNumber, let deadline):
      guard now <= deadline else { return }
      nodes[index].membership.streamPingSucceeded(sequenceNumber: sequenceNumber, nowNanoseconds: now)
    case .pushPull(let remote):
      let answer = nodes[index].membership.localState(isJoin: remote.isJoin)
      count(.pushPull(answer))
      sendSegment(.pushPullAnswer(answer), from: index, to: parcel.from)
      nodes[index].membership.mergeRemoteState(remote, nowNanoseconds: now)
    case .pushPullAnswer(let remote):
      nodes[index].membership.mergeRemoteState(remote, nowNanoseconds: now)
    }
    settle(index)
  }

  private mutating func receivePacket(_ bytes: [UInt8], from: Int, to index: Int) {
    messages.removeAll(keepingCapacity: true)
    guard (try? codec.decode(bytes.span, into: &messages)) != nil else {
      preconditionFailure("a packet of ours was refused by our own decoder")
    }
    traffic.messages += messages.count
    let source = Self.address(from)
    for message in messages {
      nodes[index].membership.receive(message, from: source, nowNanoseconds: now)
    }
  }

  // MARK: Decisions

  /// Does what a member has decided, and schedules its next tick.
  private mutating func settle(_ index: Int) {
    let node = nodes[index]
    var position = 0
    while position < node.membership.outbox.actions.count {
      perform(node.membership.outbox.actions[position], of: index)
      position += 1
    }
    node.membership.clearOutbox()
    let next = max(now, node.membership.nextDeadlineNanoseconds)
    if next < node.scheduledTick {
      node.scheduledTick = next
      queue.push(at: next, .tick, subject: index)
    }
  }

  private mutating func perform(_ action: Action, of index: Int) {
    switch action {
    case .sendPacket(let address, let body, let withChecksum):
      sendPacket(Array(nodes[index].membership.outbox.bytes[body]), from: index, to: address, withChecksum)
    case .openStreamPing(let address, let ping, let deadline):
      guard let other = self.index(of: address) else { return }
      count(.ping(ping))
      dial(.streamPing(ping, deadline: deadline), from: index, to: other)
    case .openPushPull(let address, _, let isJoin):
      guard let other = self.index(of: address) else { return }
      openPushPull(from: index, to: other, isJoin: isJoin)
    case .deliver: note(.delivered, observer: index, subject: index)
    case .event(.joined(let member)): note(.joined, observer: index, subject: member.name)
    case .event(.left(let member)):
      note(member.state == .left ? .left : .died, observer: index, subject: member.name)
    case .event(.updated(let member)): note(.updated, observer: index, subject: member.name)
    case .notice(.suspected(let name)): note(.suspected, observer: index, subject: name)
    case .notice(.declaredDead(let name, _)): note(.declaredDead, observer: index, subject: name)
    case .notice(.refuted): note(.refuted, observer: index, subject: index)
    case .notice, .conflict, .voteAlive, .pingCompleted, .userPingFinished, .announcementFinished: break
    }
  }

  private mutating func note(_ kind: GossipLogEntry.Kind, observer: Int, subject name: NodeName) {
    note(kind, observer: observer, subject: indexOfName[name] ?? -1)
  }

  private mutating func note(_ kind: GossipLogEntry.Kind, observer: Int, subject: Int) {
    trace.add(now &+ UInt64(observer) << 40 &+ UInt64(truncatingIfNeeded: subject) << 20 &+ UInt64(kind.rawValue))
    log.append(GossipLogEntry(timeNanoseconds: now, observer: observer, subject: subject, kind: kind))
  }

  // MARK: Network

  private mutating func sendPacket(
    _ body: [UInt8], from index: Int, to address: GossipAddress, _ withChecksum: Bool
  ) {
    var bytes = body
    var size = body.count + (withChecksum ? PacketCodec.checksumOverheadBytes : 0)
    if configuration.sealsPackets {
      do throws(WireError) {
        bytes = try codec.encode(messages: [body], withCRC: withChecksum, using: &generator)
      } catch {
        preconditionFailure("a packet of ours cannot be encoded: \(error)")
      }
      size = bytes.count
    }
    traffic.packets += 1
    traffic.packetBytes += size
    guard let other = self.index(of: address), groups[index] == groups[other] else { return }
    var copies = 1
    if random.chance(perMillion: configuration.network.lossPerMillion) { copies -= 1 }
    if random.chance(perMillion: configuration.network.duplicatePerMillion) { copies += 1 }
    for _ in 0..<copies {
      let slot = parcels.put(Parcel(from: index, to: other, content: .packet(bytes)))
      let departure = max(now, nodes[index].stallEnd)
      queue.push(at: departure + configuration.network.delay(&random), .deliver, subject: other, argument: slot)
    }
  }

  private mutating func openPushPull(from index: Int, to other: Int, isJoin: Bool) {
    let state = nodes[index].membership.localState(isJoin: isJoin)
    count(.pushPull(state))
    dial(.pushPull(state), from: index, to: other)
  }

  /// Counts the bytes of a stream's message.
  private mutating func count(_ message: StreamMessage) {
    traffic.streamMessages += 1
    if let bytes = try? streamEncoder.encode(message, side: .dialer, using: &generator) {
      traffic.streamBytes += bytes.count
    }
  }

  /// Connects (two ways) and sends a request.
  private mutating func dial(_ content: Parcel.Content, from index: Int, to other: Int) {
    let network = configuration.network
    guard let there = network.segmentDelay(&random, firstRetryNanoseconds: 1_000_000_000),
      let back = network.segmentDelay(&random, firstRetryNanoseconds: 1_000_000_000)
    else { return }
    sendSegment(content, from: index, to: other, afterNanoseconds: there + back)
  }

  private mutating func sendSegment(
    _ content: Parcel.Content, from index: Int, to other: Int, afterNanoseconds wait: UInt64 = 0
  ) {
    guard groups[index] == groups[other],
      let delay = configuration.network.segmentDelay(&random, firstRetryNanoseconds: 200_000_000)
    else { return }
    let slot = parcels.put(Parcel(from: index, to: other, content: content))
    let departure = max(now, nodes[index].stallEnd)
    queue.push(at: departure + wait + delay, .deliver, subject: other, argument: slot)
  }
}

/// Something that a member noticed.
public struct GossipLogEntry: Sendable, Hashable {
  public enum Kind: UInt8, Sendable {
    /// The observer's own probe of the subject failed.
    case suspected
    /// The observer's own suspicion of the subject ran out.
    case declaredDead
    /// The observer learned that the subject is dead.
    case died
    case left
    case joined
    case updated
    /// The observer refuted an accusation.
    case refuted
    /// A user message reached the observer.
    case delivered
  }
  public var timeNanoseconds: UInt64
  public var observer: Int
  public var subject: Int
  public var kind: Kind
}

/// What all members together have sent.
public struct GossipTraffic: Sendable, Hashable {
  public var packets = 0
  /// Sizes of the datagrams, without the headers of IP and UDP.
  public var packetBytes = 0
  /// Messages that arrived in packets.
  public var messages = 0
  public var streamMessages = 0
  public var streamBytes = 0
}
