//! Requests on their way: operations for one peer that are due within a few milliseconds travel together, and every one gets
//! an answer or the word that there is none. It never sends by itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::earliest;
use crate::model::{MonoTime, PeerId};
use crate::wire::dht::{Answer, OPS_MAX, Op, REQUEST_MAX, Request, Response};

/// How long an operation waits for others to the same peer.
const GATHER: Duration = Duration::from_millis(3);
/// How long a peer may take to answer a request, dialling it included.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Requests to one peer at the same time; more wait.
const FLYING_MAX: usize = 4;
/// Bytes of a request: well under what the other side reads.
const BATCH_BYTES: usize = REQUEST_MAX / 2;

/// Names a request that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A peer did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer did not answer")]
pub struct Unreachable;

/// Names one round of a run.
pub(super) type Round = (u64, u32);

/// The answer for one run from one peer.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) run: Round,
    pub(super) peer: PeerId,
    pub(super) answer: Result<Answer, Unreachable>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Round, Op)>,
    flush_at: Option<MonoTime>,
    flying: usize,
}

#[derive(Debug)]
struct Flight {
    peer: PeerId,
    runs: Vec<Round>,
    deadline: MonoTime,
}

/// Requests waiting and sent.
#[derive(Debug, Default)]
pub(super) struct Courier {
    queues: BTreeMap<PeerId, Queue>,
    flights: BTreeMap<RequestId, Flight>,
    last: u64,
}

impl Courier {
    /// Sends an operation soon.
    pub(super) fn ask(&mut self, now: MonoTime, peer: PeerId, run: Round, op: Op) {
        let queue = self.queues.entry(peer).or_default();
        queue.waiting.push_back((run, op));
        let full = queue.waiting.len() >= OPS_MAX;
        let due = if full { now } else { now + GATHER };
        queue.flush_at = Some(queue.flush_at.map_or(due, |at| at.min(due)));
    }

    /// The next request that is due.
    pub(super) fn due(&mut self, now: MonoTime) -> Option<(RequestId, PeerId, Request)> {
        let ready = |q: &Queue| q.flying < FLYING_MAX && q.flush_at.is_some_and(|at| at <= now);
        let (peer, queue) = self.queues.iter_mut().find(|(_, q)| ready(q))?;
        let peer = *peer;
        let (mut runs, mut ops, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((run, op)) = queue.waiting.pop_front() {
            bytes += op.size();
            if ops.len() >= OPS_MAX || (bytes > BATCH_BYTES && !ops.is_empty()) {
                queue.waiting.push_front((run, op));
                break;
            }
            runs.push(run);
            ops.push(op);
        }
        queue.flying += 1;
        if queue.waiting.is_empty() {
            queue.flush_at = None;
        }
        self.last += 1;
        let id = RequestId(self.last);
        self.flights.insert(id, Flight { peer, runs, deadline: now + ANSWER_WITHIN });
        Some((id, peer, Request { ops }))
    }

    /// A request was answered, or not. What else waits for a peer that cannot be reached fails with it.
    pub(super) fn landed(&mut self, id: RequestId, result: Result<Response, Unreachable>) -> Vec<Arrival> {
        let Some(Flight { peer, runs, .. }) = self.flights.remove(&id) else { return Vec::new() };
        let fail = |run| Arrival { run, peer, answer: Err(Unreachable) };
        let arrivals = match result {
            Ok(Response { answers }) if answers.len() == runs.len() => runs
                .into_iter()
                .zip(answers)
                .map(|(run, answer)| Arrival { run, peer, answer: Ok(answer) })
                .collect::<Vec<_>>(),
            _ => {
                let waiting = self.queues.get_mut(&peer).map(|q| std::mem::take(&mut q.waiting)).unwrap_or_default();
                runs.into_iter().chain(waiting.into_iter().map(|(run, _)| run)).map(fail).collect()
            }
        };
        if let Some(queue) = self.queues.get_mut(&peer) {
            queue.flying = queue.flying.saturating_sub(1);
            if queue.waiting.is_empty() {
                queue.flush_at = None;
            }
            if queue.flying == 0 && queue.waiting.is_empty() {
                self.queues.remove(&peer);
            }
        }
        arrivals
    }

    /// A request that took too long.
    pub(super) fn overdue(&self, now: MonoTime) -> Option<RequestId> {
        self.flights.iter().find(|(_, flight)| flight.deadline <= now).map(|(id, _)| *id)
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        let flush = self.queues.values().filter(|q| q.flying < FLYING_MAX).map(|q| q.flush_at);
        earliest(flush.chain(self.flights.values().map(|flight| Some(flight.deadline))))
    }

    pub(super) fn peer_of(&self, id: RequestId) -> Option<PeerId> {
        self.flights.get(&id).map(|flight| flight.peer)
    }
}
