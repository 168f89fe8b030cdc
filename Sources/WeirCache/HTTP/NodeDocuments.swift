import FoundationEssentials
import HTTPWire
import Raft
import WeirCore

/// A figure of `/metrics`.
public struct Metric: Sendable, Hashable {
  public enum Kind: String, Sendable {
    case counter, gauge
  }

  public var name: String
  public var help: String
  public var kind: Kind
  public var samples: [Sample]

  /// One value, with its labels.
  public struct Sample: Sendable, Hashable {
    public var labels: [String: String]
    public var value: Double

    public init(_ value: Double, labels: [String: String] = [:]) {
      self.value = value
      self.labels = labels
    }
  }

  public init(_ name: String, _ kind: Kind, _ value: Double, help: String) {
    self.init(name, kind, [Sample(value)], help: help)
  }

  public init(_ name: String, _ kind: Kind, _ samples: [Sample], help: String) {
    self.name = name
    self.kind = kind
    self.samples = samples
    self.help = help
  }

  /// Prometheus' text format, version 0.0.4.
  static func page(_ metrics: [Metric]) -> String {
    var text = ""
    for metric in metrics {
      text += "# HELP \(metric.name) \(metric.help)\n# TYPE \(metric.name) \(metric.kind.rawValue)\n"
      for sample in metric.samples {
        let labels = sample.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\"\($0.value)\"" }
        text += metric.name + (labels.isEmpty ? "" : "{\(labels.joined(separator: ","))}") + " "
        // Counts are written as such: every one of them is below 2^53.
        text += (Int64(exactly: sample.value).map { "\($0)" } ?? "\(sample.value)") + "\n"
      }
    }
    return text
  }
}

/// `/status`.
private struct StatusDocument: Encodable {
  var id: NodeID
  var role: String
  var leader: NodeID?
  var term: Term
  var commitIndex: LogIndex
  var appliedIndex: LogIndex
  var lastIndex: LogIndex
  var holdsLease: Bool
  var isOutOfSpace: Bool
  /// Why it did not take the state that it was last sent, while it lacks it.
  var stateRefusal: String?
  var failure: String?
  /// Whether a state from the leader is being put in place: then there is none to read from, nor to count.
  var isLoading: Bool
  /// Left out while loading, as is the next.
  var keys: Int?
  var liveBytes: Int?
}

/// What a change of the membership, or a snapshot, came to.
struct ChangeDocument: Encodable {
  var index: LogIndex
}

/// `/v1/members`.
struct MembersDocument: Encodable {
  struct Member: Encodable {
    var id: NodeID
    var role: String
    var address: String?
    var httpAddress: String?
  }

  var index: LogIndex
  var members: [Member]

  init(_ membership: Membership, _ httpAddress: (NodeID) -> String?) {
    index = membership.index
    let voters = Set(membership.configuration.voters).union(membership.configuration.votersOutgoing)
    let learners = Set(membership.configuration.learners).union(membership.configuration.learnersNext)
    members = voters.union(learners).sorted().map { id in
      Member(
        id: id, role: voters.contains(id) ? "voter" : "learner", address: membership.addresses[id],
        httpAddress: httpAddress(id))
    }
  }
}

extension NodeAPI {
  static func json(_ document: some Encodable) -> HTTPResponse {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(document) else {
      preconditionFailure("documents hold numbers and text only, which JSON can say")
    }
    return HTTPResponse(.ok, contentType: "application/json", body: Array(data) + [UInt8(ascii: "\n")])
  }

  var statusDocument: some Encodable {
    let (status, size) = (node.status, node.store.size)
    return StatusDocument(
      id: status.id, role: "\(status.role)", leader: status.leader == NodeID.none ? nil : status.leader,
      term: status.term, commitIndex: status.commitIndex, appliedIndex: status.appliedIndex,
      lastIndex: status.lastIndex, holdsLease: node.holdsLease, isOutOfSpace: node.isOutOfSpace,
      stateRefusal: node.stateRefusal, failure: node.failure, isLoading: size == nil, keys: size?.keys,
      liveBytes: size?.liveBytes)
  }

  func metricsPage() -> HTTPResponse {
    let text = Metric.page(raftMetrics + storeMetrics + metrics())
    return HTTPResponse(.ok, contentType: "text/plain; version=0.0.4; charset=utf-8", body: Array(text.utf8))
  }

  private var raftMetrics: [Metric] {
    let (status, counters) = (node.status, node.counters)
    return [
      Metric("weir_raft_is_leader", .gauge, status.role == .leader ? 1 : 0, help: "Whether this node leads."),
      Metric("weir_raft_has_leader", .gauge, status.leader == NodeID.none ? 0 : 1, help: "Whether it knows a leader."),
      Metric("weir_raft_holds_lease", .gauge, node.holdsLease ? 1 : 0, help: "Whether it answers Lease reads now."),
      Metric("weir_raft_term", .gauge, Double(status.term), help: "Current term."),
      Metric("weir_raft_commit_index", .gauge, Double(status.commitIndex), help: "Last index known to be committed."),
      Metric("weir_raft_applied_index", .gauge, Double(status.appliedIndex), help: "Last index applied."),
      Metric("weir_raft_last_index", .gauge, Double(status.lastIndex), help: "Last index in the log."),
      Metric("weir_raft_elections_won_total", .counter, Double(counters.electionsWon), help: "Elections won."),
      Metric("weir_raft_proposals_total", .counter, Double(counters.proposals), help: "Entries proposed here."),
      Metric(
        "weir_raft_proposal_batches_total", .counter, Double(counters.proposalBatches),
        help: "Batches in which they were proposed."),
      Metric("weir_raft_read_rounds_total", .counter, Double(counters.readRounds), help: "Rounds for Safe reads."),
      Metric("weir_peer_messages_sent_total", .counter, Double(counters.messagesSent), help: "Messages to peers."),
      Metric("weir_peer_bytes_sent_total", .counter, Double(counters.bytesSent), help: "Bytes to peers."),
      Metric(
        "weir_peer_messages_received_total", .counter, Double(counters.messagesReceived), help: "Messages from peers."),
      Metric(
        "weir_peer_messages_dropped_total", .counter, Double(counters.messagesDropped),
        help: "Messages that found no room to wait for their peer."),
      Metric("weir_log_syncs_total", .counter, Double(counters.syncs), help: "Times the log was made durable."),
      Metric("weir_log_out_of_space", .gauge, node.isOutOfSpace ? 1 : 0, help: "Whether the disk is full."),
    ]
  }

  /// The counts are absent while a state is loaded, so that a graph has a gap there and not a fall to a part of the state.
  private var storeMetrics: [Metric] {
    let size = node.store.size
    let metrics = [
      Metric(
        "weir_state_refused", .gauge, node.stateRefusal == nil ? 0 : 1,
        help: "Whether it lacks a state that it was sent and could not take, for want of space say."),
      Metric(
        "weir_state_loading", .gauge, size == nil ? 1 : 0,
        help: "Whether a state from the leader is being loaded: there is none to read from, nor to count."),
      Metric("weir_store_memory_bytes", .gauge, Double(node.store.memoryBytes), help: "Bytes that holding keys takes."),
    ]
    guard let size else { return metrics }
    return metrics + [
      Metric("weir_store_keys", .gauge, Double(size.keys), help: "Keys held."),
      Metric("weir_store_live_bytes", .gauge, Double(size.liveBytes), help: "Bytes of keys and values."),
    ]
  }
}
