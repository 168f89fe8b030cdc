import Dispatch
import Glibc

/// Streams in and out.
extension GossipLoop {
  // MARK: Accepting

  func acceptStreams(from listener: Int32) {
    // A bounded number, so that a flood of connections cannot keep the packets from being read.
    for _ in 0..<64 {
      let descriptor = Sockets.accept(from: listener)
      guard descriptor >= 0 else {
        if errno == EINTR || errno == ECONNABORTED { continue }
        return
      }
      guard inboundStreams < configuration.maximumInboundStreams, !isShutDown else {
        Glibc.close(descriptor)
        statistics.refusedStreams += 1
        continue
      }
      inboundStreams += 1
      statistics.streamsAccepted += 1
      add(
        .inbound, descriptor: descriptor, isConnected: true, side: .acceptor,
        deadlineNanoseconds: Formulas.saturatingSum(Self.now(), configuration.streamTimeoutNanoseconds))
    }
  }

  @discardableResult
  private func add(
    _ purpose: StreamConnection.Purpose, descriptor: Int32, isConnected: Bool, side: StreamSide,
    deadlineNanoseconds: UInt64
  ) -> StreamConnection {
    lastStreamIdentifier += 1
    let identifier = lastStreamIdentifier
    Sockets.set(descriptor, level: Int32(IPPROTO_TCP), option: TCP_NODELAY, value: 1)
    let stream = StreamConnection(
      identifier: identifier, purpose: purpose, descriptor: descriptor, isConnected: isConnected,
      decoder: StreamDecoder(wire, side: side), deadlineNanoseconds: deadlineNanoseconds, queue: queue,
      closing: closing
    ) { [weak self] in self?.accounted { $0.streamIsReadable(identifier) } }
    streams[identifier] = stream
    return stream
  }

  // MARK: Dialing

  func dial(
    _ address: GossipAddress, purpose: StreamConnection.Purpose, message: StreamMessage, deadlineNanoseconds: UInt64
  ) {
    do throws(GossipNodeError) {
      guard !isShutDown else { throw .isShutDown }
      guard streams.count - inboundStreams < configuration.maximumOutboundStreams else {
        throw .tooManyStreams(limit: configuration.maximumOutboundStreams)
      }
      let bytes = try encode(message, side: .dialer)
      let descriptor = try Sockets.open(isIPv6: !address.ip.isIPv4, type: Sockets.streamType)
      let result = SocketAddress(address, isIPv6Socket: !address.ip.isIPv4).withPointer { pointer, length in
        connect(descriptor, pointer, length)
      }
      guard result == 0 || errno == EINPROGRESS else {
        let code = errno
        Glibc.close(descriptor)
        throw .system(call: "connect to \(address)", code: code)
      }
      statistics.streamsDialed += 1
      let stream = add(
        purpose, descriptor: descriptor, isConnected: result == 0, side: .dialer,
        deadlineNanoseconds: deadlineNanoseconds)
      statistics.streamBytesSent += bytes.count
      stream.enqueue(bytes)
      flush(stream)
      armTimer()
    } catch {
      complete(purpose, .failure(error))
    }
  }

  private func encode(_ message: StreamMessage, side: StreamSide) throws(GossipNodeError) -> [UInt8] {
    var generator = SystemRandomNumberGenerator()
    do throws(WireError) {
      return try streamEncoder.encode(message, side: side, using: &generator)
    } catch {
      throw .wire(error)
    }
  }

  /// Exchanges full state with whoever listens there.
  func exchangeState(
    with address: GossipAddress, isJoin: Bool, expectedName: NodeName?, completion: @escaping StreamCompletion
  ) {
    withUserState(isJoin: isJoin) { [weak self] userState in
      guard let self else { return completion(.failure(.isShutDown)) }
      dial(
        address, purpose: .pushPull(expectedName: expectedName, isJoin: isJoin, completion: completion),
        message: .pushPull(membership.localState(isJoin: isJoin, userState: userState)),
        deadlineNanoseconds: Formulas.saturatingSum(Self.now(), configuration.streamTimeoutNanoseconds))
    }
  }

  /// Asks the application for its part of the state and goes on with it, on the node's queue.
  private func withUserState(isJoin: Bool, _ body: @escaping @Sendable ([UInt8]) -> Void) {
    guard hookQueue.hooks.delegate != nil else { return body([]) }
    let isAsked = hookQueue.call { [queue] hooks in
      let state = hooks.delegate?.localState(isJoin: isJoin) ?? []
      queue.async { body(state) }
    }
    // The members' part is worth exchanging even when the application has fallen behind.
    if !isAsked { body([]) }
  }

  // MARK: Events of one stream

  func streamIsReadable(_ identifier: Int) {
    guard let stream = streams[identifier] else { return }
    do throws(GossipNodeError) {
      reading: while true {
        switch try stream.read(into: &readBuffer) {
        case .nothing: break reading
        case .end:
          guard !stream.isAnswering else { break reading }
          throw .closedByPeer
        case .bytes(let count):
          try take(count, from: stream)
          // A short read has emptied the socket.
          if count < readBuffer.count || streams[identifier] == nil { break reading }
        }
      }
    } catch {
      fail(stream, error)
    }
    performOutbox()
  }

  private func take(_ count: Int, from stream: StreamConnection) throws(GossipNodeError) {
    statistics.streamBytesReceived += count
    guard !stream.isAnswering else { return }
    stream.receivedBytes += count
    if case .inbound = stream.purpose {
      inboundStreamBytes += count
      guard inboundStreamBytes <= configuration.maximumInboundStreamBytes else {
        throw .wire(.tooLarge(byteCount: inboundStreamBytes, limitBytes: configuration.maximumInboundStreamBytes))
      }
    }
    let message: StreamMessage?
    let held = readBuffer  // shares the bytes; nothing is copied
    do throws(WireError) {
      message = try stream.decoder.receive(held.span.extracting(0..<count))
    } catch {
      throw .wire(error)
    }
    if let message { try handle(message, of: stream) }
  }

  private func handle(_ message: StreamMessage, of stream: StreamConnection) throws(GossipNodeError) {
    switch (stream.purpose, message) {
    case (.inbound, .ping(let ping)):
      guard let ack = membership.answer(ping) else { return finish(stream, .failure(.closedByPeer)) }
      try answer(.ack(ack), on: stream)
    case (.inbound, .user(let bytes)):
      membership.receiveStreamUserMessage(bytes, nowNanoseconds: Self.now())
      finish(stream, .success(()))
    case (.inbound, .pushPull(let remote)):
      answerPushPull(remote, on: stream)
    case (.ping(let sequenceNumber), .ack(let ack)) where ack.sequenceNumber == sequenceNumber:
      membership.streamPingSucceeded(sequenceNumber: sequenceNumber, nowNanoseconds: Self.now())
      finish(stream, .success(()))
    case (.pushPull(let expectedName, let isJoin, let completion), .pushPull(let remote)):
      // The merge decides how the exchange ended, not the stream.
      close(stream)
      merge(remote, isJoin: isJoin, expectedName: expectedName, completion: completion)
    case (_, .error(let response)):
      throw .refusedByPeer(response.text)
    default:
      throw .closedByPeer
    }
  }

  private func answer(_ message: StreamMessage, on stream: StreamConnection) throws(GossipNodeError) {
    stream.isAnswering = true
    let bytes = try encode(message, side: .acceptor)
    statistics.streamBytesSent += bytes.count
    stream.enqueue(bytes)
    flush(stream)
  }

  /// Answers before merging, as every member does: each side checks for itself what it takes in.
  private func answerPushPull(_ remote: PushPull, on stream: StreamConnection) {
    stream.isAnswering = true
    let identifier = stream.identifier
    withUserState(isJoin: remote.isJoin) { [weak self] userState in
      guard let self, let stream = streams[identifier] else { return }
      do throws(GossipNodeError) {
        let local = membership.localState(isJoin: remote.isJoin, userState: userState)
        try answer(.pushPull(local), on: stream)
      } catch {
        fail(stream, error)
      }
      merge(remote, isJoin: remote.isJoin, expectedName: nil) { _ in }
      performOutbox()
    }
  }

  private func flush(_ stream: StreamConnection) {
    let identifier = stream.identifier
    do throws(GossipNodeError) {
      try stream.flush { [weak self] in self?.accounted { $0.streamIsWritable(identifier) } }
    } catch {
      return fail(stream, error)
    }
    guard !stream.hasUnsentBytes else { return }
    switch stream.purpose {
    case .inbound where stream.isAnswering: finish(stream, .success(()))
    case .user: finish(stream, .success(()))
    default: break
    }
  }

  private func streamIsWritable(_ identifier: Int) {
    guard let stream = streams[identifier] else { return }
    flush(stream)
    performOutbox()
  }

  // MARK: Ends

  /// Something is wrong with the stream; an inbound peer is told what, if it still listens.
  private func fail(_ stream: StreamConnection, _ error: GossipNodeError) {
    statistics.failedStreams += 1
    if case .inbound = stream.purpose, case .wire(let reason) = error, !stream.isAnswering,
      let bytes = try? encode(.error(ErrorResponse("\(reason)")), side: .acceptor)
    {
      stream.isAnswering = true
      statistics.streamBytesSent += bytes.count
      stream.enqueue(bytes)
      let identifier = stream.identifier
      try? stream.flush { [weak self] in self?.accounted { $0.streamIsWritable(identifier) } }
      if stream.hasUnsentBytes { return }
    }
    finish(stream, .failure(error))
  }

  func finish(_ stream: StreamConnection, _ result: Result<Void, GossipNodeError>) {
    guard close(stream) else { return }
    complete(stream.purpose, result)
  }

  @discardableResult
  private func close(_ stream: StreamConnection) -> Bool {
    guard streams.removeValue(forKey: stream.identifier) != nil else { return false }
    if case .inbound = stream.purpose {
      inboundStreams -= 1
      inboundStreamBytes -= stream.receivedBytes
    }
    stream.close()
    return true
  }

  private func complete(_ purpose: StreamConnection.Purpose, _ result: Result<Void, GossipNodeError>) {
    switch purpose {
    case .inbound, .ping: break
    case .pushPull(_, _, let completion), .user(let completion): completion(result)
    }
  }

  func closeOverdueStreams(nowNanoseconds now: UInt64) {
    for stream in Array(streams.values) where stream.deadlineNanoseconds <= now {
      statistics.failedStreams += 1
      finish(stream, .failure(.timedOut))
    }
  }

  // MARK: Merging

  /// Takes in the other side's state, if versions and the application allow it.
  private func merge(
    _ remote: PushPull, isJoin: Bool, expectedName: NodeName?, completion: @escaping StreamCompletion
  ) {
    do throws(WireError) {
      try membership.verifyVersions(of: remote)
    } catch {
      return completion(.failure(.wire(error)))
    }
    if let expectedName, !remote.nodes.contains(where: { $0.name == expectedName && $0.state == .alive }) {
      return completion(.failure(.wrongMember(expected: expectedName)))
    }
    guard isJoin, hookQueue.hooks.merges != nil else {
      finishMerge(remote, isJoin: isJoin)
      return completion(.success(()))
    }
    let members = remote.nodes.map { node in
      Member(
        name: node.name, address: node.address, metadata: node.meta, state: node.state, incarnation: node.incarnation,
        versions: node.versions ?? .unknown)
    }
    let isAsked = hookQueue.call { [weak self] hooks in
      let verdict = Result { try hooks.merges?.approveMerge(of: members) }
      guard let self else { return completion(.failure(.isShutDown)) }
      queue.async {
        switch verdict {
        case .success:
          self.finishMerge(remote, isJoin: isJoin)
          completion(.success(()))
        case .failure(let error): completion(.failure(.mergeRefused("\(error)")))
        }
      }
    }
    if !isAsked { completion(.failure(.mergeRefused("the application has not kept up with its hooks"))) }
  }

  private func finishMerge(_ remote: PushPull, isJoin: Bool) {
    guard !isShutDown else { return }
    membership.mergeRemoteState(remote, nowNanoseconds: Self.now())
    // Before anybody is told that the exchange is done: they look at the members next.
    performOutbox()
    if !remote.userState.isEmpty {
      let state = remote.userState
      callHooks { $0.delegate?.mergeRemoteState(state, isJoin: isJoin) }
    }
  }
}
