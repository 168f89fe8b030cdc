/// One running suspicion of one member: who agrees, and when it becomes a death.
///
/// It begins at the maximum time; each independent confirmation shortens it towards the minimum (Lifeguard,
/// "LHA-Suspicion"): one slow accuser gives the accused long to refute, many accusers give it little.
struct Suspicion {
  /// Tells this suspicion from an earlier one of the same member when its deadline fires.
  let number: UInt64
  let startNanoseconds: UInt64
  let expectedConfirmations: Int
  let minimumNanoseconds: UInt64
  let maximumNanoseconds: UInt64
  /// The first accuser and those that confirmed; each counts once. At most `expectedConfirmations + 1`.
  private var accusers: [NodeName]

  init(
    number: UInt64, accuser: NodeName, startNanoseconds: UInt64, expectedConfirmations: Int,
    minimumNanoseconds: UInt64, maximumNanoseconds: UInt64
  ) {
    self.number = number
    self.startNanoseconds = startNanoseconds
    self.expectedConfirmations = max(0, expectedConfirmations)
    self.minimumNanoseconds = minimumNanoseconds
    self.maximumNanoseconds = max(minimumNanoseconds, maximumNanoseconds)
    accusers = [accuser]
  }

  /// Independent confirmations so far.
  var confirmations: Int { accusers.count - 1 }

  /// When the suspicion runs out if nothing more is heard.
  var deadlineNanoseconds: UInt64 {
    Formulas.saturatingSum(
      startNanoseconds,
      Formulas.suspicionDurationNanoseconds(
        confirmations: confirmations, expectedConfirmations: expectedConfirmations,
        minimumNanoseconds: minimumNanoseconds, maximumNanoseconds: maximumNanoseconds))
  }

  /// Counts a confirmation.
  /// - Returns: whether it told something new; beyond the expected number none does, and none is passed on.
  mutating func confirm(from accuser: NodeName) -> Bool {
    guard confirmations < expectedConfirmations, !accusers.contains(accuser) else { return false }
    accusers.append(accuser)
    return true
  }
}
