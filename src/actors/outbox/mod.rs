//! Outbox: does what the outbox brain asks for. Sealing and files run on the blocking pool, notifications in tasks of their
//! own; it never decides when a mail is announced or freed.

mod port;
mod seal;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::dht_client::DhtPort;
use super::directory::Directory;
use super::identity::Identity;
use super::shell::{EventLog, Handle, Perform, Shell};
use super::spool::{Envelope, Spool, SpoolError};
use crate::clock::Clock;
use crate::core::outbox::{Action, Announcement, Certificate, Dsn, How, Input, NrFrom, Outbox, ShownMail, Spooled};
use crate::fragment::Codec;
use crate::model::dht::{DhtKey, value_hash};
use crate::model::notification::{nr_password, ns_password};
use crate::model::{Address, Digest, MailId, PeerId, Secret, SubmissionId};
use crate::net::https_client::PeerClient;
use crate::store::files::{FileError, remove_durable};
use crate::store::home::Home;
use crate::wire::notify::Notice;
pub use port::OutboxPort;
use port::open_nr;

/// Mails that are sealed at a time: one a core of the machines this is made for.
const SEALS_AT_ONCE: usize = 2;
/// Notifications under way at a time.
const SENDS_AT_ONCE: usize = 64;

/// What the outbox needs of other actors; whoever starts them connects them.
pub trait Neighbours: Send + Sync + 'static {
    /// File a mail of the spool in INBOX, once; ends when that is durable.
    fn file_spooled(&self, submission: SubmissionId) -> BoxFuture<'static, Result<(), String>>;
    /// File a DSN in INBOX, once per id; ends when that is durable.
    fn file_dsn(&self, dsn: Dsn) -> BoxFuture<'static, Result<(), String>>;
    /// Show a submission in the Outbox mailbox; ends when that has what it needs of the spool.
    fn show(&self, shown: ShownMail) -> BoxFuture<'static, ()>;
    /// What the Outbox mailbox shows besides these is done.
    fn show_only(&self, submissions: BTreeSet<SubmissionId>) -> BoxFuture<'static, ()>;
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
    seals: Arc<Semaphore>,
    sends: Arc<Semaphore>,
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
    let performer = Performer {
        tools: tools.clone(),
        seals: Arc::new(Semaphore::new(SEALS_AT_ONCE)),
        sends: Arc::new(Semaphore::new(SENDS_AT_ONCE)),
    };
    let handle = Shell::start(brain, performer, log, tools.clock.clone(), Some(Input::Start { blobs }));
    for (submission, envelope) in waiting {
        let spooled = spooled(submission, &envelope);
        // A brain that stopped is found by whoever asks it next.
        let _ = handle.tell(Input::Submitted { token: None, spooled }).await;
    }
    Ok(OutboxPort { tools, handle })
}

fn find_certificate(tools: &Tools, address: &Address) -> Certificate {
    let snapshot = tools.directory.snapshot();
    if snapshot.is_unknown(address) {
        return Certificate::Unknown;
    }
    let gd = snapshot.groups.get(address.group()).and_then(|group| group.gd.as_ref());
    let member = gd.and_then(|gd| gd.member_at(address));
    let has_certificate = snapshot.at(address).is_some_and(|peer| peer.certificate.is_some());
    match member.filter(|_| has_certificate) {
        Some(member) => Certificate::Found { fingerprint: member.fingerprint, peer: member.peer_id },
        None => Certificate::NotYet,
    }
}

async fn announce(tools: Arc<Tools>, what: &Announcement) -> Option<How> {
    let (reading, h, receiver) = (tools.clone(), what.h, what.receiver.clone());
    let notice = tokio::task::spawn_blocking(move || seal::sealed_notice(&reading, &h, &receiver)).await.ok()?;
    let sealed = match notice {
        Ok(sealed) => sealed,
        Err(error) => {
            tracing::error!(mail = %what.h, receiver = %what.receiver, %error, "a mail cannot be announced");
            return None;
        }
    };
    if what.direct_first {
        let notice = Notice::Ns { to: what.receiver.clone(), sealed: sealed.clone() };
        match tools.client.post_notify(what.peer, &[notice]).await {
            Ok(()) => return Some(How::Direct),
            Err(error) => tracing::debug!(receiver = %what.receiver, %error, "not announced directly"),
        }
    }
    if !what.dht {
        return None;
    }
    let (key, password) = (DhtKey::Ns(what.receiver.clone()), ns_password(&what.secret));
    match tools.dht.put(key, sealed.into_vec().into(), password, what.expiry).await {
        Ok(done) if done.stored > 0 => Some(How::Dht),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(receiver = %what.receiver, %error, "not announced by the DHT");
            None
        }
    }
}

async fn poll_nr(tools: Arc<Tools>, back: Handle<Outbox>) {
    let found = match tools.dht.get(DhtKey::Nr(tools.address.clone())).await {
        Ok(done) => done.entries,
        Err(error) => {
            tracing::debug!(%error, "the DHT gave no receive notifications");
            return;
        }
    };
    for entry in found {
        let tools = tools.clone();
        let value = value_hash(&entry.value);
        let opened = tokio::task::spawn_blocking(move || open_nr(&tools, &entry.value)).await;
        match opened {
            Ok(Ok((nr, signer))) => {
                // A stopped brain needs no answer; the same holds below.
                let _ = back.tell(Input::Nr { from: NrFrom::Dht(value), nr, signer }).await;
            }
            // Anybody may put junk under this key; it expires.
            Ok(Err(error)) => tracing::debug!(%error, "an entry under nr is not taken"),
            Err(_) => return,
        }
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
    remove_if_there(home.outbox_notices(h))?;
    remove_if_there(home.outbox_manifest(h))?;
    remove_if_there(home.outbox_blob(h))
}

impl Performer {
    /// Runs `task`, bounded, and tells the brain what comes of it.
    fn send(&self, back: &Handle<Outbox>, task: impl Future<Output = Option<Input>> + Send + 'static) {
        let (room, back) = (self.sends.clone(), back.clone());
        tokio::spawn(async move {
            let Ok(_permit) = room.acquire().await else { return };
            if let Some(input) = task.await {
                let _ = back.tell(input).await;
            }
        });
    }

    fn seal(&self, job: crate::core::outbox::SealJob, back: &Handle<Outbox>) {
        let (room, tools, back) = (self.seals.clone(), self.tools.clone(), back.clone());
        tokio::spawn(async move {
            let Ok(_permit) = room.acquire().await else { return };
            if let Ok(input) = tokio::task::spawn_blocking(move || seal::seal(&tools, &job)).await {
                let _ = back.tell(input).await;
            }
        });
    }

    fn remove(what: String, work: impl FnOnce() -> Result<(), String> + Send + 'static) {
        tokio::spawn(async move {
            if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
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
        let client = self.tools.client.clone();
        self.send(back, async move {
            let done = client.post_notify(peer, &[Notice::Tombstone(tombstone.into())]).await.is_ok();
            Some(Input::GoneTold { h, receiver, done })
        });
    }

    fn say_hello(&self, peers: BTreeSet<PeerId>, back: &Handle<Outbox>) {
        for peer in peers {
            let client = self.tools.client.clone();
            self.send(back, async move {
                if let Err(error) = client.post_notify(peer, &[Notice::Hello]).await {
                    tracing::debug!(%peer, %error, "a peer was not told that this one is back");
                }
                None
            });
        }
    }

    /// What concerns the user's mailboxes.
    fn perform_mailbox(&self, action: Action, back: &Handle<Outbox>) {
        let neighbours = self.tools.neighbours.clone();
        match action {
            Action::FileLocally { submission } => self.send(back, async move {
                match neighbours.file_spooled(submission).await {
                    Ok(()) => Some(Input::FiledLocally { submission }),
                    Err(error) => {
                        tracing::error!(%submission, %error, "a mail to oneself is not filed; it stays in the spool");
                        None
                    }
                }
            }),
            Action::FileDsn(dsn) => self.send(back, async move {
                let (submission, receiver) = (dsn.submission, dsn.receiver.clone());
                match neighbours.file_dsn(dsn).await {
                    Ok(()) => Some(Input::DsnFiled { submission, receiver }),
                    Err(error) => {
                        tracing::error!(%submission, %error, "a DSN is not filed; the next start tries again");
                        None
                    }
                }
            }),
            Action::Show(shown) => self.send(back, async move {
                let submission = shown.submission;
                neighbours.show(shown).await;
                Some(Input::Shown { submission })
            }),
            Action::ShowOnly(submissions) => self.send(back, async move {
                neighbours.show_only(submissions).await;
                None
            }),
            // Every other kind is performed by the caller.
            _ => {}
        }
    }
}

impl Perform<Outbox> for Performer {
    fn perform(&mut self, action: Action, back: &Handle<Outbox>) {
        let tools = self.tools.clone();
        match action {
            Action::FindCertificate { address } => self.send(back, async move {
                let found = find_certificate(&tools, &address);
                Some(Input::Certificate { address, found })
            }),
            Action::Seal(job) => self.seal(job, back),
            Action::DropSpool { submission } => Self::remove(format!("spool of {submission}"), move || {
                tools.spool.remove(&submission).map_err(|e| e.to_string())
            }),
            Action::DropBlob { h } => {
                Self::remove(format!("sealed mail {h}"), move || drop_blob(&tools.home, &h).map_err(|e| e.to_string()))
            }
            Action::Announce(what) => self.send(back, async move {
                let how = announce(tools, &what).await;
                Some(Input::Announced { h: what.h, receiver: what.receiver, how })
            }),
            Action::DeleteNs { h, receiver, ns, secret } => self.delete_ns((h, receiver, ns), secret, back),
            Action::TellGone { h, receiver, peer, tombstone } => self.tell_gone((h, receiver), peer, tombstone, back),
            Action::PollNr => {
                let brain = back.clone();
                self.send(back, async move {
                    poll_nr(tools, brain).await;
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
            Action::Hello { peers } => self.say_hello(peers, back),
            mailbox => self.perform_mailbox(mailbox, back),
        }
    }
}
