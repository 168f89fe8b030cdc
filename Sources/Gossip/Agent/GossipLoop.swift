import Dispatch
import Glibc
import Synchronization

/// The running part of a node: sockets, timer and membership, all on one serial queue.
///
/// `@unchecked Sendable` holds because every stored variable is touched on `queue` alone: the public `GossipNode` and
/// the hooks reach it only by `queue.async`, and the sources' handlers run there. What others read at any time
/// (`published`) is behind a lock.
final class GossipLoop: @unchecked Sendable {
  let configuration: GossipNodeConfiguration
  let queue: DispatchQueue
  let hookQueue: HookQueue
  let published: PublishedState
  let localAddress: GossipAddress

  var membership: Membership
  var wire: WireConfiguration
  var packetCodec: PacketCodec
  var streamEncoder: StreamEncoder
  var statistics = GossipStatistics()

  var streams: [Int: StreamConnection] = [:]
  var lastStreamIdentifier = 0
  var inboundStreams = 0
  var inboundStreamBytes = 0
  var announcementCompletions: [UInt64: @Sendable (Bool) -> Void] = [:]
  var pingCompletions: [UInt32: @Sendable (UInt64?) -> Void] = [:]
  var seeds: [JoinAddress] = []
  var nextSeedNanoseconds: UInt64 = 0
  var isShutDown = false

  private let sockets: [SocketPair]
  private let sources: [any DispatchSourceRead]
  private let timer: any DispatchSourceTimer
  /// Left by every descriptor when it is closed.
  let closing = DispatchGroup()

  private var armedNanoseconds: UInt64 = .max
  private var nextHousekeepingNanoseconds: UInt64 = 0
  private var isAskingForBroadcasts = false
  private var isAskingForPayload = false
  private var nextPayloadNanoseconds: UInt64 = 0
  var readBuffer = [UInt8](repeating: 0, count: 65_536)
  private var packetBuffer: [UInt8] = []
  private var incoming: [GossipMessage] = []
  private var generator = SystemRandomNumberGenerator()

  /// Opens the sockets; nothing runs before `start`.
  init(_ configuration: GossipNodeConfiguration, hooks: GossipHooks) throws(GossipNodeError) {
    let sockets = try Sockets.openPairs(at: configuration.bind, and: configuration.additionalBinds)
    let bound = sockets[0].bound
    let advertised =
      configuration.advertise
      ?? GossipAddress(ip: bound.ip.isUnspecified ? Resolver.addressToAdvertise() : bound.ip, port: bound.port)
    var settings = configuration.membership
    settings.packetOverheadBytes = configuration.wire.packetOverheadBytes
    settings.asksBeforeAlive = hooks.alive != nil
    if configuration.startsFromWallClock, settings.startIncarnation == 0 {
      settings.startIncarnation = UInt32(clamping: time(nil))
    }
    do throws(MembershipError) {
      membership = try Membership(
        name: configuration.name, address: advertised, metadata: configuration.metadata, configuration: settings,
        seed: SystemRandomNumberGenerator().randomSeed, nowNanoseconds: Self.now())
    } catch {
      for pair in sockets { pair.close() }
      throw .membership(error)
    }
    var wire = configuration.wire
    wire.protocolVersion = settings.versions.protocolCurrent
    self.configuration = configuration
    self.wire = wire
    packetCodec = PacketCodec(wire)
    streamEncoder = StreamEncoder(wire)
    localAddress = advertised
    self.sockets = sockets
    let queue = DispatchQueue(label: "weir.gossip.\(configuration.name)")
    hookQueue = HookQueue(
      hooks: hooks, name: "\(configuration.name)", limit: configuration.maximumWaitingHookCalls)
    published = PublishedState(local: membership.localMember)
    self.queue = queue
    sources = sockets.flatMap { [$0.datagram, $0.listener] }.map {
      DispatchSource.makeReadSource(fileDescriptor: $0, queue: queue)
    }
    timer = DispatchSource.makeTimerSource(queue: queue)
  }

  /// Nanoseconds of a clock that never goes back.
  static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  func start() {
    for (pair, index) in zip(sockets, stride(from: 0, to: sources.count, by: 2)) {
      let (datagram, listener) = (pair.datagram, pair.listener)
      sources[index].setEventHandler { [weak self] in self?.accounted { $0.packetsArrived(at: datagram) } }
      sources[index + 1].setEventHandler { [weak self] in self?.accounted { $0.acceptStreams(from: listener) } }
      for (source, descriptor) in [(sources[index], datagram), (sources[index + 1], listener)] {
        closing.enter()
        source.setCancelHandler { [closing] in
          Glibc.close(descriptor)
          closing.leave()
        }
      }
    }
    timer.setEventHandler { [weak self] in self?.accounted { $0.timerFired() } }
    for source in sources { source.activate() }
    timer.activate()
    queue.async { [self] in
      nextHousekeepingNanoseconds = Self.now()
      performOutbox()
    }
  }

  // MARK: Time

  /// Runs what the network or the timer has set off, counts the processor time that it takes, and publishes the counts.
  func accounted(_ body: (GossipLoop) -> Void) {
    let before = Self.threadProcessorTime()
    body(self)
    statistics.cpuNanoseconds &+= Self.threadProcessorTime() &- before
    published.update(statistics: statistics)
  }

  private static func threadProcessorTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  private func timerFired() {
    armedNanoseconds = .max
    // Whoever slept through its deadlines reads its mail before it acts on them: the answers that it would miss, and
    // the refutations of what it is about to declare, are probably lying there.
    for pair in sockets { readPackets(from: pair.datagram) }
    let now = Self.now()
    membership.tick(nowNanoseconds: now)
    closeOverdueStreams(nowNanoseconds: now)
    if now >= nextHousekeepingNanoseconds { doHousekeeping(nowNanoseconds: now) }
    performOutbox()
  }

  /// What the application's queues and hooks need regularly.
  private func doHousekeeping(nowNanoseconds now: UInt64) {
    let settings = membership.configuration
    askForBroadcasts()
    if now >= nextPayloadNanoseconds {
      nextPayloadNanoseconds = Formulas.saturatingSum(now, settings.probeIntervalNanoseconds)
      askForAckPayload()
    }
    retryJoinIfAlone(nowNanoseconds: now)
    let providesBroadcasts = hookQueue.hooks.delegate?.providesBroadcasts ?? false
    nextHousekeepingNanoseconds = Formulas.saturatingSum(
      now, max(1, providesBroadcasts ? settings.gossipIntervalNanoseconds : settings.probeIntervalNanoseconds))
  }

  /// Sets the timer for whatever is due next, if it is not set for an earlier time already.
  func armTimer() {
    guard !isShutDown else { return }
    var next = min(membership.nextDeadlineNanoseconds, nextHousekeepingNanoseconds)
    for stream in streams.values { next = min(next, stream.deadlineNanoseconds) }
    guard next < armedNanoseconds else { return }
    armedNanoseconds = next
    let now = Self.now()
    let wait = next > now ? Int(clamping: next - now) : 0
    timer.schedule(deadline: .now() + .nanoseconds(wait), leeway: .nanoseconds(0))
  }

  // MARK: Packets

  private func packetsArrived(at descriptor: Int32) {
    readPackets(from: descriptor)
    performOutbox()
  }

  /// At most so many in one go, so that a flood of packets cannot keep the timers from running.
  private static let packetsPerWake = 512

  private func readPackets(from descriptor: Int32) {
    guard !isShutDown else { return }
    for _ in 0..<Self.packetsPerWake {
      let (count, source) = SocketAddress.receiving { address, length in
        readBuffer.withUnsafeMutableBytes {
          recvfrom(descriptor, $0.baseAddress, $0.count, 0, address, length)
        }
      }
      guard count >= 0 else {
        if errno == EINTR { continue }
        return
      }
      guard count > 0, let source = source.gossipAddress else { continue }
      statistics.packetsReceived += 1
      statistics.packetBytesReceived += count
      incoming.removeAll(keepingCapacity: true)
      do throws(WireError) {
        let summary = try packetCodec.decode(readBuffer.span.extracting(0..<count), into: &incoming)
        statistics.droppedMessages += summary.droppedMessages
      } catch {
        statistics.refusedPackets += 1
        continue
      }
      let now = Self.now()
      for message in incoming { membership.receive(message, from: source, nowNanoseconds: now) }
    }
  }

  private func sendPacket(_ body: Range<Int>, to address: GossipAddress, withChecksum: Bool) {
    packetBuffer.removeAll(keepingCapacity: true)
    let bytes = membership.outbox.bytes  // shares them; nothing is copied
    do throws(WireError) {
      try packetCodec.encode(
        body: bytes.span.extracting(body), withCRC: withChecksum, into: &packetBuffer, using: &generator)
    } catch {
      statistics.unsentPackets += 1
      return
    }
    let pair = sockets.first { $0.reaches(address) } ?? sockets[0]
    let result = SocketAddress(address, isIPv6Socket: pair.isIPv6).withPointer { pointer, length in
      packetBuffer.withUnsafeBytes {
        sendto(pair.datagram, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL), pointer, length)
      }
    }
    if result >= 0 {
      statistics.packetsSent += 1
      statistics.packetBytesSent += packetBuffer.count
      return
    }
    statistics.unsentPackets += 1
    switch errno {
    case ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN: failedAddresses.append(address)
    default: break
    }
  }

  /// Told to the membership after the outbox has been emptied.
  private var failedAddresses: [GossipAddress] = []

  // MARK: Decisions

  /// Does what the membership has decided, publishes what changed, and sets the timer.
  func performOutbox() {
    while !membership.outbox.isEmpty {
      var hasChanged = false
      // Counted anew each time: doing one thing may decide another.
      var index = 0
      while index < membership.outbox.actions.count {
        perform(membership.outbox.actions[index], hasChanged: &hasChanged)
        index += 1
      }
      membership.clearOutbox()
      if hasChanged { published.update(members: membership.members, local: membership.localMember) }
      let failed = failedAddresses
      failedAddresses.removeAll(keepingCapacity: true)
      for address in failed { membership.sendFailed(to: address, nowNanoseconds: Self.now()) }
    }
    published.update(healthScore: membership.health.score)
    armTimer()
  }

  private func perform(_ action: Action, hasChanged: inout Bool) {
    guard !isShutDown else { return }
    switch action {
    case .sendPacket(let address, let body, let withChecksum):
      sendPacket(body, to: address, withChecksum: withChecksum)
    case .openStreamPing(let address, let ping, let deadline):
      dial(
        address, purpose: .ping(sequenceNumber: ping.sequenceNumber), message: .ping(ping),
        deadlineNanoseconds: deadline)
    case .openPushPull(let address, _, let isJoin):
      exchangeState(with: address, isJoin: isJoin, expectedName: nil) { _ in }
    case .deliver(let range):
      let message = Array(membership.outbox.bytes[range])
      callHooks { $0.delegate?.receive(userMessage: message) }
    case .event(let event):
      hasChanged = true
      published.send(event)
      if hookQueue.hooks.events != nil { callHooks { $0.events?.memberChanged(event) } }
    case .conflict(let existing, let other):
      callHooks { $0.conflicts?.nameConflict(existing: existing, other: other) }
    case .voteAlive(let announcement): askAboutAlive(announcement)
    case .pingCompleted(let name, let roundTrip, let range):
      guard hookQueue.hooks.pings != nil, let member = membership.member(named: name) else { return }
      let payload = Array(membership.outbox.bytes[range])
      callHooks { $0.pings?.pingCompleted(member, roundTripNanoseconds: roundTrip, payload: payload) }
    case .userPingFinished(let number, let roundTrip):
      pingCompletions.removeValue(forKey: number)?(roundTrip)
    case .announcementFinished(let number, let wasDelivered):
      announcementCompletions.removeValue(forKey: number)?(wasDelivered)
    case .notice(let notice): note(notice, hasChanged: &hasChanged)
    }
  }

  private func note(_ notice: Notice, hasChanged: inout Bool) {
    switch notice {
    case .suspected: statistics.suspicions += 1
    case .declaredDead: statistics.deathsDeclared += 1
    case .refuted:
      statistics.refutations += 1
      hasChanged = true
    case .answeredByStreamOnly, .pingForAnother, .malformedMessage, .announcementRefused: break
    }
  }

  // MARK: Hooks

  func callHooks(_ call: @escaping @Sendable (GossipHooks) -> Void) {
    hookQueue.call(call)
  }

  private func askAboutAlive(_ announcement: Alive) {
    let member = Member(
      name: announcement.node, address: announcement.address, metadata: announcement.meta, state: .alive,
      incarnation: announcement.incarnation, versions: announcement.versions ?? .unknown)
    callHooks { [weak self] hooks in
      guard (try? hooks.alive?.approveAlive(member)) != nil, let self else { return }
      queue.async {
        guard !self.isShutDown else { return }
        self.membership.handleAlive(announcement, nowNanoseconds: Self.now())
        self.performOutbox()
      }
    }
  }

  private func askForAckPayload() {
    guard hookQueue.hooks.pings != nil, !isAskingForPayload else { return }
    isAskingForPayload = hookQueue.call { [weak self] hooks in
      let payload = hooks.pings?.ackPayload()
      guard let self else { return }
      queue.async {
        self.isAskingForPayload = false
        self.membership.ackPayload = payload
      }
    }
  }

  private func askForBroadcasts() {
    guard hookQueue.hooks.delegate?.providesBroadcasts == true, !isAskingForBroadcasts,
      membership.offeredBytes == 0, membership.knownMemberCount > 1
    else { return }
    let settings = membership.configuration
    let limit = max(0, settings.packetSizeBytes - settings.packetOverheadBytes - PacketComposer.compoundHeaderBytes)
    let packets = max(1, settings.gossipNodes)
    isAskingForBroadcasts = hookQueue.call { [weak self] hooks in
      var messages: [[UInt8]] = []
      for _ in 0..<packets {
        let batch = hooks.delegate?.broadcasts(overheadBytes: 3, limitBytes: limit) ?? []
        if batch.isEmpty { break }
        messages += batch
      }
      let offered = messages
      guard let self else { return }
      queue.async {
        guard !self.isShutDown else { return }
        self.isAskingForBroadcasts = false
        self.membership.offer(offered, nowNanoseconds: Self.now())
        self.performOutbox()
      }
    }
  }

  // MARK: End

  /// Closes everything; nobody is told. `completion` is called when every descriptor is closed.
  func shutDown(completion: @escaping @Sendable () -> Void) {
    if !isShutDown {
      isShutDown = true
      timer.cancel()
      for source in sources { source.cancel() }
      for stream in Array(streams.values) { finish(stream, .failure(.isShutDown)) }
      for completion in announcementCompletions.values { completion(false) }
      announcementCompletions.removeAll()
      for completion in pingCompletions.values { completion(nil) }
      pingCompletions.removeAll()
      published.finish()
    }
    closing.notify(queue: queue, execute: completion)
  }
}

extension SystemRandomNumberGenerator {
  fileprivate var randomSeed: UInt64 {
    var generator = self
    return generator.next()
  }
}
