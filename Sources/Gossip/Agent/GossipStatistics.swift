/// What a node has sent, received and refused since it started.
public struct GossipStatistics: Sendable, Equatable {
  public var packetsSent = 0
  /// With label, encryption and checksum, without the headers of IP and UDP.
  public var packetBytesSent = 0
  public var packetsReceived = 0
  public var packetBytesReceived = 0
  /// Packets that could not be encoded or sent.
  public var unsentPackets = 0
  /// Packets refused whole: wrong label, key or checksum.
  public var refusedPackets = 0
  /// Messages dropped out of packets that were in order otherwise.
  public var droppedMessages = 0
  public var streamsAccepted = 0
  public var streamsDialed = 0
  /// Streams closed at once because too many were open.
  public var refusedStreams = 0
  public var failedStreams = 0
  public var streamBytesReceived = 0
  public var streamBytesSent = 0
  public var suspicions = 0
  public var deathsDeclared = 0
  public var refutations = 0
  /// Calls of hooks that were dropped because the application had not kept up.
  public var droppedHookCalls = 0
  /// Processor time of packets, timers and streams on the node's own queue. What the application's hooks take is
  /// theirs, and what the queue itself takes to wake a thread is in the process's time only.
  public var cpuNanoseconds: UInt64 = 0
}
