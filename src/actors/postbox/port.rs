//! The postbox as others reach it: mail servers, `POST /notify`, the console, the commands. It decides nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::files::{self, Head, body_path};
use super::heads::Heads;
use super::notices::{Notices, NsError};
use super::proof::{self, Proof, ProofError};
use crate::actors::shell::{Handle, Stopped};
use crate::core::postbox::access::{MailboxFailure, MailboxReply, MailboxRequest, MessageKey, Standard, View};
use crate::core::postbox::io::{NsFrom, Requests, SenderName, Shown};
use crate::core::postbox::{Input, MailKey, Postbox, PostboxStatus, Reply, TombstoneRefusal, Verdict};
use crate::model::msglist::Tombstone;
use crate::model::{Fingerprint, PeerId, SubmissionId, WallTime};
use crate::store::home::Home;
use crate::wire::Signed;

/// Of so many certificates it is remembered that the postbox knows that they were written to.
const WRITTEN_TO_MAX: usize = 4096;

/// What is heard of a peer's mail: the handle of the brain, the files, and the signal that mailboxes have changed.
#[derive(Clone)]
pub struct PostboxPort {
    handle: Handle<Postbox>,
    home: Home,
    notices: Notices,
    heads: Heads,
    changes: watch::Receiver<u64>,
    temporary: Arc<AtomicU64>,
    /// Certificates that the postbox has on disk as written to: it is not asked again with each mail.
    written_to: Arc<Mutex<BTreeSet<Fingerprint>>>,
}

impl PostboxPort {
    pub(super) fn new(
        handle: Handle<Postbox>,
        home: Home,
        notices: Notices,
        heads: Heads,
        changes: watch::Receiver<u64>,
    ) -> PostboxPort {
        PostboxPort { handle, home, notices, heads, changes, temporary: Arc::default(), written_to: Arc::default() }
    }

    /// The brain's handle.
    pub fn handle(&self) -> &Handle<Postbox> {
        &self.handle
    }

    /// Asks what a mail program asks. An open of a body is answered once it is here or cannot be had.
    pub async fn request(&self, view: View, request: MailboxRequest) -> MailboxReply {
        match self.handle.ask(move |token| Input::Mailbox { token, view, request }).await {
            Ok(Reply::Mailbox(reply)) => reply,
            Ok(Reply::BodyHere(key)) => MailboxReply::Body(body_path(&self.home, key)),
            Ok(_) => failed("the postbox answered another question than it was asked; report this"),
            Err(Stopped) => failed("this peer is stopping"),
        }
    }

    /// What is known of a message without its body. For one whose files are lost it says so in their place.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub async fn head(&self, key: MessageKey) -> io::Result<Arc<Head>> {
        if let Some(head) = self.heads.get(key) {
            return Ok(head);
        }
        let home = self.home.clone();
        let read = tokio::task::spawn_blocking(move || files::read_head(&home, key)).await;
        let head = match read {
            Ok(Err(e)) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
                return Ok(Arc::new(files::damaged_head()));
            }
            Ok(head) => Arc::new(head?),
            Err(_) => return Err(io::Error::other("this peer is stopping")),
        };
        self.heads.keep(key, &head);
        Ok(head)
    }

    /// Grows whenever any mailbox changed: sessions that idle look again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// A name in `mail/` that nobody uses, for a message that is being appended. What is not appended is removed at the next
    /// start.
    pub fn append_path(&self) -> PathBuf {
        let count = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.home.mail_dir().join(format!(".append-{}-{count}.tmp", std::process::id()))
    }

    /// Takes a sealed ns that `peer` brought; `Ok` once it is on disk (R1).
    ///
    /// # Errors
    /// [`NsError`] says why it is not taken, and whether it may be later.
    pub async fn take_ns(&self, peer: PeerId, sealed: Vec<u8>) -> Result<(), NsError> {
        let (ns, known) = self.notices.open_ns(peer, sealed).await?;
        let input = move |token| Input::Ns { from: NsFrom::Direct(token), ns: Box::new(ns), known };
        match self.handle.ask(input).await? {
            Reply::NsRefused(why) => Err(NsError::Refused(why)),
            _ => Ok(()),
        }
    }

    /// Takes an owner's word that a mail is gone; `Ok(Ok)` says that this peer has no nr about it that its owner has not
    /// taken, and cannot open it any more.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping; within, [`TombstoneRefusal`] says why it is not taken, or not yet.
    pub async fn take_tombstone(&self, tombstone: Signed<Tombstone>) -> Result<Result<(), TombstoneRefusal>, Stopped> {
        let known = self.notices.is_known_peer(&tombstone.owner);
        let input = move |token| Input::Tombstone { token: Some(token), tombstone, known };
        Ok(match self.handle.ask(input).await? {
            Reply::TombstoneRefused(why) => Err(why),
            _ => Ok(()),
        })
    }

    /// Files a mail of the spool in INBOX (it is for this very peer) or Sent, once; `Ok` once that is on disk.
    ///
    /// # Errors
    /// Why it is not filed.
    pub async fn file_spooled(&self, submission: SubmissionId, mailbox: Standard) -> Result<(), String> {
        let input = move |token| Input::FileSpooled { token, submission, mailbox };
        filed(self.handle.ask(input).await)
    }

    /// Files a DSN in INBOX, once per id; `Ok` once that is on disk.
    ///
    /// # Errors
    /// Why it is not filed.
    pub async fn file_message(&self, id: SubmissionId, at: WallTime, message: Vec<u8>) -> Result<(), String> {
        filed(self.handle.ask(move |token| Input::FileMessage { token, id, at, message }).await)
    }

    /// The header block of a submission that Outbox shows, if it can be read.
    pub async fn own_header_block(&self, submission: SubmissionId) -> Option<Vec<u8>> {
        match self.handle.ask(move |token| Input::FindOwn { token, submission }).await {
            Ok(Reply::Own(Some(key))) => {
                let home = self.home.clone();
                let read = tokio::task::spawn_blocking(move || files::read_head(&home, key)).await;
                Some(read.ok()?.ok()?.header_block)
            }
            _ => None,
        }
    }

    /// Shows a submission in Outbox.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping.
    pub async fn show(&self, shown: Shown) -> Result<(), Stopped> {
        self.handle.tell(Input::Show(shown)).await
    }

    /// What waits for consent, and the judged senders.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping.
    pub async fn requests(&self) -> Result<Requests, Stopped> {
        match self.handle.ask(Input::Requests).await? {
            Reply::Requests(requests) => Ok(requests),
            _ => Err(Stopped),
        }
    }

    /// The user's word on a sender: how many senders and mails it touched.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping.
    pub async fn judge(&self, sender: SenderName, verdict: Verdict) -> Result<(usize, usize), Stopped> {
        match self.handle.ask(move |token| Input::Judge { token, sender, verdict }).await? {
            Reply::Judged { senders, mails } => Ok((senders, mails)),
            _ => Err(Stopped),
        }
    }

    /// Checks who wrote a kept mail, and whether `mail` (its own body when none is named) is to the byte what was signed; writes
    /// the proof to `export` when that is named.
    ///
    /// # Errors
    /// [`ProofError`] says why nothing is proven.
    pub async fn prove(
        &self,
        key: MessageKey,
        mail: Option<PathBuf>,
        to: Option<PathBuf>,
    ) -> Result<Proof, ProofError> {
        let found =
            self.handle.ask(move |token| Input::MailOf { token, key }).await.map_err(|_| ProofError::Stopped)?;
        let Reply::MailOf(Some(MailKey { sender: fingerprint, .. })) = found else { return Err(ProofError::NoMail) };
        let kept = self.notices.kept.get(fingerprint).await.map_err(|_| ProofError::Stopped)?;
        let certificate = kept.ok_or(ProofError::NoCertificate { fingerprint })?;
        let home = self.home.clone();
        let work = move || {
            let mut proof = proof::verify(&home, key, &certificate, mail.as_deref())?;
            if let Some(folder) = to {
                proof.exported = proof::export(&home, key, &certificate, &folder)?;
            }
            Ok(proof)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| ProofError::Stopped)?
    }

    /// Own mail goes to these certificates; `Ok` once that is on disk.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping.
    pub async fn wrote_to(&self, certificates: Vec<Fingerprint>) -> Result<(), Stopped> {
        // An insertion leaves a good set, whoever panicked after it.
        let written_to = || self.written_to.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = certificates;
        new.retain(|one| !written_to().contains(one));
        if new.is_empty() {
            return Ok(());
        }
        let told = new.clone();
        self.handle.ask(move |token| Input::WroteTo { token, certificates: told }).await?;
        let mut known = written_to();
        let room = WRITTEN_TO_MAX.saturating_sub(known.len());
        known.extend(new.into_iter().take(room));
        Ok(())
    }

    /// What the postbox shows of itself.
    ///
    /// # Errors
    /// [`Stopped`] when this peer is stopping.
    pub async fn observe(&self) -> Result<PostboxStatus, Stopped> {
        self.handle.observe().await
    }
}

fn failed(why: &str) -> MailboxReply {
    MailboxReply::Failed(MailboxFailure::Unavailable(why.to_owned()))
}

fn filed(reply: Result<Reply, Stopped>) -> Result<(), String> {
    match reply {
        Ok(Reply::Filed(result)) => result,
        Ok(_) => Err("the postbox answered another question than it was asked; report this".to_owned()),
        Err(Stopped) => Err(Stopped.to_string()),
    }
}
