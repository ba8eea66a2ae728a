//! The replicator's brain: follows the other members' msglists, mirrors its parts, reports holdings, and gives up a part only by
//! right. It never drops anything because something is absent (R3), and never does IO.
//!
//! Goal: every mail that a member's msglist names has the parts here that placement says, reported to its owner, and nothing is
//! here that nobody wants. Non-goals: who is lost is the master's word; re-encoding is the owner's; bytes are the shell's.
//!
//! ```text
//!                       named by the list, and placed here
//!            Idle ------------------------------------> Wanted ---> Pulling ---> Idle   (held, reported)
//!           ^ |  \                                        ^           |
//!           | |   `-- placement changed --> Asking -------'           | no source, quota, disk, bad blocks
//!           | |                               |                       v
//!           | |                               | every holder       Waiting --- something changed ---> Idle
//!           | |                               | confirmed (R3)        ^
//!           | '-- tombstone, expiry + 24 h    v                       |
//!           |              `-------------> Dropping                   |  not all confirmed yet
//!           '---------------------------------'  Asking --------------'
//! ```

mod decide;
mod follow;
pub mod fragments;
pub mod full;
mod give_up;
pub mod list;
mod mirror;
mod owner;
mod probe;
mod questions;
mod report;
pub mod scheme;
mod scrub;
mod serve;
mod show;
#[cfg(test)]
mod tests;
pub mod types;

use std::collections::BTreeSet;

use crate::core::clock_doubt::ClockDoubt;
use crate::core::jitter::Jitter;
use crate::core::{Brain, Effect, Outgoing, earliest};
use crate::model::group::Roster;
use crate::model::{Encoding, MailId, MonoTime, Now, Part, PeerId};
pub use mirror::SHORT_BYTES;
use owner::Owners;
use questions::Questions;
pub use show::{FollowShown, OwnerStatus, Status};
pub use types::{
    Action, AskFailure, Config, Event, Input, KnownMail, Lookup, MirrorFailure, MirrorOrder, Mirrored, PartsDropped,
    Reply, Scrub,
};

/// A mail: whose, and which.
type MailKey = (PeerId, MailId);

/// Most events that are committed together when they need not be.
const EVENTS_A_COMMIT: usize = 5000;

/// The replicator's state. What survives a crash is in its owners; the rest is found again after a restart.
pub struct Replicator {
    config: Config,
    jitter: Jitter,
    now: Now,
    /// None before the first input.
    roster: Option<Roster>,
    /// When the members among whom mails are placed last changed in this run.
    regrouped: Option<MonoTime>,
    owners: Owners,
    clock: ClockDoubt,
    round: u64,
    /// Mails to be looked at again at a moment.
    timers: BTreeSet<(MonoTime, PeerId, MailId)>,
    /// Mails still to be looked at after a change of the group, from this one on.
    scan: Option<MailKey>,
    questions: Questions,
    mirrors: mirror::Mirrors,
    scrubs: scrub::Scrubs,
    /// When it is looked again for tombstones whose time is over.
    forget_at: Option<MonoTime>,
    out: Outgoing<Self>,
}

impl Replicator {
    /// A replicator that knows nothing yet; replay its events, then start it with [`Input::Start`].
    pub fn new(config: Config) -> Self {
        Self {
            jitter: Jitter::new(config.seed),
            config,
            now: Now::default(),
            roster: None,
            regrouped: None,
            owners: Owners::default(),
            clock: ClockDoubt::default(),
            round: 0,
            timers: BTreeSet::new(),
            scan: None,
            questions: Questions::default(),
            mirrors: mirror::Mirrors::default(),
            scrubs: scrub::Scrubs::default(),
            forget_at: None,
            out: Outgoing::default(),
        }
    }

    fn look_at_clock(&mut self, now: Now) {
        self.clock.look(now);
        self.now = now;
    }

    /// Applies an event to the state and puts it with those that are about to be committed.
    fn record(&mut self, batch: &mut Vec<Event>, event: Event) {
        self.owners.apply(&event);
        self.out.applied(1);
        batch.push(event);
    }
    fn commit(&mut self, batch: Vec<Event>, then: Vec<Effect<Self>>) {
        if !batch.is_empty() || !then.is_empty() {
            self.out.commit(batch, then);
        }
    }
    /// Records and commits events that do not hang together, however many, in appends of bounded size.
    fn commit_each(&mut self, events: Vec<Event>) {
        for some in events.chunks(EVENTS_A_COMMIT) {
            some.iter().for_each(|event| self.owners.apply(event));
            self.out.applied(some.len());
            self.commit(some.to_vec(), Vec::new());
        }
    }
    /// What every input and every wake ends with: whatever can be started now is.
    fn settle(&mut self) {
        self.start_follows();
        self.start_asks();
        self.start_mirrors();
        self.start_reports();
        self.start_scrub();
    }
}

impl Brain for Replicator {
    const NAME: &'static str = "replicator";
    type Input = Input;
    type Action = Action;
    type Event = Event;
    type Reply = Reply;
    type Status = Status;

    fn replay(&mut self, event: Event) {
        self.owners.apply(&event);
    }
    fn snapshot(&self) -> Vec<Event> {
        self.owners.snapshot()
    }
    fn live_bytes(&self) -> u64 {
        self.owners.live_bytes()
    }
    fn handle(&mut self, now: Now, input: Input) {
        self.look_at_clock(now);
        match input {
            Input::Start(roster) => self.on_start(roster),
            Input::Roster(roster) => self.on_roster(roster),
            Input::PeerIsBack(peer) => self.on_peer_is_back(peer),
            Input::ClockDoubtful(doubt) => {
                self.clock.set_doubtful(now, doubt);
            }
            Input::Page { owner, from, round, result } => self.on_page(owner, from, round, result),
            Input::Checked { address, missing } => self.on_checked(&address, missing),
            Input::Holders { owner, h, answers, gone } => self.on_holders(owner, h, &answers, &gone),
            Input::Mirrored { owner, results } => self.on_mirrored(owner, results),
            Input::DropDue { owner, h, parts, placed } => self.on_drop_due(owner, h, parts, placed),
            Input::PartsDropped(some) => some.into_iter().for_each(|one| self.on_parts_dropped(one)),
            Input::Reported { owner, upto, result } => self.on_reported(owner, upto, result),
            Input::Compared { owner, result } => self.on_compared(owner, result),
            Input::Missed { owner, missed } => self.on_missed(owner, missed),
            Input::Scrubbed { owner, h, part, result } => self.on_scrubbed(owner, h, part, &result),
            Input::BadPart { owner, h, part } => self.part_is_bad(owner, h, part),
            Input::Lookup { token, h } => self.on_lookup(token, &h),
            Input::Serving { token, h, caller } => self.on_serving(token, h, caller),
            Input::Served { h, caller, bytes } => self.on_served(h, caller, bytes),
            Input::ReadMirrorMsglist { token, address, since, caller } => {
                self.on_read_msglist(token, &address, since, &caller);
            }
        }
        self.settle();
    }
    fn wake(&mut self, now: Now) {
        self.look_at_clock(now);
        self.check_catch_up();
        self.step_scan();
        while let Some((at, owner, h)) = self.timers.first().copied()
            && at <= now.mono
        {
            self.timers.remove(&(at, owner, h));
            self.evaluate(owner, h);
        }
        self.probe_due();
        self.expire();
        self.settle();
    }
    fn poll_effect(&mut self) -> Option<Effect<Self>> {
        self.out.pop()
    }
    fn poll_timeout(&self) -> Option<MonoTime> {
        if self.scan.is_some() {
            return Some(self.now.mono);
        }
        earliest([
            self.timers.first().map(|(at, _, _)| *at),
            self.next_follow(),
            self.next_report(),
            self.next_probe(),
            self.next_expiry(),
            self.next_catch_up(),
            self.mirrors.next_try(self.now.mono),
            self.scrubs.next(),
        ])
    }
    fn observe(&self, now: Now) -> Status {
        self.show(now)
    }
}

/// Bytes that a part of a sealed mail of `length` bytes takes on a disk.
fn part_bytes(length: u64, part: Part) -> u64 {
    let encoding = match part {
        Part::Whole => Encoding::Whole,
        Part::Fragment { k, .. } => Encoding::Fragments { k, n: k },
    };
    scheme::scheme(encoding, 1).part_bytes(length)
}
