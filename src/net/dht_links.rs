//! Links: one long-lived stream to each peer that is asked, which carries many DHT requests, and the streams on which others
//! ask. A request costs two small packets and an acknowledgement; a stream of its own cost twenty. It never dials: it says
//! which stream it wants, and is given it.
//!
//! ```text
//!   (none) --send--> Opening --opened--> Open --idle, ended--> (none)
//!                       |                  `--ended, requests left--> Opening
//!                       `--not opened--> (none), and no answers
//! ```

mod asked;
mod asking;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use libp2p::{PeerId, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::wire::dht::{Request, Response};

/// A frame that was begun comes, or goes out, within this time.
const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// A request is answered within this time, or not at all. The brain's own bound is shorter.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Requests on one stream that await their answers; more wait, at both ends.
const FLYING_MAX: usize = 8;
/// Requests that wait for one peer; more are not answered.
const WAITING_MAX: usize = 64;
/// Streams of one peer on which it may ask; with one more the oldest goes, which may have died without a word.
const STREAMS_MAX: usize = 4;
/// How much longer than the asking side the asked one keeps a quiet stream, so that no request meets a stream that ends.
const IDLE_GRACE: Duration = Duration::from_secs(30);
/// Reports that wait for the swarm's task before links do.
const REPORTS_MAX: usize = 256;

/// A request on its way.
#[derive(Debug, Clone)]
struct Errand {
    id: u64,
    request: Request,
    /// It met a stream that had died; it is not sent a third time.
    again: bool,
}

/// What links tell.
#[derive(Debug)]
pub(super) enum Report {
    /// A request ended; without a response when there is none.
    Answered {
        /// From [`Links::send`].
        id: u64,
        /// The response.
        response: Option<Response>,
    },
    /// Another peer asks.
    Asked {
        /// Who.
        peer: PeerId,
        /// What.
        request: Request,
        /// Takes the answer; dropped, it says that there will be none.
        answer: oneshot::Sender<Response>,
    },
    /// For [`Links::ended`].
    Ended(Ended),
}

/// A link that ended.
#[derive(Debug)]
pub(super) struct Ended {
    peer: PeerId,
    serial: u64,
    /// To be sent on another.
    left: Vec<Errand>,
}

/// The link to one peer.
#[derive(Debug)]
enum Link {
    /// A stream was asked for.
    Opening(VecDeque<Errand>),
    /// There is one.
    Open { serial: u64, errands: mpsc::Sender<Errand> },
}

/// All links.
#[derive(Debug)]
pub(super) struct Links {
    idle: Duration,
    links: BTreeMap<PeerId, Link>,
    asked_by: BTreeMap<PeerId, VecDeque<AbortHandle>>,
    last_serial: u64,
    reports: mpsc::Sender<Report>,
}

/// What is to be done now for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Then {
    /// Open a stream, and say what came of it.
    Open,
    /// Wait for reports.
    Wait,
    /// There will be no answer.
    Refused,
}

impl Links {
    /// No links yet. Streams without a request for `idle` are closed.
    pub(super) fn new(idle: Duration) -> (Self, mpsc::Receiver<Report>) {
        let (reports, inbox) = mpsc::channel(REPORTS_MAX);
        let links = Self { idle, links: BTreeMap::new(), asked_by: BTreeMap::new(), last_serial: 0, reports };
        (links, inbox)
    }

    /// Sends a request.
    pub(super) fn send(&mut self, peer: PeerId, id: u64, request: Request) -> Then {
        self.post(peer, Errand { id, request, again: false })
    }

    fn post(&mut self, peer: PeerId, errand: Errand) -> Then {
        let errand = match self.links.get_mut(&peer) {
            Some(Link::Opening(waiting)) if waiting.len() >= WAITING_MAX => return Then::Refused,
            Some(Link::Opening(waiting)) => {
                waiting.push_back(errand);
                return Then::Wait;
            }
            Some(Link::Open { errands, .. }) => match errands.try_send(errand) {
                Ok(()) => return Then::Wait,
                Err(mpsc::error::TrySendError::Full(_)) => return Then::Refused,
                // It ended just now.
                Err(mpsc::error::TrySendError::Closed(errand)) => errand,
            },
            None => errand,
        };
        self.links.insert(peer, Link::Opening(VecDeque::from([errand])));
        Then::Open
    }

    /// The stream that was wanted is here.
    pub(super) fn opened(&mut self, peer: PeerId, stream: Stream) {
        let Some(Link::Opening(waiting)) = self.links.remove(&peer) else { return };
        let (errands, inbox) = mpsc::channel(WAITING_MAX);
        for errand in waiting {
            // As many as wait fit.
            let _ = errands.try_send(errand);
        }
        self.last_serial += 1;
        let serial = self.last_serial;
        self.links.insert(peer, Link::Open { serial, errands });
        let (reports, idle) = (self.reports.clone(), self.idle);
        tokio::spawn(async move {
            let left = asking::run(stream, inbox, &reports, idle).await;
            // A swarm that has stopped wants nothing.
            let _ = reports.send(Report::Ended(Ended { peer, serial, left })).await;
        });
    }

    /// It cannot be had: the requests that will not be answered.
    pub(super) fn not_opened(&mut self, peer: &PeerId) -> Vec<u64> {
        match self.links.get(peer) {
            Some(Link::Opening(_)) => {}
            Some(Link::Open { .. }) | None => return Vec::new(),
        }
        match self.links.remove(peer) {
            Some(Link::Opening(waiting)) => waiting.into_iter().map(|errand| errand.id).collect(),
            Some(Link::Open { .. }) | None => Vec::new(),
        }
    }

    /// A link ended: what was left is sent on another. The requests that will not be answered, and whether to open a stream.
    pub(super) fn ended(&mut self, ended: Ended) -> (Vec<u64>, Option<PeerId>) {
        let Ended { peer, serial, left } = ended;
        if matches!(self.links.get(&peer), Some(Link::Open { serial: open, .. }) if *open == serial) {
            self.links.remove(&peer);
        }
        let (mut refused, mut open) = (Vec::new(), None);
        for errand in left {
            let id = errand.id;
            match self.post(peer, errand) {
                Then::Open => open = Some(peer),
                Then::Refused => refused.push(id),
                Then::Wait => {}
            }
        }
        (refused, open)
    }

    /// A stream on which another peer asks.
    pub(super) fn taken(&mut self, peer: PeerId, stream: Stream) {
        self.asked_by.retain(|_, streams| {
            streams.retain(|stream| !stream.is_finished());
            !streams.is_empty()
        });
        let streams = self.asked_by.entry(peer).or_default();
        while streams.len() >= STREAMS_MAX
            && let Some(oldest) = streams.pop_front()
        {
            oldest.abort();
        }
        let task = tokio::spawn(asked::run(peer, stream, self.reports.clone(), self.idle + IDLE_GRACE));
        streams.push_back(task.abort_handle());
    }
}
