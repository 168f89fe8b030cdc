import CWeir
import Raft
import Synchronization
import WeirCore
import WeirTransport

/// A leadership transfer under way.
struct LeadershipTransfer {
  var target: NodeID
  var deadlineNanoseconds: UInt64
  var callback: @Sendable (Result<Void, NodeError>) -> Void
}

/// What else is asked of a node: membership, transfers, observers.
extension NodeLoop {
  func runRequests() {
    for request in intake.takeRequests() { request(self) }
  }

  var notLeader: NodeError { .notLeader(hint: leader == .none ? nil : leader) }

  // MARK: Membership

  /// Proposes a change of one or more members.
  /// - Parameter expectedIndex: the configuration index that the caller has seen; 0 takes any.
  func change(
    _ change: ConfigurationChangeV2, expectedIndex: LogIndex, commitDeadline: UInt64,
    _ callback: @escaping CallbackLane.Callback
  ) {
    guard role == .leader else { return callback(.failure(notLeader)) }
    guard expectedIndex == 0 || expectedIndex == configurationIndex else {
      return callback(.failure(.configurationChanged(currentIndex: configurationIndex)))
    }
    // Raft takes one change at a time. It would turn a second one into an empty entry, which looks like success.
    guard raft.pendingConfigurationIndex <= appliedIndex else {
      return callback(.failure(.invalidChange("another change is under way")))
    }
    let index = raft.lastIndex + 1
    do throws(RaftError) {
      try raft.propose(change)
    } catch {
      return callback(.failure(.invalidChange("\(error)")))
    }
    let token = client.adopt(commitDeadline: commitDeadline, callback)
    pending.append(from: index, slot: client.slot, tokens: [token][...])
  }

  func applyConfigurationChange(_ header: EntryHeader, _ payload: RawSpan) {
    let change: ConfigurationChangeV2
    do throws(ConfigurationChangeError) {
      change =
        header.kind == .configurationChange
        ? try ConfigurationChange(decoding: payload).v2 : try ConfigurationChangeV2(decoding: payload)
    } catch {
      log.error("entry \(header.index) is no configuration change (\(error)); it changes nothing")
      return
    }
    meetMembers(of: change)
    do throws(RaftError) {
      configurationState = try raft.applyConfigurationChange(change)
    } catch {
      log.error("the configuration change of entry \(header.index) cannot be applied: \(error)")
      return
    }
    configurationIndex = header.index
    for member in change.changes where member.kind == .remove && member.nodeID != configuration.id {
      departed.append(member.nodeID)
    }
    notifyObservers(.configurationChanged(configurationState, index: header.index))
  }

  /// The context of a change says where its first new member is.
  private func meetMembers(of change: ConfigurationChangeV2) {
    guard let text = String(validating: change.context, as: UTF8.self), !text.isEmpty else { return }
    for member in change.changes
    where (member.kind == .addVoter || member.kind == .addLearner) && member.nodeID != configuration.id {
      do throws(TransportError) {
        let address = try SocketAddress(parsing: text)
        memberAddresses[member.nodeID] = text
        transport.addPeer(member.nodeID, address: address)
      } catch {
        log.error("node \(member.nodeID) cannot be reached: \(error)")
      }
    }
  }

  // MARK: Leadership

  func transferLeadership(
    to target: NodeID, deadline: UInt64, _ callback: @escaping @Sendable (Result<Void, NodeError>) -> Void
  ) {
    guard role == .leader else { return callback(.failure(notLeader)) }
    guard target != configuration.id else { return callback(.success(())) }
    guard configurationState.voters.contains(target) else {
      return callback(.failure(.invalidChange("node \(target) is not a voter")))
    }
    // From here on the lease is void: the target may be elected at any moment.
    published.leaseExpiryNanoseconds.store(0, ordering: .sequentiallyConsistent)
    transfers.append(LeadershipTransfer(target: target, deadlineNanoseconds: deadline, callback: callback))
    raft.transferLeadership(to: target)
  }

  /// Answers transfers whose target leads by now.
  func settleTransfers() {
    guard !transfers.isEmpty, leader != .none, leader != configuration.id else { return }
    for transfer in transfers {
      transfer.callback(leader == transfer.target ? .success(()) : .failure(.transferFailed))
    }
    transfers.removeAll()
  }

  func expireTransfers() {
    guard !transfers.isEmpty else { return }
    let expired = transfers.filter { $0.deadlineNanoseconds <= now }
    transfers.removeAll { $0.deadlineNanoseconds <= now }
    for transfer in expired { transfer.callback(.failure(.transferFailed)) }
  }

  // MARK: Observers

  func notifyObservers(_ event: NodeEvent) {
    guard !observers.isEmpty else { return }
    for (_, observer) in observers.sorted(by: { $0.key < $1.key }) { observer(event) }
  }
}
