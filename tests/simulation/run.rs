//! One run: faults while users work, then everything heals; holdings reach their target, readers open what they have, all ends,
//! all rests.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use roost::core::postbox::access::Standard;

use super::checker::{Rule, Violation};
use super::liars::Lie;
use super::params::Params;
use super::peer::{Deed, Peer};
use super::rng::Rng;
use super::sabotage::Saboteur;
use super::users::UserAct;
use super::world::{Happening, World, ms};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// Longest time for holdings to reach their target after everything has healed, besides `lost_after`.
const TARGET_MS: u64 = 4 * HOUR;
/// Rounds of an hour until everything must have ended. An ns that the DHT lost is sent again daily.
const ROUNDS: u64 = 72;
/// How long it is watched that all rests.
const IDLE_MINUTES: u64 = 30;

/// Runs one seed; the violation, if there is one.
pub(crate) fn run(seed: u64, saboteur: Option<Saboteur>) -> Option<Violation> {
    let mut world = World::new(Params::draw(seed, saboteur), false);
    world.play_or_name(seed, saboteur);
    world.violation
}

/// The same where nobody is stopped in order, as it was played before peers were; nothing where nobody is.
pub(crate) fn run_without_stops(seed: u64) -> Option<Violation> {
    let mut params = Params::draw(seed, None);
    if std::mem::take(&mut params.stops).is_empty() {
        return None;
    }
    let mut world = World::new(params, false);
    world.play_or_name(seed, None);
    world.violation
}

/// The same faults as in the world of a saboteur, and nobody broken.
pub(crate) fn run_unbroken(seed: u64, instead_of: Saboteur) -> Option<Violation> {
    let params = Params { saboteur: None, ..Params::draw(seed, Some(instead_of)) };
    let mut world = World::new(params, false);
    world.play_or_name(seed, Some(instead_of));
    world.violation
}

/// The line that runs a seed once more.
fn again(seed: u64, saboteur: Option<Saboteur>) -> String {
    let by = saboteur.map(|s| format!("ROOST_SIM_SABOTEUR={s:?} ")).unwrap_or_default();
    format!("again: ROOST_SIM_SEED={seed} {by}cargo test --test simulation -- one_seed --nocapture")
}

/// Runs one seed and tells what happens: parameters first, the trace's tail at a violation.
pub(crate) fn tell(seed: u64, saboteur: Option<Saboteur>) -> Option<Violation> {
    let mut params = Params::draw(seed, saboteur);
    if std::env::var("ROOST_SIM_STOPS").is_ok_and(|stops| stops == "0") {
        params.stops.clear();
    }
    println!("{params}");
    let mut world = World::new(params, true);
    world.play_or_name(seed, saboteur);
    println!("{}", world.summary());
    if let Some(violation) = &world.violation {
        for line in &world.trace {
            // People know peers by their names.
            let named = |line: String, peer: &Peer| line.replace(&peer.id.to_string(), peer.address.name().as_str());
            println!("{}", world.peers.iter().fold(line.clone(), named));
        }
        println!("{:?} at {} ms: {}", violation.rule, violation.at_ms, violation.why);
        println!("{}", again(seed, saboteur));
    }
    world.violation
}

impl World {
    /// What happened, in one line.
    fn summary(&self) -> String {
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for why in self.peers.iter().flat_map(|p| p.disk.ledger.ended.values()) {
            *ends.entry(format!("{why:?}")).or_default() += 1;
        }
        let lives: u64 = self.peers.iter().map(|p| p.life).sum();
        let (letters, mails) = (self.truth.letters.len(), self.truth.mails.len());
        let (messages, commits): (u64, u64) = (self.messages.iter().sum(), self.commits.iter().sum());
        format!(
            "{letters} mails, sealed as {mails}, ended {ends:?}; {lives} crashes, {messages} messages, {commits} commits; {}",
            self.who_came_and_went()
        )
    }

    /// The whole run; a brain that panics names its seed first.
    fn play_or_name(&mut self, seed: u64, saboteur: Option<Saboteur>) {
        let played = catch_unwind(AssertUnwindSafe(|| self.play()));
        if let Err(panic) = played {
            eprintln!("a brain panicked: {}", Params::draw(seed, saboteur));
            eprintln!("{}", again(seed, saboteur));
            resume_unwind(panic);
        }
    }

    /// The whole run.
    pub(crate) fn play(&mut self) {
        self.faulty = true;
        self.plan();
        for p in 0..self.peers.len() {
            self.start(p);
        }
        let faults = self.params.faults_ms;
        self.run(faults);
        self.heal();
        let settle = self.lost_after_ms() + TARGET_MS;
        self.run(settle);
        self.check_mailboxes();
        if self.violation.is_none() {
            self.check_target();
        }
        self.finish();
        if self.violation.is_none() {
            self.check_outcomes();
        }
        if self.violation.is_none() {
            self.check_gone();
        }
        self.check_mailboxes();
        if self.violation.is_none() {
            self.check_left();
        }
        self.end_lies();
        self.run(2 * HOUR);
        self.idle = true;
        let (commits, messages) = (self.commits.clone(), self.messages.clone());
        self.run(IDLE_MINUTES * MINUTE);
        if self.violation.is_none() {
            self.check_rest(IDLE_MINUTES, &commits, &messages);
        }
    }

    /// Nobody finds anything out any more: who held nothing of what it said looks at its disk, and says so itself. An audit might else
    /// come upon it hours later.
    fn end_lies(&mut self) {
        let empty: Vec<usize> = (0..self.peers.len()).filter(|p| self.lies(*p, Lie::HoldsNothing)).collect();
        for peer in &mut self.peers {
            peer.liar = false;
        }
        for p in empty {
            self.crash(p);
        }
    }

    fn check_mailboxes(&mut self) {
        for p in 0..self.peers.len() {
            self.check_once(p);
            self.check_shown_safety(p);
        }
    }

    /// Draws what users, strangers and machines will do while faults last.
    fn plan(&mut self) {
        let end = self.params.faults_ms;
        let (members, peers) = (self.params.members, self.peers.len());
        if self.params.known_outside {
            for p in (0..peers).filter(|p| *p != members) {
                self.truth.contacts.extend([(p, members), (members, p)]);
            }
        }
        let mut plan: Vec<(u64, UserAct)> = Vec::new();
        for _ in 0..self.params.mails {
            let from = if self.rng.chance(100) { members } else { self.rng.index(members) };
            plan.push((self.rng.below(end * 9 / 10), UserAct::Submit(from)));
        }
        for _ in 0..self.rng.between(0, 12) {
            let (p, n) = (self.rng.index(peers), self.rng.below(100));
            let act = *self.rng.pick(&[
                UserAct::At(p, Standard::Inbox, Deed::OpenAll),
                UserAct::At(p, Standard::Inbox, Deed::OpenOne(n)),
                UserAct::At(p, Standard::Inbox, Deed::DeleteOne(n)),
                UserAct::At(p, Standard::Inbox, Deed::MoveOne(n, Standard::Trash)),
                UserAct::At(p, Standard::Trash, Deed::DeleteOne(n)),
                UserAct::At(p, Standard::Requests, Deed::DeleteOne(n)),
                UserAct::At(p, Standard::Requests, Deed::MoveOne(n, Standard::Junk)),
                UserAct::At(p, Standard::Requests, Deed::MoveOne(n, Standard::Inbox)),
                UserAct::At(p, Standard::Outbox, Deed::DeleteOne(n)),
                UserAct::GrantAll(p),
                UserAct::Cancel(p),
                UserAct::LoseEntry,
            ]);
            plan.push((self.rng.below(end), act));
        }
        let submits: Vec<(u64, UserAct)> =
            plan.iter().filter(|(_, a)| matches!(a, UserAct::Submit(_))).copied().collect();
        for _ in 0..self.params.cancels {
            // Most are taken back soon.
            let (at, submit) = *self.rng.pick(&submits);
            let soon = *self.rng.pick(&[5_000, 120_000, 1_200_000]);
            if let UserAct::Submit(from) = submit {
                plan.push((at + self.rng.below(soon), UserAct::Cancel(from)));
            }
        }
        for _ in 0..self.params.crashes {
            plan.push((self.rng.below(end), UserAct::Fuse(self.rng.index(peers))));
        }
        if self.params.hostile {
            for _ in 0..12 {
                let act = *self.rng.pick(&[UserAct::ForgeNr, UserAct::ReplayNs]);
                plan.push((self.rng.below(end), act));
            }
        }
        let liars: Vec<usize> = (0..members).filter(|p| self.peers[*p].liar).collect();
        for p in liars {
            let mut rng = Rng::new(self.params.seed ^ 0xf0f0);
            plan.extend((0..12).map(|_| (rng.below(end), UserAct::Forge(p))));
        }
        if self.params.reader_leaves {
            plan.push((self.rng.below(end), UserAct::Leave(members)));
        }
        for (at, act) in plan {
            self.later(at, Happening::User(act));
        }
        for (at, policy) in self.params.policies.clone() {
            self.later(at, Happening::Policy(Box::new(policy)));
        }
        self.plan_machines(end);
        self.plan_members(end);
        self.plan_keys();
        self.plan_rot(end);
        self.plan_cuts();
        self.plan_jumps();
        self.plan_stops();
        self.plan_junk(end);
    }

    fn plan_machines(&mut self, end: u64) {
        let members = self.params.members;
        for _ in 0..self.params.partitions {
            let p = self.rng.index(self.peers.len());
            let from = self.rng.below(end);
            let until = self.rng.between(from, end);
            self.later(from, Happening::Side(p, 1));
            self.later(until, Happening::Side(p, 0));
        }
        if self.params.dead_disks {
            let p = self.rng.index(members);
            let at = self.rng.between(end / 2, end);
            self.later(at, Happening::DisksDie(p, self.params.beyond_safe));
        }
        for _ in 0..self.params.old_disks {
            let p = self.rng.index(self.peers.len());
            let from = self.rng.below(end / 2);
            let until = self.rng.between(end / 2, end);
            self.later(from, Happening::Image(p));
            self.later(until, Happening::Restore(p));
        }
    }

    /// Everything that can heal does.
    fn heal(&mut self) {
        self.say(|_| "everything heals".to_owned());
        self.faulty = false;
        let ways = std::mem::take(&mut self.cuts).into_keys().collect();
        self.mend(&ways);
        for p in 0..self.peers.len() {
            self.peers[p].fuse = None;
            if self.peers[p].side != 0 {
                self.set_side(p, 0);
            } else if self.peers[p].is_up() {
                // Whoever heard nobody until now hears the others' heartbeats again.
                self.compare_clock_soon(p);
            }
            self.start(p);
        }
    }

    /// Readers open what they have, hour by hour, until all has ended.
    fn finish(&mut self) {
        let expiry = if self.params.reader_leaves { ms(self.params.policy.life.duration()) / HOUR + 26 } else { 0 };
        for round in 0..ROUNDS.max(expiry) {
            if self.violation.is_some() || (round >= expiry && self.all_ended() && self.unsure_cancel().is_none()) {
                return;
            }
            for p in 0..self.peers.len() {
                self.user(UserAct::GrantAll(p));
                self.user(UserAct::At(p, Standard::Inbox, Deed::OpenAll));
                self.user(UserAct::At(p, Standard::Trash, Deed::OpenAll));
            }
            self.ask_about_cancelled();
            self.run(HOUR);
        }
        if self.violation.is_none() && !self.all_ended() {
            self.check_outcomes();
            self.violate(Rule::R12, format!("not all has ended {ROUNDS} hours after everything healed"));
        }
        if self.violation.is_none()
            && let Some((id, receiver)) = self.unsure_cancel()
        {
            let why = format!("{ROUNDS} hours after everything healed the cancel of {id} is uncertain for {receiver}");
            self.violate(Rule::R12, why);
        }
    }
}
