//! The postbox brain with a shell of a few lines, under virtual time: a disk that forgets what was not durable, a sender that
//! repeats itself, and a crash between any two effects.

mod clocks;
mod flows;
mod mailboxes;
mod taken_back;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use super::access::{Flag, MailboxFailure, MailboxName, MailboxReply, MailboxRequest, Message, Standard, Uid, View};
use super::io::{FetchFailure, NrSent, NsFrom, OpenResult, Shown};
use super::*;
use crate::core::past::Past;
use crate::core::{Effect, Token};
use crate::mime;
use crate::model::notification::{Nr, Ns, Outcome, Refusal};
use crate::model::{Address, Digest, Fingerprint, MailId, PeerId, PulledMail, Secret, SubmissionId};
use crate::wire;

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// How a sender and its group behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It answers, and its mails can be pulled.
    Up,
    /// Neither it nor its group answers.
    Down,
    /// Its mails can be pulled, but do not fit their ns.
    Lying,
}

/// A sender as the tests need it.
pub(super) struct Sender {
    pub(super) way: Way,
    /// nr that it took.
    pub(super) taken: Vec<Nr>,
    /// It takes no nr now.
    pub(super) deaf: bool,
}

/// A peer's disk, its shell, and who writes to it.
pub(super) struct World {
    /// After a crash nobody says whether the clock is right.
    pub(super) clock_unsure: bool,
    pub(super) brain: Postbox,
    pub(super) now: Now,
    pub(super) journal: Vec<Event>,
    /// Files: whether there is a head, a body.
    pub(super) files: BTreeMap<MessageKey, (bool, bool)>,
    sizes: BTreeMap<MessageKey, u64>,
    inputs: VecDeque<Input>,
    /// Commits under way, oldest first.
    commits: VecDeque<(Vec<Event>, Vec<Effect<Postbox>>)>,
    past: Past<Postbox>,
    pub(super) replies: BTreeMap<Token, Reply>,
    next_token: u64,
    pub(super) sender: Sender,
    /// nr in the DHT.
    pub(super) dht: BTreeMap<Digest, Nr>,
    pub(super) pulled: usize,
    /// Polls of the DHT, and whether most of it answers.
    pub(super) polls: usize,
    pub(super) dht_answers: bool,
    /// Peers that were told that this one is here again.
    pub(super) greeted: BTreeSet<PeerId>,
    /// Pulled files that were removed.
    pub(super) dropped: Vec<MailId>,
    /// What the fetcher has got, while it is held up.
    pub(super) held: Option<Vec<Input>>,
    pub(super) cancelled: Vec<SubmissionId>,
    pub(super) deleted_ns: Vec<Digest>,
    pub(super) pinned: usize,
    pub(super) crashes: usize,
    /// Effects until the next crash.
    pub(super) fuse: Option<usize>,
    pub(super) changed: u64,
    pub(super) settings: Settings,
}

pub(super) fn rita() -> Address {
    "rita@readers".parse().unwrap()
}

/// The n-th mail of alice for rita.
pub(super) fn ns(n: u8) -> Ns {
    let mail = format!("From: Alice <alice@acme>\r\nTo: rita@readers\r\nSubject: mail {n}\r\n\r\nbody {n}\r\n");
    let split = mime::split::split(mail.as_bytes());
    Ns {
        submission: SubmissionId::new([n; 16]),
        h: MailId::new([n; 20]),
        length: 1000,
        digest: Digest::new([n; 32]),
        to: rita(),
        from: "alice@acme".parse().unwrap(),
        from_fingerprint: Fingerprint::new([7; 20]),
        owner: PeerId::new([9; 32]),
        group: "acme".parse().unwrap(),
        group_key: Fingerprint::new([8; 20]),
        expiry: start().wall + 7 * DAY,
        header_block: split.header_block,
        structure: split.structure,
        secret: Secret::new([n; 32]),
    }
}

pub(super) fn start() -> Now {
    Now { mono: MonoTime(1000), wall: WallTime(1_700_000_000_000) }
}

pub(super) fn name(which: Standard) -> MailboxName {
    MailboxName::standard(which)
}

impl World {
    pub(super) fn new() -> World {
        Self::with(Settings::new(rita()))
    }
    pub(super) fn with(settings: Settings) -> World {
        let mut world = World {
            brain: Postbox::new(settings.clone()),
            now: start(),
            journal: Vec::new(),
            files: BTreeMap::new(),
            sizes: BTreeMap::new(),
            inputs: VecDeque::from([Input::Start, Input::ClockDoubtful(false)]),
            commits: VecDeque::new(),
            past: {
                let settings = settings.clone();
                Past::new(move || Postbox::new(settings.clone()))
                    .forgetting(|event| matches!(event, Event::KeptLocal { .. } | Event::Buried { .. }))
            },
            replies: BTreeMap::new(),
            next_token: 0,
            sender: Sender { way: Way::Up, taken: Vec::new(), deaf: false },
            dht: BTreeMap::new(),
            pulled: 0,
            polls: 0,
            dht_answers: true,
            greeted: BTreeSet::new(),
            dropped: Vec::new(),
            held: None,
            cancelled: Vec::new(),
            deleted_ns: Vec::new(),
            pinned: 0,
            crashes: 0,
            fuse: None,
            changed: 0,
            settings,
            clock_unsure: false,
        };
        world.run();
        world
    }

    pub(super) fn crash(&mut self) {
        self.crashes += 1;
        self.fuse = None;
        self.inputs.clear();
        self.commits.clear();
        self.brain = Postbox::new(self.settings.clone());
        self.past.start(&self.journal);
        for event in &self.journal {
            let bytes = wire::encode(event);
            self.brain.replay(wire::decode(&bytes).unwrap());
        }
        // A compacted journal gives the same state.
        let mut compact = Postbox::new(self.settings.clone());
        self.brain.snapshot().into_iter().for_each(|event| compact.replay(event));
        assert_eq!(compact.snapshot(), self.brain.snapshot());
        self.inputs.push_back(Input::Start);
        if !self.clock_unsure {
            self.inputs.push_back(Input::ClockDoubtful(false));
        }
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.run();
    }

    pub(super) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    /// Does everything that is due, one effect at a time, crashing where the fuse ends.
    pub(super) fn run(&mut self) {
        loop {
            if self.fuse == Some(0) {
                self.crash();
            }
            if let Some(effect) = self.brain.poll_effect() {
                self.fuse = self.fuse.map(|n| n.saturating_sub(1));
                self.effect(effect);
            } else if let Some(input) = self.inputs.pop_front() {
                self.past.rests(&self.brain);
                self.brain.handle(self.now, input);
            } else if let Some((events, then)) = self.commits.pop_front() {
                self.fuse = self.fuse.map(|n| n.saturating_sub(1));
                self.journal.extend(events);
                for effect in then {
                    if self.fuse == Some(0) {
                        break;
                    }
                    self.fuse = self.fuse.map(|n| n.saturating_sub(1));
                    self.effect(effect);
                }
            } else if self.brain.poll_timeout().is_some_and(|at| at <= self.now.mono) {
                self.brain.wake(self.now);
            } else {
                self.past.rests(&self.brain);
                return;
            }
        }
    }

    /// Lets time pass, timer by timer.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now.after(span);
        self.run();
        while let Some(at) = self.brain.poll_timeout().filter(|at| *at <= end.mono) {
            self.now = self.now.after(at.since(self.now.mono).max(Duration::from_millis(1)));
            self.brain.wake(self.now);
            self.run();
        }
        self.now = end;
    }

    fn effect(&mut self, effect: Effect<Postbox>) {
        match effect {
            Effect::Act(action) => self.perform(action),
            Effect::Reply(token, reply) => {
                assert!(self.replies.insert(token, reply).is_none(), "{token:?} was answered twice");
            }
            Effect::Feed(input) => self.brain.handle(self.now, input),
            Effect::Commit { events, then } => {
                self.past.asks(&events);
                self.commits.push_back((events, then));
            }
        }
    }

    fn written(&mut self, key: MessageKey, body: bool, size: u64) {
        self.files.insert(key, (true, body));
        self.sizes.insert(key, size);
        self.inputs.push_back(Input::Written { key, size });
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Sweep { keep } => {
                self.files.retain(|key, _| keep.contains_key(key));
                for (key, here) in &keep {
                    let (head, body) = self.files.get_mut(key).expect("a message that is listed has its files");
                    assert!(*head && (*body || !*here), "{key:?} lost its files");
                    *body = *here;
                }
                self.inputs.push_back(Input::Swept { damaged: BTreeSet::new() });
            }
            Action::WriteHead { key, .. } | Action::WriteOwnHead { key, .. } => self.written(key, false, 77),
            Action::WriteMessage { key, message } => {
                self.written(key, true, u64::try_from(message.len()).unwrap());
            }
            Action::Adopt { key, .. } | Action::WriteSpooled { key, .. } => self.written(key, true, 55),
            Action::Remove { keys } => self.files.retain(|key, _| !keys.contains(key)),
            Action::Fetch { key, h, .. } => {
                self.pulled += 1;
                let result = match self.sender.way {
                    Way::Down => Err(FetchFailure::NotNow("2 more parts are needed".to_owned())),
                    Way::Up | Way::Lying => Ok(PulledMail::File(PathBuf::from(h.to_string()))),
                };
                let fetched = Input::Fetched { key, h, result };
                match &mut self.held {
                    Some(held) => held.push(fetched),
                    None => self.inputs.push_back(fetched),
                }
            }
            Action::OpenSealed { key, .. } | Action::OpenOwn { key, .. } => {
                let lies = self.sender.way == Way::Lying;
                if let (Some((_, body)), false) = (self.files.get_mut(&key), lies) {
                    *body = true;
                }
                let result = if lies { OpenResult::Mismatch("size".to_owned()) } else { OpenResult::Here };
                self.inputs.push_back(Input::Opened { key, result });
            }
            Action::AskProgress { token, .. } => {
                self.inputs.push_back(Input::Progressed { token, percent: Some(40) });
            }
            Action::SendNr { peer, items } => {
                let results = items.into_iter().map(|item| self.send_nr(item)).collect();
                self.inputs.push_back(Input::NrSent { peer, results });
            }
            Action::Cancel { submission } => self.cancelled.push(submission),
            Action::DeleteNs { value, .. } => self.deleted_ns.push(value),
            Action::Pin { .. } | Action::PinCandidate { .. } => self.pinned += 1,
            Action::Hello { peers } => self.greeted.extend(peers),
            Action::DropFetched { .. } => {}
            Action::DropHalfFetched { h, .. } => self.dropped.push(h),
            Action::Changed { version } => {
                assert!(version > self.changed || self.crashes > 0);
                self.changed = version;
            }
            Action::PollNs => {
                self.polls += 1;
                self.inputs.push_back(Input::Polled { sure: self.dht_answers });
            }
            Action::Discard { .. } | Action::NameMismatch { .. } => {}
        }
    }

    fn send_nr(&mut self, item: io::NrItem) -> (MailKey, MailId, NrSent) {
        let (id, h) = (item.id, item.nr.h);
        let value = Digest::new([h.as_bytes()[0]; 32]);
        let sent = match self.sender.way {
            _ if self.sender.deaf => NrSent::Failed { why: "it does not answer".to_owned(), for_good: false },
            Way::Down => {
                self.dht.insert(value, item.nr);
                NrSent::InDht(value)
            }
            Way::Up | Way::Lying => {
                self.sender.taken.push(item.nr);
                NrSent::Taken
            }
        };
        (id, h, sent)
    }

    /// What the fetcher has got arrives.
    pub(super) fn release(&mut self) {
        self.inputs.extend(self.held.take().unwrap_or_default());
        self.run();
    }

    /// An ns by HTTPS; whether it was taken.
    pub(super) fn send(&mut self, ns: &Ns, known: bool) -> Option<Reply> {
        let token = self.token();
        self.tell(Input::Ns { from: NsFrom::Direct(token), ns: Box::new(ns.clone()), known });
        self.replies.remove(&token)
    }

    pub(super) fn ask_in(&mut self, view: View, request: MailboxRequest) -> Option<MailboxReply> {
        let token = self.token();
        self.tell(Input::Mailbox { token, view, request });
        match self.replies.remove(&token)? {
            Reply::Mailbox(reply) => Some(reply),
            Reply::BodyHere(key) => {
                assert!(self.files[&key].1, "a body that is not on the disk was served");
                Some(MailboxReply::Body(PathBuf::from(key.0.to_string())))
            }
            other => panic!("{other:?}"),
        }
    }
    pub(super) fn ask(&mut self, request: MailboxRequest) -> MailboxReply {
        self.ask_in(View::Stubs, request).unwrap()
    }
    pub(super) fn listed_in(&mut self, view: View, which: &MailboxName) -> (MailboxInfo, Vec<Message>) {
        match self.ask_in(view, MailboxRequest::Open(which.clone())) {
            Some(MailboxReply::Opened { info, messages }) => (info, messages),
            other => panic!("{other:?}"),
        }
    }
    pub(super) fn listed(&mut self, which: Standard) -> Vec<Message> {
        self.listed_in(View::Stubs, &name(which)).1
    }
    pub(super) fn open(&mut self, which: Standard, uid: Uid) -> Option<MailboxReply> {
        self.ask_in(View::Stubs, MailboxRequest::Body { mailbox: name(which), uid })
    }
    pub(super) fn mv(&mut self, from: Standard, uids: &[Uid], to: Standard) -> MailboxReply {
        self.ask(MailboxRequest::Move { mailbox: name(from), uids: uids.to_vec(), to: name(to) })
    }
    /// Flags as deleted and expunges.
    pub(super) fn delete(&mut self, which: Standard, uid: Uid) -> MailboxReply {
        let (mailbox, uids) = (name(which), vec![uid]);
        let (change, flags) = (access::FlagChange::Add, BTreeSet::from([Flag::Deleted]));
        self.ask(MailboxRequest::Flags { mailbox: mailbox.clone(), uids: uids.clone(), change, flags });
        self.ask(MailboxRequest::Expunge { mailbox, uids: Some(uids) })
    }
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.sender.taken.iter().map(|nr| nr.outcome).collect()
    }
}

use super::access::MailboxInfo;

pub(super) const UNREAD: Outcome = Outcome::Refused(Refusal::Unread);

pub(super) fn unavailable(reply: Option<MailboxReply>) -> String {
    match reply {
        Some(MailboxReply::Failed(MailboxFailure::Unavailable(why))) => why,
        other => panic!("{other:?}"),
    }
}

pub(super) fn show(n: u8, keyword: &str, done: bool) -> Input {
    Input::Show(Shown {
        submission: SubmissionId::new([n; 16]),
        keywords: std::iter::once(keyword.to_owned()).collect(),
        at: start().wall,
        mails: std::iter::once(MailId::new([n; 20])).collect(),
        done,
    })
}
