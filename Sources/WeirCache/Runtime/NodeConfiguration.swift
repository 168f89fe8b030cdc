import Logging
import WeirCore
import WeirStorage
import WeirTransport

/// Settings of a node.
public struct NodeConfiguration: Sendable {
  /// A member that the cluster starts with.
  public struct Member: Sendable, Hashable {
    public var id: NodeID
    public var address: SocketAddress

    public init(id: NodeID, address: SocketAddress) {
      self.id = id
      self.address = address
    }
  }

  public var id: NodeID
  public var clusterID: UInt64
  /// Where to listen for other nodes; port 0 lets the system choose.
  public var listenAddress: SocketAddress
  /// The voters that the cluster starts with, this node among them; empty for a node that joins a cluster later.
  public var initialVoters: [NodeID]
  public var eventLoop = EventLoopConfiguration()
  public var storage = NodeStorage.memory
  /// What carries the files of `storage`: another one lets disks fail, for tests.
  public var fileSystem: any FileSystem = RealFileSystem()
  /// How the write-ahead log is kept. Its owner and its sync policy are this node's.
  public var logOptions = LogOptions()
  /// Bytes of entries in the write-ahead log after which the state is written as a snapshot and the log cut.
  public var snapshotAfterBytes = 512 << 20
  /// Entries in the write-ahead log after which the same happens, however small they are.
  public var snapshotAfterEntries = 10_000_000
  /// How many snapshots are kept, at least 1; the log is kept from the oldest of them on. With more than one, a newest that
  /// turns out to be damaged costs no more than time.
  public var retainedSnapshots = 2
  /// How fast a snapshot is written at most, in bytes per second: it shares the disk and the processor with the log, and
  /// writes must not wait behind it.
  public var snapshotBytesPerSecond = 64 << 20
  /// Length of a tick.
  public var tickNanoseconds: UInt64 = 50_000_000
  /// Ticks without word from a leader after which a follower stands for election (up to twice as many).
  public var electionTicks = 20
  public var heartbeatTicks = 1
  /// How much the length of an election timeout may differ between two nodes' clocks; taken off the lease.
  public var leaseDriftBoundNanoseconds: UInt64 = 100_000_000
  /// Bytes of entries in one append message.
  public var maximumMessageBytes = 1 << 20
  /// Append messages, and bytes of entries, in flight to one follower.
  public var maximumInflightMessages = 256
  public var maximumInflightBytes = 16 << 20
  /// Bytes of commands that may wait to be committed; what is proposed beyond it is refused as overload.
  public var maximumUncommittedBytes = 64 << 20
  /// Bytes of commands that may wait in one lane for the node's queue.
  public var maximumLaneBytes = 16 << 20
  /// Bytes of applied entries that are held at most. A live follower that needs older ones gets a snapshot.
  public var maximumLogBytes = 64 << 20
  /// Bytes of applied entries that are held in any case, for followers that are away for a moment.
  public var trailingLogBytes = 16 << 20
  /// How long a notice that something is committed may wait for an append to travel with.
  public var commitNoticeDelayNanoseconds: UInt64 = 1_000_000
  /// Bytes that may wait for one peer.
  public var maximumQueuedBytesPerPeer = 32 << 20
  /// Shards of the state machine; a power of two.
  public var shardCount = 256
  /// Secret seed of the state machine's hash, and of everything random.
  public var seed: UInt64
  public var log: Logger
  /// Where the times of sampled writes go; nil: nothing is sampled.
  public var stageBoard: StageBoard?

  public init(
    id: NodeID, clusterID: UInt64, listenAddress: SocketAddress, initialVoters: [NodeID], seed: UInt64,
    log: Logger = Logger(label: "weir.node")
  ) {
    self.id = id
    self.clusterID = clusterID
    self.listenAddress = listenAddress
    self.initialVoters = initialVoters
    self.seed = seed
    self.log = log
  }
}
