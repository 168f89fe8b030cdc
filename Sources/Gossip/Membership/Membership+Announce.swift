/// A leave or an update that waits until it has been told to the others.
struct Announcement {
  let number: UInt64
}

/// What the local member says of itself.
extension Membership {
  /// Our own announcement as of now.
  func ownAnnouncement() -> Alive {
    let own = table[localSlot]
    return Alive(
      incarnation: own.incarnation, node: own.name, address: own.address, meta: own.metadata,
      isEmptyMetaNil: own.isEmptyMetadataNil, versions: own.versions)
  }

  /// Raises our incarnation and announces us.
  mutating func announceSelf(number: UInt64?) {
    lastIncarnation = lastIncarnation == .max ? .max : lastIncarnation + 1
    var announcement = ownAnnouncement()
    announcement.incarnation = lastIncarnation
    adopt(announcement, slot: localSlot, announcementNumber: number)
  }

  /// Changes our metadata and tells the others.
  ///
  /// - Returns: the number under which `Action.announcementFinished` reports that the news has been sent as often as
  ///   news is, or that `timeoutNanoseconds` have passed.
  public mutating func update(metadata: [UInt8], timeoutNanoseconds: UInt64, nowNanoseconds: UInt64)
    throws(MembershipError) -> UInt64
  {
    advance(to: nowNanoseconds)
    guard !hasLeft else { throw .hasLeft }
    guard metadata.count <= Self.maximumMetadataBytes else {
      throw .metadataTooLong(byteCount: metadata.count, limitBytes: Self.maximumMetadataBytes)
    }
    let number = try startAnnouncement(timeoutNanoseconds: timeoutNanoseconds)
    lastIncarnation = lastIncarnation == .max ? .max : lastIncarnation + 1
    var announcement = ownAnnouncement()
    announcement.incarnation = lastIncarnation
    announcement.meta = metadata
    announcement.isEmptyMetaNil = metadata.isEmpty
    adopt(announcement, slot: localSlot, announcementNumber: number)
    finishIfAlone(number)
    return number
  }

  /// Says goodbye. Packets are still answered afterwards, so that the goodbye can be passed on.
  ///
  /// - Returns: the number under which `Action.announcementFinished` reports.
  public mutating func leave(timeoutNanoseconds: UInt64, nowNanoseconds: UInt64) throws(MembershipError) -> UInt64 {
    advance(to: nowNanoseconds)
    guard !hasLeft else { throw .hasLeft }
    let number = try startAnnouncement(timeoutNanoseconds: timeoutNanoseconds)
    hasLeft = true
    rememberedPeers.forgetAll()
    receive(
      Dead(incarnation: table[localSlot].incarnation, node: localName, from: localName), announcementNumber: number)
    finishIfAlone(number)
    return number
  }

  /// Comes back after `leave`: announces us with a higher incarnation. Those still known are told by gossip; join
  /// somebody as well, since a member that left is gossiped to by nobody.
  public mutating func rejoinAfterLeave(nowNanoseconds: UInt64) {
    advance(to: nowNanoseconds)
    guard hasLeft else { return }
    hasLeft = false
    announceSelf(number: nil)
  }

  /// Whether `leave` was called and not undone.
  public var isGone: Bool { hasLeft }

  // MARK: Being told

  static var maximumAnnouncements: Int { 256 }

  private mutating func startAnnouncement(timeoutNanoseconds: UInt64) throws(MembershipError) -> UInt64 {
    guard announcements.count < Self.maximumAnnouncements else {
      throw .tooManyRequests(limit: Self.maximumAnnouncements)
    }
    lastAnnouncementNumber += 1
    announcements.append(Announcement(number: lastAnnouncementNumber))
    deadlines.add(
      .announcementTimeout, identifier: lastAnnouncementNumber,
      atNanoseconds: Formulas.saturatingSum(now, timeoutNanoseconds))
    return lastAnnouncementNumber
  }

  private mutating func finishIfAlone(_ number: UInt64) {
    if isAlone { finishAnnouncement(number, wasDelivered: true) }
  }

  mutating func announcementTimedOut(number: UInt64) {
    finishAnnouncement(number, wasDelivered: false)
  }

  mutating func finishAnnouncement(_ number: UInt64, wasDelivered: Bool) {
    guard let index = announcements.firstIndex(where: { $0.number == number }) else { return }
    announcements.remove(at: index)
    outbox.actions.append(.announcementFinished(number: number, wasDelivered: wasDelivered))
  }
}
