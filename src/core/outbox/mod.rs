//! The outbox brain: what its user submitted stays here, sealed, until the reader's signature frees it. It never touches a
//! file, a key but the peer's own Ed25519 one, or the network, and it never lets a mail go for a reason but these four:
//! received, refused, cancelled, expired (R4).
//!
//! ```text
//!  receiver of a submission
//!
//!   Submitted      certificate        Sealed             Announced            nr, signed by the reader
//!  ----------> waiting ---------> (being sealed) ------> sealed --------> announced -----------> ended: received, refused
//!                 |                                         |                 |
//!                 | filed by this very peer, unknown,       +--- cancelled, expired --> ended
//!                 +--- cancelled, expired, lost --> ended
//!
//!  mail: open from `Sealed` (blob, manifest and ns are durable) until every receiver has ended; then its tombstone is in the
//!        msglist and its blob goes.
//! ```
//!
//! Every arrow is one event. What may be seen outside hangs on its commit (R1), so a crash between two arrows leaves the
//! receiver before the second, and [`Input::Start`] takes it from there.

pub mod adopt;
mod announce;
mod audit;
mod base;
mod cancel;
mod counts;
pub mod dsn;
mod ending;
pub mod events;
mod holdings;
pub mod io;
mod live;
mod msglist;
mod own_list;
mod recover;
mod reencode;
pub mod safety;
mod served;
mod show;
mod submission;
mod telling;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use adopt::{OwnPage, OwnerNote};
pub use audit::is_word_of;
pub use dsn::Dsn;
pub use events::{EndedAs, Event, How, MailFacts, SealedReceiver};
pub use io::{
    Action, Announcement, CancelAnswer, CancelTarget, Certificate, EndedStatus, Input, Lookup, MailStatus, Mark,
    NrFrom, OutboxRefusal, OutboxStatus, PartsRefused, RecoverJob, Reply, SealFailure, SealJob, ShownMail, Spooled,
    WaitingStatus,
};

use crate::core::clock_doubt::ClockDoubt;
use crate::core::{Brain, Effect, Outgoing, Token};
use crate::model::group::Roster;
use crate::model::msglist::Cursor;
use crate::model::{Address, Encoding, MailId, MonoTime, Now, PeerId, SubmissionId, WallTime};
use crate::wire::PeerKey;
use events::State;
use timers::Timers;

/// Most submissions that wait; above it no more are taken. Each takes a few KiB of memory, here and at its members.
const WAITING_MAX: usize = 250_000;
/// Most readers of the msglist that are held at once; above it the oldest is answered with an empty page.
const POLLS_MAX: usize = 256;
/// Longest time that a reader of the msglist is held.
const POLL_WAIT_MAX: Duration = Duration::from_secs(300);
/// How long a 250 waits for safe(f).
const SAFE_WAIT: Duration = Duration::from_secs(60);
/// How long it is waited for a message to be filed in a mailbox before it is asked for again; it is filed once by its id.
const FILE_AGAIN: Duration = Duration::from_secs(60);
/// First pause before something is tried again; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause towards members.
const RETRY_MEMBER_MAX: Duration = Duration::from_secs(10);
/// Longest pause towards others.
const RETRY_OTHER_MAX: Duration = Duration::from_secs(300);

/// Where an ns goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    /// To the reader's own peer; into the DHT only when that does not answer.
    #[default]
    DirectFirst,
    /// Always into the DHT, as in the papers.
    Dht,
}

/// What the outbox waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Ask for a certificate again.
    Certificate(Address),
    /// Seal for the receivers at hand; do not wait for the others any longer.
    Gather(SubmissionId),
    /// Ask again for the user's own copy to be filed.
    FileLocally(SubmissionId),
    /// Ask again for a DSN to be filed.
    Dsn(SubmissionId, Address),
    /// Try again to seal.
    SealAgain(SubmissionId),
    /// Send an ns again.
    Announce(MailId, Address),
    /// Try the next few ns that a peer was not told.
    Tell(PeerId),
    /// Try again to delete an ns.
    DeleteNs(MailId, Address),
    /// Try again to tell a reader that a mail was taken back.
    TellGone(MailId, Address),
    /// Ask the DHT for nr.
    PollNr,
    /// Look for what has expired.
    Expiry,
    /// The readers of an expired submission had their last chance.
    Close(SubmissionId),
    /// A reader of the msglist was held long enough.
    Poll(Token),
    /// A 250 waited long enough.
    SafeWait(Token),
    /// The members had long enough to tell what they have of the own msglist.
    Adoption,
    /// Ask a member again for the own msglist.
    AskOwnList(PeerId),
    /// Audit a member.
    Audit(PeerId),
    /// Ask again for a mail that is missing.
    Recover,
    /// Try again to make a manifest.
    Reencode,
}

/// The outbox brain.
#[derive(Debug)]
pub struct Outbox {
    key: Arc<PeerKey>,
    roster: Arc<Roster>,
    notify: Notify,
    state: State,
    out: Outgoing<Self>,
    timers: Timers<Timer>,
    /// Receivers on their way to being sealed for.
    sealing: submission::Sealing,
    /// Notifications on their way.
    announcing: announce::Announcing,
    /// Whose peers were not told directly.
    telling: telling::Telling,
    /// Submissions by expiry.
    expiries: BTreeSet<(WallTime, SubmissionId)>,
    /// Expired submissions that wait for a last word of their readers.
    closing: BTreeSet<SubmissionId>,
    clock: ClockDoubt,
    /// The wall clock when the brain was called last.
    wall: WallTime,
    /// Readers of the msglist that are held.
    polls: BTreeMap<Token, Cursor>,
    /// Who waits for safe(f) of what.
    safe_waits: BTreeMap<Token, (SubmissionId, i32)>,
    /// What the Outbox mailbox was told last, in short.
    shown: BTreeMap<SubmissionId, [u8; 16]>,
    showing: show::Showing,
    /// Submissions that the Outbox mailbox has taken what it needs from.
    shown_taken: BTreeSet<SubmissionId>,
    /// Submissions whose spool files are there, as far as is known.
    spool_there: BTreeSet<SubmissionId>,
    /// Submissions whose spool files nothing durable needs any more.
    spool_free: BTreeSet<SubmissionId>,
    /// Bytes of open mails that went to whom, not all of it recorded.
    serving: BTreeMap<(MailId, PeerId), u64>,
    /// Receivers of cancelled mails of which it may not be known yet whether that was in time, and the sealed forms whose tombstones
    /// their peers have taken in this run.
    unsure: BTreeMap<(SubmissionId, Address), BTreeSet<MailId>>,
    /// How often a reader was told in vain that a mail was taken back.
    told_in_vain: BTreeMap<(MailId, Address), u32>,
    counts: counts::Counts,
    /// Sealed mails whose latest msglist entry is not durable: nobody is told of them before it is.
    unlisted: BTreeSet<MailId>,
    /// How mails were kept before they were listed anew, until that is durable: so they are still answered for.
    relisted: BTreeMap<MailId, Encoding>,
    /// Open mails without a blob.
    missing: BTreeSet<MailId>,
    recovery: recover::Recovery,
    reencoding: reencode::Reencoding,
    /// What the members are asked about the own msglist after a start.
    adoption: adopt::Adoption,
    /// What is audited when; none before [`Outbox::audit_every`].
    audits: Option<audit::Audits>,
    /// Misses of which the member has been told since they were found, or since the start: now it looks before it answers.
    told_misses: BTreeSet<(PeerId, MailId)>,
    /// When the latest words of each member were signed that were taken in this run, by a clock that was right.
    latest_words: BTreeMap<PeerId, WallTime>,
    /// When it is looked again for entries that are over.
    rebase_at: Option<MonoTime>,
}

/// Events of one commit, already applied, and what hangs on them.
#[derive(Debug, Default)]
struct Batch {
    events: Vec<Event>,
    then: Vec<Effect<Outbox>>,
    mark: Mark,
}

impl Batch {
    fn act(&mut self, action: Action) {
        self.then.push(Effect::Act(action));
    }
    fn reply(&mut self, token: Token, reply: Reply) {
        self.then.push(Effect::Reply(token, reply));
    }
}

impl Outbox {
    /// The outbox of a fresh home; events of earlier runs come by [`Brain::replay`], and then [`Input::Start`].
    pub fn new(key: Arc<PeerKey>, roster: Arc<Roster>, notify: Notify) -> Self {
        Self {
            state: State::new(key.peer_id()),
            key,
            roster,
            notify,
            out: Outgoing::default(),
            timers: Timers::default(),
            sealing: submission::Sealing::default(),
            announcing: announce::Announcing::default(),
            telling: telling::Telling::default(),
            expiries: BTreeSet::new(),
            closing: BTreeSet::new(),
            clock: ClockDoubt::default(),
            wall: WallTime::default(),
            polls: BTreeMap::new(),
            safe_waits: BTreeMap::new(),
            shown: BTreeMap::new(),
            showing: show::Showing::default(),
            shown_taken: BTreeSet::new(),
            spool_there: BTreeSet::new(),
            spool_free: BTreeSet::new(),
            serving: BTreeMap::new(),
            unsure: BTreeMap::new(),
            told_in_vain: BTreeMap::new(),
            counts: counts::Counts::default(),
            unlisted: BTreeSet::new(),
            relisted: BTreeMap::new(),
            missing: BTreeSet::new(),
            recovery: recover::Recovery::default(),
            reencoding: reencode::Reencoding::default(),
            adoption: adopt::Adoption::default(),
            audits: None,
            told_misses: BTreeSet::new(),
            latest_words: BTreeMap::new(),
            rebase_at: None,
        }
    }

    /// Whether the journal of the last run ends in its own clean-stop record, so that nothing of the msglist can be missing.
    pub fn stopped_cleanly(&self) -> bool {
        self.state.clean_stop
    }

    /// Mails whose files the journal names: all that no tombstone ended.
    pub fn mails_on_disk(&self) -> &BTreeSet<MailId> {
        &self.state.open
    }

    /// Submissions whose spool files the journal still needs.
    pub fn spool_on_disk(&self) -> impl Iterator<Item = SubmissionId> {
        self.state.submissions.iter().filter(|(_, s)| !s.spool_is_free()).map(|(id, _)| *id)
    }

    fn me(&self) -> &Address {
        &self.roster.me.address
    }

    /// Applies an event and puts it into the batch.
    fn record(&mut self, batch: &mut Batch, event: Event) {
        if let Event::Reencoded { h, .. } = &event {
            self.note_relisting(*h);
        }
        self.state.apply(&event);
        self.out.applied(1);
        self.count_changed(&event);
        batch.mark.touched.extend(event.touches(&self.state));
        if let Event::Sealed { facts, .. } = &event {
            batch.mark.sealed.push(facts.h);
        }
        batch.events.push(event);
    }

    /// Makes the batch durable.
    fn commit(&mut self, mut batch: Batch) {
        if !batch.events.is_empty() {
            let free = |id: &&SubmissionId| self.state.submissions.get(*id).is_some_and(|s| s.spool_is_free());
            batch.mark.spool_free = batch.mark.touched.iter().filter(free).copied().collect();
            self.forget_expiry_of_done(&batch.mark.touched);
            batch.mark.upto = self.state.list.head();
            batch.then.push(Effect::Feed(Input::Durable(batch.mark)));
        } else if batch.then.is_empty() {
            return;
        }
        self.out.commit(batch.events, batch.then);
    }

    fn look_at_clock(&mut self, now: Now) {
        self.clock.look(now);
        self.wall = now.wall;
    }

    /// Whether a moment is past, by a clock that can be trusted: one that may be wrong ends nothing and gives nothing up.
    fn is_past(&self, at: WallTime) -> bool {
        !self.clock.is_doubtful() && at <= self.wall
    }

    /// Whether either is that of a member.
    fn is_member(&self, peer: Option<&PeerId>, address: &Address) -> bool {
        peer.is_some_and(|p| self.roster.has(p)) || self.roster.members.iter().any(|m| m.address == *address)
    }

    fn pause(&self, attempts: u32, peer: Option<&PeerId>, address: &Address) -> Duration {
        let longest = if self.is_member(peer, address) { RETRY_MEMBER_MAX } else { RETRY_OTHER_MAX };
        RETRY_FIRST.saturating_mul(1 << attempts.min(16)).min(longest)
    }

    fn start(&mut self, now: Now, blobs: Vec<MailId>) {
        self.clock.start(now);
        self.state.list.mark_durable(self.state.list.head());
        self.note_missing(&blobs);
        self.count_all();
        self.out.act(Action::ShowOnly(self.needed_in_mailbox()));
        self.say_hello();
        for submission in self.state.waiting.clone() {
            self.await_expiry(now, submission);
            self.show(submission);
            self.gather(now, submission);
        }
        self.finish_endings(now);
        self.begin_adoption(now, blobs);
    }

    fn durable(&mut self, now: Now, mark: Mark) {
        if self.state.list.mark_durable(mark.upto) {
            self.answer_polls();
        }
        self.relisting_is_durable();
        // One that is listed anew before it is durable is told of when that is.
        self.unlisted.extend(mark.sealed);
        let durable = self.state.list.durable();
        let waits = |h: &MailId| self.state.mails.get(h).is_some_and(|mail| mail.entry_at > durable);
        let (waiting, listed): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.unlisted).into_iter().partition(waits);
        self.unlisted = waiting;
        for h in listed {
            self.announce_all(now, h, false);
        }
        if !self.adoption.holding {
            self.rebase_now_and_then(now);
        }
        self.spool_free.extend(mark.spool_free.iter());
        for submission in mark.touched {
            self.show(submission);
            self.answer_safe_waits(Some(submission));
            self.drop_spool_if_free(submission);
        }
    }

    fn read_msglist(&mut self, now: Now, token: Token, since: Cursor, wait: Duration) {
        let page = self.state.list.page(since, &self.key);
        if !page.runs.is_empty() || wait.is_zero() {
            return self.out.reply(token, Reply::Page(page));
        }
        while self.polls.len() >= POLLS_MAX {
            // Tokens grow, so the first is the oldest.
            let Some((oldest, _)) = self.polls.pop_first() else { break };
            self.timers.cancel(&Timer::Poll(oldest));
            self.out.reply(oldest, Reply::Page(page.clone()));
        }
        self.polls.insert(token, since);
        self.timers.set(Timer::Poll(token), now.mono + wait.min(POLL_WAIT_MAX));
    }

    fn answer_polls(&mut self) {
        for (token, since) in std::mem::take(&mut self.polls) {
            let page = self.state.list.page(since, &self.key);
            if page.runs.is_empty() {
                self.polls.insert(token, since);
            } else {
                self.timers.cancel(&Timer::Poll(token));
                self.out.reply(token, Reply::Page(page));
            }
        }
    }

    fn lookup(&self, h: &MailId) -> Lookup {
        let durable = self.state.list.durable();
        let Some((mail, encoding)) = self.as_listed(h) else {
            return self.state.gone.get(h).map_or(Lookup::Unknown, |(_, tombstone)| Lookup::Gone(tombstone.clone()));
        };
        // A tombstone that is not durable yet is not told yet, unless it was known before its mail.
        let gone = mail.tombstone.filter(|(at, _)| *at <= durable).and_then(|(at, _)| self.tombstone_bytes(at));
        let gone = gone.or_else(|| self.state.gone.get(h).map(|(_, tombstone)| tombstone.clone()));
        match gone {
            Some(tombstone) => Lookup::Gone(tombstone),
            // Members may have it; this peer has nothing to serve.
            None if self.missing.contains(h) => Lookup::Unknown,
            None => Lookup::Owned(MailFacts { encoding, ..mail.facts.clone() }),
        }
    }

    fn fire(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Certificate(address) => self.find_certificate(&address),
            Timer::Gather(submission) => self.stop_gathering(submission),
            Timer::FileLocally(submission) => self.file_locally(now, submission),
            Timer::Dsn(submission, receiver) => self.file_dsn(now, submission, &receiver),
            Timer::SealAgain(submission) => self.gather(now, submission),
            Timer::Announce(h, receiver) => self.announce(h, &receiver),
            Timer::Tell(peer) => self.tell_next(now, peer),
            Timer::DeleteNs(h, receiver) => self.delete_ns(h, &receiver),
            Timer::TellGone(h, receiver) => self.tell_gone(h, &receiver),
            Timer::PollNr => self.poll_nr(now),
            Timer::Expiry => self.look_for_expired(now),
            Timer::Close(submission) => self.close(now, submission),
            Timer::Poll(token) => {
                if self.polls.remove(&token).is_some() {
                    self.out.reply(token, Reply::Page(crate::wire::msglist::Page::default()));
                }
            }
            Timer::SafeWait(token) => self.give_up_safe_wait(token),
            Timer::Adoption => self.release(now),
            Timer::AskOwnList(member) => self.ask_own_list_again(now, member),
            Timer::Audit(member) => self.audit(now, member),
            Timer::Recover => self.recover_next(now),
            Timer::Reencode => self.reencode_next(),
        }
    }

    /// Takes one input.
    fn take_input(&mut self, now: Now, input: Input) {
        match input {
            Input::Start { blobs } => self.start(now, blobs),
            Input::Submitted { token, spooled } => self.submitted(now, token, spooled),
            Input::WaitSafe { token, submission, f } => self.wait_safe(now, token, submission, f),
            Input::Certificate { address, found } => self.certificate(now, &address, found),
            Input::FiledLocally { submission } => self.filed_locally(now, submission),
            Input::Sealed { submission, receivers, entry } => self.sealed(submission, receivers, entry),
            Input::SealFailed { submission, receivers, why } => self.seal_failed(now, submission, &receivers, why),
            Input::Recovered { h, result } => self.recovered(now, h, result),
            Input::Reencoded { h, encoding, result } => self.reencoded(now, h, encoding, result),
            Input::Announced { h, receiver, how } => self.announced(now, h, &receiver, how),
            Input::NsDeleted { h, receiver, done } => self.ns_deleted(now, h, &receiver, done),
            Input::GoneTold { h, receiver, done } => self.gone_told(now, h, &receiver, done),
            Input::PeerIsBack(peer) => {
                self.peer_is_back(now, &peer);
                self.recover_from(now, &peer);
            }
            Input::Nr { from, nr, signer } => self.nr(now, from, &nr, signer),
            Input::Shown { submission } => self.shown(submission),
            Input::DsnFiled { submission, receiver } => self.dsn_filed(submission, receiver),
            Input::Holdings { token, batch } => self.holdings(now, token, &batch),
            Input::HoldingBuckets { token, member, digests } => self.holding_buckets(token, member, &digests),
            Input::AuditMissed { member, h } => self.audit_missed(now, member, h),
            Input::AuditedGone { member, h, tombstone } => self.audited_gone(now, member, h, tombstone),
            Input::ReadMsglist { token, since, wait } => self.read_msglist(now, token, since, wait),
            Input::List { token, after, last } => self.list(token, after, last),
            Input::Lookup { token, h } => {
                let found = self.lookup(&h);
                self.out.reply(token, Reply::Lookup(found));
            }
            Input::Serving { token, h, caller } => self.serving(token, h, caller),
            Input::ServingAll { token, mails, caller } => self.serving_all(token, &mails, caller),
            Input::Served { caller, mails } => self.served(caller, &mails),
            Input::Cancel { token, target } => self.cancel(now, token, target),
            Input::Roster(roster) => self.new_roster(now, roster),
            Input::ClockDoubtful(doubtful) => {
                if self.clock.set_doubtful(now, doubtful) {
                    self.read_again_by_a_right_clock(now);
                    self.settle_told();
                }
            }
            Input::Stopping { token } => {
                let mut batch = Batch::default();
                // What members may know more of, they may at the next start.
                if !self.adoption.holding && !self.may_be_an_old_copy() {
                    self.record(&mut batch, Event::CleanStop);
                }
                batch.reply(token, Reply::Stopped);
                self.commit(batch);
            }
            Input::OwnList { member, since, answer } => self.own_list(now, member, since, answer),
            Input::SpoolFound(spooled) => self.take_submission(now, None, *spooled),
            Input::SpoolStays { submission, is_free, is_done } => self.spool_stays(submission, is_free, is_done),
            Input::Durable(mark) => self.durable(now, mark),
        }
    }
}

impl Brain for Outbox {
    const NAME: &'static str = "outbox";
    type Input = Input;
    type Action = Action;
    type Event = Event;
    type Reply = Reply;
    type Status = OutboxStatus;

    fn replay(&mut self, event: Event) {
        self.state.apply(&event);
    }

    /// Nobody's request hangs on it, and no mail was sealed: what looks different now is shown, and a tombstone listed, a moment later.
    fn may_wait(then: &[Effect<Self>]) -> bool {
        then.iter().all(|effect| matches!(effect, Effect::Feed(Input::Durable(mark)) if mark.sealed.is_empty()))
    }

    fn snapshot(&self) -> Vec<Event> {
        self.state.snapshot()
    }

    fn live_bytes(&self) -> u64 {
        self.state.live_bytes()
    }

    fn handle(&mut self, now: Now, input: Input) {
        self.look_at_clock(now);
        if let Some(input) = self.defer(input) {
            self.take_input(now, input);
        }
    }

    fn wake(&mut self, now: Now) {
        self.look_at_clock(now);
        while let Some(timer) = self.timers.pop_due(now.mono) {
            self.fire(now, timer);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<MonoTime> {
        self.timers.next()
    }

    fn observe(&self, now: Now) -> OutboxStatus {
        OutboxStatus { ended_lately: self.ended_lately(now), ..self.status() }
    }
}
