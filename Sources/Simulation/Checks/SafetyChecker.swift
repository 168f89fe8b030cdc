import WeirCore

/// Watches every node from outside and compares them: the invariants of Raft, each checked where something changed.
///
/// It knows what each node's storage was handed (`written`), what of it is durable (`durable`), and remembers for the
/// whole cluster who led each term, which entry was committed at each index, and the digests of logs and states.
struct SafetyChecker {
  /// What the checker knows of one node.
  struct NodeView {
    var written = StableImage()
    var durable = StableImage()
    var term: Term = 0
    var commit: LogIndex = 0
    var isLeader = false
    /// Terms in which the node's vote became durable, with whom it was for; ascending.
    var durableVotes: [(term: Term, vote: NodeID)] = []
    /// Terms in which the node promised its vote to somebody.
    var promisedVotes: [(term: Term, vote: NodeID)] = []
    /// The node's storage was damaged or wiped: it promises nothing any more.
    var isDamaged = false
  }

  private struct Committed {
    var term: Term
    var chain: UInt64
    /// The term of the node that was first seen to know it committed: its leader.
    var leaderTerm: Term
  }

  private struct ChainAtTerm {
    var term: Term
    var chain: UInt64
  }

  private(set) var nodes: [NodeView]
  private var leaders: [NodeID?] = []
  private var committed: [Committed?] = []
  private var chains: [[ChainAtTerm]] = []
  private var appliedDigests: [UInt64?] = []
  private var configurations: [(index: LogIndex, state: ConfigurationState)] = []

  /// The highest index known to be committed.
  private(set) var highestCommit: LogIndex = 0
  /// The highest term with a leader.
  private(set) var highestLeaderTerm: Term = 0
  /// How many leaders were elected.
  private(set) var elections = 0

  init(nodeCount: Int) { nodes = Array(repeating: NodeView(), count: nodeCount) }

  /// Node positions are 0 based; identities are 1 based.
  static func id(_ node: Int) -> NodeID { NodeID(node + 1) }

  // MARK: Storage

  /// A node hands a write to its storage.
  mutating func write(_ write: StableWrite, by node: Int) throws(Violation) {
    if !write.entries.isEmpty {
      try checkAppendOnly(write, node: node)
      try checkContinuity(write, node: node)
      for (position, entry) in write.entries.enumerated() {
        try compareChain(index: write.firstIndex + UInt64(position), entry, node: node)
      }
    }
    write.apply(to: &nodes[node].written)
    if let hardState = write.hardState { try observeTerm(hardState.term, of: node) }
  }

  private func checkAppendOnly(_ write: StableWrite, node: Int) throws(Violation) {
    let view = nodes[node]
    // A node that has just followed a higher term writes that term along.
    guard view.isLeader, (write.hardState?.term ?? view.term) == view.term else { return }
    if write.firstIndex <= view.written.lastIndex, view.written.term(at: write.firstIndex) == view.term {
      throw Violation(
        .leaderAppendOnly, "n\(node + 1) leads term \(view.term) and overwrites its own entry \(write.firstIndex)")
    }
  }

  /// Entries continue the log, or the snapshot that comes with them, or replace the end.
  private func checkContinuity(_ write: StableWrite, node: Int) throws(Violation) {
    var (anchor, last) = (nodes[node].written.anchorIndex, nodes[node].written.lastIndex)
    if let snapshot = write.snapshot, write.snapshotReplacesLog {
      anchor = snapshot.metadata.index
      last = anchor
    }
    guard write.firstIndex > anchor, write.firstIndex <= last + 1 else {
      throw Violation(
        .logMatching, "n\(node + 1) writes entries from \(write.firstIndex) into a log of \(anchor + 1)...\(last)")
    }
  }

  /// The oldest write of a node that was not durable is so now.
  mutating func synced(_ write: StableWrite, by node: Int) {
    write.apply(to: &nodes[node].durable)
    if let hardState = write.hardState, hardState.vote != 0 {
      let last = nodes[node].durableVotes.last
      if last?.term != hardState.term || last?.vote != hardState.vote {
        nodes[node].durableVotes.append((hardState.term, hardState.vote))
      }
    }
  }

  /// A node crashed: what was not synced is gone, except the writes given, which had reached the disk anyway.
  mutating func crashed(_ node: Int, surviving: [StableWrite]) {
    for write in surviving { synced(write, by: node) }
    nodes[node].written = nodes[node].durable
    nodes[node].isLeader = false
    nodes[node].commit = 0
    nodes[node].term = nodes[node].durable.hardState.term
  }

  /// A node's storage was recovered from bytes, and this is what it holds now.
  mutating func recovered(_ node: Int, image: StableImage) {
    nodes[node].written = image
    nodes[node].durable = image
    nodes[node].term = image.hardState.term
    if image.hardState.vote != 0 {
      nodes[node].durableVotes.append((image.hardState.term, image.hardState.vote))
    }
  }

  /// A node starts again with nothing.
  mutating func wiped(_ node: Int) {
    nodes[node] = NodeView()
    nodes[node].isDamaged = true
  }

  /// Log matching: whoever has an entry of a term at an index has the same entries in front of it.
  private mutating func compareChain(index: LogIndex, _ entry: StoredEntry, node: Int) throws(Violation) {
    let (term, chain) = (entry.term, entry.chain)
    let position = Int(index)
    while chains.count <= position { chains.append([]) }
    for known in chains[position] where known.term == term {
      guard known.chain == chain else {
        throw Violation(
          .logMatching,
          "n\(node + 1) has an entry \(index) of term \(term) that differs, or follows others, than on another node")
      }
      return
    }
    chains[position].append(ChainAtTerm(term: term, chain: chain))
  }

  // MARK: Roles and terms

  /// The core's state after an event.
  mutating func observe(_ node: Int, term: Term, commit: LogIndex, lastIndex: LogIndex, isLeader: Bool)
    throws(Violation)
  {
    try observeTerm(term, of: node)
    if isLeader, !nodes[node].isLeader { try observeElection(of: node, term: term) }
    nodes[node].isLeader = isLeader
    if commit != nodes[node].commit { try observeCommit(commit, lastIndex: lastIndex, of: node) }
  }

  private mutating func observeTerm(_ term: Term, of node: Int) throws(Violation) {
    guard term >= nodes[node].term else {
      throw Violation(.termMonotonic, "n\(node + 1) went from term \(nodes[node].term) back to \(term)")
    }
    if term > nodes[node].term {
      nodes[node].term = term
      nodes[node].isLeader = false
    }
  }

  private mutating func observeElection(of node: Int, term: Term) throws(Violation) {
    while leaders.count <= Int(term) { leaders.append(nil) }
    if let other = leaders[Int(term)], other != Self.id(node) {
      throw Violation(.electionSafety, "n\(other) and n\(node + 1) both lead term \(term)")
    }
    if leaders[Int(term)] == nil { elections += 1 }
    leaders[Int(term)] = Self.id(node)
    highestLeaderTerm = max(highestLeaderTerm, term)
    try checkCompleteness(of: node, term: term)
  }

  /// Leader completeness: the last entry that was committed under an earlier term is in the new leader's log; by log
  /// matching, all those before it are.
  private func checkCompleteness(of node: Int, term: Term) throws(Violation) {
    var index = Int(highestCommit)
    while index > 0, let entry = committed[index], entry.leaderTerm >= term { index -= 1 }
    guard index > 0, let entry = committed[index] else { return }
    let log = nodes[node].written
    if LogIndex(index) < log.anchorIndex { return }
    guard log.chain(at: LogIndex(index)) == entry.chain else {
      throw Violation(
        .leaderCompleteness,
        "n\(node + 1) leads term \(term) without entry \(index), committed in term \(entry.leaderTerm)"
          + " (its log ends at \(log.lastIndex), term \(log.lastTerm))")
    }
  }

  // MARK: Commit

  private mutating func observeCommit(_ commit: LogIndex, lastIndex: LogIndex, of node: Int) throws(Violation) {
    let view = nodes[node]
    guard commit >= view.commit else {
      throw Violation(.commitMonotonic, "n\(node + 1) went from commit \(view.commit) back to \(commit)")
    }
    guard commit <= lastIndex else {
      throw Violation(.commitMonotonic, "n\(node + 1) has commit \(commit) beyond its last entry \(lastIndex)")
    }
    if committed.count <= Int(commit) {
      committed.append(contentsOf: repeatElement(nil, count: Int(commit) - committed.count + 1))
    }
    nodes[node].commit = commit
    let log = view.written
    var index = max(view.commit, log.anchorIndex, 1)
    while index <= commit {
      if let chain = log.chain(at: index), let term = log.term(at: index) {
        try compareCommitted(index: index, term: term, chain: chain, node: node)
      }
      index += 1
    }
    if commit > highestCommit {
      highestCommit = commit
    }
  }

  private mutating func compareCommitted(index: LogIndex, term: Term, chain: UInt64, node: Int) throws(Violation) {
    if let known = committed[Int(index)] {
      guard known.chain == chain else {
        throw Violation(
          .stateMachineSafety,
          "n\(node + 1) has committed entry \(index) of term \(term); committed before was one of term \(known.term)")
      }
    } else {
      committed[Int(index)] = Committed(term: term, chain: chain, leaderTerm: nodes[node].term)
    }
  }

  /// The digest of the log up to a committed index, where it is known.
  func committedChain(at index: LogIndex) -> UInt64? {
    index < UInt64(committed.count) ? committed[Int(index)]?.chain : nil
  }

  /// A leader's commit index rests on durable copies of its entry on a quorum of `configuration`, both halves of it.
  func checkDurableQuorum(leader node: Int, commit: LogIndex, configuration: ConfigurationState) throws(Violation) {
    guard let chain = nodes[node].written.chain(at: commit) else { return }
    for half in [configuration.voters, configuration.votersOutgoing] where !half.isEmpty {
      var holders = 0
      for voter in half where voter >= 1 && voter <= UInt64(nodes.count) {
        if holds(Int(voter) - 1, index: commit, chain: chain) { holders += 1 }
      }
      if holders < half.count / 2 + 1 {
        throw Violation(
          .committedIsDurable,
          "n\(node + 1) commits entry \(commit) in term \(nodes[node].term); "
            + "of its voters \(half) only \(holders) hold it durably")
      }
    }
  }

  private func holds(_ node: Int, index: LogIndex, chain: UInt64) -> Bool {
    let image = nodes[node].durable
    if index < image.anchorIndex { return true }
    return image.chain(at: index) == chain || image.snapshot.metadata.index >= index
  }

  // MARK: Messages

  /// A message leaves a node: what it promises has to be durable.
  mutating func send(_ message: Message, from node: Int) throws(Violation) {
    guard !message.reject else { return }
    switch message.type {
    case .voteResponse: try checkVote(message, from: node)
    case .appendResponse: try checkAcknowledgement(message, from: node)
    default: break
    }
  }

  private mutating func checkVote(_ message: Message, from node: Int) throws(Violation) {
    let view = nodes[node]
    for promise in view.promisedVotes where promise.term == message.term && promise.vote != message.to {
      throw Violation(
        .oneVotePerTerm, "n\(node + 1) votes for n\(message.to) in term \(message.term) after n\(promise.vote)")
    }
    if view.promisedVotes.last?.term != message.term {
      nodes[node].promisedVotes.append((message.term, message.to))
    }
    // A node that is durably in a later term by now cannot vote in this one again.
    guard
      view.durable.hardState.term > message.term
        || view.durableVotes.contains(where: { $0.term == message.term && $0.vote == message.to })
    else {
      throw Violation(
        .durableBeforeSend,
        "n\(node + 1) grants its vote in term \(message.term) to n\(message.to) before the vote is durable")
    }
  }

  private func checkAcknowledgement(_ message: Message, from node: Int) throws(Violation) {
    let image = nodes[node].durable
    guard message.index > image.anchorIndex, message.index > image.snapshot.metadata.index else { return }
    // A node that is durably in a later term may have replaced the entry since: then this is an answer that took long,
    // and whoever led that later term was elected with the entry in sight.
    guard image.hardState.term <= message.term else { return }
    guard message.index <= image.lastIndex else {
      throw Violation(
        .durableBeforeSend,
        "n\(node + 1) acknowledges entry \(message.index) in term \(message.term); durable is \(image.lastIndex)")
    }
    guard message.to >= 1, message.to <= UInt64(nodes.count), message.to != Self.id(node) else { return }
    let leader = nodes[Int(message.to) - 1]
    guard leader.isLeader, leader.term == message.term, let expected = leader.written.chain(at: message.index) else {
      return
    }
    guard image.chain(at: message.index) == expected else {
      throw Violation(
        .durableBeforeSend,
        "n\(node + 1) acknowledges entry \(message.index) to n\(message.to) in term \(message.term), "
          + "but what is durable there is another entry")
    }
  }

  // MARK: State machine

  /// A node with asynchronous storage hands entries to its state machine: all of them are durable on its own disk, and are
  /// those entries. A state machine that is ahead of its log cannot be made again after a crash.
  func checkAppliedIsDurable(_ entries: EntryBatch, by node: Int) throws(Violation) {
    let image = nodes[node].durable
    var missing: EntryHeader?
    entries.forEach { header, _ in
      guard header.index > image.anchorIndex, header.index > image.snapshot.metadata.index else { return }
      if image.term(at: header.index) != header.term, missing == nil { missing = header }
    }
    guard let missing else { return }
    throw Violation(
      .appliedIsDurable,
      "n\(node + 1) applies entry \(missing.index) of term \(missing.term); durable there is "
        + (image.term(at: missing.index).map { "one of term \($0)" } ?? "nothing"))
  }

  /// A node has applied the entry at `index`; `previousIndex` is what it had applied before.
  mutating func applied(_ node: Int, index: LogIndex, digest: UInt64, after previousIndex: LogIndex)
    throws(Violation)
  {
    guard index == previousIndex + 1 else {
      throw Violation(.stateMachineSafety, "n\(node + 1) applies entry \(index) after \(previousIndex)")
    }
    try compareDigest(node, index: index, digest: digest)
  }

  /// A node has restored a snapshot.
  mutating func restored(_ node: Int, index: LogIndex, digest: UInt64) throws(Violation) {
    try compareDigest(node, index: index, digest: digest)
  }

  private mutating func compareDigest(_ node: Int, index: LogIndex, digest: UInt64) throws(Violation) {
    let position = Int(index)
    if appliedDigests.count <= position {
      appliedDigests.append(contentsOf: repeatElement(nil, count: position - appliedDigests.count + 1))
    }
    if let known = appliedDigests[position] {
      guard known == digest else {
        throw Violation(.stateMachineSafety, "n\(node + 1) differs from another node in its state at entry \(index)")
      }
    } else {
      appliedDigests[position] = digest
    }
  }

  // MARK: Configuration

  /// A node has applied the configuration change at `index`.
  mutating func configured(_ node: Int, index: LogIndex, from old: ConfigurationState, to new: ConfigurationState)
    throws(Violation)
  {
    for known in configurations where known.index == index && known.state != new {
      throw Violation(.configurationSafety, "n\(node + 1) differs from another node in the configuration at \(index)")
    }
    if !configurations.contains(where: { $0.index == index }) { configurations.append((index, new)) }
    guard Self.quorumsIntersect(old, new) else {
      throw Violation(
        .configurationSafety,
        "n\(node + 1) goes from voters \(old.voters)&\(old.votersOutgoing) to \(new.voters)&\(new.votersOutgoing)")
    }
  }

  /// Whether every quorum of `old` has a node in common with every quorum of `new`.
  static func quorumsIntersect(_ old: ConfigurationState, _ new: ConfigurationState) -> Bool {
    let oldHalves = [old.voters, old.votersOutgoing].filter { !$0.isEmpty }
    let newHalves = [new.voters, new.votersOutgoing].filter { !$0.isEmpty }
    if oldHalves.isEmpty || newHalves.isEmpty { return true }
    // Two majorities meet if they are of the same set, or of sets that one node tells apart.
    for left in oldHalves {
      for right in newHalves {
        let added = right.filter { !left.contains($0) }.count
        let removed = left.filter { !right.contains($0) }.count
        if added + removed <= 1 { return true }
      }
    }
    return false
  }
}
