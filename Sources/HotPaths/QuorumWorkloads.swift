import WeirCore

extension HotPaths {
  static let quorumCommit: [HotPath] =
    [3, 5, 7, 9].map { voters in
      HotPath(
        name: "quorum-commit-\(voters)", suite: .quorumCommit,
        operation: "commit index behind one acknowledgement of \(voters) voters", payloadBytes: 0,
        reference: .init(name: "sorted() of the match indexes") { SortedQuorum(voters: voters) },
        makeWorkload: { Acknowledge(voters: voters) })
    } + [
      HotPath(
        name: "quorum-commit-joint-3-3", suite: .quorumCommit,
        operation: "commit index behind one acknowledgement in a joint configuration", payloadBytes: 0,
        reference: .init(name: "sorted() of the match indexes") { SortedQuorum(voters: 6) },
        makeWorkload: { AcknowledgeJoint() })
    ]
}

/// Acknowledgements as a leader sees them: everybody gets ahead at about the same pace, in changing order.
private struct Acknowledgements {
  static let count = 1024
  let slots: [Int]
  let advances: [UInt64]

  init(voters: Int) {
    var state: UInt64 = 42
    func random() -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33)
    }
    slots = (0..<Self.count).map { _ in random() % voters }
    var index: UInt64 = 0
    advances = (0..<Self.count).map { _ in
      index += 1
      return index + UInt64(random() % (2 * voters))
    }
  }
}

private final class Acknowledge: Workload {
  let operationsPerStep = Acknowledgements.count
  private let acknowledgements: Acknowledgements
  private var quorum: MajorityQuorum
  private var base: UInt64 = 0
  private(set) var sink: UInt64 = 0

  init(voters: Int) {
    acknowledgements = Acknowledgements(voters: voters)
    quorum = MajorityQuorum(voterCount: voters)
  }

  func step() {
    sink &+= Self.run(&quorum, acknowledgements, base: base)
    base += UInt64(Acknowledgements.count)
  }

  private static func run(_ quorum: inout MajorityQuorum, _ acknowledgements: Acknowledgements, base: UInt64) -> UInt64
  {
    var sink: UInt64 = 0
    for position in 0..<Acknowledgements.count {
      let index = base + acknowledgements.advances[position]
      // The commit index itself, as of the reference: whether it moved is for the caller to branch on or not.
      _ = quorum.acknowledge(slot: acknowledgements.slots[position], index: index)
      sink &+= quorum.committedIndex
    }
    return sink
  }
}

/// What it takes to come by the acknowledgements, which is part of every figure of this suite.
final class ReadAcknowledgements: Workload {
  let operationsPerStep = Acknowledgements.count
  private let acknowledgements = Acknowledgements(voters: 3)
  private var base: UInt64 = 0
  private(set) var sink: UInt64 = 0

  func step() {
    sink &+= Self.run(acknowledgements, base: base)
    base += UInt64(Acknowledgements.count)
  }

  private static func run(_ acknowledgements: Acknowledgements, base: UInt64) -> UInt64 {
    var sink: UInt64 = 0
    for position in 0..<Acknowledgements.count {
      sink = max(sink, base + acknowledgements.advances[position]) &+ UInt64(acknowledgements.slots[position])
    }
    return sink
  }
}

private final class AcknowledgeJoint: Workload {
  let operationsPerStep = Acknowledgements.count
  private let acknowledgements = Acknowledgements(voters: 4)
  private var quorum = JointQuorum(QuorumConfiguration(voters: [1, 2, 3], votersOutgoing: [2, 3, 4]))
  private var base: UInt64 = 0
  private(set) var sink: UInt64 = 0

  func step() {
    sink &+= Self.run(&quorum, acknowledgements, base: base)
    base += UInt64(Acknowledgements.count)
  }

  private static func run(_ quorum: inout JointQuorum, _ acknowledgements: Acknowledgements, base: UInt64) -> UInt64 {
    var sink: UInt64 = 0
    for position in 0..<Acknowledgements.count {
      let index = base + acknowledgements.advances[position]
      // The commit index itself, as of the reference: whether it moved is for the caller to branch on or not.
      _ = quorum.acknowledge(slot: acknowledgements.slots[position], index: index)
      sink &+= quorum.committedIndex
    }
    return sink
  }
}

private final class SortedQuorum: Workload {
  let operationsPerStep = Acknowledgements.count
  private let acknowledgements: Acknowledgements
  private var matchIndexes: [UInt64]
  private var base: UInt64 = 0
  private(set) var sink: UInt64 = 0

  init(voters: Int) {
    acknowledgements = Acknowledgements(voters: voters)
    matchIndexes = Array(repeating: 0, count: voters)
  }

  func step() {
    for position in 0..<Acknowledgements.count {
      let slot = acknowledgements.slots[position]
      matchIndexes[slot] = max(matchIndexes[slot], base + acknowledgements.advances[position])
      sink &+= matchIndexes.sorted()[(matchIndexes.count - 1) / 2]
    }
    base += UInt64(Acknowledgements.count)
  }
}
