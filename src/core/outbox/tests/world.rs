//! A world for one outbox: disk, journal, certificates, readers and DHT, in virtual time, crashed wherever a test wants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::core::outbox::events::Word;
use crate::core::outbox::{
    Action, Announcement, Certificate, Event, How, Input, Notify, NrFrom, Outbox, OwnPage, RecoverJob, Reply,
    SealFailure, SealJob, SealedReceiver, ShownMail, Spooled,
};
use crate::core::past::Past;
use crate::core::{Brain, Effect, Token};
use crate::model::group::{Member, Roster};
use crate::model::holding::{Holding, HoldingState, Holdings};
use crate::model::msglist::MailEntry;
pub(super) use crate::model::notification::Nr;
use crate::model::notification::Outcome;
use crate::model::{
    Address, Digest, Encoding, Fingerprint, MailId, Now, Part, PeerId, Policy, Secret, SubmissionId, WallTime,
};
use crate::wire::{PeerKey, Signed};

pub(super) const START: WallTime = WallTime(1_700_000_000_000);

pub(super) fn address(name: &str) -> Address {
    name.parse().unwrap()
}
pub(super) fn key(n: u8) -> PeerKey {
    PeerKey::from_seed(&[n; 32])
}
pub(super) fn fingerprint(of: &Address) -> Fingerprint {
    Fingerprint::from_slice(&blake3::hash(of.to_string().as_bytes()).as_bytes()[..20]).unwrap()
}
pub(super) fn peer(of: &Address) -> PeerId {
    PeerId::new(*blake3::hash(of.to_string().as_bytes()).as_bytes())
}
pub(super) fn submission(n: u8) -> SubmissionId {
    SubmissionId::new([n; 16])
}
pub(super) fn roster(others: u8) -> Arc<Roster> {
    let member = |n: u8| {
        let address = address(&if n == 1 { "alice@acme".to_owned() } else { format!("m{n}@acme") });
        Member { fingerprint: fingerprint(&address), address, peer_id: key(n).peer_id() }
    };
    Arc::new(Roster {
        me: member(1),
        group: "acme".parse().unwrap(),
        gd_version: 1,
        policy: Policy::default(),
        members: (1..=others + 1).map(member).collect(),
        lost: BTreeSet::new(),
        leaving: BTreeSet::new(),
        silent: BTreeSet::new(),
    })
}

/// How readers and certificates behave.
#[derive(Clone, Default)]
pub(super) struct Rules {
    /// Addresses that no group names.
    pub(super) unknown: BTreeSet<Address>,
    /// Addresses whose certificate cannot be had before this moment.
    pub(super) late: BTreeMap<Address, WallTime>,
    /// Readers that answer an ns at once with this.
    pub(super) answers: BTreeMap<Address, Outcome>,
    /// Readers whose peer cannot be reached: the DHT takes their ns.
    pub(super) away: BTreeSet<Address>,
    /// The DHT takes nothing.
    pub(super) dht_down: bool,
    /// Nobody else is in the DHT.
    pub(super) dht_alone: bool,
    /// The postbox files nothing.
    pub(super) postbox_down: bool,
    /// Readers answer an ns that comes to them itself by an nr that comes the same way.
    pub(super) direct_nr: bool,
    /// Spool files cannot be read.
    pub(super) spool_broken: bool,
    /// What each member has of the own msglist; the others have what the brain has.
    pub(super) own_lists: BTreeMap<PeerId, OwnPage>,
    /// Members that confirm what they have not.
    pub(super) liars: BTreeSet<PeerId>,
    /// Members that cannot be asked for it.
    pub(super) silent: BTreeSet<PeerId>,
    /// Whether questions about the own list stay open: nobody says that they came to nothing.
    pub(super) unheard: bool,
    /// The disk is slow: whatever others answer comes before anything is durable.
    pub(super) slow_disk: bool,
    /// The group changes while a mail is being sealed.
    pub(super) changes_while_sealing: Option<Arc<Roster>>,
    /// No manifest can be written.
    pub(super) disk_full: bool,
    /// Mails of which the members that can be reached hold too little.
    pub(super) nobody_has: BTreeSet<MailId>,
}

/// What is outside the brain, and survives its crashes.
#[derive(Default)]
pub(super) struct Outside {
    pub(super) spool: BTreeMap<SubmissionId, Spooled>,
    pub(super) blobs: BTreeSet<MailId>,
    pub(super) journal: Vec<Event>,
    /// Who was asked for the own list, and from where on.
    pub(super) own_list_asked: Vec<(PeerId, crate::model::msglist::Cursor)>,
    /// ns that each reader's peer took.
    pub(super) taken: Vec<(Address, MailId)>,
    /// ns that were sent at all.
    pub(super) announced: usize,
    /// What the Outbox mailbox was told to keep at the last start.
    pub(super) shown_only: BTreeSet<SubmissionId>,
    /// Manifests that were made anew or for another encoding.
    pub(super) manifests: BTreeSet<(MailId, Encoding)>,
    pub(super) dht_ns: BTreeSet<(Address, MailId)>,
    pub(super) dht_nr: BTreeMap<Digest, Nr>,
    pub(super) dsns: BTreeMap<SubmissionId, Address>,
    pub(super) filed: BTreeSet<SubmissionId>,
    pub(super) sealed: Vec<SealJob>,
    pub(super) spool_drops: usize,
    /// Attempts to put a missing mail together.
    pub(super) recoveries: usize,
    /// Who was asked at the last one.
    pub(super) recovery_asked: BTreeSet<PeerId>,
    /// Blocks that were asked for.
    /// Who was told to compare.
    pub(super) hellos: Vec<PeerId>,
    pub(super) audits: Vec<(PeerId, MailId, Part)>,
    pub(super) gone_told: Vec<Address>,
    /// Attempts to tell a reader that a mail was taken back.
    pub(super) gone_attempts: usize,
    pub(super) shown: BTreeMap<SubmissionId, ShownMail>,
    /// Most that the Outbox mailbox was being told at a time.
    pub(super) shown_at_once: usize,
    nonce: u8,
}

pub(super) struct World {
    /// After a crash nobody says whether the clock is right.
    pub(super) clock_unsure: bool,
    pub(super) rules: Rules,
    pub(super) outside: Outside,
    pub(super) brain: Outbox,
    pub(super) now: Now,
    pub(super) replies: BTreeMap<Token, Reply>,
    pub(super) notify: Notify,
    others: u8,
    /// Answers of the world that the brain has not heard.
    inbox: VecDeque<Input>,
    /// Commits that are not durable yet.
    commits: VecDeque<(Vec<Event>, Vec<Effect<Outbox>>)>,
    /// All commits, and whether each may wait for others.
    pub(super) committed: Vec<(Vec<Event>, bool)>,
    /// Steps until the power fails.
    pub(super) fuse: Option<usize>,
    /// How often it started again.
    pub(super) crashes: usize,
    pub(super) steps: usize,
    /// Whether a body was ever served: the peer was told that it may be.
    pub(super) was_served: bool,
    tokens: u64,
    /// The next start is that of a restored home.
    pub(super) restored: bool,
    past: Past<Outbox>,
}

impl Outside {
    /// A backup: journal, spool and blobs.
    pub(super) fn copy(&self) -> Self {
        let (journal, spool, blobs) = (self.journal.clone(), self.spool.clone(), self.blobs.clone());
        Self { journal, spool, blobs, nonce: self.nonce.wrapping_add(100), ..Self::default() }
    }
}

/// A word that a member says again is not recorded again (`Outbox::confirm_words`).
fn without_when_words_were_said(event: Event) -> Event {
    let Event::KeptMail(mut mail) = event else { return event };
    let undated = |word: &Word| Word { at: WallTime(0), state: word.state.clone() };
    mail.holdings = mail.holdings.iter().map(|(of, word)| (*of, undated(word))).collect();
    Event::KeptMail(mail)
}

impl World {
    pub(super) fn new(others: u8, rules: Rules) -> Self {
        Self::with_notify(others, rules, Notify::DirectFirst)
    }
    pub(super) fn with_notify(others: u8, rules: Rules, notify: Notify) -> Self {
        let mut world = Self {
            rules,
            outside: Outside::default(),
            brain: Outbox::new(Arc::new(key(1)), roster(others), notify),
            now: Now { mono: crate::model::MonoTime(0), wall: START },
            replies: BTreeMap::new(),
            notify,
            others,
            inbox: VecDeque::new(),
            commits: VecDeque::new(),
            committed: Vec::new(),
            fuse: None,
            crashes: 0,
            steps: 0,
            was_served: false,
            tokens: 1 << 40,
            restored: false,
            past: Past::new(move || Outbox::new(Arc::new(key(1)), roster(others), notify))
                .forgetting(|event| matches!(event, Event::Gone { .. }))
                .but_for(without_when_words_were_said),
            clock_unsure: false,
        };
        world.tell(Input::Start { blobs: Vec::new() });
        world.tell(Input::ClockDoubtful(false));
        world
    }
    /// A mail lies in the spool, and the brain is told so.
    pub(super) fn submit(&mut self, n: u8, to: &[&str], bcc: &[&str]) -> SubmissionId {
        let receivers = to.iter().map(|a| (address(a), false)).chain(bcc.iter().map(|a| (address(a), true)));
        let spooled = Spooled {
            submission: submission(n),
            receivers: receivers.collect(),
            size: 1000,
            at: self.now.wall,
            message_id: None,
        };
        self.outside.spool.insert(submission(n), spooled.clone());
        self.tell(Input::Submitted { token: Some(Token(u64::from(n))), spooled });
        submission(n)
    }
    pub(super) fn tell(&mut self, input: Input) {
        self.inbox.push_back(input);
    }
    pub(super) fn holds(&mut self, member: u8, h: MailId, part: Part, state: HoldingState, at: WallTime) -> Reply {
        self.says(member, &[(h, part, state)], at, None)
    }
    /// A batch of a member's words, signed when it had heard of misses up to then.
    pub(super) fn says(
        &mut self,
        member: u8,
        words: &[(MailId, Part, HoldingState)],
        at: WallTime,
        heard: Option<WallTime>,
    ) -> Reply {
        let who = key(member);
        let items = words.iter().map(|(h, part, state)| Holding { h: *h, part: *part, state: state.clone() }).collect();
        let batch = who.sign(Holdings { member: who.peer_id(), owner: key(1).peer_id(), at, items, heard });
        let batch = Signed::verify(batch.as_bytes()).unwrap();
        let token = Token(self.fresh());
        self.tell(Input::Holdings { token, batch });
        self.settle();
        // A power cut leaves it unanswered; the member tells it again.
        self.replies.get(&token).cloned().unwrap_or(Reply::HoldingsTaken)
    }
    /// A token that was not used yet.
    pub(super) fn fresh(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }
    /// Whether `caller` is served bytes of `h`.
    pub(super) fn serves(&mut self, caller: PeerId, h: MailId) -> bool {
        let token = Token(self.fresh());
        self.tell(Input::Serving { token, h, caller });
        self.settle();
        self.replies[&token] == Reply::Serve(true)
    }
    /// Power fails: what is not durable is gone. Then the peer starts again.
    pub(super) fn crash(&mut self) {
        self.crashes += 1;
        self.inbox.clear();
        self.commits.clear();
        self.replies.clear();
        self.brain = Outbox::new(Arc::new(key(1)), roster(self.others), self.notify);
        self.past.start(&self.outside.journal);
        for event in self.outside.journal.clone() {
            self.brain.replay(event);
        }
        if self.restored {
            self.brain.mark_restored();
        }
        self.now.mono = crate::model::MonoTime(0);
        self.tell(Input::Start { blobs: self.outside.blobs.iter().copied().collect() });
        for spooled in self.outside.spool.values() {
            self.inbox.push_back(Input::Submitted { token: None, spooled: spooled.clone() });
        }
        if !self.clock_unsure {
            self.inbox.push_back(Input::ClockDoubtful(false));
        }
    }
    /// Of what waits after a start, the spool files are not found yet.
    pub(super) fn without_spool_files(&mut self) -> Vec<Input> {
        let (found, rest): (Vec<Input>, Vec<Input>) =
            self.inbox.drain(..).partition(|input| matches!(input, Input::Submitted { .. }));
        self.inbox.extend(rest);
        found
    }
    /// Whether a sealed mail is on its way into the journal.
    pub(super) fn is_sealed_but_not_durable(&self) -> bool {
        self.commits.iter().flat_map(|(events, _)| events).any(|event| matches!(event, Event::Sealed { .. }))
    }
    /// The peer starts on an older copy of its disk.
    pub(super) fn restore(&mut self, backup: &Outside) {
        self.outside = backup.copy();
        self.crash();
    }
    /// It knows this of an earlier run.
    pub(super) fn replays(&mut self, event: Event) {
        self.past.asks(std::slice::from_ref(&event));
        self.brain.replay(event);
    }
    /// The sealed mail of a submission.
    pub(super) fn sealed_of(&self, n: u8) -> MailId {
        let of = |mail: &&crate::core::outbox::events::Mail| mail.submission == submission(n);
        self.brain.state.mails.values().find(of).unwrap().facts.h
    }
    /// One step: an effect, a commit that becomes durable, or an input. False when nothing is left to do now.
    pub(super) fn step(&mut self) -> bool {
        let first = if self.rules.slow_disk { self.inbox.pop_front() } else { None };
        if let Some(effect) = self.brain.poll_effect() {
            if let Some(input) = first {
                self.inbox.push_front(input);
            }
            self.perform(effect);
        } else if let Some(input) = first {
            self.brain.handle(self.now, input);
        } else if let Some((events, then)) = self.commits.pop_front() {
            self.outside.journal.extend(events);
            for effect in then {
                self.perform(effect);
            }
        } else if let Some(input) = self.inbox.pop_front() {
            self.past.rests(&self.brain);
            self.brain.handle(self.now, input);
        } else {
            self.past.rests(&self.brain);
            return false;
        }
        self.steps += 1;
        if self.fuse.is_some_and(|fuse| self.steps == fuse) {
            self.crash();
        }
        true
    }
    /// Runs until nothing is left to do now.
    pub(super) fn settle(&mut self) {
        while self.step() {}
    }
    /// Runs for `span`, waking the brain when it wants to be.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now.wall + span;
        self.settle();
        while let Some(at) = self.brain.poll_timeout() {
            let pause = at.since(self.now.mono);
            if self.now.wall + pause > end {
                break;
            }
            self.now = self.now.after(pause);
            self.brain.wake(self.now);
            self.settle();
        }
        self.now = self.now.after(end.since(self.now.wall));
        self.brain.check_counts();
    }
    pub(super) fn nr(&self, h: MailId, n: SubmissionId, reader: &Address, outcome: Outcome) -> Nr {
        Nr { submission: n, h, reader: reader.clone(), to: address("alice@acme"), outcome, at: self.now.wall }
    }

    fn perform(&mut self, effect: Effect<Outbox>) {
        match effect {
            Effect::Act(action) => self.act(action),
            Effect::Reply(token, reply) => {
                self.was_served |= reply == Reply::Serve(true);
                assert!(self.replies.insert(token, reply).is_none(), "a token is answered once");
            }
            Effect::Feed(input) => self.brain.handle(self.now, input),
            Effect::Commit { events, then } => {
                let copied: Vec<Event> =
                    events.iter().map(|e| crate::wire::decode(&crate::wire::encode(e)).unwrap()).collect();
                assert_eq!(events, copied, "events survive their encoding");
                self.past.asks(&events);
                self.committed.push((copied, Outbox::may_wait(&then)));
                self.commits.push_back((events, then));
            }
        }
    }
    fn tell_own_list(&mut self, member: PeerId, since: crate::model::msglist::Cursor) {
        self.outside.own_list_asked.push((member, since));
        if self.rules.unheard {
            return;
        }
        let known = self.rules.own_lists.get(&member).cloned().unwrap_or_default();
        let answer = (!self.rules.silent.contains(&member)).then_some(known);
        self.tell(Input::OwnList { member, since, answer });
    }
    fn act(&mut self, action: Action) {
        let wall = self.now.wall;
        match action {
            Action::FindCertificate { address } => {
                let found = if self.rules.unknown.contains(&address) {
                    Certificate::Unknown
                } else if self.rules.late.get(&address).is_some_and(|from| wall < *from) {
                    Certificate::NotYet
                } else {
                    Certificate::Found { fingerprint: fingerprint(&address), peer: peer(&address) }
                };
                self.tell(Input::Certificate { address, found });
            }
            Action::FileLocally { .. } | Action::FileDsn(_) if self.rules.postbox_down => {}
            Action::FileLocally { submission } => {
                self.outside.filed.insert(submission);
                self.tell(Input::FiledLocally { submission });
            }
            Action::Seal(job) => self.seal(job),
            Action::Reencode { facts, encoding } => {
                assert!(self.outside.blobs.contains(&facts.h), "only what is on disk is re-encoded");
                let result = if self.rules.disk_full { Err("no room".to_owned()) } else { Ok(()) };
                self.outside.manifests.extend(result.is_ok().then_some((facts.h, encoding)));
                self.tell(Input::Reencoded { h: facts.h, encoding, result });
            }
            Action::Recover(job) => self.recover(job),
            Action::DropSpool { submission } => {
                assert!(self.outside.shown.contains_key(&submission), "the Outbox mailbox still needs the spool files");
                self.outside.spool.remove(&submission);
                self.outside.spool_drops += 1;
            }
            Action::DropBlob { h } => self.drop_blob(h),
            Action::Announce(announcement) => self.announce(announcement),
            Action::DeleteNs { h, receiver, .. } => {
                self.outside.dht_ns.remove(&(receiver.clone(), h));
                self.tell(Input::NsDeleted { h, receiver, done: true });
            }
            Action::TellGone { h, receiver, .. } => {
                let done = !self.rules.away.contains(&receiver);
                self.outside.gone_attempts += 1;
                if done {
                    self.outside.gone_told.push(receiver.clone());
                }
                self.tell(Input::GoneTold { h, receiver, done });
            }
            Action::PollNr => {
                self.readers_poll();
                for (value, nr) in self.outside.dht_nr.clone() {
                    let signer = fingerprint(&nr.reader);
                    self.tell(Input::Nr { from: NrFrom::Dht(value), nr, signer });
                }
            }
            Action::DeleteNr { value, secret } => self.delete_nr(value, &secret),
            Action::ReadOwnList { member, since } => self.tell_own_list(member, since),
            Action::Hello { peers } => self.outside.hellos.extend(peers),
            Action::ForgetRestored => {}
            Action::ShowOnly(these) => self.outside.shown_only = these,
            Action::Audit { member, h, part, .. } => {
                self.outside.audits.push((member, h, part));
                if self.rules.liars.contains(&member) {
                    self.tell(Input::AuditMissed { member, h });
                }
            }
            Action::FileDsn(dsn) => {
                self.outside.dsns.insert(dsn.id, dsn.receiver.clone());
                self.tell(Input::DsnFiled { submission: dsn.submission, receiver: dsn.receiver });
            }
            Action::Show(shown) => self.show(shown),
        }
    }
    fn show(&mut self, shown: ShownMail) {
        let submission = shown.submission;
        self.outside.shown.insert(submission, shown);
        self.tell(Input::Shown { submission });
        let told = self.inbox.iter().filter(|input| matches!(input, Input::Shown { .. })).count();
        self.outside.shown_at_once = self.outside.shown_at_once.max(told);
    }
    fn drop_blob(&mut self, h: MailId) {
        let sealed = |e: &Event| matches!(e, Event::Sealed { facts, .. } if facts.h == h);
        let gone = |e: &Event| matches!(e, Event::Tombstoned { h: of, .. } | Event::Gone { h: of, .. } if *of == h);
        let journal = &self.outside.journal;
        assert!(!journal.iter().any(sealed) || journal.iter().any(gone), "a mail goes behind its tombstone");
        self.outside.blobs.remove(&h);
    }
    fn delete_nr(&mut self, value: Digest, secret: &Secret) {
        // Whoever deletes it derives the password from the secret that was in the ns, once.
        let of_ns =
            |e: &Event| matches!(e, Event::Sealed { receivers, .. } if receivers.iter().any(|r| r.secret == *secret));
        assert!(self.outside.journal.iter().any(of_ns), "no ns had this secret");
        self.outside.dht_nr.remove(&value);
    }
    /// What members have is put together, if they are there.
    fn recover(&mut self, job: RecoverJob) {
        let h = job.facts.h;
        self.outside.recoveries += 1;
        self.outside.recovery_asked = job.sources.iter().copied().collect();
        if self.rules.nobody_has.contains(&h) {
            return self.tell(Input::Recovered { h, result: Err("too few parts".to_owned()) });
        }
        self.outside.blobs.insert(h);
        let notices = job.receivers.into_iter().map(|(address, ..)| (address, Digest::new([10; 32])));
        let result = Ok(notices.collect());
        self.tell(Input::Recovered { h, result });
    }
    fn seal(&mut self, job: SealJob) {
        if let Some(roster) = self.rules.changes_while_sealing.take() {
            self.tell(Input::Roster(roster));
        }
        self.outside.sealed.push(job.clone());
        let addresses: Vec<Address> = job.receivers.iter().map(|(a, ..)| a.clone()).collect();
        if self.rules.spool_broken || !self.outside.spool.contains_key(&job.submission) {
            let (submission, why) = (job.submission, SealFailure::NoSpool);
            return self.tell(Input::SealFailed { submission, receivers: addresses, why });
        }
        self.outside.nonce += 1;
        let h = MailId::new([self.outside.nonce; 20]);
        self.outside.blobs.insert(h);
        let length = 1 << 20;
        let entry = MailEntry {
            h,
            length,
            digest: Digest::new([self.outside.nonce; 32]),
            expiry: job.expiry,
            encoding: job.policy.encoding_for(length, job.others),
            for_owner: vec![7; 50],
        };
        let receivers = job.receivers.into_iter().map(|(address, fingerprint, peer)| SealedReceiver {
            secret: Secret::new([self.outside.nonce; 32]),
            ns: Digest::new([9; 32]),
            address,
            fingerprint,
            peer,
        });
        let receivers = receivers.collect();
        self.tell(Input::Sealed { submission: job.submission, receivers, entry });
    }
    fn announce(&mut self, a: Announcement) {
        assert!(self.outside.blobs.contains(&a.h), "only what is on disk is announced");
        let journaled = |e: &Event| matches!(e, Event::Sealed { facts, .. } if facts.h == a.h);
        assert!(self.outside.journal.iter().any(journaled), "only what is in the journal is announced");
        let doubtful = self.brain.clock.is_doubtful();
        assert!(!a.dht || a.expiry > self.now.wall || doubtful, "an expired ns goes into no DHT");
        self.outside.announced += 1;
        let direct = a.direct_first && !self.rules.away.contains(&a.receiver);
        let how = if direct {
            self.outside.taken.push((a.receiver.clone(), a.h));
            Some(How::Direct)
        } else if a.dht && !self.rules.dht_down {
            self.outside.dht_ns.insert((a.receiver.clone(), a.h));
            Some(if self.rules.dht_alone { How::OwnShare } else { How::Dht })
        } else {
            None
        };
        self.tell(Input::Announced { h: a.h, receiver: a.receiver.clone(), how });
        if direct {
            self.answer(&a.receiver, a.h);
        }
        if direct && self.rules.direct_nr {
            let token = Token(self.fresh());
            for (_, nr) in std::mem::take(&mut self.outside.dht_nr) {
                let signer = fingerprint(&nr.reader);
                self.tell(Input::Nr { from: NrFrom::Direct(token), nr, signer });
            }
        }
    }
    /// Readers that are not away find what lies in the DHT for them.
    fn readers_poll(&mut self) {
        for (reader, h) in self.outside.dht_ns.clone() {
            if self.rules.answers.contains_key(&reader) && !self.rules.away.contains(&reader) {
                self.outside.taken.push((reader.clone(), h));
                self.answer(&reader, h);
            }
        }
    }
    /// The reader's nr, kept in the DHT until it is taken.
    fn answer(&mut self, reader: &Address, h: MailId) {
        let Some(outcome) = self.rules.answers.get(reader).copied() else { return };
        let sealed_from = |e: &Event| match e {
            Event::Sealed { submission, facts, .. } if facts.h == h => Some(*submission),
            _ => None,
        };
        let submission = self.outside.journal.iter().find_map(sealed_from).unwrap();
        let nr = Nr { at: START, ..self.nr(h, submission, reader, outcome) };
        self.outside.dht_nr.insert(Digest::new(*blake3::hash(format!("{nr:?}").as_bytes()).as_bytes()), nr);
    }
}
