import FoundationEssentials
import HTTPWire
import Raft
import WeirCore
import WeirTransport

/// What a node serves over HTTP: the paths of the stcache demo, and resources under `/v1`.
///
/// | path | |
/// | --- | --- |
/// | `/set?key=K&value=V` | writes; `ok` |
/// | `/get?key=K` | the value and a line feed; 404 if there is none |
/// | `/del?key=K` | removes; `ok`, also if there was nothing |
/// | `/join?id=N&peerAddress=HOST:PORT` | makes a node a voter; `ok` |
/// | `/leave?id=N` | removes a member; `ok` |
/// | `/leader` | the leader's Raft address |
/// | `/status` | what this node is, as JSON |
/// | `GET PUT DELETE /v1/keys/K` | a value as it is; a body up to 1 MiB |
/// | `GET /v1/members`, `PUT /v1/members/N?address=A&role=voter`, `DELETE /v1/members/N` | the membership; `role=learner` adds without a vote, `index=I` makes a change conditional |
/// | `PUT /v1/leader?id=N` | hands the leadership over |
/// | `POST /v1/snapshot` | writes a snapshot now |
/// | `/metrics` | counts for Prometheus |
///
/// Reads take `consistency=safe` (the default), `lease` or `stale`. Only the leader writes, and reads but stale ones: any
/// other node answers 307 with the same target at the leader, or 503 while it knows of none. A node that is loading a state
/// from its leader answers stale reads with 503 until it has; `/status` then says `"isLoading":true`, `/metrics`
/// `weir_state_loading 1`, and neither counts keys.
///
/// A write that was refused has a status of its own (503: it has no effect, and may be repeated); one whose outcome is
/// unknown has 504.
public struct NodeAPI: HTTPHandler {
  let node: Node
  /// Where a member serves HTTP, `host:port`, if that is known: what a redirect needs.
  private let httpAddress: @Sendable (NodeID) -> String?
  let metrics: @Sendable () -> [Metric]
  private let timeouts: ApplyTimeouts

  public init(
    node: Node, timeouts: ApplyTimeouts = .init(), httpAddress: @escaping @Sendable (NodeID) -> String?,
    metrics: @escaping @Sendable () -> [Metric] = { [] }
  ) {
    self.node = node
    self.timeouts = timeouts
    self.httpAddress = httpAddress
    self.metrics = metrics
  }

  typealias Completion = @Sendable (HTTPResponse) -> Void

  public func answer(_ request: HTTPRequest, completion: @escaping @Sendable (HTTPResponse) -> Void) {
    let path = request.path.map { String(decoding: $0, as: UTF8.self) }
    switch (path.first, path.count) {
    case ("set", 1): only([.get, .post, .put], request, completion) { set(request, completion) }
    case ("get", 1): only([.get, .head], request, completion) { get(request, completion) }
    case ("del", 1): only([.get, .post, .delete], request, completion) { delete(request, completion) }
    case ("join", 1): only([.get, .post], request, completion) { join(request, completion) }
    case ("leave", 1): only([.get, .post], request, completion) { leave(request, completion) }
    case ("leader", 1): only([.get, .head], request, completion) { leader(completion) }
    case ("status", 1): only([.get, .head], request, completion) { completion(Self.json(statusDocument)) }
    case ("metrics", 1): only([.get, .head], request, completion) { completion(metricsPage()) }
    case ("v1", 2...): resource(path, request, completion)
    default: completion(HTTPResponse(.notFound, text: "no such path"))
    }
  }

  private func resource(_ path: [String], _ request: HTTPRequest, _ completion: @escaping Completion) {
    switch (path[1], path.count) {
    case ("keys", 3): only([.get, .head, .put, .delete], request, completion) { value(request, completion) }
    case ("members", 2): only([.get, .head], request, completion) { members(request, completion) }
    case ("members", 3): only([.put, .delete], request, completion) { member(path[2], request, completion) }
    case ("leader", 2): only([.put], request, completion) { transfer(request, completion) }
    case ("snapshot", 2): only([.post], request, completion) { snapshot(completion) }
    default: completion(HTTPResponse(.notFound, text: "no such path"))
    }
  }

  private func only(
    _ methods: [HTTPMethod], _ request: HTTPRequest, _ completion: Completion, _ body: () -> Void
  ) {
    if methods.contains(request.method) { return body() }
    var response = HTTPResponse(.methodNotAllowed, text: "\(request.method.rawValue) is not allowed here")
    response.allowedMethods = methods
    completion(response)
  }

  // MARK: Values

  private func set(_ request: HTTPRequest, _ completion: @escaping Completion) {
    guard let key = request.parameter("key"), !key.isEmpty, let value = request.parameter("value") else {
      return completion(Self.parameterError("key and value"))
    }
    write(.set, key, value, request, completion) { _ in HTTPResponse(.ok, text: "ok") }
  }

  private func delete(_ request: HTTPRequest, _ completion: @escaping Completion) {
    guard let key = request.parameter("key"), !key.isEmpty else { return completion(Self.parameterError("key")) }
    write(.delete, key, [], request, completion) { _ in HTTPResponse(.ok, text: "ok") }
  }

  private func get(_ request: HTTPRequest, _ completion: @escaping Completion) {
    guard let key = request.parameter("key"), !key.isEmpty else { return completion(Self.parameterError("key")) }
    read(key, request, completion) { HTTPResponse(.ok, body: $0 + [UInt8(ascii: "\n")]) }
  }

  private func value(_ request: HTTPRequest, _ completion: @escaping Completion) {
    let key = request.path[2]
    guard !key.isEmpty else { return completion(Self.parameterError("a key in the path")) }
    switch request.method {
    case .put:
      write(.set, key, request.body, request, completion) { HTTPResponse($0.existed ? .noContent : .created) }
    case .delete:
      write(.delete, key, [], request, completion) { HTTPResponse($0.existed ? .noContent : .notFound) }
    default: read(key, request, completion) { HTTPResponse(.ok, contentType: "application/octet-stream", body: $0) }
    }
  }

  private func write(
    _ operation: Command.Operation, _ key: [UInt8], _ value: [UInt8], _ request: HTTPRequest,
    _ completion: @escaping Completion, _ success: @escaping @Sendable (Applied) -> HTTPResponse
  ) {
    let command: [UInt8]
    do throws(CommandError) { command = try Command.encode(operation, key: key, value: value) } catch {
      return completion(failure(.invalidCommand(error), request))
    }
    node.apply(command, timeouts: timeouts) { result in
      switch result {
      case .success(let applied): completion(success(applied))
      case .failure(let error): completion(failure(error, request))
      }
    }
  }

  private func read(
    _ key: [UInt8], _ request: HTTPRequest, _ completion: @escaping Completion,
    _ success: @escaping @Sendable ([UInt8]) -> HTTPResponse
  ) {
    var consistency = ReadConsistency.safe
    if let text = request.parameter("consistency") {
      guard let known = ReadConsistency(rawValue: String(decoding: text, as: UTF8.self)) else {
        return completion(Self.parameterError("consistency as safe, lease or stale"))
      }
      consistency = known
    }
    node.read(key, consistency, timeoutNanoseconds: timeouts.commitNanoseconds) { result in
      switch result {
      case .success(let value?): completion(success(value))
      case .success(nil): completion(HTTPResponse(.notFound, text: "no such key"))
      case .failure(let error): completion(failure(error, request))
      }
    }
  }

  // MARK: Members

  private func join(_ request: HTTPRequest, _ completion: @escaping Completion) {
    guard let id = Self.number(request, "id"), id != NodeID.none, let address = Self.address(request, "peerAddress")
    else { return completion(Self.parameterError("id as a number above 0 and peerAddress as host:port")) }
    node.addVoter(id, address: address, timeoutNanoseconds: timeouts.commitNanoseconds) {
      completion(changed($0, request) { _ in HTTPResponse(.ok, text: "ok") })
    }
  }

  private func leave(_ request: HTTPRequest, _ completion: @escaping Completion) {
    guard let id = Self.number(request, "id") else { return completion(Self.parameterError("id as a number")) }
    node.removeServer(id, timeoutNanoseconds: timeouts.commitNanoseconds) {
      completion(changed($0, request) { _ in HTTPResponse(.ok, text: "ok") })
    }
  }

  private func member(_ text: String, _ request: HTTPRequest, _ completion: @escaping Completion) {
    let condition = Self.number(request, "index")
    guard let id = UInt64(text), id != NodeID.none, condition != nil || request.parameter("index") == nil else {
      return completion(Self.parameterError("a number above 0 in the path, and index as a number"))
    }
    let done: @Sendable (Result<LogIndex, NodeError>) -> Void = { result in
      completion(changed(result, request) { Self.json(ChangeDocument(index: $0)) })
    }
    let timeout = timeouts.commitNanoseconds
    guard request.method == .put else {
      return node.removeServer(id, ifIndexIs: condition ?? 0, timeoutNanoseconds: timeout, completion: done)
    }
    let role = request.parameter("role").map { String(decoding: $0, as: UTF8.self) } ?? "voter"
    guard let address = Self.address(request, "address"), role == "voter" || role == "learner" else {
      return completion(Self.parameterError("address as host:port, and role as voter or learner"))
    }
    if role == "learner" {
      node.addLearner(id, address: address, ifIndexIs: condition ?? 0, timeoutNanoseconds: timeout, completion: done)
    } else {
      node.addVoter(id, address: address, ifIndexIs: condition ?? 0, timeoutNanoseconds: timeout, completion: done)
    }
  }

  private func changed(
    _ result: Result<LogIndex, NodeError>, _ request: HTTPRequest, _ success: (LogIndex) -> HTTPResponse
  ) -> HTTPResponse {
    switch result {
    case .success(let index): success(index)
    case .failure(let error): failure(error, request)
    }
  }

  private func members(_ request: HTTPRequest, _ completion: @escaping Completion) {
    node.membership { result in
      switch result {
      case .success(let membership): completion(Self.json(MembersDocument(membership, httpAddress)))
      case .failure(let error): completion(failure(error, request))
      }
    }
  }

  private func leader(_ completion: @escaping Completion) {
    let leader = node.status.leader
    guard leader != NodeID.none else { return completion(Self.noLeader()) }
    node.membership { result in
      let address = (try? result.get())?.addresses[leader]
      completion(
        address.map { HTTPResponse(.ok, text: $0) }
          ?? HTTPResponse(.serviceUnavailable, text: "node \(leader) leads, at an unknown address"))
    }
  }

  private func transfer(_ request: HTTPRequest, _ completion: @escaping Completion) {
    guard let id = Self.number(request, "id") else { return completion(Self.parameterError("id as a number")) }
    node.transferLeadership(to: id, timeoutNanoseconds: timeouts.commitNanoseconds) { result in
      switch result {
      case .success: completion(HTTPResponse(.noContent))
      case .failure(let error): completion(failure(error, request))
      }
    }
  }

  private func snapshot(_ completion: @escaping Completion) {
    node.writeSnapshot { result in
      switch result {
      case .success(let index): completion(Self.json(ChangeDocument(index: index)))
      case .failure(let error): completion(HTTPResponse(.conflict, text: error.description))
      }
    }
  }

  // MARK: Parameters

  private static func number(_ request: HTTPRequest, _ name: String) -> UInt64? {
    request.parameter(name).flatMap { UInt64(String(decoding: $0, as: UTF8.self)) }
  }

  /// A numeric address only: looking a name up would hold up the server's queue.
  private static func address(_ request: HTTPRequest, _ name: String) -> SocketAddress? {
    guard let text = request.parameter(name).map({ String(decoding: $0, as: UTF8.self) }),
      let address = SocketAddress(numeric: text), address.port != 0, !address.isWildcard
    else { return nil }
    return address
  }

  private static func parameterError(_ wanted: String) -> HTTPResponse {
    HTTPResponse(.badRequest, text: "param error: give \(wanted)")
  }

  // MARK: Failures

  private func failure(_ error: NodeError, _ request: HTTPRequest) -> HTTPResponse {
    switch error {
    case .notLeader: redirect(request)
    case .invalidCommand(.valueTooLarge): HTTPResponse(.contentTooLarge, text: error.description)
    case .invalidCommand: HTTPResponse(.badRequest, text: error.description)
    case .configurationChanged, .conditionUnmet: HTTPResponse(.preconditionFailed, text: error.description)
    case .invalidChange, .snapshotUnavailable, .notIncremented: HTTPResponse(.conflict, text: error.description)
    case .outOfSpace: HTTPResponse(.insufficientStorage, text: error.description)
    case .leadershipLost, .commitTimeout, .transferFailed: HTTPResponse(.gatewayTimeout, text: error.description)
    case .enqueueTimeout, .overloaded, .loading, .shutdown: Self.unavailable(error.description)
    }
  }

  /// The same target at the leader. The status keeps the method and the body (RFC 9110 section 15.4.8).
  private func redirect(_ request: HTTPRequest) -> HTTPResponse {
    let leader = node.status.leader
    guard leader != NodeID.none, leader != node.id else { return Self.noLeader() }
    guard let address = httpAddress(leader) else {
      return Self.unavailable("not allowed here, leader is node \(leader), whose HTTP address is not known")
    }
    var response = HTTPResponse(.temporaryRedirect, text: "not allowed here, leader is \(address)")
    response.location = "http://\(address)\(request.target)"
    return response
  }

  private static func noLeader() -> HTTPResponse { unavailable("error no leader") }

  private static func unavailable(_ text: String) -> HTTPResponse {
    var response = HTTPResponse(.serviceUnavailable, text: text)
    response.retryAfterSeconds = 1
    return response
  }
}
