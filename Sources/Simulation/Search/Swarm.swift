/// Which kind of trouble a seed's plan leans to.
public enum Profile: String, Sendable, Hashable, CaseIterable {
  /// Everything, each kind of fault on in about half of the seeds.
  case standard
  /// As `standard`, with the real write-ahead log and snapshot files on a disk with faults.
  case disk
  /// Many membership changes, with crashes and partitions.
  case membership
  /// Lease reads, partitions, transfers, pauses and restarts; clocks within the stated drift bound.
  case lease
  /// As `lease`, with clocks far beyond the bound: reads may be stale.
  case leaseBeyondBound
  /// Elections: crashes, isolation, one-way links, returning nodes.
  case elections
  /// Slow followers, small messages, early snapshots.
  case catchUp
  /// Crashes and restarts at every point.
  case crashes
  /// Elections while slow disks have writes under way.
  case slowStorage
  /// State machines that lag far behind what is committed, while members change and leaders go.
  case slowApply
  /// Answers that arrive long after the question, and leaders that nobody follows any more.
  case lateAnswers
}

/// Swarm testing (Groce et al., ISSTA 2012): every seed has its own choice of which kinds of faults happen at all, and of
/// sizes and limits; runs in which everything happens at once hide what needs something not to happen.
struct Swarm {
  private var random: RandomStream
  private let profile: Profile
  private var plan: SimulationPlan

  /// The plan of a seed.
  static func plan(seed: UInt64, profile: Profile = .standard) -> SimulationPlan {
    var swarm = Swarm(seed: seed, profile: profile)
    swarm.drawCluster()
    swarm.drawCore()
    swarm.drawNetwork()
    swarm.drawDisk()
    swarm.drawClocks()
    swarm.drawWorkload()
    swarm.drawFaults()
    return swarm.plan
  }

  private init(seed: UInt64, profile: Profile) {
    self.profile = profile
    random = RandomStream(seed: seed, purpose: .configuration)
    plan = SimulationPlan(seed: seed)
  }

  private mutating func drawCluster() {
    switch profile {
    case .lease, .leaseBeyondBound: plan.initialVoters = random.pick([3, 3, 5])
    case .membership: plan.initialVoters = random.pick([1, 2, 3, 3, 4])
    case .slowApply: plan.initialVoters = random.pick([1, 1, 2, 3])
    case .elections, .slowStorage, .lateAnswers: plan.initialVoters = random.pick([2, 3, 3, 4, 5])
    default: plan.initialVoters = random.pick([1, 2, 3, 3, 3, 3, 4, 5, 5, 7])
    }
    plan.initialLearners = plan.initialVoters < 6 && random.chance(perMillion: 200_000) ? 1 : 0
    let members = plan.initialVoters + plan.initialLearners
    let wantsSpare =
      profile == .membership || profile == .slowApply
      || (profile != .lease && random.chance(perMillion: 400_000))
    plan.nodeCount = min(7, members + (wantsSpare ? random.between(1, 2) : 0))
  }

  private mutating func drawCore() {
    plan.core.tickNanoseconds = UInt64(random.pick([5, 10, 10, 20])) * 1_000_000
    plan.core.electionTicks = random.pick([8, 10, 10, 15])
    plan.core.heartbeatTicks = random.pick([1, 2, 2, 3])
    plan.core.preVote = random.chance(perMillion: 700_000)
    plan.core.checkQuorum = random.chance(perMillion: 700_000)
    plan.core.asynchronousStorage = random.coin()
    plan.core.maximumBytesPerMessage = random.pick([0, 128, 512, 1 << 20])
    plan.core.maximumInflightMessages = random.pick([1, 2, 8, 64, 256])
    plan.core.maximumUncommittedBytes = random.pick([1024, 1 << 20, 1 << 20])
    plan.core.maximumCommittedBytesPerReady = random.pick([64, 256, 1 << 20])
    plan.core.handlesInputsOneByOne = random.coin()
    plan.core.stepsDownOnRemoval = random.chance(perMillion: 800_000)
    plan.core.disablesProposalForwarding = random.chance(perMillion: 300_000)
    plan.core.snapshotThreshold = random.pick([10, 20, 40, 100])
    plan.core.trailingEntries = random.pick([0, 2, 10])
    if profile == .lease || profile == .leaseBeyondBound {
      plan.core.preVote = true
      plan.core.checkQuorum = true
    }
    if profile == .slowStorage || profile == .slowApply { plan.core.asynchronousStorage = true }
    if profile == .slowApply {
      plan.core.slowApplyPerMillion = random.pick([300_000, 600_000])
      plan.core.slowApplyNanoseconds = 4 * Int(plan.electionTimeoutNanoseconds)
      // Changes that are in no snapshot have to be applied again after a restart.
      plan.core.snapshotThreshold = 100
    }
    if profile == .lateAnswers { plan.core.checkQuorum = random.chance(perMillion: 300_000) }
    if profile == .catchUp {
      plan.core.snapshotThreshold = random.pick([10, 15])
      plan.core.trailingEntries = random.pick([0, 2, 5])
    }
  }

  private mutating func drawNetwork() {
    plan.network.minimumDelayNanoseconds = random.pick([50_000, 200_000, 1_000_000])
    plan.network.maximumDelayNanoseconds = plan.network.minimumDelayNanoseconds + random.pick([0, 500_000, 4_000_000])
    if random.coin() { plan.network.tailPerMillion = random.pick([1_000, 10_000, 50_000]) }
    plan.network.tailNanoseconds = random.pick([30_000_000, 150_000_000, 600_000_000])
    if random.coin() { plan.network.lossPerMillion = random.pick([5_000, 50_000, 200_000]) }
    if random.coin() { plan.network.duplicatePerMillion = random.pick([10_000, 100_000, 300_000]) }
    plan.network.partitionsDropInFlight = random.coin()
    if profile == .lateAnswers {
      plan.network.tailPerMillion = random.pick([100_000, 300_000])
      plan.network.tailNanoseconds = random.pick([150_000_000, 600_000_000])
      plan.network.partitionsDropInFlight = false
    }
    plan.network.encodes = random.coin()
  }

  private mutating func drawDisk() {
    if profile == .disk { plan.disk.kind = .writeAheadLog }
    plan.disk.minimumSyncNanoseconds = random.pick([20_000, 100_000, 1_000_000])
    plan.disk.maximumSyncNanoseconds = plan.disk.minimumSyncNanoseconds * random.pick([1, 4, 20])
    if random.chance(perMillion: 300_000) { plan.disk.slowPerMillion = random.pick([1_000, 20_000]) }
    plan.disk.slowSyncNanoseconds = random.pick([50_000_000, 300_000_000])
    if profile == .slowStorage { plan.disk.slowPerMillion = random.pick([100_000, 300_000]) }
    plan.disk.tearsAtCrash = random.chance(perMillion: 700_000)
    plan.disk.segmentBytes = random.pick([8 << 10, 16 << 10, 64 << 10])
    if profile == .disk, random.coin() { plan.disk.errorPerMillion = random.pick([500, 5_000]) }
  }

  private mutating func drawClocks() {
    let bound = plan.core.leaseDriftPerMillion
    plan.clockRatesPerMillion = (0..<plan.nodeCount).map { _ in
      switch profile {
      case .lease: random.pick([-bound / 2, 0, bound / 2, random.between(-bound / 2, bound / 2)])
      case .leaseBeyondBound: random.pick([-400_000, -300_000, 300_000, 400_000])
      default: random.pick([-100_000, 0, 0, 0, 100_000, random.between(-100_000, 100_000)])
      }
    }
  }

  private mutating func drawWorkload() {
    plan.workload.clients = random.between(1, 5)
    plan.workload.keys = random.between(1, 3)
    plan.workload.readPerMillion = random.pick([200_000, 500_000, 800_000])
    plan.workload.thinkNanoseconds = random.pick([1_000_000, 5_000_000, 20_000_000])
    plan.workload.timeoutNanoseconds = random.pick([150_000_000, 400_000_000, 1_000_000_000])
    plan.workload.maximumPayloadBytes = random.pick([24, 64, 200])
    plan.workload.operationsPerClient = 120
    if profile == .lease || profile == .leaseBeyondBound {
      plan.workload.readMode = .lease
      plan.workload.clients = random.between(3, 6)
      plan.workload.readPerMillion = 700_000
      plan.workload.thinkNanoseconds = random.pick([1_000_000, 4_000_000])
      plan.workload.operationsPerClient = 250
    }
  }

  // MARK: Faults

  private mutating func drawFaults() {
    var faults = RandomStream(seed: plan.seed, purpose: .faults)
    swap(&faults, &random)
    let timeout = plan.electionTimeoutNanoseconds
    plan.faultPhaseNanoseconds = timeout * UInt64(random.pick([8, 14, 22]))
    plan.healingNanoseconds = timeout * 30
    for kind in Kind.allCases where random.below(100) < weight(of: kind) {
      let count = kind == .damage ? 1 : random.between(1, kind == .membership && isAboutMembership ? 6 : 3)
      for _ in 0..<count { plan.faults.append(draw(kind)) }
    }
    if profile == .lease || profile == .leaseBeyondBound {
      for _ in 0..<random.between(0, 2) { drawUsurpation() }
    }
    plan.faults.sort { $0.beginNanoseconds < $1.beginNanoseconds }
  }

  /// The leader is cut off, and somebody campaigns while its lease should still hold: at once, or after all the others
  /// have restarted and may have forgotten what they promised it, or one that was away for so long that it has promised
  /// nothing, but whose voters have.
  private mutating func drawUsurpation() {
    let timeout = plan.electionTimeoutNanoseconds
    let begin = timeout + UInt64(random.below(Int(plan.faultPhaseNanoseconds - timeout)))
    plan.faults.append(Fault(at: begin, for: 2 * timeout, .partition(.isolate(.leader))))
    var campaign = begin + UInt64(random.below(Int(timeout / 3)))
    let kind = random.below(4)
    if kind == 1 {
      let away = node()
      plan.faults.append(
        Fault(at: begin - min(begin, 2 * timeout), for: 2 * timeout, .partition(.isolate(.follower(away)))))
      campaign = begin + timeout / 20
    }
    if kind == 3 {
      // The target of a transfer campaigns with the leader's leave, which has to end its lease.
      let early = UInt64(random.below(4_000_000))
      plan.faults.append(Fault(at: begin - early, for: 0, .transfer(to: .follower(node()))))
      return
    }
    if kind == 2 {
      for node in 0..<plan.nodeCount {
        plan.faults.append(Fault(at: begin + 1_000_000, for: timeout / 10, .crash(.follower(node), .atOnce)))
      }
      campaign = begin + timeout / 8 + UInt64(random.below(Int(timeout / 4)))
    }
    for node in 0..<plan.nodeCount {
      plan.faults.append(Fault(at: campaign + UInt64(node) * timeout / 20, for: 0, .campaign(.follower(node))))
    }
  }

  private enum Kind: CaseIterable {
    case crash, crashAll, pause, isolate, split, oneWay, bridge, clog, burst, slowDisk, transfer, campaign, forget
    case membership, damage
  }

  /// In how many of a hundred seeds a kind of fault happens.
  private func weight(of kind: Kind) -> Int {
    switch (profile, kind) {
    case (.lease, .crash), (.leaseBeyondBound, .crash): 50
    case (.lease, .isolate), (.leaseBeyondBound, .isolate): 90
    case (.lease, .split), (.leaseBeyondBound, .split): 60
    case (.lease, .pause), (.lease, .transfer): 50
    case (.lease, .membership), (.leaseBeyondBound, .membership): 10
    case (.membership, .membership), (.slowApply, .membership): 100
    case (.slowApply, .crash), (.slowApply, .isolate): 90
    case (.membership, .crash), (.membership, .isolate), (.membership, .transfer): 60
    case (.lateAnswers, .isolate), (.lateAnswers, .split), (.lateAnswers, .pause): 90
    case (.slowStorage, .isolate), (.slowStorage, .campaign), (.slowStorage, .transfer), (.slowStorage, .split): 80
    case (.elections, .crash), (.elections, .isolate), (.elections, .oneWay), (.elections, .campaign): 70
    case (.crashes, .crash), (.disk, .crash): 95
    case (.crashes, .crashAll), (.disk, .crashAll): 50
    case (.catchUp, .isolate), (.catchUp, .pause), (.catchUp, .clog), (.catchUp, .crash): 60
    case (.disk, .damage): plan.initialVoters >= 3 ? 25 : 0
    case (_, .damage): 0
    case (_, .crashAll): 15
    case (_, .forget): 10
    case (_, .campaign): 20
    case (_, .membership): plan.nodeCount > 1 ? 35 : 0
    default: 40
    }
  }

  private mutating func draw(_ kind: Kind) -> Fault {
    let timeout = plan.electionTimeoutNanoseconds
    let begin = timeout + UInt64(random.below(Int(plan.faultPhaseNanoseconds - timeout)))
    let duration = timeout * UInt64(random.between(1, 40)) / 10
    switch kind {
    case .crash: return Fault(at: begin, for: duration, .crash(target(), random.pick(CrashPoint.allCases)))
    case .crashAll: return Fault(at: begin, for: timeout, .crashAll)
    case .pause: return Fault(at: begin, for: duration, .pause(target()))
    case .isolate: return Fault(at: begin, for: duration, .partition(.isolate(target())))
    case .split: return Fault(at: begin, for: duration, .partition(.split(mask: mask())))
    case .oneWay: return Fault(at: begin, for: duration, .partition(oneWay()))
    case .bridge:
      let shape: PartitionShape = random.coin() ? .bridge(node(), mask: mask()) : .ring
      return Fault(at: begin, for: duration, .partition(shape))
    case .clog:
      let delay = random.pick([20_000_000, 100_000_000, 500_000_000])
      return Fault(at: begin, for: duration, .clog(from: node(), to: node(), delayNanoseconds: delay))
    case .burst: return Fault(at: begin, for: duration, .lossBurst(perMillion: random.pick([300_000, 700_000])))
    case .slowDisk: return Fault(at: begin, for: duration, .slowDisk(target()))
    case .damage: return Fault(at: begin, for: 0, .damage(target()))
    case .transfer: return Fault(at: begin, for: 0, .transfer(to: target()))
    case .campaign: return Fault(at: begin, for: 0, .campaign(target()))
    case .forget: return Fault(at: begin, for: 0, .forgetLeader(target()))
    case .membership: return Fault(at: begin, for: 0, .change(change()))
    }
  }

  private var isAboutMembership: Bool { profile == .membership || profile == .slowApply }

  private mutating func node() -> Int { random.below(plan.nodeCount) }

  private mutating func mask() -> Int { random.below(1 << plan.nodeCount) }

  private mutating func target() -> Target {
    switch random.below(4) {
    case 0, 1: .leader
    case 2: .follower(node())
    default: .node(node())
    }
  }

  private mutating func oneWay() -> PartitionShape {
    switch random.below(3) {
    case 0: .mute(target())
    case 1: .deafen(target())
    default: .oneWay(from: node(), to: node())
    }
  }

  private mutating func change() -> MembershipRequest {
    switch random.below(8) {
    case 0, 1: .addVoter(node())
    case 2: .addLearner(node())
    case 3: .remove(target())
    case 4: .remove(.node(node()))
    default:
      .joint(
        add: random.subset(of: plan.nodeCount, count: random.between(0, 2)),
        remove: random.subset(of: plan.nodeCount, count: random.between(0, 2)),
        demote: random.chance(perMillion: 300_000) ? [node()] : [])
    }
  }
}
