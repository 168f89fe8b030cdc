import CWeir
import Dispatch
import Glibc
import Synchronization

/// Readiness by Dispatch sources that target the node's serial queue, so that an event needs no hop of our own.
///
/// Three faults of libdispatch on Linux shape it: sources are made and cancelled on one queue only (concurrent changes
/// free an epoll entry that is in use); a descriptor is closed only in its source's cancel handler; and a write
/// source exists only while a write would block, and then on a duplicate of the descriptor, since the read and the
/// write source of one descriptor share an entry, of which a re-armed source updates the wrong half.
///
/// Sendable: everything mutable belongs to the queue (before `start`, to whoever builds the loop); the rest is atomic.
final class DispatchSourceLoop: EventLoop, @unchecked Sendable {
  private struct Channel {
    var descriptor: Int32
    var read: any DispatchSourceRead
    var write: (any DispatchSourceWrite)?
    /// Its read source is suspended.
    var isPaused = false
  }

  let queue: DispatchQueue
  let mechanism = ReadinessMechanism.dispatchSources
  private let repollNanoseconds: UInt64
  private var handler: (any EventLoopHandler)?
  private var channels: [Int: Channel] = [:]
  private var early: [(descriptor: Int32, channel: Int)] = []
  private var started = false
  private var stopped = false
  private var timer: (any DispatchSourceTimer)?
  private var timerDeadline = UInt64.max
  private let closing = DispatchGroup()
  private let wakePending = Atomic<Bool>(false)
  private let wakeupCount = Atomic<UInt64>(0)

  init(label: String, repollNanoseconds: UInt64) {
    queue = DispatchQueue(label: label)
    self.repollNanoseconds = repollNanoseconds
  }

  func start(_ handler: sending any EventLoopHandler) {
    precondition(!started, "an event loop is started once")
    started = true
    nonisolated(unsafe) let handler = handler
    queue.async { [self] in
      unsafe self.handler = handler
      let timer = DispatchSource.makeTimerSource(queue: queue)
      timer.setEventHandler { [unowned self] in
        timerDeadline = .max
        turn()
      }
      timer.resume()
      self.timer = timer
      for entry in early { makeReadSource(descriptor: entry.descriptor, channel: entry.channel) }
      early.removeAll()
      turn()
    }
  }

  func register(descriptor: Int32, channel: Int) {
    if handler == nil {
      early.append((descriptor, channel))
    } else {
      makeReadSource(descriptor: descriptor, channel: channel)
    }
  }

  func setWriteInterest(channel: Int, _ enabled: Bool) {
    guard var entry = channels[channel] else { return }
    if enabled, entry.write == nil {
      let duplicate = fcntl(entry.descriptor, F_DUPFD_CLOEXEC, 0)
      guard duplicate >= 0 else { return }
      let source = DispatchSource.makeWriteSource(fileDescriptor: duplicate, queue: queue)
      source.setEventHandler { [unowned self] in
        guard channels[channel]?.write != nil else { return }
        handler?.eventLoopWritable(channel: channel)
        turn()
      }
      source.setCancelHandler { [closing] in
        Socket.close(duplicate)
        closing.leave()
      }
      closing.enter()
      source.resume()
      entry.write = source
    } else if !enabled {
      entry.write?.cancel()
      entry.write = nil
    }
    channels[channel] = entry
  }

  func setReadInterest(channel: Int, _ enabled: Bool) {
    guard let entry = channels[channel], entry.isPaused == enabled else { return }
    if enabled { entry.read.resume() } else { entry.read.suspend() }
    channels[channel]?.isPaused = !enabled
  }

  func close(channel: Int) {
    if let position = early.firstIndex(where: { $0.channel == channel }) {
      Socket.close(early.remove(at: position).descriptor)
    }
    guard let entry = channels.removeValue(forKey: channel) else { return }
    entry.write?.cancel()
    entry.read.cancel()
    // A suspended source calls no cancel handler.
    if entry.isPaused { entry.read.resume() }
  }

  func wake() {
    guard !wakePending.exchange(true, ordering: .acquiringAndReleasing) else { return }
    queue.async { [self] in
      turn()
    }
  }

  func stop() {
    guard started else { return }
    queue.sync {
      guard !stopped else { return }
      stopped = true
      for channel in Array(channels.keys) { close(channel: channel) }
      timer?.cancel()
      timer = nil
    }
    // The cancel handlers run on the queue; only after them are the descriptors closed.
    closing.wait()
    queue.sync { handler = nil }
  }

  var wakeups: UInt64 { wakeupCount.load(ordering: .relaxed) }

  var systemCalls: EventLoopSystemCalls? { nil }

  /// Dispatch picks a thread for each event.
  var cpuNanoseconds: UInt64? { nil }

  private func makeReadSource(descriptor: Int32, channel: Int) {
    precondition(channels[channel] == nil, "channel \(channel) is taken")
    let source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: queue)
    source.setEventHandler { [unowned self] in
      guard channels[channel] != nil else { return }
      handler?.eventLoopReadable(channel: channel)
      turn()
    }
    source.setCancelHandler { [closing] in
      Socket.close(descriptor)
      closing.leave()
    }
    closing.enter()
    channels[channel] = Channel(descriptor: descriptor, read: source, write: nil)
    source.resume()
  }

  private func turn() {
    guard !stopped, let handler else { return }
    wakeupCount.wrappingAdd(1, ordering: .relaxed)
    wakePending.store(false, ordering: .sequentiallyConsistent)
    var deadline = handler.eventLoopTurn()
    if repollNanoseconds > 0 { deadline = repoll(handler, deadline) }
    arm(deadline)
  }

  /// Looks at the mailbox and the sockets again for a bounded time before the queue is given back.
  private func repoll(_ handler: any EventLoopHandler, _ first: UInt64) -> UInt64 {
    var deadline = first
    var end = cweir_monotonic_nanoseconds() + repollNanoseconds
    // A negative descriptor is passed over.
    var polls = channels.values.map { channel in
      pollfd(fd: channel.isPaused ? -1 : channel.descriptor, events: Int16(POLLIN), revents: 0)
    }
    let tokens = Array(channels.keys)
    while true {
      let ready = unsafe poll(&polls, nfds_t(polls.count), 0)
      if ready > 0 {
        for index in polls.indices where polls[index].revents != 0 && channels[tokens[index]] != nil {
          handler.eventLoopReadable(channel: tokens[index])
        }
      }
      let now = cweir_monotonic_nanoseconds()
      if ready > 0 || handler.eventLoopHasWork {
        deadline = handler.eventLoopTurn()
        // Connections came or went: the list of descriptors is no longer right.
        if tokens.contains(where: { channels[$0] == nil }) || tokens.count != channels.count { return deadline }
        end = now + repollNanoseconds
      }
      if now >= end || now >= deadline || stopped { return deadline }
    }
  }

  private func arm(_ deadline: UInt64) {
    guard deadline < timerDeadline || timerDeadline <= cweir_monotonic_nanoseconds(), let timer else { return }
    timerDeadline = deadline
    timer.schedule(deadline: DispatchTime(uptimeNanoseconds: deadline), leeway: .microseconds(100))
  }
}
