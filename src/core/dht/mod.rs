//! The DHT's brain: puts, gets and deletes entries on the k closest live peers, serves this peer's share, and re-puts it as
//! peers come and go. It never opens connections, and never learns which peers are closest but by asking for a look-up.
//!
//! ```text
//!   Put, Get, Del --> looking --Closest--> asking --all answered, or most and grace over--> reply
//!                        ^                   |  ^ |
//!                        |                   |  +-+ another round: what is missing, proofs, tombstones
//!                        +----- pausing <----+ peers failed, and tries are left
//! ```

mod brain;
mod carrier;
mod courier;
mod get;
mod job;
mod keep;
mod reunion;
mod ring;
mod room;
#[cfg(test)]
mod sim;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::carrier::Carrier;
use self::courier::{Courier, Round};
use self::get::LastRead;
use self::job::Job;
use self::keep::Keeping;
use self::reunion::Reunion;
use self::ring::Ring;
use self::store::Store;
use super::{Outgoing, Token};
use crate::model::dht::DhtKey;
use crate::model::{Digest, MonoTime, Now, PeerId, Secret, WallTime};
use crate::wire::PeerKey;
use crate::wire::dht::{Op, Refusal, Request, Response};

pub use self::courier::{RequestId, Unreachable};
pub use self::keep::{Change, Record};
pub use self::ring::Place;
pub use self::room::{Limits, Room};

/// What the brain is told.
#[derive(Debug)]
pub enum Input {
    /// Begin.
    Start,
    /// Put a value under a key.
    Put {
        /// Who asks.
        token: Token,
        /// x.
        key: DhtKey,
        /// v.
        value: Bytes,
        /// p: who knows it can delete the entry.
        password: Secret,
        /// When the entry ends; at most 60 days ahead.
        expiry: WallTime,
    },
    /// Read a key.
    Get {
        /// Who asks.
        token: Token,
        /// x.
        key: DhtKey,
        /// Ids of entries that need not be sent: what was read before.
        have: BTreeSet<Digest>,
        /// Whether it is enough that a few of the closest peers, by turns, have nothing new. All are asked as soon as one has,
        /// and now and then.
        watch: bool,
    },
    /// Delete what has a value and a password.
    Del {
        /// Who asks.
        token: Token,
        /// x.
        key: DhtKey,
        /// H(v).
        value: Digest,
        /// p.
        password: Secret,
    },
    /// A look-up ended: the closest live peers but this one, nearest first; empty when nobody is there.
    Closest {
        /// H(x).
        key: Digest,
        /// At most k.
        peers: Vec<PeerId>,
    },
    /// A request ended.
    Answer {
        /// Which.
        request: RequestId,
        /// What the peer answered.
        result: Result<Response, Unreachable>,
    },
    /// Another peer asks.
    Serve {
        /// Names the request for [`Action::Respond`].
        channel: u64,
        /// Who asks.
        from: PeerId,
        /// What.
        request: Request,
    },
    /// A connection to a peer was made.
    PeerUp(PeerId),
    /// The last connection to a peer ended.
    PeerDown(PeerId),
    /// The publishers that verified gds name.
    Known(BTreeSet<PeerId>),
    /// Some of what was on disk at the start.
    Restore(Vec<Record>),
    /// There is no more of it.
    Restored,
    /// What came of [`Action::Keep`]: whether it is written.
    Kept(bool),
    /// Have all changes written now.
    KeepNow,
}

/// What the brain asks its shell to do.
#[derive(Debug)]
pub enum Action {
    /// Look up the k closest live peers to a key; [`Input::Closest`] brings them.
    FindClosest {
        /// H(x).
        key: Digest,
    },
    /// Send a request; [`Input::Answer`] brings what comes of it.
    Send {
        /// Names it.
        request: RequestId,
        /// To whom.
        peer: PeerId,
        /// What.
        body: Request,
    },
    /// Answer a request of another peer.
    Respond {
        /// From [`Input::Serve`].
        channel: u64,
        /// The answers.
        response: Response,
    },
    /// Write changes of this peer's share to disk; [`Input::Kept`] tells. One batch at a time.
    Keep {
        /// Any order will do.
        changes: Vec<Change>,
    },
}

/// Nothing of the DHT is in the journal: publishers renew what they own, holders re-put what they hold, and the index keeps it
/// as a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {}

/// A value that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Names the entry; for `have` of the next read.
    pub id: Digest,
    /// Who published it.
    pub publisher: PeerId,
    /// v.
    pub value: Bytes,
    /// When it expires.
    pub expiry: WallTime,
}

/// A put that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutDone {
    /// Names the entry.
    pub id: Digest,
    /// How many peers keep it.
    pub stored: usize,
    /// How many of those are not its publisher.
    pub elsewhere: usize,
    /// How many are the closest.
    pub asked: usize,
}

/// A read that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetDone {
    /// Live entries but those the caller has.
    pub entries: Vec<Found>,
    /// Those the caller has that were deleted.
    pub gone: Vec<Digest>,
    /// Those the caller has that somebody still keeps.
    pub kept: Vec<Digest>,
    /// How many peers were asked.
    pub asked: usize,
    /// How many answered.
    pub answered: usize,
    /// Whether every entry that somebody listed could be had.
    pub complete: bool,
}

/// A deletion that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelDone {
    /// What was deleted.
    pub ids: Vec<Digest>,
    /// How many peers keep the tombstone.
    pub confirmed: usize,
    /// How many are the closest.
    pub asked: usize,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DhtError {
    /// Too many requests are under way.
    #[error("{limit} requests to the DHT are under way already; try again when some have ended")]
    Busy {
        /// The bound.
        limit: usize,
    },
    /// The value is too large for an entry.
    #[error("the value has {bytes} bytes, an entry holds at most {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The peers that should keep it refuse.
    #[error("the peers closest to the key refuse it ({}; {stored} keep it); try again later", why.code())]
    Refused {
        /// Why.
        why: Refusal,
        /// How many took it all the same.
        stored: usize,
    },
    /// None of the closest peers answers.
    #[error("none of the {asked} peers closest to the key answers; check the network and try again")]
    Unreachable {
        /// How many were asked.
        asked: usize,
    },
    /// The entry was deleted before; a deletion outlives every re-put.
    #[error("the entry has been deleted, so it cannot be put again; put another value or use another password")]
    Deleted,
    /// The password is not the entry's.
    #[error("the password is not the entry's, so it stays")]
    WrongPassword,
    /// Nothing there has that value.
    #[error("no entry under the key has that value; it was never put, or has expired")]
    NotFound,
}

/// What requests are answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Input::Put`].
    Put(Result<PutDone, DhtError>),
    /// To [`Input::Get`].
    Get(Result<GetDone, DhtError>),
    /// To [`Input::Del`].
    Del(Result<DelDone, DhtError>),
}

/// What the brain shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Peers connected.
    pub peers: usize,
    /// Keys held.
    pub keys: usize,
    /// Live entries held.
    pub entries: u64,
    /// Tombstones held.
    pub tombstones: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Operations of other peers and this one that were refused here, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Operations of other peers that were served.
    pub served: u64,
    /// Requests of this peer under way.
    pub under_way: usize,
    /// Comparisons with other peers under way.
    pub carrying: usize,
    /// Entries and tombstones handed to peers that lacked them.
    pub carried: u64,
    /// Look-ups made.
    pub look_ups: u64,
    /// Requests sent to other peers.
    pub requests: u64,
    /// Changes that wait for the disk.
    pub unwritten: usize,
}

/// How far a run is.
#[derive(Debug)]
enum Stage {
    /// Entered without a fresh look-up; left when it ends.
    Looking,
    /// Entered with the closest peers; left when they have answered, or most have and grace is over.
    Asking,
    /// Entered when peers failed; left for another look-up at this time.
    Pausing(MonoTime),
}

/// One operation on its way through the stages.
#[derive(Debug)]
struct Run {
    token: Option<Token>,
    key: Digest,
    job: Job,
    stage: Stage,
    tries: u32,
    round: u32,
    /// Operations that each peer still has to answer in this round.
    waiting: BTreeMap<PeerId, usize>,
    /// How many of the closest there are.
    targets: usize,
    /// Peers asked in this round.
    asked: usize,
    grace: Option<MonoTime>,
}

/// The DHT's brain.
#[derive(Debug)]
pub struct Dht {
    key: PeerKey,
    now: Now,
    store: Store,
    ring: Ring,
    courier: Courier,
    carrier: Carrier,
    runs: BTreeMap<u64, Run>,
    last_run: u64,
    /// Look-ups under way: until when, and which runs wait for them.
    look_ups: BTreeMap<Digest, (MonoTime, Vec<u64>)>,
    /// Runs that wait for another's look-up, because its result is likely to serve all.
    parked: Vec<u64>,
    /// Operations for this peer itself.
    own: VecDeque<(Round, Op)>,
    last_reads: BTreeMap<Digest, LastRead>,
    counts: Counts,
    keeping: Keeping,
    reunion: Reunion,
    out: Outgoing<Dht>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    served: u64,
    carried: u64,
    look_ups: u64,
    requests: u64,
    /// Runs with a request of this peer behind them.
    under_way: usize,
    carrying: usize,
}
