import CWeir
import Raft
import Synchronization

/// The lease, as other threads see it.
///
/// A Lease read runs entirely on the caller's thread:
///
///  1. read the value(s) from the state machine;
///  2. fence; 3. load the published expiry; 4. read the clock;
///  5. if the clock is before the expiry, the values are the answer, else they are thrown away and the read takes a round.
///
/// Why the answer is linearizable. Call t the moment of step 1, which lies between the read's beginning and its end.
///
/// (a) *No later leader had committed anything at t.* The expiry loaded in step 3 was computed by this node's queue as
/// leader of some term T: the time at which a heartbeat round was sent that a quorum answered, plus an election timeout
/// less the drift bound. Every voter of that quorum refuses to vote until an election timeout (by its own clock) after
/// it heard that heartbeat, which was after it was sent. Any later leader needs a vote from one of them, so none
/// exists before the expiry. The clock was read *after* the values (steps 1 and 4 are in this order, by the fence) and
/// was before the expiry, so t was too. Checking the clock first would be wrong: a thread may sleep between the check
/// and the read, for longer than the lease.
///
/// (b) *This node may have lost its leadership between t and now, or be losing it.* That is no harm: (a) speaks of t.
/// A transfer is the one case in which a later leader may exist before the expiry, since voters do not refuse a
/// candidate that the leader itself has chosen. The queue therefore stores 0 as expiry *before* the message that
/// starts the transfer leaves. If step 3 still loaded the old expiry, the values were read before that store, hence
/// before the transfer began.
///
/// (c) *Every write that was acknowledged before the read began is in the values.* A write of this leadership is
/// acknowledged after it was applied here. Writes of earlier leaderships are below this leader's first entry of its own
/// term, and the expiry is published only once that entry has been applied here. Writes shown by a follower, which
/// may learn of a commit before this node's clients do, were applied here before the message with that commit index
/// left (see `NodeLoop`).
///
/// (d) *The values are of committed entries only*, since nothing else is ever applied; so what one read returned no later
/// read can fail to see.
extension NodeLoop {
  /// Called before anything that may start a transfer leaves this node.
  func publishLease() {
    let isUsable = role == .leader && leadershipTerm == raft.term && appliedIndex >= leadershipStartIndex
    let expiry = isUsable ? raft.leaseExpiryNanoseconds : 0
    if published.leaseExpiryNanoseconds.load(ordering: .relaxed) != expiry {
      published.leaseExpiryNanoseconds.store(expiry, ordering: .sequentiallyConsistent)
    }
  }
}

extension Node {
  /// Whether values that the calling thread has read from `store` *before* this call are the answer to a Lease read.
  /// One call may stand behind any number of reads.
  public func leaseHeldDuringReads() -> Bool {
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    let expiry = published.leaseExpiryNanoseconds.load(ordering: .sequentiallyConsistent)
    return expiry != 0 && cweir_boottime_nanoseconds() < expiry
  }
}
