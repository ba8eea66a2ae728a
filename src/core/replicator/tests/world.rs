//! A group in memory under virtual time: real replicator brains, owners' msglists made with the wire functions, disks that are
//! sets. Everything asked for is answered at once; who is off answers nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_bytes::ByteBuf;

use crate::core::past::Past;
use crate::core::replicator::follow::GATHER;
use crate::core::replicator::{
    Action, AskFailure, Config, Event, Input, Lookup, MirrorFailure, MirrorOrder, Mirrored, PartsDropped, Replicator,
    Reply, Scrub,
};
use crate::core::{Brain, Effect, Token};
use crate::model::group::{Member, Roster};
use crate::model::holding::{Holding, HoldingState, Missed, bucket_digests};
use crate::model::msglist::{Cursor, Ending, Entry, EntryBody, Epoch, Head, MailEntry, Seq, Tombstone};
use crate::model::{
    ByteSize, Digest, Encoding, Fingerprint, MailId, MonoTime, Now, Part, PeerId, Policy, Span, WallTime,
};
use crate::wire::msglist::{Page, Run, chain_next, chain_start, encode_entry};
use crate::wire::{PeerKey, Signed};

pub(super) const NAMES: [&str; 7] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace"];
pub(super) const LIFE: Duration = Duration::from_secs(7 * 86_400);
/// How far ahead a member's clock may be, as the outbox sees it.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(300);
pub(super) const KN: Encoding = Encoding::Fragments { k: 3, n: 5 };

pub(super) fn key(name: &str) -> PeerKey {
    let x = NAMES.iter().position(|n| *n == name).unwrap();
    PeerKey::from_seed(&[u8::try_from(x).unwrap() + 1; 32])
}
pub(super) fn id(name: &str) -> PeerId {
    key(name).peer_id()
}
pub(super) fn h(x: u8) -> MailId {
    MailId::new([x; 20])
}
pub(super) fn member(name: &str) -> Member {
    let address = format!("{name}@acme").parse().unwrap();
    Member { address, peer_id: id(name), fingerprint: Fingerprint::new([1; 20]) }
}

/// An owner's outbox: its msglist, and what it was told.
pub(super) struct Outbox {
    pub(super) key: PeerKey,
    pub(super) epoch: Epoch,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) mails: BTreeSet<MailId>,
    pub(super) told: BTreeMap<(PeerId, MailId, Part), HoldingState>,
    /// When each member's last word was signed.
    said: BTreeMap<PeerId, WallTime>,
}

impl Outbox {
    fn new(name: &str) -> Self {
        let (told, said) = (BTreeMap::new(), BTreeMap::new());
        Self { key: key(name), epoch: Epoch(1000), entries: vec![], mails: BTreeSet::new(), told, said }
    }
    pub(super) fn append(&mut self, body: EntryBody) {
        let seq = Seq(u64::try_from(self.entries.len()).unwrap() + 1);
        self.entries.push(encode_entry(&Entry { at: Cursor { epoch: self.epoch, seq }, body }));
    }
    pub(super) fn add(&mut self, mail: MailEntry) {
        self.mails.insert(mail.h);
        self.append(EntryBody::Mail(mail));
    }
    pub(super) fn tombstone(&self, h: MailId, expiry: WallTime) -> Signed<Tombstone> {
        self.tombstone_of(h, expiry, Ending::Received)
    }
    fn tombstone_of(&self, h: MailId, expiry: WallTime, ending: Ending) -> Signed<Tombstone> {
        let owner = self.key.peer_id();
        self.key.sign(Tombstone { owner, h, ending, at: WallTime(1), expiry })
    }
    /// Every entry after `since`, in one run of one epoch.
    pub(super) fn page(&self, since: Cursor) -> Page {
        let owner = self.key.peer_id();
        let after = if since.epoch == self.epoch { since.seq } else { Seq(0) };
        let skip = usize::try_from(after.0).unwrap();
        if skip >= self.entries.len() {
            return Page::default();
        }
        let chain = self.entries.iter().fold(chain_start(&owner, self.epoch), |c, e| chain_next(&c, e));
        let at = Cursor { epoch: self.epoch, seq: Seq(u64::try_from(self.entries.len()).unwrap()) };
        let base_chain = chain_start(&owner, self.epoch);
        let head = self.key.sign(Head { owner, at, chain, base_seq: Seq(0), base_chain });
        let entries = self.entries[skip..].iter().map(|e| ByteBuf::from(e.clone())).collect();
        Page {
            runs: vec![Run { entries, after, head: ByteBuf::from(head.as_bytes().to_vec()), base: None }],
            ..Page::default()
        }
    }
}

/// A held long poll.
struct Poll {
    owner: PeerId,
    round: u64,
    since: Cursor,
    until: MonoTime,
}

/// One member: its disk and journal, and its brain while it runs.
pub(super) struct Peer {
    name: &'static str,
    pub(super) brain: Option<Replicator>,
    pub(super) journal: Vec<Event>,
    pub(super) disk: BTreeSet<(PeerId, MailId, Part)>,
    pub(super) rotten: BTreeSet<(PeerId, MailId, Part)>,
    pub(super) full: bool,
    /// So far is its clock ahead of the others'.
    pub(super) clock_ahead: Duration,
    pub(super) replies: BTreeMap<Token, Reply>,
    polls: Vec<Poll>,
    todo: Vec<Action>,
    past: Past<Replicator>,
    /// Commits that may still become durable before it dies.
    pub(super) fuse: Option<usize>,
}

pub(super) struct World {
    /// At a start nobody says whether the clock is right.
    pub(super) clock_unsure: bool,
    /// Asked, it says that it holds every part that there is.
    pub(super) liar: Option<PeerId>,
    /// So many questions of holders go astray, though all are on line.
    pub(super) unheard: usize,
    /// Whether the next disk that is looked at is looked at after all else.
    pub(super) looks_last: bool,
    pub(super) now: Now,
    pub(super) policy: Policy,
    pub(super) names: Vec<&'static str>,
    pub(super) lost: BTreeSet<PeerId>,
    /// Members on their way out.
    pub(super) leaving: BTreeSet<PeerId>,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) outboxes: BTreeMap<PeerId, Outbox>,
    /// Unreachable, though it may run.
    pub(super) off: BTreeSet<PeerId>,
    /// What was asked for since it was last cleared.
    pub(super) log: Vec<String>,
    token: u64,
}

impl World {
    /// A running group; every member follows every other.
    pub(super) fn new(names: &[&'static str]) -> Self {
        let mut world = Self::stopped(names);
        for name in names {
            world.start(name);
        }
        world.run(Duration::from_secs(1));
        world
    }
    fn stopped(names: &[&'static str]) -> Self {
        let peer = |name: &&'static str| Peer {
            name,
            brain: None,
            journal: vec![],
            disk: BTreeSet::new(),
            rotten: BTreeSet::new(),
            full: false,
            clock_ahead: Duration::ZERO,
            replies: BTreeMap::new(),
            polls: vec![],
            todo: vec![],
            fuse: None,
            past: Past::new(|| Replicator::new(Config { quota: ByteSize::mib(64), seed: 7 }))
                .forgetting(|event| matches!(event, Event::Tombstoned { .. })),
        };
        Self {
            unheard: 0,
            looks_last: false,
            liar: None,
            clock_unsure: false,
            now: Now { mono: MonoTime(0), wall: WallTime(1_700_000_000_000) },
            policy: Policy::default(),
            names: names.to_vec(),
            lost: BTreeSet::new(),
            leaving: BTreeSet::new(),
            peers: names.iter().map(|n| (id(n), peer(n))).collect(),
            outboxes: names.iter().map(|n| (id(n), Outbox::new(n))).collect(),
            off: BTreeSet::new(),
            log: vec![],
            token: 0,
        }
    }
    pub(super) fn roster(&self, me: &str) -> Roster {
        Roster {
            me: member(me),
            group: "acme".parse().unwrap(),
            gd_version: 1,
            policy: self.policy.clone(),
            members: self.names.iter().map(|n| member(n)).collect(),
            lost: self.lost.union(&self.leaving).copied().collect(),
            leaving: self.leaving.clone(),
            silent: self.lost.intersection(&self.leaving).copied().collect(),
        }
    }
    pub(super) fn peer(&mut self, name: &str) -> &mut Peer {
        self.peers.get_mut(&id(name)).unwrap()
    }
    pub(super) fn outbox(&mut self, name: &str) -> &mut Outbox {
        self.outboxes.get_mut(&id(name)).unwrap()
    }
    pub(super) fn start(&mut self, name: &'static str) {
        let roster = self.roster(name);
        let mut brain = Replicator::new(Config { quota: ByteSize::mib(64), seed: 7 });
        let peer = self.peer(name);
        peer.past.start(&peer.journal);
        peer.journal.iter().for_each(|e| brain.replay(e.clone()));
        peer.brain = Some(brain);
        self.off.remove(&id(name));
        self.tell(name, Input::Start(roster));
        if !self.clock_unsure {
            self.tell(name, Input::ClockDoubtful(false));
        }
        self.settle();
    }
    /// SIGKILL: what is not in the journal or on the disk is gone.
    pub(super) fn kill(&mut self, name: &str) {
        let peer = self.peer(name);
        (peer.brain, peer.polls, peer.todo) = (None, vec![], vec![]);
        self.off.insert(id(name));
        let gone = id(name);
        let waiting: Vec<(PeerId, PeerId, u64)> = (self.peers.iter_mut())
            .flat_map(|(m, p)| {
                p.polls.extract_if(.., |poll| poll.owner == gone).map(|poll| (*m, gone, poll.round)).collect::<Vec<_>>()
            })
            .collect();
        for (m, owner, round) in waiting {
            self.tell_id(&m, Input::Page { owner, from: owner, round, result: Err(away()) });
        }
        self.settle();
    }
    pub(super) fn set_roster(&mut self) {
        for name in self.names.clone() {
            let roster = self.roster(name);
            self.tell(name, Input::Roster(roster));
        }
        self.settle();
    }
    pub(super) fn tell(&mut self, name: &str, input: Input) {
        self.tell_id(&id(name), input);
    }
    fn tell_id(&mut self, peer: &PeerId, input: Input) {
        let Some(p) = self.peers.get_mut(peer) else { return };
        let now = Now { wall: self.now.wall + p.clock_ahead, ..self.now };
        if let Some(brain) = p.brain.as_mut() {
            brain.handle(now, input);
        }
    }
    pub(super) fn mail(&self, x: u8, length: u64, encoding: Encoding) -> MailEntry {
        let (digest, expiry) = (Digest::new([x; 32]), self.now.wall + LIFE);
        MailEntry { h: h(x), length, digest, expiry, encoding, for_owner: vec![] }
    }
    /// The owner's outbox gets a mail; everything that follows at once has happened when this returns.
    pub(super) fn send(&mut self, owner: &str, x: u8, encoding: Encoding) {
        let mail = self.mail(x, 1 << 20, encoding);
        self.outbox(owner).add(mail);
        self.settle();
    }
    pub(super) fn end(&mut self, owner: &str, x: u8) {
        self.end_as(owner, x, Ending::Received);
    }
    pub(super) fn end_as(&mut self, owner: &str, x: u8, ending: Ending) {
        let expiry = self.now.wall + LIFE;
        let outbox = self.outbox(owner);
        let tombstone = outbox.tombstone_of(h(x), expiry, ending).to_entry();
        outbox.mails.remove(&h(x));
        outbox.append(EntryBody::Tombstone(tombstone));
        self.settle();
    }
    /// Who holds what of a mail, by the disks.
    pub(super) fn holders(&self, owner: &str, x: u8) -> BTreeMap<&'static str, Vec<Part>> {
        let held = |p: &Peer| p.disk.iter().filter(|(o, m, _)| *o == id(owner) && *m == h(x)).map(|d| d.2).collect();
        self.peers.values().map(|p| (p.name, held(p))).filter(|(_, parts): &(_, Vec<_>)| !parts.is_empty()).collect()
    }
    pub(super) fn told(&self, owner: &str, member: &str, x: u8) -> Vec<(Part, HoldingState)> {
        let told = &self.outboxes[&id(owner)].told;
        let mine = told.iter().filter(|((m, mail, _), _)| *m == id(member) && *mail == h(x));
        mine.map(|((_, _, part), state)| (*part, state.clone())).collect()
    }
    /// Distinct parts of a mail on the disks of members that run.
    pub(super) fn distinct(&self, owner: &str, x: u8) -> usize {
        let running = self.holders(owner, x).into_iter().filter(|(name, _)| !self.off.contains(&id(name)));
        running.flat_map(|(_, parts)| parts).collect::<BTreeSet<_>>().len()
    }
    pub(super) fn lookup(&mut self, name: &str, x: u8) -> Lookup {
        self.token += 1;
        let token = Token(self.token);
        self.tell(name, Input::Lookup { token, h: h(x) });
        self.settle();
        match self.peer(name).replies.remove(&token) {
            Some(Reply::Lookup(found)) => found,
            other => panic!("{other:?}"),
        }
    }
    pub(super) fn mirror_page(&mut self, name: &str, owner: &str, since: Cursor) -> Page {
        self.mirror_page_for(id("frank"), name, owner, since)
    }
    pub(super) fn mirror_page_for(&mut self, caller: PeerId, name: &str, owner: &str, since: Cursor) -> Page {
        self.token += 1;
        let token = Token(self.token);
        self.tell(name, Input::ReadMirrorMsglist { token, address: member(owner).address, since, caller });
        self.pump(&id(name));
        match self.peer(name).replies.remove(&token) {
            Some(Reply::Page(page)) => page.unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }
    /// A part whose file goes is one that its owner does not count, nor will when it is back (R8).
    fn check_uncounted(&self, member: &PeerId, (owner, h, part): &(PeerId, MailId, Part)) {
        let brain = self.peers[member].brain.as_ref().unwrap();
        let told = self.outboxes[owner].told.get(&(*member, *h, *part));
        let is_member = self.names.iter().any(|name| id(name) == *owner);
        let counts = is_member && !brain.is_over(owner, h) && told == Some(&HoldingState::Held);
        assert!(!counts, "the owner counts a part of {h} that goes");
    }
    pub(super) fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|line| line.contains(what)).count()
    }

    /// Lets virtual time pass.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now.mono + span;
        self.settle();
        for _ in 0..100_000 {
            let wakes = self.peers.values().filter_map(|p| p.brain.as_ref()?.poll_timeout());
            let polls = self.peers.values().flat_map(|p| p.polls.iter().map(|poll| poll.until));
            let Some(next) = wakes.chain(polls).min().filter(|at| *at <= end) else { break };
            self.now = self.now.after(next.since(self.now.mono));
            self.wake();
        }
        self.now = self.now.after(end.since(self.now.mono));
        self.settle();
    }
    fn wake(&mut self) {
        let now = self.now;
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            let p = self.peers.get_mut(&peer).unwrap();
            let over: Vec<Poll> = p.polls.extract_if(.., |poll| poll.until <= now.mono).collect();
            let now = Now { wall: now.wall + p.clock_ahead, ..now };
            if let Some(brain) = p.brain.as_mut().filter(|b| b.poll_timeout().is_some_and(|at| at <= now.mono)) {
                brain.wake(now);
            }
            for Poll { owner, round, .. } in over {
                self.tell_id(&peer, Input::Page { owner, from: owner, round, result: Ok(Page::default()) });
            }
        }
        self.settle();
    }
    /// Passes the moment in which what is listed is gathered, if somebody waits for its end.
    fn ask_on(&mut self) -> bool {
        let soon = self.now.mono + GATHER;
        let brains = self.peers.values_mut().filter_map(|p| p.brain.as_mut());
        let mut waiting: Vec<&mut Replicator> =
            brains.filter(|brain| brain.poll_timeout().is_some_and(|at| at <= soon)).collect();
        if let Some(at) = waiting.iter().filter_map(|brain| brain.poll_timeout()).max() {
            self.now = self.now.after(at.since(self.now.mono));
        }
        waiting.iter_mut().for_each(|brain| brain.wake(self.now));
        !waiting.is_empty()
    }
    /// Performs everything that is asked for until nothing is.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            let peers: Vec<PeerId> = self.peers.keys().copied().collect();
            peers.iter().for_each(|peer| self.pump(peer));
            let last = self.looks_last;
            let later = |action: &Action| last && matches!(action, Action::CheckParts { .. });
            let next = self.peers.iter_mut().find_map(|(m, p)| {
                let at = p.todo.iter().position(|action| !later(action))?;
                Some((*m, p.todo.remove(at)))
            });
            match next {
                Some((peer, action)) => self.perform(peer, action),
                None if self.release_polls() || self.ask_on() || std::mem::take(&mut self.looks_last) => {}
                None => {
                    let brains = self.peers.values().filter_map(|p| p.brain.as_ref());
                    brains.for_each(|brain| brain.owners.iter().for_each(|(_, o)| o.check_counts()));
                    return;
                }
            }
        }
        panic!("it never comes to rest: {:?}", self.log.iter().rev().take(20).collect::<Vec<_>>());
    }
    fn pump(&mut self, peer: &PeerId) {
        let now = self.now;
        let p = self.peers.get_mut(peer).unwrap();
        let mut burnt = false;
        while let Some(effect) = p.brain.as_mut().and_then(Brain::poll_effect) {
            let mut queue = vec![effect];
            while !queue.is_empty() {
                match queue.remove(0) {
                    Effect::Act(action) => p.todo.push(action),
                    Effect::Reply(token, reply) => drop(p.replies.insert(token, reply)),
                    Effect::Feed(input) => p.brain.as_mut().unwrap().handle(now, input),
                    Effect::Commit { events, then } => {
                        if !events.is_empty() && p.fuse.is_some() {
                            p.fuse = p.fuse.unwrap().checked_sub(1);
                            burnt = p.fuse.is_none();
                        }
                        if burnt {
                            break;
                        }
                        p.past.asks(&events);
                        p.journal.extend(events);
                        queue.splice(0..0, then);
                    }
                }
            }
            if burnt {
                break;
            }
        }
        if burnt {
            let name = p.name;
            self.kill(name);
        } else if let Some(brain) = &p.brain {
            p.past.rests(brain);
        }
    }
    fn release_polls(&mut self) -> bool {
        let mut released = vec![];
        for (m, p) in &mut self.peers {
            let outboxes = &self.outboxes;
            let ready = p.polls.extract_if(.., |poll| !outboxes[&poll.owner].page(poll.since).runs.is_empty());
            released.extend(ready.map(|poll| (*m, poll)));
        }
        let any = !released.is_empty();
        for (m, Poll { owner, round, since, .. }) in released {
            let page = self.outboxes[&owner].page(since);
            self.tell_id(&m, Input::Page { owner, from: owner, round, result: Ok(page) });
        }
        any
    }

    fn note(&mut self, name: &str, action: &Action) {
        match action {
            // A line each, so that they are counted.
            Action::Mirror(orders) => self.log.extend(orders.iter().map(|order| format!("{name}: Mirror({order:?})"))),
            _ => self.log.push(format!("{name}: {action:?}")),
        }
    }

    /// The owner's answer to digests of what a member holds for it.
    fn compare(&mut self, peer: PeerId, owner: PeerId, buckets: &[u8]) -> Input {
        let outbox = &self.outboxes[&owner];
        let held = outbox.told.iter().filter(|((m, ..), s)| *m == peer && **s == HoldingState::Held);
        let theirs = bucket_digests(held.map(|((_, h, part), _)| (*h, *part)));
        let differ = (0..=u8::MAX).filter(|b| {
            let at = usize::from(*b) * 8;
            buckets[at..at + 8] != theirs[at..at + 8]
        });
        let result = Ok(differ.collect());
        let said = outbox.said.get(&peer).filter(|at| **at <= self.now.wall + CLOCK_AHEAD_MAX);
        let missed = Missed { said: said.copied().unwrap_or_default(), ..Missed::default() };
        self.tell_id(&peer, Input::Missed { owner, missed });
        Input::Compared { owner, result }
    }

    fn perform(&mut self, peer: PeerId, action: Action) {
        self.note(self.peers[&peer].name, &action);
        let input = match action {
            Action::Follow { owner, from, round, since, wait_s, .. } => match self.answer_follow(owner, from, since) {
                Ok(page) if page.runs.is_empty() && wait_s > 0 => {
                    let until = self.now.mono + Span::secs(u64::from(wait_s)).duration();
                    self.peers.get_mut(&peer).unwrap().polls.push(Poll { owner, round, since, until });
                    return;
                }
                result => Input::Page { owner, from, round, result },
            },
            Action::CheckParts { address, parts } => {
                let all: BTreeSet<(PeerId, MailId, Part)> =
                    parts.into_iter().flat_map(|(o, set)| set.into_iter().map(move |(h, p)| (o, h, p))).collect();
                let owners: BTreeSet<PeerId> = [address_id(&address.to_string())].into();
                let stray = |d: &&(PeerId, MailId, Part)| owners.contains(&d.0) && !all.contains(*d);
                self.peers[&peer].disk.iter().filter(stray).for_each(|d| self.check_uncounted(&peer, d));
                let p = self.peers.get_mut(&peer).unwrap();
                p.disk.retain(|d| !owners.contains(&d.0) || all.contains(d));
                let missing = all.into_iter().filter(|d| !p.disk.contains(d)).collect();
                Input::Checked { address, missing }
            }
            Action::AskHolders { owner, h, members } => {
                if self.unheard > 0 {
                    self.unheard -= 1;
                    return self
                        .tell_id(&peer, Input::Holders { owner, h, answers: BTreeMap::new(), gone: Vec::new() });
                }
                let on: Vec<PeerId> = members.into_iter().filter(|m| !self.off.contains(m)).collect();
                on.iter().for_each(|m| self.tell_id(m, Input::Lookup { token: Token(0), h }));
                Input::Holders { owner, h, answers: self.what_they_hold(&owner, &h, on), gone: Vec::new() }
            }
            Action::Mirror(orders) => {
                let owner = orders[0].owner;
                let results = orders.iter().map(|order| self.mirror(peer, order)).collect();
                Input::Mirrored { owner, results }
            }
            Action::DropParts { owner, h, parts, .. } => {
                parts.iter().for_each(|part| self.check_uncounted(&peer, &(owner, h, *part)));
                let p = self.peers.get_mut(&peer).unwrap();
                p.disk.retain(|d| d.0 != owner || d.1 != h || !parts.contains(&d.2));
                Input::PartsDropped(vec![PartsDropped { owner, h, parts, result: Ok(()) }])
            }
            Action::Report { owner, upto, holdings } => {
                let said = self.outboxes.get_mut(&owner).unwrap().said.entry(peer).or_default();
                // As the outbox does it: what a wrong clock signed does not outlive what a right one does.
                let is_future = |at: WallTime| at > self.now.wall + CLOCK_AHEAD_MAX;
                let is_later = *said < holdings.at || (is_future(*said) && !is_future(holdings.at));
                if is_later {
                    *said = holdings.at;
                }
                let stale = || AskFailure::Refused { why: "a later word counts".to_owned() };
                let result = if is_later { self.take_report(peer, owner, holdings.items) } else { Err(stale()) };
                Input::Reported { owner, upto, result }
            }
            Action::CompareHoldings { owner, buckets } => self.compare(peer, owner, &buckets),
            Action::Scrub { owner, h, part, .. } => {
                let p = &self.peers[&peer];
                let good = p.disk.contains(&(owner, h, part)) && !p.rotten.contains(&(owner, h, part));
                Input::Scrubbed { owner, h, part, result: if good { Scrub::Good } else { Scrub::Bad } }
            }
        };
        self.tell_id(&peer, input);
    }

    /// What these say that they hold.
    fn what_they_hold(&self, owner: &PeerId, h: &MailId, of: Vec<PeerId>) -> BTreeMap<PeerId, BTreeSet<Part>> {
        let held = |m: &PeerId| {
            let here = self.peers[m].disk.iter().filter(|d| d.0 == *owner && d.1 == *h).map(|d| d.2);
            let lies = if self.liar == Some(*m) { 0..5 } else { 0..0 };
            here.chain(lies.map(|i| Part::Fragment { k: 3, i })).collect()
        };
        of.into_iter().map(|m| (m, held(&m))).collect()
    }

    fn answer_follow(&mut self, owner: PeerId, from: PeerId, since: Cursor) -> Result<Page, AskFailure> {
        if self.off.contains(&from) {
            Err(away())
        } else if owner == from {
            Ok(self.outboxes[&owner].page(since))
        } else {
            let (from, owner) = (self.peers[&from].name, self.peers[&owner].name);
            Ok(self.mirror_page(from, owner, since))
        }
    }

    fn take_report(&mut self, peer: PeerId, owner: PeerId, items: Vec<Holding>) -> Result<(), AskFailure> {
        if self.off.contains(&owner) {
            return Err(away());
        }
        for item in items {
            if item.state == HoldingState::Held {
                let held = Event::Held { owner, h: item.h, part: item.part };
                assert!(self.peers[&peer].journal.contains(&held), "R1: reported before it was durable");
            }
            let told = &mut self.outboxes.get_mut(&owner).unwrap().told;
            let which = (peer, item.h, item.part);
            // A part that nobody counts cannot be lost.
            if item.state != HoldingState::Lost || told.contains_key(&which) {
                told.insert(which, item.state);
            }
        }
        Ok(())
    }

    fn mirror(&mut self, peer: PeerId, order: &MirrorOrder) -> Mirrored {
        let MirrorOrder { owner, h, part, .. } = *order;
        let from_owner = !self.off.contains(&owner) && self.outboxes[&owner].mails.contains(&h);
        // Who leaves is asked only if it is named.
        let is_asked = |m: &PeerId| !self.leaving.contains(m) || order.sources.contains(m);
        let on = self.peers.iter().filter(|(m, _)| !self.off.contains(*m) && is_asked(m));
        let parts: BTreeSet<Part> =
            on.flat_map(|(_, p)| p.disk.iter().filter(|d| d.0 == owner && d.1 == h).map(|d| d.2)).collect();
        let needed = order.encoding.needed();
        let rebuilt = parts.contains(&Part::Whole) || parts.len() >= needed;
        let p = self.peers.get_mut(&peer).unwrap();
        let result = if p.full {
            Err(MirrorFailure::DiskFull)
        } else if from_owner || rebuilt {
            p.disk.insert((owner, h, part));
            p.rotten.remove(&(owner, h, part));
            Ok(())
        } else {
            Err(MirrorFailure::NoSource { why: "nobody".to_owned() })
        };
        Mirrored { h, part, result }
    }
}

fn address_id(address: &str) -> PeerId {
    id(address.trim_end_matches("@acme"))
}
fn away() -> AskFailure {
    AskFailure::Unreachable { why: "it is off".to_owned() }
}
