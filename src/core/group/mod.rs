//! The brain of `GroupMaster`: who is a member, who is up, whose keys are pinned and where peers are. It never does
//! OpenPGP (its shell signs and checks), and never chooses between two candidates for a group.
//!
//! Participants: the members of one group, a joining peer, and peers of other groups that are contacts. Goals: every
//! member has the newest gd the group key signed and the newest view; a dead acting master is followed by the next within
//! four heartbeats; addresses and certificates of known peers are here while their owners are off. Non-goals: agreement
//! between two masters in a partition (they cause extra copies, never a lost one).
//!
//! ```text
//!   alone --CreateGroup--> founder (gd 1)         gd n --AdmitJoin, SetPolicy--> gd n+1 --heartbeats, DHT--> every member
//!   alone --Join---------> member (gd n names it)         --Leave, or Remove by a holder--> left or removed, joins anew
//! ```

mod answers;
mod apply;
mod changes;
mod claims;
mod conflicts;
mod contacts;
mod doubts;
mod error;
mod events;
mod find;
mod grant;
mod heartbeat;
mod join;
mod leave;
mod lookup;
mod membership;
mod rotate;
mod status;
#[cfg(test)]
mod tests;
mod types;
mod unpinned;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use answers::{Located, Picture, PinnedGroup, Reply};
pub use changes::{Mine, Overtaken, Wish};
pub use claims::{Claim, Known, Standing, judge};
pub use conflicts::KeyChange;
pub use doubts::Doubts;
pub use error::GroupError;
pub use events::Event;
pub use heartbeat::{BEAT, beat_under};
pub use membership::{INVITE_VALIDITY, would_do};
pub use rotate::Rotation;
pub use status::{Conflict, InviteStatus, MemberStatus, PinStatus, Role, Status};
pub use types::{
    Action, Beat, BeatAnswer, CallFailed, Entry, Errand, GdFound, Input, Me, NewGroup, OldKey, PeerFound, RecoveryCode,
    SignedDescriptor, SignedGd,
};
pub use unpinned::Candidates;

use crate::core::{Brain, Effect, Outgoing, earliest};
use crate::model::card::CardPeer;
use crate::model::group::{Member, PeerAddr, PeerDescriptor, View};
use crate::model::{Address, Digest, Fingerprint, GroupName, LocalName, MonoTime, Now, PeerId, Secret, WallTime};
use crate::wire::Signed;
use changes::Change;
use conflicts::Contradiction;
use heartbeat::Liveness;
use join::Joining;
use lookup::Lookup;
use rotate::Kin;

/// How long gd and peer descriptor lie in the DHT (DESIGN.md section 4).
const ENTRY_VALIDITY: Duration = Duration::from_secs(86_400);
/// They are put again at half of that.
const ENTRY_RENEWAL: Duration = Duration::from_secs(43_200);
/// First pause before something that failed is tried again; it doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause (DESIGN.md section 5, step 4).
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Most addresses of one peer.
const ADDRS_MAX: usize = 8;
/// Most contacts.
const CONTACTS_MAX: usize = 10_000;
/// Most pinned groups.
const PINS_MAX: usize = 1000;

/// The pause after `fails` failures in a row.
fn backoff(fails: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << fails.saturating_sub(1).min(16)).min(RETRY_MAX)
}

/// A pinned group.
#[derive(Debug)]
struct Pin {
    key: Fingerprint,
    /// When the user pinned it, as far as that was written down.
    since: Option<WallTime>,
    gd: Option<SignedGd>,
    /// The digest of that: every heartbeat carries it.
    gd_digest: Option<Digest>,
    /// Keys that signed other candidates.
    rivals: BTreeSet<Fingerprint>,
    /// Versions of which the pinned key signed two.
    forks: BTreeSet<u64>,
    /// Members whose keys changed, as this key signed.
    changes: Vec<KeyChange>,
    /// Members that were named once and are not any more.
    former: Vec<Member>,
    /// Keys that were pinned before, each of which signed the next.
    rotations: Vec<Rotation>,
    refresh_at: MonoTime,
    fetching: bool,
    fails: u32,
    /// When the last look for its gd ended.
    looked: Option<MonoTime>,
}

/// An invite that this peer handed out.
#[derive(Debug)]
struct OpenInvite {
    secret: Secret,
    expiry: WallTime,
    used_by: Option<PeerId>,
}

/// When something is put into the DHT again.
#[derive(Debug, Default)]
struct Renewal {
    due: MonoTime,
    fails: u32,
}

/// The brain. Durable: pins with their gds, invites, contacts, descriptors, certificates, the view.
#[derive(Debug)]
pub struct Group {
    me: Me,
    own: Option<SignedDescriptor>,
    /// Why the own descriptor could not be signed.
    undescribed: Option<String>,
    pins: BTreeMap<GroupName, Pin>,
    /// Groups that mail waits for, without a pin.
    unpinned: BTreeMap<GroupName, unpinned::Unpinned>,
    contacts: BTreeMap<Address, Vec<CardPeer>>,
    invites: BTreeMap<LocalName, OpenInvite>,
    descriptors: BTreeMap<PeerId, SignedDescriptor>,
    certificates: BTreeMap<PeerId, Vec<u8>>,
    view: Option<Signed<View>>,

    changes: VecDeque<Change>,
    signing: Option<Change>,
    /// Changes that this peer made and that may still be overtaken.
    mine: Vec<Mine>,
    overtaken: Vec<Overtaken>,
    /// The group key that is on this disk.
    held_key: Option<Fingerprint>,
    seeking: grant::Seeking,
    leaving: Option<leave::Leaving>,
    /// It left by its own wish.
    left: bool,
    creating: Option<crate::core::Token>,
    joining: Option<Joining>,
    adding: Vec<contacts::Adding>,
    finding: Vec<find::Finding>,
    freshening: Vec<find::Freshening>,
    /// Where the peers of the invite that this peer joined by are or were.
    hints: BTreeMap<PeerId, Vec<PeerAddr>>,
    lookups: BTreeMap<PeerId, Lookup>,
    /// A gd came or went: who is named in one but has no descriptor here is to be noted again.
    named_changed: bool,

    liveness: BTreeMap<PeerId, Liveness>,
    /// Since when this peer is one of the two that heartbeats go to.
    listening_since: Option<MonoTime>,
    /// It is the acting master, as far as it knew at the last input.
    acting: bool,
    next_beat: MonoTime,
    beats: u64,
    clock_offset_ms: i64,
    clock_off: bool,
    /// This run has not yet learned whether its clock is right: nothing may expire.
    clock_unsure: bool,
    /// Without any member's clock it is taken to be right from then on.
    clock_trusted_at: Option<MonoTime>,
    /// Both clocks at the last input, and when they were last right.
    seen: heartbeat::Seen,
    put_gd: Renewal,
    put_descriptor: Renewal,

    published: Option<Picture>,
    dirty: bool,
    out: Outgoing<Self>,
}

impl Group {
    /// A peer that knows nobody yet; what was durable is replayed next.
    pub fn new(mut me: Me) -> Self {
        me.addrs.truncate(ADDRS_MAX);
        Self {
            me,
            own: None,
            undescribed: None,
            pins: BTreeMap::new(),
            unpinned: BTreeMap::new(),
            contacts: BTreeMap::new(),
            invites: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            certificates: BTreeMap::new(),
            view: None,
            changes: VecDeque::new(),
            signing: None,
            mine: Vec::new(),
            overtaken: Vec::new(),
            held_key: None,
            seeking: grant::Seeking::default(),
            leaving: None,
            left: false,
            creating: None,
            joining: None,
            adding: Vec::new(),
            finding: Vec::new(),
            freshening: Vec::new(),
            hints: BTreeMap::new(),
            lookups: BTreeMap::new(),
            named_changed: true,
            liveness: BTreeMap::new(),
            listening_since: None,
            acting: false,
            next_beat: MonoTime::default(),
            beats: 0,
            clock_offset_ms: 0,
            clock_off: false,
            clock_unsure: true,
            clock_trusted_at: None,
            seen: heartbeat::Seen::default(),
            put_gd: Renewal::default(),
            put_descriptor: Renewal::default(),
            published: None,
            dirty: true,
            out: Outgoing::default(),
        }
    }

    /// Who is who and where, as it is now: for the directory before the actor starts.
    pub fn current(&self) -> Picture {
        self.picture()
    }

    fn group(&self) -> &GroupName {
        self.me.member.address.group()
    }
    fn is_me(&self, peer: &PeerId) -> bool {
        self.me.member.peer_id == *peer
    }
    /// The newest gd of the own group.
    fn own_gd(&self) -> Option<&SignedGd> {
        self.pins.get(self.group())?.gd.as_ref()
    }
    /// Its version; 0 without one.
    fn own_version(&self) -> u64 {
        self.own_gd().map_or(0, |own| own.gd.version)
    }
    /// The newest gd of the own group, if it names this peer.
    fn home(&self) -> Option<&SignedGd> {
        self.own_gd().filter(|own| own.gd.member(&self.me.member.peer_id).is_some())
    }

    /// Applies an event and makes it durable with `then` after it.
    fn record(&mut self, events: Vec<Event>, then: Vec<Effect<Self>>) {
        for event in &events {
            self.apply(event.clone());
        }
        self.out.applied(events.len());
        self.out.commit(events, then);
    }

    /// Takes a gd that somebody offers: only a newer one signed by the pinned key, or one of a key that the pinned one signed
    /// for. Others are remembered as conflicts. Of two of one version every peer takes the one with the smaller digest.
    fn offer_gd(&mut self, now: Now, signed: SignedGd) -> bool {
        let Some(pin) = self.pins.get(&signed.gd.group) else {
            return false;
        };
        let group = signed.gd.group.clone();
        match (pin.kin(&signed), &pin.gd) {
            // A gd of a key before the pinned one may lie about for a day.
            (Kin::Retired, _) => return false,
            (Kin::Stranger, _) => {
                // R11: shown, never chosen.
                self.note_contradiction(&group, Contradiction::Rival(signed.key));
                return false;
            }
            (Kin::Same, Some(held)) if held.gd.version > signed.gd.version => return false,
            (Kin::Same, Some(held)) if held.gd.version == signed.gd.version => {
                let wins = changes::digest(&signed) < changes::digest(held);
                if held.gd == signed.gd {
                    return false;
                }
                self.note_contradiction(&group, Contradiction::Fork(signed.gd.version));
                if !wins {
                    return false;
                }
            }
            (Kin::Same | Kin::Heir, _) => {}
        }
        if !membership::plausible(&signed.gd) {
            return false;
        }
        let rotation = self.rotation(now, &signed);
        let moved = rotation.is_some();
        let mut then = Vec::new();
        if let Some(but) = self.held_key.filter(|_| moved && group == *self.group()).map(|_| signed.key) {
            then.push(Effect::Act(Action::ForgetKeys { group: group.clone(), but }));
        }
        self.take(now, signed, rotation.into_iter().collect(), then);
        if group == *self.group() {
            self.seek_again(now);
            self.redo_overtaken(now);
        }
        true
    }

    /// Makes a newer gd durable and does what it asks for.
    fn take(&mut self, now: Now, signed: SignedGd, mut events: Vec<Event>, then: Vec<Effect<Self>>) {
        let own = signed.gd.group == *self.group();
        events.extend(self.key_changes(now, &signed));
        events.push(Event::Gd(signed));
        self.record(events, then);
        if own {
            self.next_beat = self.next_beat.min(now.mono + self.beat());
            // Whoever has no members any more beats no more, and would never look again.
            self.check_clock(now);
        }
    }

    /// Takes a descriptor that somebody offers, if a pinned group's gd names its key and it is newer.
    fn offer_descriptor(&mut self, offered: SignedDescriptor) -> bool {
        let descriptor = &offered.descriptor;
        let peer = descriptor.peer_id;
        let named = self.pins.get(descriptor.address.group()).and_then(|pin| pin.gd.as_ref()).is_some_and(|signed| {
            signed
                .gd
                .member_at(&descriptor.address)
                .is_some_and(|m| m.peer_id == peer && m.fingerprint == offered.fingerprint)
        });
        let newer = self.descriptors.get(&peer).is_none_or(|held| held.descriptor.sequence < descriptor.sequence);
        if !named || !newer || self.is_me(&peer) || descriptor.addrs.len() > ADDRS_MAX {
            return false;
        }
        if let Some(live) = self.liveness.get_mut(&peer) {
            live.missed = 0;
        }
        self.record(vec![Event::Descriptor(offered)], Vec::new());
        true
    }

    /// First input: signs the own descriptor if it changed, says hello, and begins to beat.
    fn start(&mut self, now: Now) {
        for pin in self.pins.values_mut() {
            // The start is busy enough; members tell of a newer gd of the own group at once.
            pin.refresh_at = now.mono + RETRY_FIRST;
        }
        let (addrs, certificate) = (&self.me.addrs, &self.me.certificate);
        let held = self.own.as_ref().map(|own| &own.descriptor);
        if held.is_some_and(|d| d.addrs == *addrs && d.certificate == **certificate) {
            self.introduce(now);
        } else {
            let sequence = held.map_or(0, |d| d.sequence + 1).max(now.wall.0);
            self.out.act(Action::SignDescriptor(PeerDescriptor {
                address: self.me.member.address.clone(),
                peer_id: self.me.member.peer_id,
                addrs: addrs.clone(),
                certificate: certificate.to_vec(),
                sequence,
            }));
        }
        self.next_beat = now.mono;
        self.clock_trusted_at = Some(now.mono + heartbeat::CLOCK_WAIT);
        self.check_clock(now);
        for peer in self.others() {
            self.out.act(Action::SayHello { peer });
        }
        self.redo_overtaken(now);
    }

    fn descriptor_signed(&mut self, now: Now, result: Result<SignedDescriptor, String>) {
        let signed = match result {
            Ok(signed) => signed,
            Err(why) => {
                self.undescribed = Some(why);
                return self.ask_next();
            }
        };
        self.record(vec![Event::Descriptor(signed)], Vec::new());
        self.put_descriptor.due = now.mono;
        self.introduce(now);
        self.ask_next();
    }
}

impl Brain for Group {
    const NAME: &'static str = "group";
    type Input = Input;
    type Action = Action;
    type Event = Event;
    type Reply = Reply;
    type Status = Status;

    fn replay(&mut self, event: Event) {
        self.apply(event);
    }

    fn snapshot(&self) -> Vec<Event> {
        self.durable()
    }

    fn handle(&mut self, now: Now, input: Input) {
        self.look_at_clock(now);
        match input {
            Input::Started => self.start(now),
            Input::DescriptorSigned(result) => self.descriptor_signed(now, result),
            Input::CreateGroup { token, group, policy } => self.create_group(now, token, group, policy),
            Input::GroupCreated(result) => self.group_created(now, result),
            Input::Invite { token, name, secret, valid } => self.invite(now, token, name, secret, valid),
            Input::Join { token, invite } => self.join(now, token, invite),
            Input::JoinAnswered { peer, result } => self.join_answered(now, peer, result),
            Input::AdmitJoin { token, caller, descriptor, proof } => {
                self.admit(now, token, caller, *descriptor, &proof);
            }
            Input::GdSigned(result) => self.gd_signed(now, result),
            Input::SetPolicy { token, policy } => self.set_policy(now, token, policy),
            Input::Remove { token, address } => self.remove(now, token, address),
            Input::Grant { token, address } => self.grant(now, token, address),
            Input::Recover { token, code } => self.recover(now, token, code),
            Input::KeyRotated(result) => self.key_rotated(now, result),
            Input::AskKey { token, caller } => self.ask_key(token, caller),
            Input::KeyFetched(result) => self.key_fetched(now, result),
            Input::Leave { token, stage } => self.leave(token, stage),
            Input::LeaveAnswered(result) => self.leave_answered(now, result),
            Input::AdmitLeave { token, caller, stage } => self.admit_leave(now, token, caller, stage),
            Input::Heartbeat { token, caller, beat } => self.heartbeat(now, token, caller, *beat),
            Input::HeartbeatAnswered { peer, errand, result } => self.beat_answered(now, peer, errand, result),
            Input::MakeCard { token } => self.make_card(token),
            Input::AddContact { token, card } => self.add_contact(now, token, card),
            Input::Pin { token, group, key } => self.pin(now, token, group, key),
            Input::RemoveContact { token, address } => self.remove_contact(token, address),
            Input::Wanted { group } => self.want(now, group),
            Input::GdFetched { group, found } if !self.pins.contains_key(&group) => {
                self.candidates_found(now, &group, found);
            }
            Input::GdFetched { group, found } => self.gd_fetched(now, &group, found),
            Input::Find { token, group } => self.find(now, token, group),
            Input::Freshen { token, group } => self.freshen(now, token, group),
            Input::LookAgain { token, peer } => self.look_again(now, token, peer),
            Input::PeerFetched { peer, found } => self.peer_fetched(now, peer, found),
            Input::Published { entry, ok } => self.entry_put(now, entry, ok),
        }
        self.settle(now);
    }

    fn wake(&mut self, now: Now) {
        self.look_at_clock(now);
        self.beat_if_due(now);
        if self.clock_unsure {
            self.check_clock(now);
        }
        self.settle(now);
    }

    fn poll_effect(&mut self) -> Option<Effect<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<MonoTime> {
        let beat = self.home().filter(|own| own.gd.members.len() > 1).map(|_| self.next_beat);
        let renew = self.home().and_then(|_| earliest([self.gd_due(), self.descriptor_due()]));
        let refresh = self.pins.values().filter(|pin| !pin.fetching).map(|pin| Some(pin.refresh_at));
        let clock = self.clock_trusted_at.filter(|_| self.clock_unsure && self.no_clock_heard());
        let looks = [self.next_lookup(), self.next_found(), self.next_look_for_candidates(), self.next_seek()];
        earliest([beat, renew, clock].into_iter().chain(looks).chain(refresh))
    }

    fn observe(&self, now: Now) -> Status {
        self.status(now)
    }
}

impl Group {
    /// What every input and every wake ends with: what is due, and the picture if it changed.
    fn settle(&mut self, now: Now) {
        self.acting = self.is_acting(now);
        self.note_missing(now);
        // The connector dials only whom the picture names, so it comes before what is asked of them.
        if self.dirty {
            self.publish_picture();
        }
        self.renew(now);
        self.refresh(now);
        self.look_for_candidates(now);
        self.look_up_due(now);
        self.answer_found(now);
        self.answer_freshened();
        self.seek_key(now);
    }

    /// Publishes the picture if it is another one.
    fn publish_picture(&mut self) {
        self.dirty = false;
        let picture = self.picture();
        if self.published.as_ref() != Some(&picture) {
            self.published = Some(picture.clone());
            self.out.act(Action::Publish(Box::new(picture)));
        }
    }
}
