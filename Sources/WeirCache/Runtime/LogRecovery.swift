import Logging
import Raft
import WeirCore
import WeirStorage

/// Applies what is committed in a log while the log is being read, beginning from a snapshot: so a node that starts holds
/// its state and a short end of its log, not all of the log until it is applied.
///
/// Used by the thread that opens the node, until that is done.
final class LogRecovery {
  private let store: KeyValueStore
  private let log: Logger
  private(set) var configuration: ConfigurationState
  /// The last change of the configuration that was applied, or the snapshot's last entry.
  private(set) var configurationIndex: LogIndex
  /// Where the members are, by the snapshot and what followed it.
  private(set) var memberAddresses: [NodeID: String]
  /// Size of the entries that were applied.
  private(set) var appliedBytes = 0
  private var keyHashes: [UInt64?] = []

  init(store: KeyValueStore, snapshot: SnapshotMetadata, memberAddresses: [NodeID: String], log: Logger) {
    self.store = store
    self.log = log
    self.memberAddresses = memberAddresses
    configuration = snapshot.configuration
    configurationIndex = snapshot.index
  }

  func apply(_ batch: EntryBatch) {
    appliedBytes += batch.byteCount
    keyHashes.removeAll(keepingCapacity: true)
    batch.forEach { header, payload in
      keyHashes.append(header.kind == .normal ? store.prefetchSlot(payload) : nil)
    }
    for hash in keyHashes { if let hash { store.prefetchRecord(hash: hash) } }
    var position = 0
    batch.forEach { header, payload in
      if header.kind != .normal {
        change(header, payload)
      } else if let hash = keyHashes[position] {
        _ = store.apply(payload, hash: hash)
      }
      position += 1
    }
  }

  /// As the node's loop does; a change that is refused here was refused there.
  private func change(_ header: EntryHeader, _ payload: RawSpan) {
    do throws(ConfigurationChangeError) {
      let change =
        header.kind == .configurationChange
        ? try ConfigurationChange(decoding: payload).v2 : try ConfigurationChangeV2(decoding: payload)
      if let addresses = try? MemberAddressRecord.decode(change.context[...]) {
        memberAddresses.merge(addresses) { _, new in new }
      }
      var changer = ConfigurationChanger(
        tracker: ProgressTracker(), lastIndex: header.index, maximumInflightMessages: 1)
      changer.tracker = try changer.restore(configuration)
      configuration = try changer.apply(change).configuration.configurationState
      configurationIndex = header.index
      for member in change.changes where member.kind == .remove { memberAddresses[member.nodeID] = nil }
    } catch {
      log.error("the configuration change of entry \(header.index) changes nothing: \(error)")
    }
  }
}
