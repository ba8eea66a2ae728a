//! The postbox brain: takes ns, makes stubs and requests, keeps the local mailboxes with their UIDs, has bodies pulled when
//! they are opened, and owes each sender one nr. It never sees a byte of a body: heads and bodies are files, named by
//! [`MessageKey`], and it says only which of them are to be written, opened and removed.
//!
//! Two orders hold throughout. A file is durable before the event that names it, and the event before anybody is told (R1).
//! A message's files are removed only after the event that drops it is durable; what a crash leaves in between is removed by
//! the sweep at the next start. A message whose head is missing on the disk is still listed: the shell shows it as damaged.

pub mod access;
mod answers;
mod bodies;
mod candidates;
mod change;
mod events;
mod incoming;
pub mod io;
mod mailboxes;
mod outgoing;
mod requests;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use access::{BodyState, MailboxName, MailboxReply, MessageKey, Standard, View};
use answers::Answers;
use bodies::Bodies;
pub use events::{Change, Event};
use incoming::Arriving;
pub use io::{Action, Input, PostboxStatus, Reply, Settings, TombstoneRefusal};
use outgoing::Outbox;
use state::State;
pub use state::{Mail, MailKey, MailboxId, NrState, Offer, Origin, PerView, Runs, Slot, Stage, Stored, Verdict};

use super::clock_doubt::ClockDoubt;
use super::{Brain, Effect, Outgoing, Token, earliest};
use crate::model::group::Roster;
use crate::model::{Digest, MailId, MonoTime, Now, PeerId, WallTime};

/// A poll that too few answered is made again after twice this; the pause doubles, up to the usual time.
const POLL_AGAIN: Duration = Duration::from_secs(1);
/// Longest sleep: a wall clock that is set is noticed after this.
const NAP: Duration = Duration::from_secs(3600);
/// While the clock is doubtful, what would expire is looked at again after this.
const DOUBT: Duration = Duration::from_secs(600);

/// The brain.
#[derive(Debug)]
pub struct Postbox {
    settings: Settings,
    state: State,
    out: Outgoing<Postbox>,
    /// The next message key. Those that were given and not journalled are given again after a crash.
    next_key: u64,
    /// Messages whose files are being written, and what is to be done when they are.
    writing: BTreeMap<MessageKey, Writing>,
    arriving: Arriving,
    bodies: Bodies,
    answers: Answers,
    outbox: Outbox,
    roster: Option<Arc<Roster>>,
    clock: ClockDoubt,
    /// When to look at a mail again. An entry that is out of date does no harm.
    deadlines: BTreeSet<(WallTime, MailKey)>,
    next_poll: Option<MonoTime>,
    /// Polls one after the other that came to nothing sure.
    unsure_polls: u32,
    now: Now,
    damaged: BTreeSet<MessageKey>,
    /// Candidates whose cards this run has written.
    dismissed: BTreeSet<candidates::Candidate>,
    mismatches: u64,
}

/// What a message that is being written will be.
#[derive(Debug)]
enum Writing {
    /// The head of a mail of a known sender.
    Stub(MailKey, Box<Mail>),
    /// The head of a mail of an unknown sender; the card comes next.
    Request(MailKey, Box<Mail>, Vec<u8>),
    /// The card of that mail.
    Card(MailKey, Box<Mail>),
    /// A mail program's message.
    Append(Token, View, mailboxes::Appending),
    /// A message that this peer files itself.
    Local(outgoing::LocalName, WallTime),
    /// The card of a candidate for a group.
    Candidate(candidates::Candidate, crate::model::WallTime),
    /// The head of an own submission.
    Own(io::Shown),
}

impl Postbox {
    /// An empty postbox.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::default(),
            out: Outgoing::default(),
            next_key: 1,
            writing: BTreeMap::new(),
            arriving: Arriving::default(),
            bodies: Bodies::default(),
            answers: Answers::default(),
            outbox: Outbox::default(),
            roster: None,
            clock: ClockDoubt::default(),
            deadlines: BTreeSet::new(),
            next_poll: None,
            unsure_polls: 0,
            now: Now::default(),
            damaged: BTreeSet::new(),
            dismissed: BTreeSet::new(),
            mismatches: 0,
        }
    }

    fn allot(&mut self) -> MessageKey {
        let key = MessageKey(self.next_key.max(self.state.next_key));
        self.next_key = key.0 + 1;
        key
    }

    /// Messages that have files, and whether their body is one of them.
    pub fn files_on_disk(&self) -> BTreeMap<MessageKey, bool> {
        self.state.messages.iter().map(|(key, message)| (*key, message.body == BodyState::Here)).collect()
    }

    /// Sealed mails that may still be pulled: whose half-fetched files are of use.
    pub fn mails_to_fetch(&self) -> BTreeSet<(MailId, PeerId, u64, Digest)> {
        let open = self.state.mails.values().filter(|mail| mail.is_open());
        open.flat_map(|mail| mail.offers.iter().map(|o| (o.h, o.owner, o.length, o.digest))).collect()
    }

    fn start(&mut self, now: Now) {
        self.clock.start(now);
        let missing = Standard::ALL.into_iter().filter(|which| self.state.standard(*which).is_none());
        let names: Vec<MailboxName> = missing.map(MailboxName::standard).collect();
        let events = self.made(now, names);
        let change = self.change(events);
        self.durable(change, Vec::new());
        self.out.act(Action::Sweep { keep: self.files_on_disk() });
        let all: Vec<MailKey> = self.state.mails.keys().copied().collect();
        for id in &all {
            self.schedule(now, *id);
        }
        self.concluded(now, &all);
        self.stubs_filed(now, &all);
        self.say_hello();
        self.poll(now);
    }

    /// Tells the peers of mails that wait here that this peer is back: they may have more to tell.
    fn say_hello(&mut self) {
        let waiting = self.state.mails.values().filter(|mail| mail.is_open());
        let peers: BTreeSet<PeerId> = waiting.flat_map(|mail| mail.offers.iter().map(|offer| offer.owner)).collect();
        if !peers.is_empty() {
            self.out.act(Action::Hello { peers });
        }
    }

    fn poll(&mut self, now: Now) {
        self.next_poll = Some(now.mono + self.settings.poll);
        self.out.act(Action::PollNs);
    }

    /// What came of a poll. One that too few answered, as it may be while a peer starts, is soon made again.
    fn polled(&mut self, now: Now, sure: bool) {
        self.unsure_polls = if sure { 0 } else { self.unsure_polls.saturating_add(1) };
        if !sure {
            let pause = POLL_AGAIN.saturating_mul(1 << self.unsure_polls.min(6));
            self.next_poll = self.next_poll.map(|at| at.min(now.mono + pause));
        }
    }

    /// Notes when this mail is to be looked at again.
    fn schedule(&mut self, now: Now, id: MailKey) {
        let Some(mail) = self.state.mails.get(&id) else { return };
        let due = match mail.stage {
            Stage::Stub => Some(incoming::pull_at(mail)).filter(|at| *at > now.wall).unwrap_or(mail.expiry()),
            Stage::Requested => mail.expiry(),
            Stage::Gone(BodyState::Expired) if self.lives_after_all(mail, now) => now.wall,
            Stage::Concluded(..) | Stage::Gone(_) => mail.expiry() + incoming::REMEMBERED,
        };
        self.deadlines.insert((due, id));
    }

    fn look_at_clock(&mut self, now: Now) {
        self.clock.look(now);
        self.now = now;
    }

    /// When a doubt ends, every mail is looked at again: what was put off may be due.
    fn doubt_clock(&mut self, now: Now, doubtful: bool) {
        if self.clock.set_doubtful(now, doubtful) {
            let all: Vec<MailKey> = self.state.mails.keys().copied().collect();
            for id in all {
                self.schedule(now, id);
            }
        }
    }

    fn look_at_due(&mut self, now: Now) {
        while let Some((due, id)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now.wall) {
            self.deadlines.remove(&(due, id));
            self.due(now, id);
        }
    }

    fn go_on(&mut self, now: Now) {
        self.look_at_due(now);
        if self.next_poll.is_some_and(|at| at <= now.mono) {
            self.poll(now);
        }
        self.pull_wanted(now);
        self.send_due(now);
        self.write_shown(now);
    }

    fn written(&mut self, now: Now, key: MessageKey, size: u64) {
        match self.writing.remove(&key) {
            Some(Writing::Stub(id, mail)) => self.stub_written(now, id, mail),
            Some(Writing::Request(id, mail, card)) => self.request_written(id, mail, card),
            Some(Writing::Card(id, mail)) => self.card_written(now, id, mail, key, size),
            Some(Writing::Append(token, view, appending)) => self.appended(token, view, key, size, appending),
            Some(Writing::Local(name, at)) => self.local_written(name, at, key, size),
            Some(Writing::Candidate(candidate, at)) => self.candidate_written(candidate, at, key, size),
            Some(Writing::Own(shown)) => self.own_head_written(&shown, key, size),
            None => {}
        }
    }

    fn write_failed(&mut self, key: MessageKey, why: &str) {
        let mut garbage = vec![key];
        match self.writing.remove(&key) {
            Some(Writing::Stub(id, _) | Writing::Request(id, ..)) => self.ns_not_written(id, why),
            Some(Writing::Card(id, mail)) => {
                garbage.extend(mail.message);
                self.ns_not_written(id, why);
            }
            Some(Writing::Append(token, ..)) => {
                let failure = access::MailboxFailure::Limit(why.to_owned());
                self.out.reply(token, Reply::Mailbox(MailboxReply::Failed(failure)));
            }
            Some(Writing::Local(name, _)) => self.local_not_written(name, why),
            Some(Writing::Own(shown)) => self.outbox.show_later(self.now, &shown.submission),
            // It is told again with the next change.
            Some(Writing::Candidate(candidate, _)) => drop(self.dismissed.remove(&candidate)),
            None => {}
        }
        self.out.act(Action::Remove { keys: garbage });
    }

    fn counts(&self) -> (usize, usize) {
        let offers = self.state.mails.values().flat_map(|m| &m.offers);
        offers.fold((0, 0), |(open, in_dht), offer| {
            let lies = usize::from(matches!(offer.nr, NrState::InDht(_)));
            (open + usize::from(offer.nr.is_open()), in_dht + lies)
        })
    }
}

impl Brain for Postbox {
    const NAME: &'static str = "postbox";
    type Input = Input;
    type Action = Action;
    type Event = Event;
    type Reply = Reply;
    type Status = PostboxStatus;

    fn replay(&mut self, event: Event) {
        // What follows from an event was acted on when it happened, or is found again by `start`.
        self.state.apply(&event, &mut events::Consequences::default());
    }
    fn snapshot(&self) -> Vec<Event> {
        self.state.snapshot()
    }
    fn live_bytes(&self) -> u64 {
        self.state.live_bytes()
    }
    fn handle(&mut self, now: Now, input: Input) {
        self.look_at_clock(now);
        match input {
            Input::Start => self.start(now),
            Input::Swept { damaged } => self.damaged = damaged,
            Input::Mailbox { token, view, request } => self.request(now, token, view, request),
            Input::Ns { from, ns, known } => self.ns(now, from, *ns, known),
            Input::Tombstone { token, tombstone, known } => self.tombstone(now, token, &tombstone, known),
            Input::Written { key, size } => self.written(now, key, size),
            Input::WriteFailed { key, why } => self.write_failed(key, &why),
            Input::Fetched { key, h, result } => self.fetched(now, key, h, result),
            Input::Opened { key, result } => self.opened(now, key, result),
            Input::Progressed { token, percent } => {
                self.out.reply(token, Reply::Mailbox(MailboxReply::Pulled(percent)));
            }
            Input::Polled { sure } => self.polled(now, sure),
            Input::NrSent { peer, results } => self.nr_sent(now, peer, results),
            Input::PeerIsBack(peer) => self.peer_is_back(now, peer),
            Input::Roster(roster) => self.roster = Some(roster),
            Input::ClockDoubtful(doubtful) => self.doubt_clock(now, doubtful),
            Input::Show(shown) => self.show(now, shown),
            Input::FindOwn { token, submission } => {
                let key = self.state.outgoing.get(&submission).copied().flatten();
                self.out.reply(token, Reply::Own(key));
            }
            Input::ShowOnly(waiting) => self.show_only(&waiting),
            Input::FileSpooled { token, submission, mailbox } => self.file_spooled(now, token, submission, mailbox),
            Input::FileMessage { token, id, at, message } => self.file_message(token, id, at, message),
            Input::Candidates(candidates) => self.candidates(now, &candidates),
            Input::Requests(token) => self.list_requests(token),
            Input::Judge { token, sender, verdict } => self.judge(now, token, &sender, verdict),
            Input::MailOf { token, key } => {
                let mail = self.state.messages.get(&key).and_then(|message| match &message.origin {
                    Origin::Mail(id) => Some(*id),
                    _ => None,
                });
                self.out.reply(token, Reply::MailOf(mail));
            }
            Input::WroteTo { token, certificates } => self.wrote_to(token, certificates),
            Input::Concluded(mails) => self.concluded(now, &mails),
            Input::Filed(mails) => self.stubs_filed(now, &mails),
        }
        self.go_on(now);
    }
    fn wake(&mut self, now: Now) {
        self.look_at_clock(now);
        self.go_on(now);
    }
    fn poll_effect(&mut self) -> Option<Effect<Self>> {
        self.out.pop()
    }
    fn poll_timeout(&self) -> Option<MonoTime> {
        let wall = self.deadlines.first().map(|(due, _)| self.now.mono + due.since(self.now.wall).min(NAP));
        earliest([wall, self.next_poll, self.next_pull(), self.answers.next(), self.outbox.next()])
    }
    fn observe(&self, _: Now) -> PostboxStatus {
        let (nr_open, nr_in_dht) = self.counts();
        let mailboxes = self.state.mailboxes.values().map(|m| (m.name.clone(), m.slots.len()));
        PostboxStatus {
            mailboxes: mailboxes.collect(),
            messages: self.state.messages.len(),
            stubs: self.state.mails.values().filter(|m| m.stage == Stage::Stub).count(),
            pulls: self.bodies.under_way(),
            requests: self.state.requests(None).count(),
            nr_open,
            nr_in_dht,
            mails: self.state.mails.len(),
            damaged: self.damaged.len(),
            mismatches: self.mismatches,
        }
    }
}
