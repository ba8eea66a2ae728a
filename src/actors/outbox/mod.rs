//! Outbox: does what the outbox brain asks for. Sealing and files run on the blocking pool, notifications in tasks of their
//! own; it never decides when a mail is announced or freed.

mod audit;
mod courier;
mod display;
mod fresh;
mod own_list;
mod port;
mod recover;
mod reencode;
mod seal;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_bytes::ByteBuf;
use tokio::sync::Semaphore;

use super::beside::then_tell;
use super::dht_client::DhtPort;
use super::directory::{Directory, Snapshot};
use super::identity::Identity;
use super::read_entries::ReadEntries;
use super::remover::Remover;
use super::shell::{EventLog, Handle, Perform, Shell};
use super::spool::{Envelope, Spool, SpoolError};
use crate::clock::Clock;
use crate::core::outbox::{
    Action, Announcement, Certificate, Dsn, How, Input, MailFacts, NrFrom, Outbox, ShownMail, Spooled,
};
use crate::fragment::Codec;
use crate::model::dht::{DhtKey, value_hash};
use crate::model::notification::{nr_password, ns_password};
use crate::model::{Address, Digest, GroupName, MailId, PeerId, Secret, SubmissionId};
use crate::net::https_client::PeerClient;
use crate::store::files::{FileError, remove_all, remove_durable};
use crate::store::home::Home;
use crate::store::listing::remove_manifests;
use crate::wire::notify::Notice;
use courier::Courier;
use display::Display;
pub use port::OutboxPort;
use port::{NrError, open_nr};
use seal::Sealer;

/// Mails that are sealed at a time: while the disk is waited for with some, others are encrypted. Each takes a few MiB at most.
const SEALS_AT_ONCE: usize = 8;
/// Notifications under way at a time, to all peers: as many as the brain asks for at once.
const SENDS_AT_ONCE: usize = 256;
/// Messages filed in the user's mailboxes at a time. Apart from the notifications: peers that do not answer delay no DSN.
const FILED_AT_ONCE: usize = 8;

/// What the outbox needs of other actors; whoever starts them connects them.
pub trait Neighbours: Send + Sync + 'static {
    /// Mail waits for somebody of a group whose key is not pinned. Must be quick.
    fn want_group(&self, group: &GroupName);
    /// File a mail of the spool in INBOX, once; ends when that is durable.
    fn file_spooled(&self, submission: SubmissionId) -> BoxFuture<'static, Result<(), String>>;
    /// File a DSN in INBOX, once per id; ends when that is durable.
    fn file_dsn(&self, dsn: Dsn) -> BoxFuture<'static, Result<(), String>>;
    /// The header block of a submission that the Outbox mailbox shows.
    fn own_header_block(&self, submission: SubmissionId) -> BoxFuture<'static, Option<Vec<u8>>>;
    /// A whole sealed mail of this peer, put together from what members hold and verified, as an open file.
    fn fetch_own(&self, facts: &MailFacts, sources: Vec<PeerId>) -> BoxFuture<'static, Result<File, String>>;
    /// Show a submission in the Outbox mailbox; ends when that has what it needs of the spool.
    fn show(&self, shown: ShownMail) -> BoxFuture<'static, ()>;
    /// What the Outbox mailbox shows besides these is done.
    fn show_only(&self, submissions: BTreeSet<SubmissionId>) -> BoxFuture<'static, ()>;
    /// Look for a newer gd of a pinned group; whether the one known then is the newest that can be had.
    fn freshen(&self, group: &GroupName) -> BoxFuture<'static, bool>;
}

/// What the outbox works with.
pub struct Tools {
    /// The peer's files.
    pub home: Home,
    /// Its address.
    pub address: Address,
    /// Its keys.
    pub identity: Identity,
    /// The spool.
    pub spool: Spool,
    /// Who is who.
    pub directory: Directory,
    /// Asks other peers.
    pub client: PeerClient,
    /// The DHT.
    pub dht: DhtPort,
    /// Erasure codes.
    pub codec: Arc<Codec>,
    /// The clock.
    pub clock: Clock,
    /// Other actors.
    pub neighbours: Arc<dyn Neighbours>,
}

/// The performer of the outbox brain.
struct Performer {
    tools: Arc<Tools>,
    sealer: Arc<Sealer>,
    courier: Arc<Courier>,
    display: Display,
    seals: Arc<Semaphore>,
    sends: Arc<Semaphore>,
    files: Arc<Semaphore>,
    remover: Remover,
    /// Entries under `nr:` that were read and need not be again.
    read: Arc<ReadEntries>,
}

/// A mail of the spool as the brain is told of it.
pub fn spooled(submission: SubmissionId, envelope: &Envelope) -> Spooled {
    Spooled {
        submission,
        receivers: envelope.receivers.clone(),
        size: envelope.structure.size,
        at: envelope.at,
        message_id: envelope.message_id.clone(),
    }
}

/// Starts the outbox; `brain` has replayed its events. Mails that wait in the spool are handed to it.
///
/// # Errors
/// [`SpoolError`] when outbox or spool cannot be read.
pub async fn start(brain: Outbox, tools: Tools, log: Arc<dyn EventLog>) -> Result<OutboxPort, SpoolError> {
    let tools = Arc::new(tools);
    let listing = tools.clone();
    let listed = tokio::task::spawn_blocking(move || {
        let blobs = listing.home.outbox_mails()?.into_iter().collect();
        Ok::<_, SpoolError>((blobs, listing.spool.spooled()?))
    });
    let (blobs, waiting) = listed.await.map_err(|e| SpoolError::Unavailable { why: e.to_string() })??;
    let display = Display::default();
    let performer = Performer {
        sealer: Arc::new(Sealer::of(&tools)),
        courier: Courier::new(tools.client.clone()),
        display: display.clone(),
        tools: tools.clone(),
        seals: Arc::new(Semaphore::new(SEALS_AT_ONCE)),
        sends: Arc::new(Semaphore::new(SENDS_AT_ONCE)),
        files: Arc::new(Semaphore::new(FILED_AT_ONCE)),
        remover: Remover::default(),
        read: Arc::default(),
    };
    let handle = Shell::start(brain, performer, log, tools.clock.clone(), Some(Input::Start { blobs }));
    tokio::spawn(display.run(tools.neighbours.clone(), handle.clone()));
    for (submission, envelope) in waiting {
        let spooled = spooled(submission, &envelope);
        // A brain that stopped is found by whoever asks it next.
        let _ = handle.tell(Input::Submitted { token: None, spooled }).await;
    }
    Ok(OutboxPort { tools, handle })
}

/// A name that the gd known here does not have may have joined since: it is unknown once a fresh gd does not have it either.
async fn find_certificate(tools: &Tools, address: &Address) -> Certificate {
    if tools.directory.snapshot().is_unknown(address) {
        let fresh = tools.neighbours.freshen(address.group()).await;
        if tools.directory.snapshot().is_unknown(address) {
            return if fresh { Certificate::Unknown } else { Certificate::NotYet };
        }
    }
    certificate_at(&tools.directory.snapshot(), address)
}

/// What is known of the certificate at an address of which nobody has to be asked.
fn certificate_at(snapshot: &Snapshot, address: &Address) -> Certificate {
    let gd = snapshot.groups.get(address.group()).and_then(|group| group.gd.as_ref());
    let member = gd.and_then(|gd| gd.member_at(address));
    let has_certificate = snapshot.at(address).is_some_and(|peer| peer.certificate.is_some());
    match member.filter(|_| has_certificate) {
        Some(member) => Certificate::Found { fingerprint: member.fingerprint, peer: member.peer_id },
        None => Certificate::NotYet,
    }
}

/// Tells the brain of the certificate at an address: at once where nobody has to be asked.
fn find_for(tools: Arc<Tools>, address: Address, back: Handle<Outbox>) {
    let known = certificate_at(&tools.directory.snapshot(), &address);
    if matches!(known, Certificate::Found { .. }) {
        return back.post(Input::Certificate { address, found: known });
    }
    tokio::spawn(async move {
        let found = find_certificate(&tools, &address).await;
        if found == Certificate::NotYet && !tools.directory.snapshot().groups.contains_key(address.group()) {
            tools.neighbours.want_group(address.group());
        }
        back.tell(Input::Certificate { address, found }).await
    });
}

/// The sealed ns of a mail, from memory the first time.
async fn sealed_notice(sealer: &Sealer, what: &Announcement) -> Option<Result<ByteBuf, String>> {
    if let Some(fresh) = sealer.fresh.take(what.h, &what.receiver) {
        return Some(Ok(fresh));
    }
    let (home, h, receiver) = (sealer.home.clone(), what.h, what.receiver.clone());
    tokio::task::spawn_blocking(move || seal::sealed_notice(&home, &h, &receiver)).await.ok()
}

async fn announce(tools: Arc<Tools>, sealer: Arc<Sealer>, courier: Arc<Courier>, what: &Announcement) -> Option<How> {
    let sealed = match sealed_notice(&sealer, what).await? {
        Ok(sealed) => sealed,
        Err(error) => {
            tracing::error!(mail = %what.h, receiver = %what.receiver, %error, "a mail cannot be announced");
            return None;
        }
    };
    if what.direct_first {
        let notice = Notice::Ns { to: what.receiver.clone(), sealed: sealed.clone() };
        if courier.send(what.peer, notice).await {
            return Some(How::Direct);
        }
    }
    if !what.dht {
        return None;
    }
    let (key, password) = (DhtKey::Ns(what.receiver.clone()), ns_password(&what.secret));
    match tools.dht.put(key, sealed.into_vec().into(), password, what.expiry).await {
        Ok(done) if done.elsewhere > 0 => Some(How::Dht),
        Ok(done) if done.stored > 0 => Some(How::OwnShare),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(receiver = %what.receiver, %error, "not announced by the DHT");
            None
        }
    }
}

async fn poll_nr(tools: Arc<Tools>, read: Arc<ReadEntries>, back: Handle<Outbox>) {
    let Some((_polling, have)) = read.begin(tools.clock.now().mono) else { return };
    let found = match tools.dht.poll(DhtKey::Nr(tools.address.clone()), have).await {
        Ok(done) => {
            read.forget(&done.gone);
            done.entries
        }
        Err(error) => {
            tracing::debug!(%error, "the DHT gave no receive notifications");
            return;
        }
    };
    for entry in found {
        let tools = tools.clone();
        let (id, value) = (entry.id, value_hash(&entry.value));
        let opened = tokio::task::spawn_blocking(move || open_nr(&tools, &entry.value)).await;
        match opened {
            Ok(Ok((nr, signer))) => {
                // A stopped brain needs no answer; the same holds below.
                let _ = back.hand_in(Input::Nr { from: NrFrom::Dht(value), nr, signer }).await;
            }
            // It is opened once that certificate is here.
            Ok(Err(error @ NrError::NoCertificate { .. })) => {
                tracing::debug!(%error, "an entry under nr is not taken yet");
                continue;
            }
            // Anybody may put junk under this key; it expires.
            Ok(Err(error)) => tracing::debug!(%error, "an entry under nr is not taken"),
            Err(_) => return,
        }
        read.remember(id);
    }
}

fn remove_if_there(path: PathBuf) -> Result<(), FileError> {
    match remove_durable(&path) {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}

/// The blob last: as long as it is there, the next start finds what is left.
fn drop_blob(home: &Home, h: &MailId) -> Result<(), FileError> {
    remove_all(&[home.outbox_notices_of_version_1(h)])?;
    remove_manifests(&home.outbox_manifest(h))?;
    remove_all(&[home.outbox_blob(h)])
}

/// The header block of a mail that is still in the spool.
async fn spooled_header_block(spool: Spool, submission: SubmissionId) -> Option<Vec<u8>> {
    let envelope = tokio::task::spawn_blocking(move || spool.envelope(&submission)).await.ok()?;
    Some(envelope.ok()?.header_block)
}

impl Performer {
    /// Runs a task that asks other peers, bounded, and tells the brain what comes of it.
    fn send(&self, back: &Handle<Outbox>, task: impl Future<Output = Option<Input>> + Send + 'static) {
        Self::run_in(self.sends.clone(), back.clone(), task);
    }

    /// Runs `task` when there is room, and tells the brain what comes of it.
    fn run_in(room: Arc<Semaphore>, back: Handle<Outbox>, task: impl Future<Output = Option<Input>> + Send + 'static) {
        tokio::spawn(async move {
            let Ok(_permit) = room.acquire().await else { return };
            if let Some(input) = task.await {
                let _ = back.hand_in(input).await;
            }
        });
    }

    fn seal(&self, job: crate::core::outbox::SealJob, back: &Handle<Outbox>) {
        let (sealer, seals, back) = (self.sealer.clone(), self.seals.clone(), back.clone());
        let work = move || sealer.seal(&job);
        match seals.clone().try_acquire_owned() {
            Ok(permit) => then_tell(back, permit, work),
            Err(_) => Self::run_in(seals, back, async move { tokio::task::spawn_blocking(work).await.ok() }),
        }
    }

    fn remove(&self, what: String, work: impl FnOnce() -> Result<(), String> + Send + 'static) {
        self.remover.remove(move || {
            if let Err(error) = work() {
                tracing::warn!(%what, %error, "what is not needed any more stays until the next start");
            }
        });
    }

    fn delete_ns(&self, (h, receiver, ns): (MailId, Address, Digest), secret: Secret, back: &Handle<Outbox>) {
        let dht = self.tools.dht.clone();
        self.send(back, async move {
            let done = dht.del(DhtKey::Ns(receiver.clone()), ns, ns_password(&secret)).await.is_ok();
            Some(Input::NsDeleted { h, receiver, done })
        });
    }

    fn tell_gone(&self, (h, receiver): (MailId, Address), peer: PeerId, tombstone: Vec<u8>, back: &Handle<Outbox>) {
        let courier = self.courier.clone();
        self.send(back, async move {
            let done = courier.send(peer, Notice::Tombstone(tombstone.into())).await;
            Some(Input::GoneTold { h, receiver, done })
        });
    }

    fn say_hello(&self, peers: BTreeSet<PeerId>, back: &Handle<Outbox>) {
        for peer in peers {
            let courier = self.courier.clone();
            self.send(back, async move {
                // A peer that is off says hello itself when it comes.
                courier.send(peer, Notice::Hello).await;
                None
            });
        }
    }

    /// What concerns the user's mailboxes.
    fn perform_mailbox(&self, action: Action, back: &Handle<Outbox>) {
        let (neighbours, room, back) = (self.tools.neighbours.clone(), self.files.clone(), back.clone());
        let spool = self.tools.spool.clone();
        match action {
            Action::FileLocally { submission } => Self::run_in(room, back, async move {
                match neighbours.file_spooled(submission).await {
                    Ok(()) => Some(Input::FiledLocally { submission }),
                    Err(error) => {
                        tracing::error!(%submission, %error, "a mail to oneself is not filed yet");
                        None
                    }
                }
            }),
            Action::FileDsn(dsn) => Self::run_in(room, back, async move {
                let (submission, receiver) = (dsn.submission, dsn.receiver.clone());
                let block = match spooled_header_block(spool, submission).await {
                    Some(block) => Some(block),
                    None => neighbours.own_header_block(submission).await,
                };
                let dsn = block.iter().fold(dsn, |dsn, block| dsn.with_headers(block));
                match neighbours.file_dsn(dsn).await {
                    Ok(()) => Some(Input::DsnFiled { submission, receiver }),
                    Err(error) => {
                        tracing::error!(%submission, %error, "a DSN is not filed yet");
                        None
                    }
                }
            }),
            Action::Show(shown) => self.display.show(shown),
            Action::ShowOnly(submissions) => self.display.show_only(submissions),
            // Every other kind is performed by the caller.
            _ => {}
        }
    }
}

impl Perform<Outbox> for Performer {
    fn perform(&mut self, action: Action, back: &Handle<Outbox>) {
        let tools = self.tools.clone();
        match action {
            Action::FindCertificate { address } => find_for(tools, address, back.clone()),
            Action::Seal(job) => self.seal(job, back),
            Action::Recover(job) => {
                let sealer = self.sealer.clone();
                Self::run_in(self.seals.clone(), back.clone(), recover::recover(tools, sealer, job));
            }
            Action::Reencode { facts, encoding } => {
                let sealer = self.sealer.clone();
                Self::run_in(self.seals.clone(), back.clone(), async move {
                    tokio::task::spawn_blocking(move || reencode::reencode(&sealer, &facts, encoding)).await.ok()
                });
            }
            Action::DropSpool { submission } => self.remove(format!("spool of {submission}"), move || {
                tools.spool.remove(&submission).map_err(|e| e.to_string())
            }),
            Action::DropBlob { h } => {
                self.sealer.fresh.forget(h);
                self.remove(format!("sealed mail {h}"), move || drop_blob(&tools.home, &h).map_err(|e| e.to_string()))
            }
            Action::Announce(what) => {
                let (courier, sealer) = (self.courier.clone(), self.sealer.clone());
                self.send(back, async move {
                    let how = announce(tools, sealer, courier, &what).await;
                    Some(Input::Announced { h: what.h, receiver: what.receiver, how })
                });
            }
            Action::DeleteNs { h, receiver, ns, secret } => self.delete_ns((h, receiver, ns), secret, back),
            Action::TellGone { h, receiver, peer, tombstone } => self.tell_gone((h, receiver), peer, tombstone, back),
            Action::PollNr => {
                let (brain, read) = (back.clone(), self.read.clone());
                self.send(back, async move {
                    poll_nr(tools, read, brain).await;
                    None
                });
            }
            Action::DeleteNr { value, secret } => self.send(back, async move {
                let key = DhtKey::Nr(tools.address.clone());
                if let Err(error) = tools.dht.del(key, value, nr_password(&secret)).await {
                    tracing::debug!(%error, "a receive notification stays in the DHT until it expires");
                }
                None
            }),
            Action::ReadOwnList { member, since } => {
                let read = Arc::clone(&self.read);
                self.send(back, own_list::read(tools, read, member, since));
            }
            Action::Audit { member, h, part, block } => {
                self.send(back, audit::audit(tools, (member, h), part, block));
            }
            Action::ForgetRestored => self.remove("the mark of a restore".to_owned(), move || {
                remove_if_there(tools.home.restored_mark()).map_err(|e| e.to_string())
            }),
            Action::Hello { peers } => self.say_hello(peers, back),
            mailbox => self.perform_mailbox(mailbox, back),
        }
    }
}
