//! ns and nr between their sealed form and the brain: finds certificates, opens, verifies, seals, sends. It believes nothing
//! that is not signed by a key that the sender's pinned group names, or that the user will be asked about.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_bytes::ByteBuf;

use super::kept_keys::KeptKeys;
use super::{DhtValue, Look, Neighbours, NoticeDht};
use crate::actors::beside::beside;
use crate::actors::directory::{Directory, KnownGroup, Snapshot};
use crate::actors::read_entries::ReadEntries;
use crate::actors::shell::{Handle, Stopped};
use crate::clock::Clock;
use crate::core::group::{Claim, Doubts, Known, Standing, judge};
use crate::core::postbox::io::{NrItem, NrSent, NsFrom, NsRefusal};
use crate::core::postbox::{Input, MailKey, Postbox};
use crate::model::dht::{DhtKey, value_hash};
use crate::model::notification::Ns;
use crate::model::{Address, Digest, Fingerprint, MailId, PeerId, Secret};
use crate::net::https_client::PeerClient;
use crate::net::peer_answer::NetError;
use crate::seal::notice::UnverifiedNs;
use crate::seal::{Certificate, SealError, SecretIdentity, decrypt_ns, seal_nr, verify_descriptor};
use crate::store::files::FileError;
use crate::wire::notify::Notice;

/// How long an nr waits. The brain asks for one attempt a peer at a time, so that those of mails that are read meanwhile travel together
/// in the next; nobody looks at it.
const GATHER: Duration = Duration::from_millis(50);
/// About how long an nr is, bytes.
const NR_BYTES: usize = 1024;
/// Peers that are asked for a sender's certificate.
const CERTIFICATE_SOURCES: usize = 4;
/// Descriptors under a sender's address that are looked at: anybody may put some there.
const DESCRIPTORS_MAX: usize = 64;
/// Longest validity of a DHT entry (60 days), less a day for clocks that differ.
const VALIDITY_MAX: Duration = Duration::from_secs(59 * 86_400);

/// Why an ns is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NsError {
    /// It is not an ns for this peer, or not signed by the one that it names.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Its sender is not whom its group names.
    #[error("this send notification is not believed: {why}")]
    Forged {
        /// What does not fit.
        why: String,
    },
    /// Its sender's certificate cannot be had now.
    #[error("the certificate of {from} cannot be had now: {why}; send it again later")]
    NoCertificate {
        /// Who claims to have sent it.
        from: Address,
        /// Why not.
        why: String,
    },
    /// The brain does not take it.
    #[error(transparent)]
    Refused(NsRefusal),
    /// The disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// This peer is stopping.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl NsError {
    /// Whether the same ns may be taken later.
    pub fn is_passing(&self) -> bool {
        match self {
            NsError::Seal(e) => matches!(e, SealError::Io { .. }),
            NsError::Forged { .. }
            | NsError::Refused(NsRefusal::Expired | NsRefusal::OtherMail | NsRefusal::TooLarge { .. }) => false,
            NsError::NoCertificate { .. } | NsError::Refused(_) | NsError::File(_) | NsError::Stopped(_) => true,
        }
    }
}

/// Sealed nr that no other peer stores yet, by mail.
pub(super) type Unplaced = Arc<Mutex<BTreeMap<(MailKey, MailId), Vec<u8>>>>;
/// Most of them that are kept: beyond that an nr is sealed anew for each attempt.
const UNPLACED_MAX: usize = 1024;

/// What opening and sending notices needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Notices {
    pub(super) me: Arc<SecretIdentity>,
    pub(super) peer_id: PeerId,
    pub(super) address: Address,
    /// The certificates in `keys/`.
    pub(super) kept: KeptKeys,
    pub(super) directory: Directory,
    pub(super) client: PeerClient,
    pub(super) dht: Arc<dyn NoticeDht>,
    pub(super) neighbours: Arc<dyn Neighbours>,
    pub(super) clock: Clock,
    /// Entries under `ns:` that were read and need not be again.
    pub(super) read: Arc<ReadEntries>,
    /// ns that do not fit what is pinned, and how often a newer gd was looked for because of them.
    pub(super) doubts: Arc<Mutex<Doubts>>,
    /// Sealed nr that no other peer stores yet. Sealed anew each time, they would fill the own share of the DHT.
    pub(super) unplaced: Unplaced,
}

/// Does work of the processor on so many bytes.
async fn cpu<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    beside(bytes, work).await.map_err(|_| Stopped)
}

/// Runs what blocks beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Stopped)
}

impl Notices {
    /// Opens an ns that `peer` brought or published, and verifies it; gives it, and whether its sender is a known one.
    pub(super) async fn open_ns(&self, peer: PeerId, sealed: Vec<u8>) -> Result<(Ns, bool), NsError> {
        let (length, name) = (sealed.len(), value_hash(&sealed));
        let me = self.me.clone();
        let opened: UnverifiedNs = cpu(sealed.len(), move || decrypt_ns(&sealed, &me)).await??;
        let (from, fingerprint) = (opened.from().clone(), opened.fingerprint());
        let (snapshot, looked) = self.compared(&opened, name).await;
        let is_over = self.doubts().is_over(&name);
        let member = named_by_group(&snapshot, &opened, is_over).inspect_err(|error| {
            if looked {
                tracing::warn!(%peer, %error, "an ns is not believed");
            }
        })?;
        if member.is_some() {
            self.doubts().settled(&name);
        }
        let certificate = self.certificate(&snapshot, &from, fingerprint, peer).await?;
        let signer = certificate.clone();
        let ns = cpu(length, move || opened.verify(&signer)).await??;
        // The body is checked against this very certificate, perhaps after a restart.
        self.kept.keep(certificate).await?;
        if member.is_some_and(|member| member != ns.owner) {
            return Err(NsError::Forged { why: format!("{from} does not send from the peer {}", ns.owner) });
        }
        let known = self.is_known(&snapshot, &from, fingerprint);
        Ok((ns, known))
    }

    /// What is known of an ns's group, once a newer gd was looked for where the one that is here does not fit: its sender may have
    /// joined since, or the group's key may be another one. Whether it was looked now.
    async fn compared(&self, ns: &UnverifiedNs, name: Digest) -> (Arc<Snapshot>, bool) {
        let snapshot = self.directory.snapshot();
        let group = ns.from().group();
        let has_no_gd = snapshot.groups.get(group).is_some_and(|known| known.gd.is_none());
        let is_older = matches!(named_by_group(&snapshot, ns, false), Err(NsError::NoCertificate { .. }));
        if !(is_older || has_no_gd) || !self.doubts().is_due(self.clock.now().mono, &name) {
            return (snapshot, false);
        }
        let shared = self.doubts().shared(self.clock.now().mono, group);
        let fresh = match shared {
            Some(fresh) => fresh,
            None => self.neighbours.freshen(group).await,
        };
        self.doubts().looked(self.clock.now().mono, group, name, fresh);
        (self.directory.snapshot(), true)
    }

    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        // Counts are right whoever panicked beside them.
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_known(&self, snapshot: &Snapshot, from: &Address, fingerprint: Fingerprint) -> bool {
        let member = |m: &crate::model::group::Member| m.address == *from && m.fingerprint == fingerprint;
        snapshot.roster.members.iter().any(member) || self.neighbours.is_known_sender(from, fingerprint)
    }

    /// Whether this peer belongs to a known sender.
    pub(super) fn is_known_peer(&self, peer: &PeerId) -> bool {
        let snapshot = self.directory.snapshot();
        snapshot.roster.has(peer) || snapshot.peers.contains_key(peer)
    }

    /// The certificate with this fingerprint: of the directory, kept in `keys/`, or asked of the sender's own peer.
    async fn certificate(
        &self,
        snapshot: &Snapshot,
        from: &Address,
        fingerprint: Fingerprint,
        peer: PeerId,
    ) -> Result<Certificate, NsError> {
        if let Some(certificate) = known_certificate(snapshot, from, fingerprint) {
            return Ok(certificate);
        }
        if let Some(kept) = self.kept.get(fingerprint).await? {
            return Ok(kept);
        }
        let mut why = "no peer that has it is known".to_owned();
        for source in self.who_may_have_certificate(snapshot, from, peer) {
            match self.client.get_pubkey(source, from).await {
                Ok(bytes) => match Certificate::parse(&bytes) {
                    Ok(certificate) if certificate.fingerprint() == fingerprint => return Ok(certificate),
                    Ok(_) => why = format!("{source} has another one of that address"),
                    Err(e) => why = e.to_string(),
                },
                Err(e) => why = e.to_string(),
            }
        }
        match self.described_certificate(from, fingerprint).await {
            Some(certificate) => Ok(certificate),
            None => Err(NsError::NoCertificate { from: from.clone(), why }),
        }
    }

    /// The certificate with this fingerprint from the descriptor under its owner's address: all that there is of a stranger,
    /// whose peer nobody here can find. Whoever may, puts entries there; the fingerprint says which one counts.
    async fn described_certificate(&self, from: &Address, fingerprint: Fingerprint) -> Option<Certificate> {
        let found = match self.dht.get(DhtKey::Peer(from.clone())).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%from, %error, "the DHT could not be asked for a sender's descriptor");
                return None;
            }
        };
        let address = from.clone();
        let fitting = move || {
            let descriptors = found.iter().take(DESCRIPTORS_MAX).filter_map(|bytes| verify_descriptor(bytes).ok());
            let mut certificates =
                descriptors.filter(|d| d.address == address).filter_map(|d| Certificate::parse(&d.certificate).ok());
            certificates.find(|certificate| certificate.fingerprint() == fingerprint)
        };
        blocking(fitting).await.ok().flatten()
    }

    /// The peer that brought the ns, and members of its sender's group.
    fn who_may_have_certificate(&self, snapshot: &Snapshot, from: &Address, peer: PeerId) -> Vec<PeerId> {
        let gd = snapshot.groups.get(from.group()).and_then(|group| group.gd.as_ref());
        let members = gd.iter().flat_map(|gd| gd.members.iter().map(|m| m.peer_id));
        let others = members.filter(|member| *member != peer && *member != self.peer_id);
        [peer].into_iter().chain(others).take(CERTIFICATE_SOURCES).collect()
    }

    /// Reads what is new under `ns:` in the DHT and tells the brain.
    pub(super) async fn poll(self, back: Handle<Postbox>) {
        let key = DhtKey::Ns(self.address.clone());
        let Some((_polling, have)) = self.read.begin(self.clock.now().mono) else { return };
        let found = match self.dht.poll(key, have).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the DHT could not be asked for ns");
                // A postbox that has stopped polls no more.
                let _ = back.hand_in(Input::Polled { sure: false }).await;
                return;
            }
        };
        self.read.forget(&found.gone);
        let sure = found.sure;
        for DhtValue { id, publisher, value } in found.values {
            let hash = value_hash(&value);
            match self.open_ns(publisher, value.to_vec()).await {
                Ok((ns, known)) => {
                    let input = Input::Ns { from: NsFrom::Dht(hash), ns: Box::new(ns), known };
                    if back.tell(input).await.is_err() {
                        return;
                    }
                }
                Err(error) if error.is_passing() => {
                    tracing::debug!(%error, "an ns in the DHT is looked at again later");
                    continue;
                }
                Err(error) => tracing::warn!(%publisher, %error, "an ns in the DHT is passed over"),
            }
            self.read.remember(id);
        }
        // As above.
        let _ = back.hand_in(Input::Polled { sure }).await;
    }

    /// Deletes an ns in the DHT.
    pub(super) async fn delete_ns(self, value: Digest, password: Secret) {
        let key = DhtKey::Ns(self.address.clone());
        if let Err(error) = self.dht.del(key, value, password).await {
            // Its sender deletes it too; else it expires.
            tracing::debug!(%error, "an ns stays in the DHT");
        }
    }

    /// Seals nr and sends them to one peer: directly, else through the DHT.
    pub(super) async fn send_nr(self, peer: PeerId, items: Vec<NrItem>, back: Handle<Postbox>) {
        tokio::time::sleep(GATHER).await;
        let mut sealed = Vec::new();
        let mut results = Vec::new();
        for item in items {
            match self.seal_nr(&item).await {
                Ok(bytes) => sealed.push((item, bytes)),
                Err(error) => {
                    let why = NrSent::Failed { why: error.to_string(), for_good: false };
                    results.push((item.id, item.nr.h, why));
                }
            }
        }
        let notices: Vec<Notice> = sealed.iter().map(|(item, bytes)| notice(item, bytes)).collect();
        let direct = if notices.is_empty() { Ok(()) } else { self.client.post_notify(peer, &notices).await };
        match direct {
            Ok(()) => {
                let mut unplaced = self.unplaced();
                for (item, _) in &sealed {
                    unplaced.remove(&(item.id, item.nr.h));
                    results.push((item.id, item.nr.h, NrSent::Taken));
                }
            }
            // One of them is not taken; the others may be.
            Err(NetError::Status { code: 400..=499, .. }) => {
                for (item, bytes) in sealed {
                    results.push(self.send_one(peer, item, bytes).await);
                }
            }
            Err(_) => {
                for (item, bytes) in sealed {
                    results.push(self.send_by_dht(item, bytes).await);
                }
            }
        }
        // A stopped brain needs no answer.
        let _ = back.hand_in(Input::NrSent { peer, results }).await;
    }

    async fn send_one(&self, peer: PeerId, item: NrItem, bytes: Vec<u8>) -> (MailKey, MailId, NrSent) {
        match self.client.post_notify(peer, &[notice(&item, &bytes)]).await {
            Ok(()) => (item.id, item.nr.h, NrSent::Taken),
            Err(NetError::Status { code: 400 | 404 | 410, text, .. }) => {
                tracing::info!(mail = %item.nr.h, %peer, %text, "the sender does not know this mail any more; its nr is dropped");
                (item.id, item.nr.h, NrSent::Failed { why: text, for_good: true })
            }
            Err(_) => self.send_by_dht(item, bytes).await,
        }
    }

    async fn send_by_dht(&self, item: NrItem, bytes: Vec<u8>) -> (MailKey, MailId, NrSent) {
        let (id, h) = (item.id, item.nr.h);
        let sent = match item.in_dht {
            Some(value) if item.look => match self.look(&item, value).await {
                Look::There => NrSent::InDht(value),
                Look::Deleted => NrSent::Taken,
                // Entries live in memory: those who kept it restarted.
                Look::Missing => self.put_nr(item, bytes).await,
            },
            Some(value) => NrSent::InDht(value),
            None => self.put_nr(item, bytes).await,
        };
        (id, h, sent)
    }

    async fn put_nr(&self, item: NrItem, bytes: Vec<u8>) -> NrSent {
        let (key, value) = (DhtKey::Nr(item.nr.to), value_hash(&bytes));
        let expiry = item.until.min(self.clock.now().wall + VALIDITY_MAX);
        let (bytes, password) = (Bytes::from(bytes), item.password);
        let which = (item.id, item.nr.h);
        match self.dht.put(key, bytes.clone(), password, expiry).await {
            Ok(()) => {
                self.unplaced().remove(&which);
                NrSent::InDht(value)
            }
            Err(why) => {
                let mut unplaced = self.unplaced();
                if unplaced.len() < UNPLACED_MAX {
                    unplaced.insert(which, bytes.to_vec());
                }
                NrSent::Failed { why, for_good: false }
            }
        }
    }

    fn unplaced(&self) -> MutexGuard<'_, BTreeMap<(MailKey, MailId), Vec<u8>>> {
        // An entry is replaced in one step, so a panic elsewhere leaves a good one.
        self.unplaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of this nr in the DHT; its sender deletes it to say that it took it.
    async fn look(&self, item: &NrItem, value: Digest) -> Look {
        let key = DhtKey::Nr(item.nr.to.clone());
        self.dht.look(key, value, item.password.clone()).await.unwrap_or(Look::There)
    }

    /// Tells a peer that this one is here again.
    pub(super) async fn say_hello(self, peer: PeerId) {
        if let Err(error) = self.client.post_notify(peer, &[Notice::Hello]).await {
            // A peer that is off says hello itself when it comes.
            tracing::debug!(%peer, %error, "not told that this peer is here again");
        }
    }

    async fn seal_nr(&self, item: &NrItem) -> Result<Vec<u8>, NsError> {
        let sealed = self.unplaced().get(&(item.id, item.nr.h)).cloned();
        if let Some(sealed) = sealed {
            return Ok(sealed);
        }
        let kept = match known_certificate(&self.directory.snapshot(), &item.nr.to, item.sender) {
            Some(certificate) => Some(certificate),
            None => self.kept.get(item.sender).await?,
        };
        let no_certificate =
            || NsError::NoCertificate { from: item.nr.to.clone(), why: "it is not in keys/ any more".to_owned() };
        let certificate = kept.ok_or_else(no_certificate)?;
        let (me, nr, now) = (self.me.clone(), item.nr.clone(), self.clock.now().wall);
        Ok(cpu(NR_BYTES, move || seal_nr(&nr, &me, &certificate, now)).await??)
    }
}

fn notice(item: &NrItem, sealed: &[u8]) -> Notice {
    Notice::Nr { to: item.nr.to.clone(), sealed: ByteBuf::from(sealed.to_vec()) }
}

/// The certificate that the directory has, checked against the gd by whoever put it there.
fn known_certificate(snapshot: &Snapshot, address: &Address, fingerprint: Fingerprint) -> Option<Certificate> {
    let certificate = Certificate::parse(snapshot.at(address)?.certificate.as_ref()?).ok()?;
    (certificate.fingerprint() == fingerprint).then_some(certificate)
}

/// Checks what an ns claims against the pinned group of its sender (R11); `is_over` when no newer gd is waited for. Gives the peer
/// that the gd names for it.
fn named_by_group(snapshot: &Snapshot, ns: &UnverifiedNs, is_over: bool) -> Result<Option<PeerId>, NsError> {
    let group = ns.from().group();
    let Some(KnownGroup { key, retired, gd, .. }) = snapshot.groups.get(group) else { return Ok(None) };
    let claim = Claim { from: ns.from(), fingerprint: ns.fingerprint(), group_key: ns.group_key() };
    match judge(&claim, &Known { group, key, retired, gd: gd.as_deref() }, is_over) {
        Standing::Named(peer) => Ok(Some(peer)),
        Standing::Pinned => Ok(None),
        Standing::NotYet(why) => Err(NsError::NoCertificate { from: ns.from().clone(), why }),
        Standing::Forged(why) => Err(NsError::Forged { why }),
    }
}
