//! What the HTTPS routes ask of the peer behind them: one method a route, the caller's proven PeerId first. No HTTP in here;
//! who may have what is decided by whoever implements it, never by the routes.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::body_source::BodySource;
use crate::model::card::JoinRequest;
use crate::model::group::{Heartbeat, HeartbeatAnswer, LeaveStage};
use crate::model::msglist::{Cursor, SignedTombstone};
use crate::model::{Address, MailId, PeerId};
use crate::wire::http::{FragmentList, HoldingsAnswer, HoldingsPost, PartsAnswer, PartsPost, ReachAnswer, ReachPost};
use crate::wire::msglist::Page;
use crate::wire::notify::Notice;

/// Why a request is not answered with what it asked for. Each text is one sentence that the other side's user may read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 400: the request makes no sense.
    #[error("{why}")]
    BadRequest {
        /// What does not.
        why: String,
    },
    /// 403: not for this caller.
    #[error("{why}")]
    Forbidden {
        /// Why not.
        why: String,
        /// Refused for membership: the version of the gd that says so, so that both sides compare.
        gd_version: Option<u64>,
    },
    /// 404: not here.
    #[error("{what} is not here")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// 410: gone, with the owner's signed word for it.
    #[error("the mail is gone")]
    Gone {
        /// Travels as the body.
        tombstone: SignedTombstone,
    },
    /// 413: more bytes or items than are taken.
    #[error("{what} is too large; at most {limit} are taken")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How much is taken, with its unit.
        limit: String,
    },
    /// 429: this caller has had enough for now.
    #[error("{why}")]
    TooMany {
        /// What there was too much of.
        why: String,
        /// When to come again.
        retry_after: Duration,
    },
    /// 503: not now.
    #[error("{why}")]
    Unavailable {
        /// Why not.
        why: String,
        /// When to come again.
        retry_after: Duration,
    },
}

/// A future that a connection's task may hold across threads.
pub trait Answer<T>: Future<Output = Result<T, ApiError>> + Send {}
impl<T, F: Future<Output = Result<T, ApiError>> + Send> Answer<T> for F {}

/// The answer of a route that this peer does not serve.
fn not_here<T: Send>(what: &str) -> impl Answer<T> {
    let what = what.to_owned();
    async { Err(ApiError::NotFound { what }) }
}

/// The peer behind the routes. `caller` has proved that it is that peer; nothing else is known of it. A route that an
/// implementation leaves out answers 404; the account of what was served has no default.
pub trait PeerApi: Clone + Send + Sync + 'static {
    /// Whether this caller may use the connections that are kept free of strangers (a member, a contact). Must be quick.
    fn is_known(&self, caller: &PeerId) -> bool;
    /// Called before an answer with `bytes` of mail `h` to `caller` starts: reserves them in the account for "four times its
    /// length in 24 h". Each of them is either served or given back. Must be quick.
    ///
    /// # Errors
    /// [`ApiError::TooMany`] when they are more than the caller may have; then nothing is reserved.
    fn reserve(&self, caller: &PeerId, h: &MailId, bytes: u64) -> Result<(), ApiError>;
    /// Called when an answer ends before all that was reserved for it went out. Must be quick.
    fn give_back(&self, caller: &PeerId, h: &MailId, bytes: u64);
    /// Called as reserved bytes of mail `h` go out to `caller`, before they do: the same account, and that for what
    /// `dropped` reports. Must be quick.
    fn served(&self, caller: &PeerId, h: &MailId, bytes: u64);

    /// `GET /pubkey`: this peer's own OpenPGP certificate.
    fn own_pubkey(&self, _caller: PeerId) -> impl Answer<Bytes> {
        not_here("A certificate")
    }
    /// `GET /pubkey/{address}`: the certificate of `address`, if this peer holds it.
    fn pubkey(&self, _caller: PeerId, _address: Address) -> impl Answer<Bytes> {
        not_here("That certificate")
    }
    /// `GET /outbox/{h}`: a sealed mail, owned or mirrored whole.
    fn sealed(&self, _caller: PeerId, _h: MailId) -> impl Answer<BodySource> {
        not_here("That mail")
    }
    /// `GET /outbox/{h}/manifest`: the signed manifest; `?k=3`: that for fragments any 3 of which are enough, if there are two.
    fn manifest(&self, _caller: PeerId, _h: MailId, _k: Option<u8>) -> impl Answer<BodySource> {
        not_here("That manifest")
    }
    /// `GET /outbox/{h}/fragments`: which fragments this peer holds.
    fn fragments(&self, _caller: PeerId, _h: MailId) -> impl Answer<FragmentList> {
        not_here("That mail")
    }
    /// `GET /outbox/{h}/fragments/{k}/{i}`: the fragment's blocks, one after the other.
    fn fragment(&self, _caller: PeerId, _h: MailId, _k: u8, _i: u8) -> impl Answer<BodySource> {
        not_here("That fragment")
    }
    /// `GET /outbox/msglist`: entries after `since`; waits for one, at most `wait`, and answers an empty page then. Dropped
    /// when the caller goes away.
    fn msglist(&self, _caller: PeerId, _since: Cursor, _wait: Duration) -> impl Answer<Page> {
        not_here("A msglist")
    }
    /// `POST /outbox/parts`: short parts of several own mails, each with its manifest; what cannot be served is left out. Their bytes
    /// are reserved in the account by whoever implements it, and served or given back as those of [`PeerApi::reserve`] are.
    fn parts(&self, _caller: PeerId, _post: PartsPost) -> impl Answer<PartsAnswer> {
        not_here("An outbox")
    }
    /// Called as the parts of an answer go out to `caller`: of each mail so many bytes.
    fn served_parts(&self, caller: &PeerId, mails: Vec<(MailId, u64)>) {
        mails.iter().for_each(|(h, bytes)| self.served(caller, h, *bytes));
    }
    /// `POST /outbox/holdings`: answers once the batch is on disk (R1), or compares buckets.
    fn holdings(&self, _caller: PeerId, _post: HoldingsPost) -> impl Answer<HoldingsAnswer> {
        not_here("An outbox")
    }
    /// `GET /mirror/{address}/msglist`: a member's msglist as this peer knows it.
    fn mirror_msglist(&self, _caller: PeerId, _address: Address, _since: Cursor) -> impl Answer<Page> {
        not_here("That msglist")
    }
    /// `POST /notify`: answers once everything in it is on disk (R1).
    fn notify(&self, _caller: PeerId, _notices: Vec<Notice>) -> impl Answer<()> {
        not_here("A postbox")
    }
    /// `GET /group`: the signed gd.
    fn group(&self, _caller: PeerId) -> impl Answer<Bytes> {
        not_here("A group")
    }
    /// `POST /group/heartbeat`.
    fn heartbeat(&self, _caller: PeerId, _heartbeat: Heartbeat) -> impl Answer<HeartbeatAnswer> {
        not_here("A group")
    }
    /// `POST /group/join`: the signed gd that names the caller.
    fn join(&self, _caller: PeerId, _request: JoinRequest) -> impl Answer<Bytes> {
        not_here("A group")
    }
    /// `POST /group/key`: the group key, sealed to the caller, which the gd names as a holder.
    fn group_key(&self, _caller: PeerId) -> impl Answer<Bytes> {
        not_here("A group key")
    }
    /// `POST /group/leave`: the signed gd that says what the caller wants to be said of itself.
    fn leave(&self, _caller: PeerId, _stage: LeaveStage) -> impl Answer<Bytes> {
        not_here("A group")
    }
    /// `POST /group/reach`: whether this peer reaches the caller at the addresses that the caller signed.
    fn reach(&self, _caller: PeerId, _post: ReachPost) -> impl Answer<ReachAnswer> {
        not_here("A test of reach")
    }
}
