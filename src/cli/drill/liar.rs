//! A member that lies: it has a member's keys and place, speaks the real protocol over HTTPS, and gives signs of life, while it
//! withholds every part, answers stale and empty msglists, and posts tombstones and nr that it has no right to sign. It believes
//! nothing, keeps nothing, and says of nothing that it is on its disk.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use serde_bytes::ByteBuf;
use tokio::runtime::Runtime;

use super::stranger::Place;
use crate::actors::identity::Identity;
use crate::clock::system_wall;
use crate::model::group::{Heartbeat, HeartbeatAnswer, PeerAddr};
use crate::model::msglist::{Cursor, Ending, Tombstone};
use crate::model::notification::{Nr, Outcome};
use crate::model::{Address, MailId, PeerId, SubmissionId};
use crate::net::body_source::BodySource;
use crate::net::https_client::{ClientBounds, PeerClient};
use crate::net::https_server::{HttpsServer, ServerBounds};
use crate::net::locate::{Locate, Located};
use crate::net::peer_api::{ApiError, PeerApi};
use crate::net::tls::TlsIdentity;
use crate::net::upload_limit::UploadLimit;
use crate::seal::{Certificate, SecretIdentity, seal_nr};
use crate::wire::http::FragmentList;
use crate::wire::msglist::Page;
use crate::wire::notify::Notice;

/// Between its signs of life.
const BEAT: Duration = Duration::from_secs(2);
/// When others shall come again.
const LATER: Duration = Duration::from_secs(1);
/// How long what is forged says that the mail would have lived.
const LIFE: Duration = Duration::from_secs(86_400);

/// Where the real peers are.
struct Places(BTreeMap<PeerId, PeerAddr>);

impl Locate for Places {
    fn locate(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        let addrs = self.0.get(&peer).cloned().into_iter().collect();
        Box::pin(async { Located { addrs, private: true } })
    }
    fn locate_again(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        self.locate(peer)
    }
}

/// What it serves, and how often it was asked.
#[derive(Debug, Default)]
struct Told {
    /// An msglist of the owner as it was before the mails that are followed.
    stale: Page,
    /// Tombstones that their owner did not sign.
    forged: Vec<ByteBuf>,
    /// Fragments any k of which are enough, and how many there are.
    fragments: (u8, u8),
    gd_version: AtomicU64,
    lists: AtomicUsize,
    parts: AtomicUsize,
}

/// The routes of a liar.
#[derive(Debug, Clone)]
struct Lies(Arc<Told>);

fn withheld<T>() -> Result<T, ApiError> {
    Err(ApiError::NotFound { what: "It".to_owned() })
}

impl PeerApi for Lies {
    fn is_known(&self, _: &PeerId) -> bool {
        true
    }
    fn reserve(&self, _: &PeerId, _: &MailId, _: u64) -> Result<(), ApiError> {
        Ok(())
    }
    fn give_back(&self, _: &PeerId, _: &MailId, _: u64) {}
    fn served(&self, _: &PeerId, _: &MailId, _: u64) {}
    async fn sealed(&self, _: PeerId, _: MailId) -> Result<BodySource, ApiError> {
        self.0.parts.fetch_add(1, Ordering::SeqCst);
        withheld()
    }
    async fn fragments(&self, _: PeerId, _: MailId) -> Result<FragmentList, ApiError> {
        let (k, n) = self.0.fragments;
        Ok(FragmentList { fragments: (0..n).map(|i| (k, i)).collect() })
    }
    async fn fragment(&self, _: PeerId, _: MailId, _: u8, _: u8) -> Result<BodySource, ApiError> {
        self.0.parts.fetch_add(1, Ordering::SeqCst);
        withheld()
    }
    async fn msglist(&self, _: PeerId, _: Cursor, wait: Duration) -> Result<Page, ApiError> {
        self.0.lists.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(wait.min(LATER)).await;
        Ok(Page::default())
    }
    async fn mirror_msglist(&self, _: PeerId, _: Address, _: Cursor) -> Result<Page, ApiError> {
        let turn = self.0.lists.fetch_add(1, Ordering::SeqCst);
        let page = if turn.is_multiple_of(2) { self.0.stale.clone() } else { Page::default() };
        Ok(Page { tombstones: self.0.forged.clone(), ..page })
    }
    async fn notify(&self, _: PeerId, _: Vec<Notice>) -> Result<(), ApiError> {
        // Whatever it said yes to would be gone with it, as with a disk that is lost: that is another scenario.
        Err(ApiError::Unavailable { why: "Not now.".to_owned(), retry_after: LATER })
    }
    async fn heartbeat(&self, _: PeerId, heartbeat: Heartbeat) -> Result<HeartbeatAnswer, ApiError> {
        let (gd_version, at) = (heartbeat.gd_version, system_wall());
        Ok(HeartbeatAnswer { gd_version, at, ..HeartbeatAnswer::default() })
    }
}

/// A mail that it lies about.
pub(super) struct About {
    /// Its name.
    pub(super) h: MailId,
    /// Its submission.
    pub(super) submission: SubmissionId,
    /// Its owner, and the owner's peer.
    pub(super) from: (Address, PeerId),
    /// The owner's certificate.
    pub(super) certificate: Certificate,
    /// Its reader, and the reader's peer.
    pub(super) to: (Address, PeerId),
}

/// What became of what it posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Posted {
    /// Answered with a yes: it proves itself or is dropped later.
    pub(super) taken: usize,
    /// Refused at once.
    pub(super) refused: usize,
}

/// The lying member. Ends when it is dropped.
pub(super) struct Liar {
    runtime: Runtime,
    me: Address,
    identity: Identity,
    client: PeerClient,
    others: Vec<PeerId>,
    told: Arc<Told>,
    server: Option<HttpsServer>,
}

impl Liar {
    /// With the keys of a member, among peers at these places. What it gives as the msglist of `owner` is what that peer gives now.
    pub(super) fn new(
        (me, identity): (Address, Identity),
        places: Vec<Place>,
        owner: PeerId,
        fragments: (u8, u8),
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let peer = identity.peer_id();
        let others = places.iter().map(|(other, _)| *other).filter(|other| *other != peer).collect();
        let tls = TlsIdentity::new(&identity.key)?;
        let locate = Arc::new(Places(places.into_iter().collect()));
        let client = runtime.block_on(async { PeerClient::new(tls, locate, ClientBounds::default()) });
        let stale = runtime.block_on(client.get_msglist(owner, Cursor::default(), Duration::ZERO))?;
        let told = Arc::new(Told { stale, fragments, ..Told::default() });
        Ok(Self { runtime, me, identity, client, others, told, server: None })
    }

    /// Takes the place of the member, whose peer has gone, and answers there.
    pub(super) fn serve(&mut self, port: u16, about: &[About]) -> anyhow::Result<()> {
        let forged = about.iter().flat_map(|mail| self.tombstones(mail)).map(ByteBuf::from).collect();
        let told = Arc::get_mut(&mut self.told).context("the liar answers already")?;
        told.forged = forged;
        let (tls, lies) = (TlsIdentity::new(&self.identity.key)?, Lies(self.told.clone()));
        let server = self.runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            HttpsServer::start(listener, &tls, lies, Arc::new(UploadLimit::new(None)), ServerBounds::default())
        })?;
        self.server = Some(server);
        let (client, others, told) = (self.client.clone(), self.others.clone(), self.told.clone());
        self.runtime.spawn(async move {
            loop {
                for other in &others {
                    let gd_version = told.gd_version.load(Ordering::SeqCst);
                    let beat = Heartbeat { gd_version, at: system_wall(), ..Heartbeat::default() };
                    // One that is away is asked again.
                    if let Ok(answer) = client.post_heartbeat(*other, &beat).await {
                        told.gd_version.fetch_max(answer.gd_version, Ordering::SeqCst);
                    }
                }
                tokio::time::sleep(BEAT).await;
            }
        });
        Ok(())
    }

    /// Two tombstones of somebody else's mail: one that is truly signed, by the wrong peer, and the same with the owner's name in it.
    fn tombstones(&self, mail: &About) -> [Vec<u8>; 2] {
        let (me, at) = (self.identity.peer_id(), system_wall());
        let tombstone = Tombstone { owner: me, h: mail.h, ending: Ending::Cancelled, at, expiry: at + LIFE };
        let signed = self.identity.key.sign(tombstone).as_bytes().to_vec();
        let mut renamed = signed.clone();
        let place = renamed.windows(me.as_bytes().len()).position(|bytes| bytes == me.as_bytes());
        if let Some(owner) = place.and_then(|at| renamed.get_mut(at..at + me.as_bytes().len())) {
            owner.copy_from_slice(mail.from.1.as_bytes());
        }
        [signed, renamed]
    }

    /// Two nr of a mail to somebody else: one in this member's own name, and one in its reader's, signed by a key that is not its
    /// reader's.
    fn nr(&self, mail: &About) -> anyhow::Result<[Vec<u8>; 2]> {
        let at = system_wall();
        let sealed = |signer: &SecretIdentity, reader: &Address| {
            let (reader, to) = (reader.clone(), mail.from.0.clone());
            let nr = Nr { submission: mail.submission, h: mail.h, reader, to, outcome: Outcome::Received, at };
            seal_nr(&nr, signer, &mail.certificate, at)
        };
        let false_reader = SecretIdentity::generate(&mail.to.0, at)?;
        Ok([sealed(&self.identity.openpgp, &self.me)?, sealed(&false_reader, &mail.to.0)?])
    }

    /// Tells everybody that these mails are gone, and their owners that their readers have them.
    pub(super) fn post(&self, about: &[About]) -> anyhow::Result<Posted> {
        let mut posted = Posted::default();
        let mut say = |to: PeerId, notice: Notice| match self.runtime.block_on(self.client.post_notify(to, &[notice])) {
            Ok(()) => posted.taken += 1,
            Err(_) => posted.refused += 1,
        };
        for mail in about {
            for to in self.others.iter().chain([&mail.to.1]) {
                for tombstone in self.tombstones(mail) {
                    say(*to, Notice::Tombstone(tombstone.into()));
                }
            }
            for sealed in self.nr(mail)? {
                say(mail.from.1, Notice::Nr { to: mail.from.0.clone(), sealed: sealed.into() });
            }
        }
        Ok(posted)
    }

    /// How often it was asked for msglists and for parts.
    pub(super) fn asked(&self) -> (usize, usize) {
        (self.told.lists.load(Ordering::SeqCst), self.told.parts.load(Ordering::SeqCst))
    }

    /// Makes room for the real peer.
    pub(super) fn stop(mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop(Duration::ZERO));
        }
        self.runtime.shutdown_background();
    }
}
