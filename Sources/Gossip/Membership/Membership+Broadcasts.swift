/// Queueing news of members.
extension Membership {
  mutating func broadcast(_ announcement: Alive, announcementNumber: UInt64? = nil) {
    queue(.alive(announcement), about: announcement.node, announcementNumber: announcementNumber)
  }

  mutating func broadcast(_ accusation: Suspect) {
    queue(.suspect(accusation), about: accusation.node, announcementNumber: nil)
  }

  mutating func broadcast(_ obituary: Dead, announcementNumber: UInt64? = nil) {
    queue(.dead(obituary), about: obituary.node, announcementNumber: announcementNumber)
  }

  /// The latest news of a member replaces what was still queued about it.
  private mutating func queue(_ message: GossipMessage, about name: NodeName, announcementNumber: UInt64?) {
    var bytes: [UInt8] = []
    message.encode(into: &bytes)
    broadcasts.queueMembership(name: name, announcementNumber: announcementNumber, bytes)
    reportFinishedAnnouncements()
    scheduleGossip()
  }

  mutating func reportFinishedAnnouncements() {
    guard !broadcasts.finishedAnnouncements.isEmpty else { return }
    let finished = broadcasts.finishedAnnouncements
    broadcasts.finishedAnnouncements.removeAll(keepingCapacity: true)
    for number in finished { finishAnnouncement(number, wasDelivered: true) }
  }
}
