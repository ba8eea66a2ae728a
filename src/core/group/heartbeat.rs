//! Heartbeats, the acting master, and the members' clocks. It never judges by one missed heartbeat.

use std::time::Duration;

use serde_bytes::ByteBuf;

use super::Group;
use super::answers::Reply;
use super::error::GroupError;
use super::rotate::Kin;
use super::types::{Action, Beat, BeatAnswer, CallFailed, Errand, SignedGd};
use super::view::digest_of;
use crate::core::{CLOCK_SET, Token};
use crate::model::group::{Heartbeat, HeartbeatAnswer};
use crate::model::{Digest, MonoTime, Now, PeerId, Policy, WallTime};

/// Between two heartbeats (DESIGN.md section 6).
pub const BEAT: Duration = Duration::from_secs(10);
/// A group whose `lost_after` is shorter than three heartbeats beats faster, but not faster than this.
const BEAT_MIN: Duration = Duration::from_secs(1);
/// After so many missed heartbeats a member is not live, and the next acts.
pub(super) const MISSED_MAX: u8 = 3;
/// Heartbeats go to the first so many live members.
const TARGETS: usize = 2;
/// Every so many heartbeats one goes to a member ahead that is not live: a partition that healed shows without a hello.
const PROBE_EVERY: u64 = 6;
/// Most members that are probed at once.
const PROBES_MAX: usize = 3;
/// Most descriptors that are asked for, or answered with, in one heartbeat.
const DESCRIPTORS_MAX: usize = 100;
/// Most bytes of descriptors in one heartbeat: with a gd of 100 members it stays below what the route takes.
const DESCRIPTOR_BYTES_MAX: usize = 192 * 1024;
/// A clock further from the members' median is off (DESIGN.md section 4).
pub(super) const CLOCK_OFF_MS: u64 = 300_000;
/// A member's clock counts so long after it was heard.
const CLOCK_AGE_MAX: Duration = Duration::from_secs(600);
/// After a start nothing expires before a member's clock agreed, or for this long when no member answers at all.
pub(super) const CLOCK_WAIT: Duration = Duration::from_secs(60);

/// Both clocks, as they were.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// At the last input.
    now: Now,
    /// When the wall clock was set for the first time since it was found to be right; none while it is right.
    trusted: Option<Now>,
}

/// What this peer knows of a member's being up.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// When it last called or answered.
    pub(super) heard: Option<MonoTime>,
    /// When it last answered, and so told which view it goes by.
    pub(super) answered: Option<MonoTime>,
    /// Regular heartbeats without an answer, since then.
    pub(super) missed: u8,
    /// Its wall clock minus this peer's, milliseconds.
    offset_ms: Option<i64>,
    /// The gd version it has, as far as this peer knows.
    version: Option<u64>,
    /// It has this peer's descriptor of this run.
    introduced: bool,
    /// It was asked in this run for all descriptors that are newer than those here.
    asked_all: bool,
    /// A regular heartbeat to it is under way.
    in_flight: bool,
}

fn offset_ms(theirs: WallTime, ours: WallTime) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(theirs.0).saturating_sub(signed(ours.0))
}

/// The middle value; of an even number, half way between the two.
fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(low), Some(high)) if values.len().is_multiple_of(2) => low / 2 + high / 2,
        (_, Some(value)) => *value,
        _ => 0,
    }
}

/// Between two heartbeats under a policy: shorter in a group that wants to know sooner who is lost.
#[must_use]
pub fn beat_under(policy: &Policy) -> Duration {
    (policy.lost_after.duration() / 3).clamp(BEAT_MIN, BEAT)
}

impl Group {
    /// Between two heartbeats of this peer.
    pub(super) fn beat(&self) -> Duration {
        self.own_gd().map_or(BEAT, |own| beat_under(&own.gd.policy))
    }

    /// The digest of the own group's newest gd.
    pub(super) fn own_digest(&self) -> Option<Digest> {
        self.pins.get(self.group())?.gd_digest
    }

    /// Every member but this one, in the order of succession.
    pub(super) fn others(&self) -> Vec<PeerId> {
        let members = self.home().map(|own| own.gd.members.as_slice()).unwrap_or_default();
        members.iter().map(|m| m.peer_id).filter(|peer| !self.is_me(peer)).collect()
    }

    fn is_live(&self, now: Now, peer: &PeerId) -> bool {
        let window = self.beat() * u32::from(MISSED_MAX);
        self.liveness.get(peer).is_none_or(|live| {
            live.missed < MISSED_MAX || live.heard.is_some_and(|heard| now.mono.since(heard) < window)
        })
    }

    /// Members that may be up, this peer among them, in the order of succession.
    fn live_order(&self, now: Now) -> impl Iterator<Item = PeerId> {
        let members = self.home().map(|own| own.gd.members.as_slice()).unwrap_or_default();
        members.iter().map(|m| m.peer_id).filter(move |peer| self.is_me(peer) || self.is_live(now, peer))
    }

    /// The first live member: it says who counts as lost.
    pub(super) fn acting_master(&self, now: Now) -> Option<PeerId> {
        self.live_order(now).next()
    }

    pub(super) fn is_acting(&self, now: Now) -> bool {
        self.acting_master(now).is_some_and(|peer| self.is_me(&peer))
    }

    /// How long a member has been silent, if this peer is one of those that heartbeats go to or has heard it.
    pub(super) fn silence(&self, now: Now, peer: &PeerId) -> Option<Duration> {
        let heard = self.liveness.get(peer).and_then(|live| live.heard);
        heard.max(self.listening_since).map(|since| now.mono.since(since))
    }

    /// Sends what is due of heartbeats, and as acting master renews the view.
    pub(super) fn beat_if_due(&mut self, now: Now) {
        if now.mono < self.next_beat || self.home().is_none() {
            return;
        }
        self.next_beat = now.mono + self.beat();
        self.beats += 1;
        // This peer may be one of the first.
        let order: Vec<PeerId> = self.live_order(now).take(TARGETS + 1).collect();
        let listens = order.iter().take(TARGETS).any(|peer| self.is_me(peer));
        self.listening_since = if listens { self.listening_since.or(Some(now.mono)) } else { None };
        let targets: Vec<PeerId> = order.into_iter().filter(|peer| !self.is_me(peer)).take(TARGETS).collect();
        for peer in &targets {
            self.send_regular(now, *peer);
        }
        if self.beats.is_multiple_of(PROBE_EVERY) {
            self.probe(now, &targets);
        }
        self.check_clock(now);
        self.renew_view(now);
    }

    /// Heartbeats to members that are not live and would be targets if they were, a few at a time, all in turn.
    fn probe(&mut self, now: Now, targets: &[PeerId]) {
        let others = self.others();
        let ahead = targets.last().and_then(|last| others.iter().position(|p| p == last)).unwrap_or(others.len());
        let dead: Vec<PeerId> = others.into_iter().take(ahead).filter(|peer| !self.is_live(now, peer)).collect();
        let turn = usize::try_from(self.beats / PROBE_EVERY).unwrap_or_default() * PROBES_MAX;
        for i in 0..dead.len().min(PROBES_MAX) {
            if let Some(peer) = dead.get((turn + i) % dead.len()) {
                self.send_regular(now, *peer);
            }
        }
    }

    fn send_regular(&mut self, now: Now, peer: PeerId) {
        let live = self.liveness.entry(peer).or_default();
        if !live.in_flight {
            live.in_flight = true;
            self.send_heartbeat(now, peer, Errand { regular: true, introduced: false }, Vec::new(), false);
        }
    }

    /// Tells every member where this peer is.
    pub(super) fn introduce(&mut self, now: Now) {
        for live in self.liveness.values_mut() {
            live.introduced = false;
        }
        for peer in self.others() {
            self.send_heartbeat(now, peer, Errand { regular: false, introduced: false }, Vec::new(), false);
        }
    }

    /// Sends a heartbeat; `push` adds the gd whatever the member may have.
    pub(super) fn send_heartbeat(&mut self, now: Now, peer: PeerId, errand: Errand, news: Vec<ByteBuf>, push: bool) {
        let wanted = self.wanted_from(&peer, errand.regular);
        let Some(own_gd) = self.own_gd() else {
            return;
        };
        let (gd_version, signed) = (own_gd.gd.version, own_gd.signed.clone());
        let gd_digest = self.own_digest();
        let live = self.liveness.entry(peer).or_default();
        let older = live.version.is_some_and(|version| version < gd_version);
        let mut descriptors = news;
        let introduced = !live.introduced && self.own.is_some();
        if let Some(own) = self.own.as_ref().filter(|_| introduced) {
            descriptors.push(own.signed.clone());
        }
        let heartbeat = Heartbeat {
            gd_version,
            gd_digest,
            at: now.wall,
            view_at: self.view.as_ref().map(|view| view.at),
            view_digest: self.view.as_ref().map(digest_of),
            gd: (push || older).then_some(signed),
            descriptors,
            wanted,
        };
        self.out.act(Action::SendHeartbeat { peer, heartbeat, errand: Errand { introduced, ..errand } });
    }

    /// Descriptors to ask `peer` for: at the first contact of this run all that are newer than those here, later missing ones.
    fn wanted_from(&self, peer: &PeerId, regular: bool) -> Vec<(PeerId, u64)> {
        if regular && self.liveness.get(peer).is_none_or(|live| !live.asked_all) {
            let sequence = |p: &PeerId| self.descriptors.get(p).map_or(0, |held| held.descriptor.sequence);
            return self.others().into_iter().map(|p| (p, sequence(&p))).take(DESCRIPTORS_MAX).collect();
        }
        let Some(own) = self.home() else {
            return Vec::new();
        };
        // Every heartbeat asks this, so only the few that are looked for are compared, not all members.
        let members = self.sought().filter(|p| own.gd.member(p).is_some());
        members.map(|p| (p, 0)).take(DESCRIPTORS_MAX).collect()
    }

    fn hear(&mut self, now: Now, peer: PeerId, version: u64, at: WallTime) {
        let live = self.liveness.entry(peer).or_default();
        live.heard = Some(now.mono);
        live.missed = 0;
        live.version = Some(version);
        live.offset_ms = Some(offset_ms(at, now.wall));
        self.check_clock(now);
    }

    pub(super) fn heartbeat(&mut self, now: Now, token: Token, caller: PeerId, beat: Beat) {
        // A stranger's candidate under another key is no conflict worth showing: anybody can make one and call.
        let kin = |gd: &SignedGd| self.pins.get(self.group()).is_some_and(|pin| pin.kin(gd) != Kin::Stranger);
        if let Some(gd) = beat.gd.filter(kin) {
            self.offer_gd(now, gd);
        }
        let gd_version = self.own_version();
        if self.home().is_none_or(|own| own.gd.member(&caller).is_none()) {
            let (caller, group) = (caller.to_string(), self.group().clone());
            return self.refuse(token, GroupError::NotMember { caller, group, gd_version });
        }
        for descriptor in beat.descriptors.into_iter().take(DESCRIPTORS_MAX) {
            self.offer_descriptor(descriptor);
        }
        self.hear(now, caller, beat.plain.gd_version, beat.plain.at);
        if self.view.as_ref().is_some_and(|view| view.lost.contains(&caller)) {
            self.renew_view(now);
        }
        let answer = self.answer(now, &beat.plain);
        self.out.reply(token, Reply::Heartbeat(answer));
        if beat.plain.gd_version > gd_version {
            // Its answer to an older version carries the newer gd.
            self.send_heartbeat(now, caller, Errand { regular: false, introduced: false }, Vec::new(), false);
        }
    }

    fn answer(&self, now: Now, asked: &Heartbeat) -> HeartbeatAnswer {
        // A version of its own is no proof of the same gd: two holders, or a key before this one, may have signed it.
        let newer_gd = self.own_gd().filter(|own| match asked.gd_digest {
            Some(_) => asked.gd_digest != self.own_digest(),
            None => own.gd.version > asked.gd_version,
        });
        let mut descriptors = Vec::new();
        let mut room = DESCRIPTOR_BYTES_MAX;
        for (peer, sequence) in asked.wanted.iter().take(DESCRIPTORS_MAX) {
            let held = if self.is_me(peer) { self.own.as_ref() } else { self.descriptors.get(peer) };
            if let Some(held) = held.filter(|held| held.descriptor.sequence > *sequence && held.signed.len() <= room) {
                room -= held.signed.len();
                descriptors.push(held.signed.clone());
            }
        }
        HeartbeatAnswer {
            gd_version: self.own_version(),
            gd_digest: self.own_digest(),
            at: now.wall,
            view: self.view_for(now, asked).map(|view| ByteBuf::from(view.as_bytes())),
            gd: newer_gd.map(|own| own.signed.clone()),
            descriptors,
        }
    }

    pub(super) fn beat_answered(
        &mut self,
        now: Now,
        peer: PeerId,
        errand: Errand,
        result: Result<Box<BeatAnswer>, CallFailed>,
    ) {
        if let Some(live) = self.liveness.get_mut(&peer).filter(|_| errand.regular) {
            live.in_flight = false;
        }
        match result {
            Ok(answer) => self.take_answer(now, peer, errand, *answer),
            Err(CallFailed::Refused { gd_version: Some(version), .. }) => self.refused_by(now, peer, errand, version),
            Err(_) => {
                let window = self.beat() * u32::from(MISSED_MAX);
                if let Some(live) = self.liveness.get_mut(&peer).filter(|_| errand.regular) {
                    live.missed = live.missed.saturating_add(1).min(MISSED_MAX);
                    // It called a moment after a heartbeat of this peer: who acts then does not wait for one more.
                    let over = live.heard.map(|heard| heard + window).filter(|_| live.missed >= MISSED_MAX);
                    self.next_beat =
                        over.filter(|over| *over > now.mono).map_or(self.next_beat, |over| self.next_beat.min(over));
                }
                // It may have been the acting master.
                self.renew_view(now);
            }
        }
    }

    fn take_answer(&mut self, now: Now, peer: PeerId, errand: Errand, answer: BeatAnswer) {
        if let Some(gd) = answer.gd {
            self.offer_gd(now, gd);
        }
        if self.is_me(&peer) || self.home().is_none_or(|own| own.gd.member(&peer).is_none()) {
            return;
        }
        for descriptor in answer.descriptors.into_iter().take(DESCRIPTORS_MAX) {
            self.offer_descriptor(descriptor);
        }
        self.hear(now, peer, answer.plain.gd_version, answer.plain.at);
        if let Some(live) = self.liveness.get_mut(&peer) {
            live.answered = Some(now.mono);
            live.introduced |= errand.introduced;
            live.asked_all |= errand.regular;
        }
        if let Some(view) = answer.view {
            self.offer_view(now, peer, view);
        }
        if errand.regular && self.is_another(answer.plain.gd_digest) {
            // What came with the answer did not win here, so the other side has to hear of what did.
            self.send_heartbeat(now, peer, Errand { regular: false, introduced: false }, Vec::new(), true);
        }
    }

    /// After this peer's clock was set, what it was compared with before says nothing: it is doubtful until a member is heard again,
    /// as at a start. By half as much as the other brains doubt it for, so that they are never left without a word of this one.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        if now.was_set_since(self.seen.now, CLOCK_SET / 2) {
            if !self.clock_off && !self.clock_unsure {
                self.seen.trusted = Some(self.seen.now);
            }
            self.liveness.values_mut().for_each(|live| live.offset_ms = None);
            self.clock_trusted_at = Some(now.mono + CLOCK_WAIT);
            (self.clock_offset_ms, self.clock_unsure, self.dirty) = (0, true, true);
        }
        self.seen.now = now;
    }

    /// Compares this peer's clock with the members' median, its own among them.
    pub(super) fn check_clock(&mut self, now: Now) {
        let recent = self
            .liveness
            .values()
            .filter(|live| live.heard.is_some_and(|heard| now.mono.since(heard) <= CLOCK_AGE_MAX));
        let heard = recent.clone().count();
        let mut clocks: Vec<i64> = recent.filter_map(|live| live.offset_ms).collect();
        let agreeing = clocks.iter().filter(|offset| offset.unsigned_abs() <= CLOCK_OFF_MS).count();
        // At a start one that agrees is enough. Where some answer and none agrees, who is right cannot be told. A clock that was right
        // and went elsewhere is not right because the first that is heard went there too: more than half of all must say so.
        let went_elsewhere = self.seen.trusted.is_some_and(|then| now.was_set_since(then, CLOCK_SET));
        let agrees = if went_elsewhere { agreeing * 2 > heard } else { agreeing > 0 };
        let waited = self.clock_trusted_at.is_some_and(|at| at <= now.mono);
        let alone = clocks.is_empty() && (waited || self.others().is_empty());
        let unsure = self.clock_unsure && !agrees && !alone;
        // While no member is heard, what was found before stands: a wrong clock does not become right by being alone.
        if !clocks.is_empty() || self.others().is_empty() {
            clocks.push(0);
            self.clock_offset_ms = median(clocks).saturating_neg();
        }
        let off = self.clock_offset_ms.unsigned_abs() > CLOCK_OFF_MS;
        if (off, unsure) != (self.clock_off, self.clock_unsure) {
            (self.clock_off, self.clock_unsure) = (off, unsure);
            self.dirty = true;
        }
        if !off && !unsure {
            self.seen.trusted = None;
        }
    }

    /// Whether no member's clock was heard since the start.
    pub(super) fn no_clock_heard(&self) -> bool {
        self.liveness.values().all(|live| live.offset_ms.is_none())
    }
}
