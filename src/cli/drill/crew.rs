//! Who takes part in a drill: the peers, whom each writes to, which mail is whose, and what of it is seen where. It starts and
//! ends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::events::{Log, MailNo};
use super::letters::Letters;
use super::spoiled::Spoiled;
use crate::cli::cluster::{ClusterDir, ClusterPeer};
use crate::model::{Address, Digest, MailId, SubmissionId};
use crate::store::home::Home;

/// Where one mail comes from and goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The sender, as a place in the list of peers.
    pub(super) from: usize,
    /// The reader.
    pub(super) to: usize,
}

/// Everybody, shared by the threads of a drill.
#[derive(Debug)]
pub(super) struct Crew {
    /// Where their peers run.
    pub(super) cluster: ClusterDir,
    /// The peers.
    pub(super) people: Vec<ClusterPeer>,
    /// Who writes to whom.
    pub(super) ways: Vec<Way>,
    /// What they write.
    pub(super) letters: Letters,
    /// What was seen.
    pub(super) log: Log,
    /// How long a sender waits between two mails, about.
    pub(super) pace: Duration,
    /// Whether senders send.
    pub(super) sending: AtomicBool,
    /// Whether senders wait meanwhile.
    pub(super) quiet: AtomicBool,
    /// Whether readers read and the watch watches.
    pub(super) working: AtomicBool,
    next: AtomicU32,
    mails: Mutex<BTreeMap<MailNo, Way>>,
    held: Mutex<BTreeSet<MailNo>>,
    names: Mutex<BTreeMap<MailNo, BTreeSet<MailId>>>,
    asked_back: Mutex<BTreeMap<MailNo, SubmissionId>>,
    spoiled: Mutex<Spoiled>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a thread that died left is whole: each change is one insertion.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What tells whether a part is as it was.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::new(*blake3::hash(bytes).as_bytes())
}

impl Crew {
    /// `people`, who write along `ways`.
    pub(super) fn new(
        cluster: ClusterDir,
        people: Vec<ClusterPeer>,
        ways: Vec<Way>,
        letters: Letters,
        pace: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            people,
            ways,
            letters,
            log: Log::new(),
            pace,
            sending: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            working: AtomicBool::new(true),
            next: AtomicU32::new(1),
            mails: Mutex::default(),
            held: Mutex::default(),
            names: Mutex::default(),
            asked_back: Mutex::default(),
            spoiled: Mutex::default(),
        })
    }

    /// Whom a peer's mail is followed to in a scenario in which that one must be able to read: the last of those whom it can write
    /// to, and rather somebody outside its group, who holds nothing that could fail with a member.
    pub(super) fn reader_for(&self, sender: &Address) -> Option<&Address> {
        let address = |at: usize| self.people.get(at).map(|person| &person.address);
        let of_sender = self.ways.iter().filter(|way| address(way.from) == Some(sender));
        let readers: Vec<&Address> = of_sender.filter_map(|way| address(way.to)).collect();
        let outside = readers.iter().rev().find(|reader| reader.group() != sender.group());
        outside.or(readers.last()).copied()
    }

    /// Everybody but one.
    pub(super) fn all_but(&self, one: &Address) -> Vec<Address> {
        self.people.iter().map(|person| person.address.clone()).filter(|peer| peer != one).collect()
    }

    /// A number for a new mail along `way`. Held ones are opened only once they are released.
    pub(super) fn number(&self, way: Way, held: bool) -> MailNo {
        let mail = self.next.fetch_add(1, Ordering::SeqCst);
        lock(&self.mails).insert(mail, way);
        if held {
            lock(&self.held).insert(mail);
        }
        mail
    }

    /// Where a mail goes.
    pub(super) fn way(&self, mail: MailNo) -> Option<Way> {
        lock(&self.mails).get(&mail).copied()
    }

    /// The mail as it was submitted.
    pub(super) fn letter(&self, mail: MailNo, way: Way) -> Vec<u8> {
        self.letters.write(mail, &self.people[way.from].address, &self.people[way.to].address)
    }

    /// Whether nobody may open it yet.
    pub(super) fn is_held(&self, mail: MailNo) -> bool {
        lock(&self.held).contains(&mail)
    }

    /// This one may be opened now.
    pub(super) fn open_up(&self, mail: MailNo) {
        lock(&self.held).remove(&mail);
    }

    /// From now on all may be opened.
    pub(super) fn release(&self) {
        lock(&self.held).clear();
    }

    /// A sealed mail of it.
    pub(super) fn is_called(&self, mail: MailNo, h: MailId) {
        lock(&self.names).entry(mail).or_default().insert(h);
    }

    /// Every sealed mail that was seen, by the number.
    pub(super) fn names(&self) -> BTreeMap<MailNo, BTreeSet<MailId>> {
        lock(&self.names).clone()
    }

    /// This one is asked back, by its submission.
    pub(super) fn is_asked_back(&self, mail: MailNo, submission: SubmissionId) {
        lock(&self.asked_back).insert(mail, submission);
    }

    /// The submission of a mail that was asked back.
    pub(super) fn asked_back(&self, mail: MailNo) -> Option<SubmissionId> {
        lock(&self.asked_back).get(&mail).copied()
    }

    /// The drill itself destroys or falsifies what is on this peer's disk: of what is there now, what others say is not measured
    /// there until that peer has had its say.
    pub(super) fn spoil<T>(&self, peer: &Address, destroy: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let home = self.home(peer);
        let mut parts = BTreeMap::new();
        for owner in self.people.iter().map(|person| &person.address) {
            for (h, part) in home.mirrored_parts(owner)? {
                let bytes = fs::read(home.mirror_part(owner, &h, part)).unwrap_or_default();
                parts.insert((owner.clone(), h, part), digest_of(&bytes));
            }
        }
        let names = self.names();
        let blobs = names.values().flatten().filter(|h| home.outbox_blob(h).exists()).copied().collect();
        lock(&self.spoiled).begins(peer, parts, blobs);
        let done = destroy();
        lock(&self.spoiled).is_done(peer, self.log.now());
        done
    }

    /// What the drill spoiled.
    pub(super) fn spoiled(&self) -> MutexGuard<'_, Spoiled> {
        lock(&self.spoiled)
    }

    /// The home of a peer.
    pub(super) fn home(&self, peer: &Address) -> Home {
        Home::at(self.cluster.home_of(peer))
    }

    /// Whether senders go on.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.load(Ordering::SeqCst)
    }

    /// Whether readers and the watch go on.
    pub(super) fn is_working(&self) -> bool {
        self.working.load(Ordering::SeqCst)
    }
}
