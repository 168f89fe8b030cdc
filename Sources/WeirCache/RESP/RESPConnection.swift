import RESPWire
import WeirCore
import WeirTransport

/// One cache client's connection, on the server's queue.
///
/// A client that sends commands without waiting expects them to take effect one after the other. So writes under way and reads
/// under way exclude each other: writes that follow writes go into the log together, in their order; a read begins once
/// the writes before it are applied, and a write once the reads before it are answered. What cannot begin yet stays in
/// `reader`, whose limit stops the client.
final class RESPConnection: ServedConnection {
  /// A write that has not been answered to the client.
  struct Write {
    var reply: RESPWriteReply
    /// Where its key belongs, for a client that has to ask elsewhere.
    var slot: UInt16
    var outcome: Outcome?
    var number: Int64 = 0
  }

  /// A read that has not been answered.
  struct Read {
    var verb: RESPVerb
    /// The reads up to this ticket may be answered once it is settled; 0: no ticket was asked for.
    var ticket: UInt64 = 0
    /// Which of the connection's `readKeys` are its.
    var keys: Range<Int>
  }

  let channel: Int
  let descriptor: Int32
  /// A number of its own, for people who look at a server.
  let id: Int
  var reader: RESPCommandReader
  var output = SendBuffer()
  /// The socket takes no more at the moment.
  var isBlocked = false
  /// Nothing is read from the socket at the moment.
  var isPaused = false
  /// It ends once its answers are out: nothing more is read.
  var isEnding = false
  /// Its answers are out, and it is awaited until then that the client closes (CLOCK_MONOTONIC in nanoseconds).
  var endDeadline: UInt64?
  /// It is among those that the server looks at in this turn.
  var isTouched = false
  /// It waits for others' writes to be answered.
  var isStarved = false
  /// It waits for tickets among others of the same turn.
  var wantsTicket = false
  /// It asked to be answered from what this node holds, whoever leads.
  var readsStale = false
  var name: [UInt8] = []

  private var writes: [Write] = []
  private var answeredWrites = 0
  /// What is answered to those of `writes` that are none, by their numbers.
  private var refusals: [UInt32: RESPRefusal] = [:]
  /// The number of the first of `writes`.
  private var firstWrite: UInt32 = 0

  private(set) var reads: [Read] = []
  /// How many of `reads` are answered; they are dropped together, at the end.
  private(set) var answeredReads = 0
  private var keyBytes: [UInt8] = []
  private var keyPlaces: [Range<Int>] = []
  /// Removals of keys that the first read has found past their deadline, not yet applied.
  var removalsUnderWay = 0
  /// How one of them ended, if not well.
  var removalFailure: Outcome?

  init(channel: Int, descriptor: Int32, id: Int, limits: RESPLimits) {
    self.channel = channel
    self.descriptor = descriptor
    self.id = id
    reader = RESPCommandReader(limits: limits)
  }

  var writesUnderWay: Int { writes.count - answeredWrites }
  var readsUnderWay: Int { reads.count - answeredReads }
  /// What the reads under way take, in bytes.
  var readKeyBytes: Int { keyBytes.count }
  var isIdle: Bool { writesUnderWay == 0 && readsUnderWay == 0 }

  // MARK: Writes

  /// Notes a write; `settle` takes its number.
  func begin(_ reply: RESPWriteReply, slot: Int) -> UInt32 {
    writes.append(Write(reply: reply, slot: UInt16(truncatingIfNeeded: slot)))
    return firstWrite &+ UInt32(truncatingIfNeeded: writes.count - 1)
  }

  func settle(_ write: UInt32, _ outcome: Outcome, _ number: Int64) {
    let position = Int(write &- firstWrite)
    precondition(position >= answeredWrites && writes[position].outcome == nil, "a write is answered once")
    writes[position].outcome = outcome
    writes[position].number = number
  }

  /// Notes a write that is none: it is answered in its turn.
  func refuse(_ refusal: RESPRefusal) {
    let write = begin(.ok, slot: 0)
    settle(write, .refused, 0)
    refusals[write] = refusal
  }

  /// Calls `body` with the writes whose turn it is to be answered, in their order.
  func answerWrites(_ body: (Write, Outcome, RESPRefusal?) -> Void) {
    while answeredWrites < writes.count, let outcome = writes[answeredWrites].outcome {
      let number = firstWrite &+ UInt32(truncatingIfNeeded: answeredWrites)
      body(writes[answeredWrites], outcome, refusals.isEmpty ? nil : refusals.removeValue(forKey: number))
      answeredWrites += 1
    }
    guard answeredWrites == writes.count || answeredWrites >= 256 else { return }
    writes.removeFirst(answeredWrites)
    firstWrite &+= UInt32(truncatingIfNeeded: answeredWrites)
    answeredWrites = 0
  }

  // MARK: Reads

  /// Keeps a read, and its keys, until it may be answered.
  func begin(_ verb: RESPVerb, _ words: RESPWords) {
    let first = keyPlaces.count
    for position in 1..<words.count {
      let place = words.places[position]
      keyPlaces.append(keyBytes.count..<keyBytes.count + place.count)
      keyBytes.append(contentsOf: words.bytes[place])
    }
    reads.append(Read(verb: verb, keys: first..<keyPlaces.count))
  }

  /// The first read that is not answered.
  var firstRead: Read? { answeredReads < reads.count ? reads[answeredReads] : nil }

  /// Gives all reads that have none this ticket.
  func assign(ticket: UInt64) {
    for position in answeredReads..<reads.count where reads[position].ticket == 0 { reads[position].ticket = ticket }
  }

  /// Calls `body` with the keys of a read: where they lie in which bytes.
  func withKeys<Result>(of read: Read, _ body: (ArraySlice<Range<Int>>, [UInt8]) -> Result) -> Result {
    body(keyPlaces[read.keys], keyBytes)
  }

  /// The first read is answered; `forgetAnsweredReads` makes it final.
  func finishRead() {
    answeredReads += 1
    removalFailure = nil
  }

  /// Reads from this one on are not answered after all.
  func takeBackReads(to position: Int) { answeredReads = position }

  func forgetAnsweredReads() {
    guard answeredReads > 0, answeredReads == reads.count else { return }
    reads.removeAll(keepingCapacity: reads.capacity <= 1024)
    keyPlaces.removeAll(keepingCapacity: keyPlaces.capacity <= 1024)
    keyBytes.removeAll(keepingCapacity: keyBytes.capacity <= 64 << 10)
    answeredReads = 0
  }

  /// Puts the connection back to what it was when the client came.
  func reset() {
    name = []
    readsStale = false
  }
}
