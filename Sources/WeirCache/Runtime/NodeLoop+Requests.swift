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

  /// Proposes the change of a member. The entry says where all members are, as far as this leader knows: who joins by it
  /// has to find the others, also as their leader.
  /// - Parameters:
  ///   - address: where the member is; nil for one that goes.
  ///   - expectedIndex: the configuration index that the caller has seen; 0 takes any.
  func change(
    _ member: MemberChange, address: SocketAddress?, expectedIndex: LogIndex, commitDeadline: UInt64,
    _ callback: @escaping CallbackLane.Callback
  ) {
    guard !isStopping else { return callback(.failure(.shutdown)) }
    guard role == .leader else { return callback(.failure(notLeader)) }
    guard expectedIndex == 0 || expectedIndex == configurationIndex else {
      return callback(.failure(.configurationChanged(currentIndex: configurationIndex)))
    }
    // Raft takes one change at a time. It would turn a second one into an empty entry, which looks like success.
    guard raft.pendingConfigurationIndex <= appliedIndex else {
      return callback(.failure(.invalidChange("another change is under way")))
    }
    let index = raft.lastIndex + 1
    var addresses = memberAddresses
    addresses[member.nodeID] = address?.description
    do throws(RaftError) {
      try raft.propose(
        ConfigurationChangeV2(changes: [member], context: MemberAddressRecord.encoded(addresses)))
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
      departed[member.nodeID] = now + 2 * UInt64(configuration.electionTicks) * configuration.tickNanoseconds
    }
    notifyObservers(.configurationChanged(configurationState, index: header.index))
  }

  /// The context of a change says where its members are. Of those that it adds that is the last word; of the others this
  /// node may know better.
  private func meetMembers(of change: ConfigurationChangeV2) {
    guard let addresses = try? MemberAddressRecord.decode(change.context[...]) else {
      return log.error("a configuration change does not say where its members are: \(change.context.count) bytes")
    }
    let added = change.changes.filter { $0.kind == .addVoter || $0.kind == .addLearner }.map(\.nodeID)
    for member in added { if let text = addresses[member] { meet(member, at: text) } }
    meetMembers(ofSnapshot: addresses.filter { !added.contains($0.key) })
  }

  /// Entries that a snapshot replaced cannot say where their members are, so the snapshot does. A node that was
  /// introduced here directly stays where it was said to be: it may have moved since the snapshot was made.
  func meetMembers(ofSnapshot addresses: [NodeID: String]) {
    for (member, text) in addresses.sorted(by: { $0.key < $1.key })
    where !introduced.contains(member) && replicatedAddresses[member] != text {
      meet(member, at: text)
    }
  }

  private func meet(_ member: NodeID, at text: String) {
    guard member != configuration.id, member != .none else { return }
    do throws(TransportError) {
      let address = try SocketAddress(parsing: text)
      replicatedAddresses[member] = text
      departed[member] = nil
      transport.addPeer(member, address: address)
    } catch {
      log.error("node \(member) cannot be reached: \(error)")
    }
  }

  /// Ends the connections of members that were removed a while ago: without that they would be dialled for ever.
  func forgetDeparted() {
    guard !departed.isEmpty else { return }
    for member in departed.filter({ $0.value <= now }).keys.sorted() {
      departed[member] = nil
      introduced.remove(member)
      replicatedAddresses[member] = nil
      transport.removePeer(member)
    }
  }

  /// A capture of the state with the addresses of its members.
  func beginCapture() -> StateCapture {
    let capture = store.beginCapture()
    capture.setMembers(memberAddresses)
    return capture
  }

  /// Where the members are, as far as this node knows.
  private var memberAddresses: [NodeID: String] {
    let state = configurationState
    let members = Set(state.voters + state.votersOutgoing + state.learners + state.learnersNext)
    return replicatedAddresses.filter { members.contains($0.key) }
  }

  // MARK: Leadership

  func transferLeadership(
    to target: NodeID, deadline: UInt64, _ callback: @escaping @Sendable (Result<Void, NodeError>) -> Void
  ) {
    guard !isStopping else { return callback(.failure(.shutdown)) }
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
    guard !isDrivenByCaller else {
      hasLeftovers = true
      return
    }
    for transfer in transfers {
      transfer.callback(leader == transfer.target ? .success(()) : .failure(.transferFailed))
    }
    transfers.removeAll()
  }

  /// Raft gives a transfer up after an election timeout: the message was lost, or its target still had a change of members
  /// to apply, with which nobody stands for election. The caller's time is not over, so it is tried again.
  func repeatTransfers() {
    guard role == .leader, raft.leadTransferee == .none, let transfer = transfers.last else { return }
    published.leaseExpiryNanoseconds.store(0, ordering: .sequentiallyConsistent)
    raft.transferLeadership(to: transfer.target)
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
    guard !isDrivenByCaller else {
      heldEvents.append(event)
      hasLeftovers = true
      return
    }
    for (_, observer) in observers.sorted(by: { $0.key < $1.key }) { observer(event) }
  }
}
