//! Postbox: does what the postbox brain asks for. Files and OpenPGP run on the blocking pool, requests to other peers in tasks
//! of their own; it never decides what is filed, answered or refused.

mod files;
mod heads;
mod kept_keys;
mod notices;
mod port;
mod proof;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::actors::beside::then_tell;
use crate::actors::directory::{Directory, Snapshot};
use crate::actors::remover::Remover;
use crate::actors::shell::{EventLog, Handle, Perform, Shell};
use crate::clock::Clock;
use crate::core::fetch::{self, Fetch, Order};
use crate::core::placement;
use crate::core::postbox::access::MessageKey;
use crate::core::postbox::io::{FetchFailure, OpenResult};
use crate::core::postbox::{Action, Input, Postbox};
use crate::model::dht::DhtKey;
use crate::model::{
    Address, Digest, Fingerprint, GroupName, MailId, PeerId, PulledMail, Secret, SubmissionId, Urgency, WallTime,
};
use crate::net::https_client::PeerClient;
use crate::seal::SecretIdentity;
use crate::store::files::remove_all;
use crate::store::home::Home;
use files::MailFileError;
pub use files::{Head, body_path, head_path, signed_path};
use heads::Heads;
use kept_keys::KeptKeys;
pub use notices::NsError;
use notices::{Notices, blocking};
pub use port::PostboxPort;
pub use proof::{Proof, ProofError};

/// What the postbox needs of other actors; whoever starts them connects them.
pub trait Neighbours: Send + Sync + 'static {
    /// Whether this sender is one of the user's contacts, or somebody the user has written to. Members of the own group are
    /// known anyway. Must be quick.
    fn is_known_sender(&self, from: &Address, fingerprint: Fingerprint) -> bool;
    /// The user deleted a mail in Outbox: take it back.
    fn cancel(&self, submission: SubmissionId) -> BoxFuture<'static, ()>;
    /// The user granted a sender: pin its group's key, and count it as a contact.
    fn pin(&self, sender: &Address, group: &GroupName, group_key: Fingerprint) -> BoxFuture<'static, ()>;
    /// Look for a newer gd of a pinned group; whether the one known then is the newest that can be had.
    fn freshen(&self, group: &GroupName) -> BoxFuture<'static, bool>;
    /// Ends once it is known where the members of `group` are, or after a few seconds.
    fn find(&self, group: &GroupName) -> BoxFuture<'static, ()>;
    /// The user chose one of a group's candidates: pin that key.
    fn pin_candidate(&self, group: &GroupName, key: Fingerprint) -> BoxFuture<'static, ()>;
}

/// A value of the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhtValue {
    /// Names its entry.
    pub id: Digest,
    /// Who published it.
    pub publisher: PeerId,
    /// v.
    pub value: Bytes,
}

/// What became of an entry of the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It is there, or too few peers answer to say that it is not.
    There,
    /// Somebody who knows its password deleted it.
    Deleted,
    /// Neither it nor its tombstone is there: it expired, or those who kept it restarted.
    Missing,
}

/// What is new under a key.
#[derive(Debug, Clone, Default)]
pub struct DhtNews {
    /// Values that were not read before.
    pub values: Vec<DhtValue>,
    /// Entries that were read before and have been deleted.
    pub gone: Vec<Digest>,
    /// Whether others were asked, and most of them answered.
    pub sure: bool,
}

/// What the postbox needs of the DHT. Errors are sentences for the log.
pub trait NoticeDht: Send + Sync + 'static {
    /// Puts `value` under `key` until `expiry`; who knows `password` can delete it.
    fn put(&self, key: DhtKey, value: Bytes, password: Secret, expiry: WallTime) -> BoxFuture<'_, Result<(), String>>;
    /// Looks for what is under `key` and not in `have` (ids of entries that were read before); what is new is seen after a few
    /// looks at the latest.
    fn poll(&self, key: DhtKey, have: BTreeSet<Digest>) -> BoxFuture<'_, Result<DhtNews, String>>;
    /// Everything under `key`.
    fn get(&self, key: DhtKey) -> BoxFuture<'_, Result<Vec<Bytes>, String>>;
    /// What became of this peer's entry with the value hash `value` and this password.
    fn look(&self, key: DhtKey, value: Digest, password: Secret) -> BoxFuture<'_, Result<Look, String>>;
    /// Deletes the entry with the value hash `value` and this password.
    fn del(&self, key: DhtKey, value: Digest, password: Secret) -> BoxFuture<'_, Result<(), String>>;
}

/// What the postbox is made of.
pub struct Parts {
    /// The peer's home.
    pub home: Home,
    /// Its address.
    pub address: Address,
    /// Its PeerId.
    pub peer_id: PeerId,
    /// Its OpenPGP keys.
    pub identity: Arc<SecretIdentity>,
    /// Who is who.
    pub directory: Directory,
    /// Asks other peers.
    pub client: PeerClient,
    /// Pulls sealed mails.
    pub fetcher: Handle<Fetch>,
    /// Puts, reads and deletes DHT entries.
    pub dht: Arc<dyn NoticeDht>,
    /// Other actors.
    pub neighbours: Arc<dyn Neighbours>,
    /// The clocks.
    pub clock: Clock,
}

/// The performer of the postbox brain.
struct Performer {
    home: Home,
    me: Arc<SecretIdentity>,
    directory: Directory,
    fetcher: Handle<Fetch>,
    notices: Notices,
    neighbours: Arc<dyn Neighbours>,
    changes: watch::Sender<u64>,
    heads: Heads,
    /// Becomes true when the sweep of `mail/` is done: before that no file is written there.
    swept: watch::Sender<bool>,
    remover: Remover,
}

/// Starts the postbox; `brain` has replayed its events.
pub fn start(brain: Postbox, parts: Parts, log: Arc<dyn EventLog>) -> PostboxPort {
    let Parts { home, address, peer_id, identity, directory, client, fetcher, dht, neighbours, clock } = parts;
    let ((changes, changed), heads) = (watch::channel(0), Heads::default());
    let notices = Notices {
        me: identity.clone(),
        peer_id,
        address,
        kept: KeptKeys::new(home.clone()),
        directory: directory.clone(),
        client,
        dht,
        neighbours: neighbours.clone(),
        clock: clock.clone(),
        read: Arc::default(),
        doubts: Arc::default(),
        unplaced: Arc::default(),
    };
    let performer = Performer {
        home: home.clone(),
        me: identity,
        directory,
        fetcher,
        notices: notices.clone(),
        neighbours,
        changes,
        heads: heads.clone(),
        swept: watch::channel(false).0,
        remover: Remover::default(),
    };
    let handle = Shell::start(brain, performer, log, clock, Some(Input::Start));
    PostboxPort::new(handle, home, notices, heads, changed)
}

/// Waits until the sweep is done; false when it never will be.
async fn after_sweep(mut swept: watch::Receiver<bool>) -> bool {
    swept.wait_for(|done| *done).await.is_ok()
}

impl Performer {
    /// Does file work once the sweep is done, and tells what came of it.
    fn file_work(&self, back: &Handle<Postbox>, work: impl FnOnce(&Home, &SecretIdentity) -> Input + Send + 'static) {
        let (home, me, back) = (self.home.clone(), self.me.clone(), back.clone());
        let work = move || work(&home, &me);
        if *self.swept.borrow() {
            return then_tell(back, (), work);
        }
        let swept = self.swept.subscribe();
        tokio::spawn(async move {
            if after_sweep(swept).await {
                then_tell(back, (), work);
            }
        });
    }

    fn write<E: Into<MailFileError>>(
        &self,
        back: &Handle<Postbox>,
        key: MessageKey,
        work: impl FnOnce(&Home, &SecretIdentity) -> Result<u64, E> + Send + 'static,
    ) {
        self.file_work(back, move |home, me| match work(home, me).map_err(Into::into) {
            Ok(size) => Input::Written { key, size },
            Err(error) => Input::WriteFailed { key, why: error.to_string() },
        });
    }

    fn sweep(&self, keep: std::collections::BTreeMap<MessageKey, bool>, back: &Handle<Postbox>) {
        let (home, back, swept) = (self.home.clone(), back.clone(), self.swept.clone());
        tokio::spawn(async move {
            let done = blocking(move || files::sweep(&home, &keep)).await;
            swept.send_replace(true);
            if let Ok(damaged) = done {
                let _ = back.hand_in(Input::Swept { damaged }).await;
            }
        });
    }

    fn remove(&self, keys: Vec<MessageKey>) {
        let (home, swept) = (self.home.clone(), self.swept.subscribe());
        tokio::spawn(async move {
            if after_sweep(swept).await {
                let _ = blocking(move || files::remove(&home, &keys)).await;
            }
        });
    }

    fn remove_file(&self, path: PathBuf) {
        self.remover.remove(move || {
            // If it comes back after a power cut, the sweep at the start removes it.
            if let Err(error) = remove_all(&[path]) {
                tracing::warn!(%error, "a file that is not needed any more stays");
            }
        });
    }

    fn fetch(&self, key: MessageKey, wanted: Wanted, back: &Handle<Postbox>) {
        let (fetcher, directory, back) = (self.fetcher.clone(), self.directory.clone(), back.clone());
        let found = self.neighbours.find(&wanted.group);
        tokio::spawn(async move {
            found.await;
            let sources = sources(&directory.snapshot(), &wanted);
            let Wanted { h, length, digest, owner, .. } = wanted;
            let order = Order { h, length, digest, owner, sources, urgency: Urgency::Prompt };
            let result = match fetcher.ask(move |token| fetch::Input::Want(token, order)).await {
                Ok(fetch::Reply::Fetched(pulled)) => Ok(pulled),
                Ok(fetch::Reply::Failed(failure)) => Err(failure_of(&failure)),
                Ok(fetch::Reply::Progress(_)) | Err(_) => Err(FetchFailure::NotNow("this peer is stopping".to_owned())),
            };
            let _ = back.hand_in(Input::Fetched { key, h, result }).await;
        });
    }

    fn open_sealed(
        &self,
        key: MessageKey,
        sealed: PulledMail,
        (sender, from): (Fingerprint, Address),
        size: u64,
        back: &Handle<Postbox>,
    ) {
        let (kept, head) = (self.notices.kept.clone(), self.heads.get(key));
        self.file_work(back, move |home, me| {
            let result = match kept.find(sender) {
                Some(certificate) => {
                    let announced = head.map_or_else(|| files::read_head(home, key).map(Arc::new), Ok);
                    files::open_sealed(home, me, key, &sealed, &certificate, (announced, size))
                }
                None => OpenResult::Failed(format!("the certificate {sender} of {from} is not in keys/ any more")),
            };
            Input::Opened { key, result }
        });
    }

    fn progress(&self, token: crate::core::Token, h: MailId, back: &Handle<Postbox>) {
        let (fetcher, back) = (self.fetcher.clone(), back.clone());
        tokio::spawn(async move {
            let percent = match fetcher.ask(move |token| fetch::Input::Progress(token, h)).await {
                Ok(fetch::Reply::Progress(percent)) => percent,
                Ok(_) | Err(_) => None,
            };
            let _ = back.hand_in(Input::Progressed { token, percent }).await;
        });
    }

    /// What concerns files.
    fn perform_file(&self, action: Action, back: &Handle<Postbox>) {
        match action {
            Action::Sweep { keep } => self.sweep(keep, back),
            Action::WriteHead { key, header_block, structure } => {
                let (head, heads) = (Arc::new(Head { header_block, structure: *structure }), self.heads.clone());
                self.write(back, key, move |home, _| {
                    files::write_head(home, key, &head).inspect(|_| heads.keep(key, &head))
                });
            }
            Action::WriteMessage { key, message } => {
                self.write(back, key, move |home, _| files::write_message(home, key, &message));
            }
            Action::Adopt { key, file } => self.write(back, key, move |home, _| files::adopt(home, key, &file)),
            Action::WriteSpooled { key, submission } => {
                self.write(back, key, move |home, me| files::write_spooled(home, me, key, &submission));
            }
            Action::WriteOwnHead { key, submission, mails } => {
                self.write(back, key, move |home, me| files::write_own_head(home, me, key, &submission, &mails));
            }
            Action::OpenOwn { key, submission, mails } => self.file_work(back, move |home, me| {
                let result = files::open_own(home, me, key, &submission, &mails);
                Input::Opened { key, result }
            }),
            Action::Discard { file } => self.remove_file(file),
            Action::Remove { keys } => self.remove(keys),
            Action::DropHalfFetched { h, owner, length, digest } => {
                self.remove_file(self.home.fetch_mail(&h, &owner, length, &digest));
            }
            Action::DropFetched { sealed: PulledMail::File(path), .. } => self.remove_file(path),
            // Every other kind is performed by the caller.
            _ => {}
        }
    }
}

impl Perform<Postbox> for Performer {
    fn perform(&mut self, action: Action, back: &Handle<Postbox>) {
        match action {
            Action::PollNs => drop(tokio::spawn(self.notices.clone().poll(back.clone()))),
            Action::DeleteNs { value, password } => {
                tokio::spawn(self.notices.clone().delete_ns(value, password));
            }
            Action::SendNr { peer, items } => {
                tokio::spawn(self.notices.clone().send_nr(peer, items, back.clone()));
            }
            Action::Fetch { key, h, length, digest, owner, group } => {
                self.fetch(key, Wanted { h, length, digest, owner, group }, back);
            }
            Action::AskProgress { token, h } => self.progress(token, h, back),
            Action::OpenSealed { key, sealed, sender, from, size } => {
                self.open_sealed(key, sealed, (sender, from), size, back);
            }
            Action::Cancel { submission } => drop(tokio::spawn(self.neighbours.cancel(submission))),
            Action::Pin { address, sender: _, group, group_key } => {
                tokio::spawn(self.neighbours.pin(&address, &group, group_key));
            }
            Action::PinCandidate { group, key } => drop(tokio::spawn(self.neighbours.pin_candidate(&group, key))),
            Action::Changed { version } => drop(self.changes.send_replace(version)),
            Action::NameMismatch { id, from, h, why } => {
                tracing::warn!(%from, sender = %id.sender, mail = %h, %why, "a mail does not fit its send notification; it is refused");
            }
            Action::Hello { peers } => {
                for peer in peers {
                    tokio::spawn(self.notices.clone().say_hello(peer));
                }
            }
            file => self.perform_file(file, back),
        }
    }
}

/// A sealed mail that is to be pulled.
struct Wanted {
    h: MailId,
    length: u64,
    digest: Digest,
    owner: PeerId,
    group: GroupName,
}

/// Who may have a mail, as far as this peer knows its owner's group. A member's own disk is one of them: it may hold a part of the mail
/// that it reads, also when the group has removed it.
fn sources(snapshot: &Snapshot, wanted: &Wanted) -> Vec<PeerId> {
    let gd = snapshot.groups.get(&wanted.group).and_then(|group| group.gd.as_ref());
    let group = gd.map(|gd| (&gd.policy, gd.members.iter().map(|m| m.peer_id).collect()));
    let me = &snapshot.roster.me;
    let reader = (*me.address.group() == wanted.group).then_some(me.peer_id);
    placement::sources(&wanted.h, wanted.owner, group, reader)
}

fn failure_of(failure: &fetch::Failure) -> FetchFailure {
    let why = failure.to_string();
    match failure {
        fetch::Failure::Gone => FetchFailure::Gone(why),
        // The fetcher says this of its own disk's failures too; a refusal on those would be wrong for good.
        fetch::Failure::Mismatch { .. }
        | fetch::Failure::TooFew { .. }
        | fetch::Failure::Silent { .. }
        | fetch::Failure::Disk { .. }
        | fetch::Failure::Busy => FetchFailure::NotNow(why),
    }
}
