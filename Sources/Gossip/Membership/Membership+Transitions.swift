/// The member state machine: what an announcement, an accusation and an obituary do.
///
/// An incarnation orders what is said of one member: only the member itself raises it, and at equal incarnations
/// `suspect` overrides `alive` and `dead` overrides both (SWIM, section 4.2).
extension Membership {
  // MARK: Alive

  /// A member is announced.
  ///
  /// - Parameters:
  ///   - announcement: from a packet or a remote state.
  ///   - isApproved: the application has already been asked about it.
  mutating func receive(_ announcement: Alive, isApproved: Bool = false) {
    // A late echo of our own announcement must not bring us back after we said goodbye.
    if hasLeft, announcement.node == localName { return }
    guard announcement.versions?.isValidForAlive ?? true else {
      outbox.actions.append(.notice(.announcementRefused(announcement.node)))
      return
    }
    if configuration.asksBeforeAlive, !isApproved {
      outbox.actions.append(.voteAlive(announcement))
      return
    }

    let slot: Int
    var takesOverName = false
    if let known = table.slot(of: announcement.node) {
      slot = known
      if table[slot].address != announcement.address {
        guard isAllowed(announcement.address) else {
          outbox.actions.append(.notice(.announcementRefused(announcement.node)))
          return
        }
        guard mayChangeAddress(table[slot]) else {
          reportConflict(announcement, slot: slot)
          return
        }
        takesOverName = true
      }
    } else {
      guard isAllowed(announcement.address), table.count < configuration.maximumMembers else {
        outbox.actions.append(.notice(.announcementRefused(announcement.node)))
        return
      }
      slot = table.insert(
        MemberRecord(
          name: announcement.node, address: announcement.address, metadata: announcement.meta,
          isEmptyMetadataNil: announcement.isEmptyMetaNil, versions: announcement.versions ?? .unknown,
          incarnation: 0, state: .dead, stateChangeNanoseconds: now),
        random: &random)
    }

    let isLocal = announcement.node == localName
    if isLocal {
      guard announcement.incarnation >= table[slot].incarnation else { return }
      refuteIfDifferent(announcement, slot: slot)
      return
    }
    guard announcement.incarnation > table[slot].incarnation || takesOverName else { return }
    adopt(announcement, slot: slot)
  }

  /// Takes over what an announcement says and passes it on.
  mutating func adopt(_ announcement: Alive, slot: Int, announcementNumber: UInt64? = nil) {
    let previousState = table[slot].state
    let changedMetadata = table[slot].metadata != announcement.meta
    table[slot].suspicion = nil
    table[slot].incarnation = announcement.incarnation
    table[slot].metadata = announcement.meta
    table[slot].address = announcement.address
    table[slot].isEmptyMetadataNil = announcement.isEmptyMetaNil
    if let versions = announcement.versions { table[slot].versions = versions }
    if previousState != .alive {
      table[slot].state = .alive
      table[slot].stateChangeNanoseconds = now
    }
    broadcast(announcement, announcementNumber: announcementNumber)
    if announcement.node != localName { rememberedPeers.forget(announcement.node) }
    if previousState == .dead || previousState == .left {
      outbox.actions.append(.event(.joined(member(inSlot: slot))))
    } else if changedMetadata {
      outbox.actions.append(.event(.updated(member(inSlot: slot))))
    }
  }

  /// Somebody announces us. Anything but our own last words is somebody else's memory of a former life, or another
  /// member with our name, and is answered.
  private mutating func refuteIfDifferent(_ announcement: Alive, slot: Int) {
    let own = table[slot]
    if announcement.incarnation == own.incarnation, announcement.meta == own.metadata,
      announcement.versions == own.versions
    {
      return
    }
    refute(accusedIncarnation: announcement.incarnation)
  }

  private func mayChangeAddress(_ record: MemberRecord) -> Bool {
    switch record.state {
    case .left:
      return true
    case .dead:
      return configuration.deadNodeReclaimNanoseconds > 0
        && now - min(now, record.stateChangeNanoseconds) > configuration.deadNodeReclaimNanoseconds
    case .alive, .suspect:
      return false
    }
  }

  private func isAllowed(_ address: GossipAddress) -> Bool {
    configuration.allowedAddresses.allows(address.ip)
  }

  private mutating func reportConflict(_ announcement: Alive, slot: Int) {
    let other = Member(
      name: announcement.node, address: announcement.address, metadata: announcement.meta, state: .alive,
      incarnation: announcement.incarnation, versions: announcement.versions ?? .unknown)
    outbox.actions.append(.conflict(existing: member(inSlot: slot), other: other))
  }

  // MARK: Suspect

  /// A member is accused of not answering.
  mutating func receive(_ accusation: Suspect) {
    guard let slot = table.slot(of: accusation.node), accusation.incarnation >= table[slot].incarnation else { return }
    if table[slot].suspicion != nil {
      confirmSuspicion(slot: slot, accusation)
      return
    }
    guard table[slot].state == .alive else { return }
    if accusation.node == localName {
      refute(accusedIncarnation: accusation.incarnation)
      return
    }
    broadcast(accusation)
    table[slot].incarnation = accusation.incarnation
    table[slot].state = .suspect
    table[slot].stateChangeNanoseconds = now
    startSuspicion(slot: slot, accuser: accusation.from)
  }

  private mutating func startSuspicion(slot: Int, accuser: NodeName) {
    let nodeCount = table.count
    // Of a cluster too small to hold that many independent witnesses none are waited for.
    var expected = configuration.usesLifeguard ? max(0, configuration.suspicionMultiplier - 2) : 0
    if nodeCount - 2 < expected { expected = 0 }
    let minimum = Formulas.suspicionTimeoutNanoseconds(
      multiplier: configuration.suspicionMultiplier, nodeCount: nodeCount,
      probeIntervalNanoseconds: configuration.probeIntervalNanoseconds)
    let maximum = Formulas.saturatingProduct(
      minimum, UInt64(max(1, configuration.suspicionMaximumTimeoutMultiplier)))
    lastSuspicionNumber += 1
    let suspicion = Suspicion(
      number: lastSuspicionNumber, accuser: accuser, startNanoseconds: now, expectedConfirmations: expected,
      minimumNanoseconds: minimum, maximumNanoseconds: maximum)
    slotOfSuspicion[suspicion.number] = slot
    deadlines.add(.suspicion, identifier: suspicion.number, atNanoseconds: suspicion.deadlineNanoseconds)
    table[slot].suspicion = suspicion
  }

  private mutating func confirmSuspicion(slot: Int, _ accusation: Suspect) {
    guard table[slot].suspicion?.confirm(from: accusation.from) == true else { return }
    broadcast(accusation)
    guard let suspicion = table[slot].suspicion else { return }
    // The earlier, later deadline stays queued and is ignored when it fires.
    deadlines.add(
      .suspicion, identifier: suspicion.number, atNanoseconds: max(now, suspicion.deadlineNanoseconds))
  }

  /// A suspicion's deadline fired; it may have been shortened, withdrawn or replaced since.
  mutating func suspicionMayBeOver(number: UInt64) {
    guard let slot = slotOfSuspicion[number] else { return }
    guard let name = table.name(inSlot: slot), let suspicion = table[slot].suspicion, suspicion.number == number
    else {
      slotOfSuspicion[number] = nil
      return
    }
    guard suspicion.deadlineNanoseconds <= now else { return }
    slotOfSuspicion[number] = nil
    outbox.actions.append(.notice(.declaredDead(name, confirmations: suspicion.confirmations)))
    receive(Dead(incarnation: table[slot].incarnation, node: name, from: localName))
  }

  // MARK: Dead

  /// A member is declared dead, or (`from == node`) says goodbye.
  mutating func receive(_ obituary: Dead, announcementNumber: UInt64? = nil) {
    guard let slot = table.slot(of: obituary.node), obituary.incarnation >= table[slot].incarnation else { return }
    table[slot].suspicion = nil
    guard !table[slot].isDeadOrLeft else { return }
    if obituary.node == localName, !hasLeft {
      refute(accusedIncarnation: obituary.incarnation)
      return
    }
    broadcast(obituary, announcementNumber: announcementNumber)
    table[slot].incarnation = obituary.incarnation
    table[slot].state = obituary.node == obituary.from ? .left : .dead
    table[slot].stateChangeNanoseconds = now
    if obituary.node != localName, table[slot].state == .dead {
      rememberedPeers.remember(
        obituary.node, address: table[slot].address, nowNanoseconds: now)
    }
    outbox.actions.append(.event(.left(member(inSlot: slot))))
  }

  // MARK: Refutation

  /// Says that we are alive, with an incarnation above the accusation's, and counts it against our own health:
  /// whoever is accused is probably slow.
  mutating func refute(accusedIncarnation: UInt32) {
    // The last number cannot be exceeded: whoever is accused with it stays accused, but nothing wraps to a number
    // that everybody would ignore.
    let highest = max(lastIncarnation, accusedIncarnation)
    lastIncarnation = highest == .max ? .max : highest + 1
    table[localSlot].incarnation = lastIncarnation
    if configuration.usesLifeguard { health.apply(1) }
    broadcast(ownAnnouncement())
    outbox.actions.append(
      .notice(.refuted(accusedIncarnation: accusedIncarnation, newIncarnation: lastIncarnation)))
  }
}
