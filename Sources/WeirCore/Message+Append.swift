extension Message {
  /// A leader's append message, made in one piece: most messages are one, and a value that is filled field by field is
  /// copied once more on its way into an array.
  @inlinable
  @inline(__always)
  public init(
    appending entries: consuming EntryBatch, behind index: LogIndex, logTerm: Term, commit: LogIndex, to: NodeID,
    from: NodeID, term: Term
  ) {
    type = .append
    reject = false
    isLeadershipTransfer = false
    self.to = to
    self.from = from
    self.term = term
    self.logTerm = logTerm
    self.index = index
    self.commit = commit
    vote = .none
    rejectHint = 0
    context = 0
    self.entries = entries
    attachment = nil
  }
}
