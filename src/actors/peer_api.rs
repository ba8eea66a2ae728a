//! The peer behind the HTTPS routes: says who may have what, asks the brains, opens files. It never decides what a mail's
//! state is.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::allowance::Allowance;
use super::dial_back::DialBack;
use super::directory::Directory;
use super::group_master::GroupPort;
use super::hellos::{Hellos, Passing};
use super::identity::Identity;
use super::outbox::OutboxPort;
use super::postbox::{NsError, PostboxPort};
use super::serve_parts;
use super::serve_together;
use super::shell::{Handle, Stopped};
use crate::clock::Clock;
use crate::core::outbox::{self, Outbox};
use crate::core::postbox::io::NsRefusal;
use crate::core::postbox::{self, TombstoneRefusal};
use crate::core::replicator::{self, KnownMail, Replicator};
use crate::fragment::Codec;
use crate::model::card::JoinRequest;
use crate::model::group::{Heartbeat, HeartbeatAnswer, LeaveStage};
use crate::model::holding::Holdings;
use crate::model::msglist::{Cursor, SignedTombstone, Tombstone};
use crate::model::{Address, MailId, Part, PeerId};
use crate::net::body_source::BodySource;
use crate::net::peer_api::{Answer, ApiError, PeerApi};
use crate::seal::SealError;
use crate::store::home::Home;
use crate::wire::Signed;
use crate::wire::http::{FragmentList, HoldingsAnswer, HoldingsPost, PartsAnswer, PartsPost, ReachAnswer, ReachPost};
use crate::wire::msglist::Page;
use crate::wire::notify::{NOTIFY_BATCH_MAX, Notice};

/// When a peer that cannot answer now is asked again.
const RETRY: Duration = Duration::from_secs(2);

/// When a stranger whose first mail finds no room is asked to come again.
const REQUESTS_RETRY: Duration = Duration::from_secs(600);

/// What the routes need of the peer.
pub struct Api {
    /// This peer.
    pub identity: Identity,
    /// Its address.
    pub address: Address,
    /// Its files.
    pub home: Home,
    /// Who is a member.
    pub directory: Directory,
    /// Membership.
    pub group: GroupPort,
    /// Own mails.
    pub outbox: Handle<Outbox>,
    /// Takes nr.
    pub nr: OutboxPort,
    /// Mirrored parts.
    pub replicator: Handle<Replicator>,
    /// Takes ns and tombstones.
    pub postbox: PostboxPort,
    /// Erasure codes.
    pub codec: Arc<Codec>,
    /// The clock.
    pub clock: Clock,
    /// What was served.
    pub allowance: Allowance,
    /// Who said hello of late.
    pub hellos: Hellos,
    /// Dials members that ask for it.
    pub dial_back: DialBack,
}

/// [`Api`] as the routes hold it.
#[derive(Clone)]
pub struct SharedApi(pub Arc<Api>);

/// A mail that can be served.
enum Served {
    /// It lies in `outbox/`.
    Own {
        /// Bytes of the sealed mail.
        length: u64,
        /// How its fragments are cut.
        encoding: crate::model::Encoding,
    },
    /// Parts of it lie in `mirror/`.
    Mirrored(KnownMail),
}

impl Served {
    fn length(&self) -> u64 {
        match self {
            Served::Own { length, .. } => *length,
            Served::Mirrored(known) => known.length,
        }
    }
}

fn stopping(_: Stopped) -> ApiError {
    ApiError::Unavailable { why: "this peer is stopping".to_owned(), retry_after: RETRY }
}

fn disk(what: &str) -> impl FnOnce(std::io::Error) -> ApiError {
    move |e| {
        tracing::warn!(what, error = %e, "a file that should be served cannot be read");
        ApiError::Unavailable { why: format!("{what} cannot be read here now"), retry_after: RETRY }
    }
}

fn too_much(retry_after: Duration) -> ApiError {
    let why = "this mail is served to a peer at most four times over in a day".to_owned();
    ApiError::TooMany { why, retry_after }
}

fn ns_refused(error: NsError) -> ApiError {
    let why = error.to_string();
    match &error {
        NsError::Refused(NsRefusal::Requests { .. } | NsRefusal::RequestsTooFast { .. }) => {
            return ApiError::TooMany { why, retry_after: REQUESTS_RETRY };
        }
        NsError::Seal(SealError::BombOrTooLarge { what, limit }) => {
            return ApiError::TooLarge { what: format!("this {what}"), limit: format!("{limit} bytes") };
        }
        _ => {}
    }
    if error.is_passing() { ApiError::Unavailable { why, retry_after: RETRY } } else { ApiError::BadRequest { why } }
}

fn tombstone_refused(why: TombstoneRefusal) -> ApiError {
    match why {
        TombstoneRefusal::NotYet => ApiError::Unavailable { why: why.to_string(), retry_after: RETRY },
        TombstoneRefusal::Unknown => ApiError::NotFound { what: why.to_string() },
    }
}

impl Api {
    fn check_member(&self, caller: &PeerId) -> Result<(), ApiError> {
        let roster = self.directory.snapshot().roster.clone();
        if roster.has(caller) {
            return Ok(());
        }
        let why = format!("only members of {} may ask this", roster.group);
        Err(ApiError::Forbidden { why, gd_version: Some(roster.gd_version) })
    }

    /// Finds a mail and checks that the caller has not had too much of it.
    async fn find(&self, caller: PeerId, h: MailId) -> Result<Served, ApiError> {
        let served = self.look_up(h).await?;
        if let Some(retry_after) = self.allowance.spent(self.clock.now().mono, caller, h, served.length()) {
            return Err(too_much(retry_after));
        }
        Ok(served)
    }

    async fn look_up(&self, h: MailId) -> Result<Served, ApiError> {
        let gone = |tombstone| ApiError::Gone { tombstone: SignedTombstone(tombstone) };
        let own = self.outbox.ask(move |token| outbox::Input::Lookup { token, h }).await.map_err(stopping)?;
        match own {
            outbox::Reply::Lookup(outbox::Lookup::Owned(facts)) => {
                return Ok(Served::Own { length: facts.length, encoding: facts.encoding });
            }
            outbox::Reply::Lookup(outbox::Lookup::Gone(tombstone)) => return Err(gone(tombstone)),
            _ => {}
        }
        let other = self.replicator.ask(move |token| replicator::Input::Lookup { token, h }).await.map_err(stopping)?;
        match other {
            replicator::Reply::Lookup(replicator::Lookup::Known(known)) if !known.parts.is_empty() => {
                Ok(Served::Mirrored(known))
            }
            replicator::Reply::Lookup(replicator::Lookup::Gone { tombstone }) => Err(gone(tombstone)),
            replicator::Reply::Lookup(replicator::Lookup::NotReady) => {
                let why = "this peer has just started and reads its members' lists first".to_owned();
                Err(ApiError::Unavailable { why, retry_after: RETRY })
            }
            _ => Err(ApiError::NotFound { what: format!("mail {h}") }),
        }
    }

    /// Asks the replicator to write down to whom a mirrored mail is served, before its bytes go out.
    async fn serving(&self, caller: PeerId, h: MailId) -> Result<(), ApiError> {
        let ask = move |token| replicator::Input::Serving { token, h, caller };
        match self.replicator.ask(ask).await.map_err(stopping)? {
            replicator::Reply::Serve(true) => Ok(()),
            _ => Err(ApiError::NotFound { what: format!("mail {h}") }),
        }
    }

    /// The same for an own mail; once is enough.
    async fn serving_own(&self, caller: PeerId, h: MailId) -> Result<(), ApiError> {
        if caller == self.identity.peer_id() || self.allowance.is_recorded(&caller, &h) {
            return Ok(());
        }
        let ask = move |token| outbox::Input::Serving { token, h, caller };
        match self.outbox.ask(ask).await.map_err(stopping)? {
            outbox::Reply::Serve(true) => {
                self.allowance.recorded(self.clock.now().mono, caller, h);
                Ok(())
            }
            _ => Err(ApiError::NotFound { what: format!("mail {h}") }),
        }
    }

    /// Short parts of own mails: it is on disk to whom they are served, and their bytes are reserved, before the first goes out.
    async fn parts_together(&self, caller: PeerId, asked: Vec<(MailId, Part)>) -> Result<PartsAnswer, ApiError> {
        let mails: Vec<MailId> = asked.iter().map(|(h, _)| *h).collect();
        let ask = move |token| outbox::Input::ServingAll { token, mails, caller };
        let known = match self.outbox.ask(ask).await.map_err(stopping)? {
            outbox::Reply::ServeAll(known) => known,
            other => return Err(unexpected(&other)),
        };
        let (mut wanted, gone) = serve_together::sort(&asked, known);
        let now = self.clock.now().mono;
        wanted.iter().for_each(|one| self.allowance.recorded(now, caller, one.h));
        // Whoever had too much of one is told so when it asks for that alone.
        wanted.retain(|one| self.allowance.spent(now, caller, one.h, one.length).is_none());
        let mut given = serve_together::read(self.home.clone(), Codec::clone(&self.codec), wanted).await;
        given.parts.retain(|part| {
            let bytes = u64::try_from(part.bytes.len()).unwrap_or(u64::MAX);
            self.allowance.reserve(now, caller, part.h, bytes).is_ok()
        });
        Ok(PartsAnswer { gone, ..given })
    }

    async fn part(&self, caller: PeerId, h: MailId, part: Part) -> Result<BodySource, ApiError> {
        match self.find(caller, h).await? {
            Served::Own { length, encoding } => {
                self.serving_own(caller, h).await?;
                let whole = self.home.outbox_blob(&h);
                match part {
                    Part::Whole => BodySource::open(whole).await.map_err(disk("the mail")),
                    Part::Fragment { k, i } => {
                        serve_parts::fragment_of_whole(whole, length, encoding, (k, i), &self.codec).await
                    }
                }
            }
            Served::Mirrored(known) => {
                self.serving(caller, h).await?;
                let found = match part {
                    Part::Whole => serve_parts::mirrored_whole(&self.home, &h, &known).await,
                    Part::Fragment { k, i } => {
                        serve_parts::mirrored_fragment(&self.home, &self.codec, &h, &known, (k, i)).await
                    }
                };
                if matches!(found, Err(ApiError::NotFound { .. })) && known.parts.contains(&part) {
                    // A stopped brain finds out at its next start.
                    let _ = self.replicator.tell(replicator::Input::BadPart { owner: known.owner, h, part }).await;
                }
                found
            }
        }
    }

    async fn notice(&self, caller: PeerId, notice: Notice) -> Result<(), ApiError> {
        match notice {
            Notice::Ns { to, sealed } if to == self.address => {
                self.postbox.take_ns(caller, sealed.into_vec()).await.map_err(|error| {
                    if !error.is_passing() {
                        tracing::warn!(%caller, %error, "a send notification is refused");
                    }
                    ns_refused(error)
                })
            }
            Notice::Ns { to, .. } => Err(ApiError::BadRequest { why: format!("{to} does not live here") }),
            Notice::Nr { to, sealed } => self.nr.take_nr(caller, to, sealed.into_vec()).await,
            Notice::Tombstone(signed) => {
                let bad = |e: crate::wire::WireError| ApiError::BadRequest { why: e.to_string() };
                let tombstone = Signed::<Tombstone>::verify(&signed).map_err(bad)?;
                self.postbox.take_tombstone(tombstone).await.map_err(stopping)?.map_err(tombstone_refused)
            }
            Notice::Hello => self.hello(caller).await,
        }
    }

    async fn hello(&self, caller: PeerId) -> Result<(), ApiError> {
        let known = self.directory.snapshot().peers.contains_key(&caller);
        match self.hellos.comes(self.clock.now().mono, caller, known) {
            Passing::Not => return Ok(()),
            Passing::Now => {}
            Passing::After(pause) => tokio::time::sleep(pause).await,
        }
        self.outbox.tell(outbox::Input::PeerIsBack(caller)).await.map_err(stopping)?;
        self.replicator.tell(replicator::Input::PeerIsBack(caller)).await.map_err(stopping)?;
        self.postbox.handle().tell(postbox::Input::PeerIsBack(caller)).await.map_err(stopping)
    }
}

impl PeerApi for SharedApi {
    fn is_known(&self, caller: &PeerId) -> bool {
        self.0.directory.snapshot().peers.contains_key(caller)
    }

    fn reserve(&self, caller: &PeerId, h: &MailId, bytes: u64) -> Result<(), ApiError> {
        self.0.allowance.reserve(self.0.clock.now().mono, *caller, *h, bytes).map_err(too_much)
    }

    fn give_back(&self, caller: &PeerId, h: &MailId, bytes: u64) {
        self.0.allowance.give_back(caller, h, bytes);
    }

    fn served(&self, caller: &PeerId, h: &MailId, bytes: u64) {
        self.0.allowance.sent(self.0.clock.now().mono, *caller, *h, bytes);
        let own = self.0.allowance.is_recorded(caller, h);
        let (api, h, caller) = (self.0.clone(), *h, *caller);
        // A stopped brain keeps no account; that it served was written down before the first byte.
        tokio::spawn(async move {
            if own {
                api.outbox.tell(outbox::Input::Served { caller, mails: vec![(h, bytes)] }).await
            } else {
                api.replicator.tell(replicator::Input::Served { h, caller, bytes }).await
            }
        });
    }

    fn own_pubkey(&self, _: PeerId) -> impl Answer<Bytes> {
        let bytes = Bytes::copy_from_slice(self.0.identity.openpgp.certificate().as_bytes());
        async move { Ok(bytes) }
    }

    async fn pubkey(&self, _: PeerId, address: Address) -> Result<Bytes, ApiError> {
        if address == self.0.address {
            return Ok(Bytes::copy_from_slice(self.0.identity.openpgp.certificate().as_bytes()));
        }
        let snapshot = self.0.directory.snapshot();
        let certificate = snapshot.at(&address).and_then(|peer| peer.certificate.clone());
        let certificate = certificate.ok_or_else(|| ApiError::NotFound { what: format!("the key of {address}") })?;
        Ok(Bytes::copy_from_slice(&certificate))
    }

    fn sealed(&self, caller: PeerId, h: MailId) -> impl Answer<BodySource> {
        let api = self.0.clone();
        async move { api.part(caller, h, Part::Whole).await }
    }

    async fn manifest(&self, caller: PeerId, h: MailId, k: Option<u8>) -> Result<BodySource, ApiError> {
        match self.0.find(caller, h).await? {
            Served::Own { encoding, .. } => serve_parts::own_manifest(&self.0.home, &h, encoding, k).await,
            Served::Mirrored(known) => serve_parts::mirrored_manifest(&self.0.home, &h, &known, k).await,
        }
    }

    async fn fragments(&self, caller: PeerId, h: MailId) -> Result<FragmentList, ApiError> {
        // The whole mail counts as fragment (1, 0), and whoever has it can cut any other.
        Ok(match self.0.find(caller, h).await? {
            Served::Own { .. } => serve_parts::fragment_list(&[Part::Whole]),
            Served::Mirrored(known) => serve_parts::fragment_list(&known.parts),
        })
    }

    fn fragment(&self, caller: PeerId, h: MailId, k: u8, i: u8) -> impl Answer<BodySource> {
        let api = self.0.clone();
        let part = if (k, i) == (1, 0) { Part::Whole } else { Part::Fragment { k, i } };
        async move { api.part(caller, h, part).await }
    }

    async fn msglist(&self, caller: PeerId, since: Cursor, wait: Duration) -> Result<Page, ApiError> {
        self.0.check_member(&caller)?;
        let ask = move |token| outbox::Input::ReadMsglist { token, since, wait };
        match self.0.outbox.ask(ask).await.map_err(stopping)? {
            outbox::Reply::Page(page) => Ok(page),
            other => Err(unexpected(&other)),
        }
    }

    async fn parts(&self, caller: PeerId, post: PartsPost) -> Result<PartsAnswer, ApiError> {
        self.0.check_member(&caller)?;
        self.0.parts_together(caller, post.parts).await
    }

    fn served_parts(&self, caller: &PeerId, mails: Vec<(MailId, u64)>) {
        let (api, caller, now) = (self.0.clone(), *caller, self.0.clock.now().mono);
        mails.iter().for_each(|(h, bytes)| api.allowance.sent(now, caller, *h, *bytes));
        // A stopped brain keeps no account; that it served was written down before the first byte.
        tokio::spawn(async move { api.outbox.tell(outbox::Input::Served { caller, mails }).await });
    }

    async fn holdings(&self, caller: PeerId, post: HoldingsPost) -> Result<HoldingsAnswer, ApiError> {
        self.0.check_member(&caller)?;
        let bad = |why: String| ApiError::BadRequest { why };
        let reply = match post {
            HoldingsPost::Batch(bytes) => {
                let batch = Signed::<Holdings>::verify(&bytes).map_err(|e| bad(e.to_string()))?;
                if batch.member != caller {
                    return Err(bad("a member reports only what it holds itself".to_owned()));
                }
                self.0.outbox.ask(move |token| outbox::Input::Holdings { token, batch }).await
            }
            HoldingsPost::Buckets(digests) => {
                let digests = digests.into_vec();
                let ask = move |token| outbox::Input::HoldingBuckets { token, member: caller, digests };
                self.0.outbox.ask(ask).await
            }
        };
        match reply.map_err(stopping)? {
            outbox::Reply::HoldingsTaken => Ok(HoldingsAnswer::default()),
            outbox::Reply::Differ { differ, missed } => {
                let missed_upto = (!missed.parts.is_empty()).then_some(missed.upto);
                let said = Some(missed.said);
                Ok(HoldingsAnswer { differ: differ.into(), missed: missed.parts, missed_upto, said })
            }
            outbox::Reply::Refused(why) => Err(bad(why.to_string())),
            other => Err(unexpected(&other)),
        }
    }

    async fn mirror_msglist(&self, caller: PeerId, address: Address, since: Cursor) -> Result<Page, ApiError> {
        self.0.check_member(&caller)?;
        let what = format!("the msglist of {address}");
        let ask = move |token| replicator::Input::ReadMirrorMsglist { token, address, since, caller };
        match self.0.replicator.ask(ask).await.map_err(stopping)? {
            replicator::Reply::Page(Some(page)) => Ok(page),
            _ => Err(ApiError::NotFound { what }),
        }
    }

    fn notify(&self, caller: PeerId, notices: Vec<Notice>) -> impl Future<Output = Result<(), ApiError>> + Send {
        let api = self.0.clone();
        async move {
            if notices.len() > NOTIFY_BATCH_MAX {
                let limit = format!("{NOTIFY_BATCH_MAX} notices");
                return Err(ApiError::TooLarge { what: "the batch".to_owned(), limit });
            }
            // All at once: each waits for its own commit, and one fsync serves many. All must be on disk for a 204; what is
            // repeated after a refusal of another is harmless (R5).
            let mut taking: Vec<BoxFuture<'static, Result<(), ApiError>>> = Vec::with_capacity(notices.len());
            for notice in notices {
                let api = api.clone();
                taking.push(Box::pin(async move { api.notice(caller, notice).await }));
            }
            futures::future::join_all(taking).await.into_iter().collect()
        }
    }

    async fn group(&self, _: PeerId) -> Result<Bytes, ApiError> {
        let snapshot = self.0.directory.snapshot();
        let own = snapshot.groups.get(self.0.address.group()).filter(|group| group.gd.is_some());
        let own = own.ok_or_else(|| ApiError::NotFound { what: format!("a group {}", self.0.address.group()) })?;
        Ok(Bytes::copy_from_slice(&own.signed_gd))
    }

    fn heartbeat(&self, caller: PeerId, heartbeat: Heartbeat) -> impl Answer<HeartbeatAnswer> {
        let api = self.0.clone();
        async move { api.group.heartbeat(caller, heartbeat).await }
    }

    fn join(&self, caller: PeerId, request: JoinRequest) -> impl Answer<Bytes> {
        let api = self.0.clone();
        async move { api.group.admit(caller, request).await }
    }

    fn group_key(&self, caller: PeerId) -> impl Answer<Bytes> {
        let api = self.0.clone();
        async move { api.group.hand_key(caller).await }
    }

    fn leave(&self, caller: PeerId, stage: LeaveStage) -> impl Answer<Bytes> {
        let api = self.0.clone();
        async move { api.group.admit_leave(caller, stage).await }
    }

    async fn reach(&self, caller: PeerId, post: ReachPost) -> Result<ReachAnswer, ApiError> {
        self.0.check_member(&caller)?;
        let roster = self.0.directory.snapshot().roster.clone();
        let named = roster.members.iter().find(|member| member.peer_id == caller);
        let named = named.ok_or_else(|| ApiError::NotFound { what: "that member".to_owned() })?;
        self.0.dial_back.answer(&self.0.clock, named, post).await
    }
}

fn unexpected(reply: &impl std::fmt::Debug) -> ApiError {
    tracing::error!(?reply, "an actor gave an answer that does not fit the question");
    ApiError::Unavailable { why: "this peer made a mistake; ask again later".to_owned(), retry_after: RETRY }
}
