//! Seals a long mail while it still comes in, when all that this needs is at hand: then the sealed mail is what the spool keeps, and it is
//! written and synced once. It announces nothing and decides nothing: whoever seals takes it if it fits, and seals anew if not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::directory::{Directory, Snapshot};
use super::identity::Identity;
use super::sealed_file::{SealedFileError, Sealing};
use crate::clock::Clock;
use crate::core::placement::live_others;
use crate::fragment::Codec;
use crate::mime::address;
use crate::model::manifest::Manifest;
use crate::model::{Address, Fingerprint, SubmissionId};
use crate::seal::Certificate;
use crate::store::files::DurableWriter;
use crate::store::home::Home;

/// Mails that are sealed at a time while they come in. Each has a thread of the blocking pool, however slowly it comes; more than these
/// wait in the spool in clear.
const AT_ONCE: usize = 4;
/// Mails that were sealed so and that nobody took yet; their manifests are in memory.
const KEPT_MAX: usize = 64;
/// What those manifests may take in all, besides that of the mail that comes in; more mails wait in clear.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// So much of a mail is in memory until it is known how it is encoded. Where the policy says that longer ones are kept whole, mails wait in
/// clear.
const WHOLE_BELOW_MAX: u64 = 1024 * 1024;
/// Certificates are read before the next bytes are taken; of more receivers that is left to whoever seals later.
const RECEIVERS_MAX: usize = 16;
/// Pieces of a mail that wait for the thread that seals it.
const PIECES: usize = 4;

/// A mail that was sealed while it came in.
#[derive(Debug)]
pub struct Presealed {
    /// Whom it is for, and whose keys open it, besides the owner's.
    receivers: BTreeSet<(Address, Fingerprint)>,
    /// Names it, in the encoding of the policy of that time.
    manifest: Manifest,
}

impl Presealed {
    /// Whether exactly these can open it, besides the owner.
    pub(super) fn is_for(&self, receivers: impl IntoIterator<Item = (Address, Fingerprint)>) -> bool {
        self.receivers == receivers.into_iter().collect()
    }
    /// Its name.
    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

/// What sealing needs. Cheap to clone.
#[derive(Clone)]
pub struct Presealer {
    /// This peer's files.
    pub home: Home,
    /// Its keys.
    pub identity: Identity,
    /// Who is who.
    pub directory: Directory,
    /// Erasure codes.
    pub codec: Arc<Codec>,
    /// The clock.
    pub clock: Clock,
    /// Bounds the threads.
    pub room: Room,
}

/// How many mails are, and were, sealed while they came in.
#[derive(Debug, Clone)]
pub struct Room {
    threads: Arc<Semaphore>,
    kept: Arc<Mutex<BTreeMap<SubmissionId, Arc<Presealed>>>>,
}

impl Default for Room {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(AT_ONCE)), kept: Arc::default() }
    }
}

impl Room {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<SubmissionId, Arc<Presealed>>> {
        // An entry is put in and taken out whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        let kept = self.kept();
        let bytes: usize = kept.values().map(|presealed| presealed.manifest.block_digests.len()).sum();
        kept.len() + AT_ONCE > KEPT_MAX || bytes > KEPT_BYTES_MAX
    }
}

/// What the thread is told.
enum Piece {
    Bytes(Bytes),
    /// The mail is whole. Without this word it broke off.
    End,
}

/// The pieces, as they come.
struct Incoming {
    pieces: mpsc::Receiver<Piece>,
    now: Bytes,
    is_over: bool,
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() && !self.is_over {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.now = bytes,
                Some(Piece::End) => self.is_over = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the mail broke off")),
            }
        }
        let count = self.now.len().min(into.len());
        self.now.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

type Made = Result<(DurableWriter, Manifest), SealedFileError>;

/// A mail that comes in and is sealed. Dropped before its end it leaves nothing.
#[derive(Debug)]
pub(super) struct Presealing {
    pieces: mpsc::Sender<Piece>,
    thread: JoinHandle<Made>,
    receivers: BTreeSet<(Address, Fingerprint)>,
    room: Room,
}

/// Why a mail that comes in is not sealed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PresealError {
    /// Sealing failed.
    #[error(transparent)]
    Sealing(#[from] SealedFileError),
    /// This peer stops.
    #[error("this peer is stopping")]
    Stopping,
}

impl Presealer {
    /// Begins to seal a mail for its receivers, if each is named in To or Cc (a Bcc gets a ciphertext of its own), lives elsewhere, and its
    /// certificate is here. `beginning` is what came of it so far, its whole header block at least.
    pub(super) fn begin(&self, receivers: &[Address], beginning: Bytes) -> Option<Presealing> {
        let room = &self.room;
        let snapshot = self.directory.snapshot();
        let is_held_long = snapshot.roster.policy.whole_below.bytes() > WHOLE_BELOW_MAX;
        if receivers.len() > RECEIVERS_MAX || is_held_long || room.is_full() {
            return None;
        }
        let certificates = self.certificates(&snapshot, receivers, &beginning)?;
        let permit = room.threads.clone().try_acquire_owned().ok()?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let fingerprints = certificates.iter().map(Certificate::fingerprint);
        let named = receivers.iter().cloned().zip(fingerprints).collect();
        let me = self.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let roster = &snapshot.roster;
            let sealing = Sealing {
                folder: &me.home.spool_dir(),
                identity: &me.identity,
                codec: &me.codec,
                policy: &roster.policy,
                others: live_others(roster, &roster.me.peer_id),
                certificates: &certificates,
                now: me.clock.now().wall,
            };
            sealing.write(Incoming { pieces, now: beginning, is_over: false })
        });
        Some(Presealing { pieces: sender, thread, receivers: named, room: room.clone() })
    }

    fn certificates(&self, snapshot: &Snapshot, receivers: &[Address], beginning: &[u8]) -> Option<Vec<Certificate>> {
        let header_end = beginning.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let named = address::named_receivers(beginning.get(..header_end)?);
        let of = |receiver: &Address| {
            let gd = snapshot.groups.get(receiver.group())?.gd.as_ref()?;
            let member = gd.member_at(receiver).filter(|_| named.contains(receiver))?;
            let certificate = snapshot.peers.get(&member.peer_id)?.certificate.as_ref()?;
            let certificate = Certificate::parse(certificate).ok()?;
            let is_me = member.peer_id == snapshot.roster.me.peer_id;
            (!is_me && certificate.fingerprint() == member.fingerprint).then_some(certificate)
        };
        receivers.iter().map(of).collect()
    }

    /// What was sealed of this submission while it came in.
    pub(super) fn presealed(&self, submission: &SubmissionId) -> Option<Arc<Presealed>> {
        self.room.kept().get(submission).cloned()
    }

    /// Nobody will take it any more.
    pub(super) fn forget(&self, submission: &SubmissionId) {
        self.room.kept().remove(submission);
    }
}

impl Presealing {
    /// The next bytes.
    ///
    /// # Errors
    /// [`PresealError`], which is why sealing ended early.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), PresealError> {
        if self.pieces.send(Piece::Bytes(bytes)).await.is_ok() {
            return Ok(());
        }
        match (&mut self.thread).await {
            Ok(Err(error)) => Err(error.into()),
            // It ends before the mail only with an error.
            Ok(Ok(_)) | Err(_) => Err(PresealError::Stopping),
        }
    }

    /// Ends it early; its file is gone when this is over.
    pub(super) async fn abandon(self) {
        drop(self.pieces);
        // It says that the mail broke off.
        drop(self.thread.await);
    }

    /// The mail is whole: the sealed one, which has no name yet, and what keeps the word of it once it has one.
    ///
    /// # Errors
    /// As [`Presealing::write`].
    pub(super) async fn finish(
        self,
    ) -> Result<(DurableWriter, impl FnOnce(SubmissionId) + Send + 'static), PresealError> {
        let Self { pieces, thread, receivers, room } = self;
        // A thread that ended has told why.
        let _ = pieces.send(Piece::End).await;
        let (file, manifest) = thread.await.map_err(|_| PresealError::Stopping)??;
        let keep = move |submission| {
            room.kept().insert(submission, Arc::new(Presealed { receivers, manifest }));
        };
        Ok((file, keep))
    }
}
