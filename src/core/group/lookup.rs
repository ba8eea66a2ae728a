//! Where peers are: looks for descriptors that are missing or out of date, and keeps the own gd and descriptor in the DHT.
//! It never believes a descriptor whose key no pinned group's gd names.

use std::time::Duration;

use serde_bytes::ByteBuf;

use super::answers::Reply;
use super::events::Event;
use super::join::Joining;
use super::types::{Action, Entry, PeerFound};
use super::{ENTRY_RENEWAL, ENTRY_VALIDITY, Group, backoff};
use crate::core::Token;
use crate::model::group::{Member, PeerAddr};
use crate::model::{MonoTime, Now, PeerId};

/// A descriptor is read again for failed dials at most so often (DESIGN.md section 4).
const AGAIN: Duration = Duration::from_secs(60);
/// Most looks under way.
const IN_FLIGHT_MAX: usize = 8;
/// Most requests that wait for one look.
const WAITING_MAX: usize = 64;

/// Looks for one peer's descriptor.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    in_flight: bool,
    /// When the last one began.
    began: Option<MonoTime>,
    /// When the next one is due; nothing when its descriptor is here.
    due: Option<MonoTime>,
    fails: u32,
    /// Who waits for it, because a dial failed.
    pub(super) waiting: Vec<Token>,
}

impl Group {
    /// Where `peer` was last known to be: by its descriptor, else by a contact's card or an invite.
    pub(super) fn addrs_of(&self, peer: &PeerId) -> Vec<PeerAddr> {
        if self.is_me(peer) {
            return self.me.addrs.clone();
        }
        if let Some(signed) = self.descriptors.get(peer) {
            return signed.descriptor.addrs.clone();
        }
        let mut invited = self.joining.iter().flat_map(Joining::peers);
        let invited = invited.find(|invited| invited.peer_id == *peer).map(|invited| &invited.addrs);
        let hinted = || self.hints.get(peer);
        let carded = || self.contacts.values().flatten().find(|card| card.peer_id == *peer).map(|card| &card.addrs);
        invited.or_else(hinted).or_else(carded).cloned().unwrap_or_default()
    }

    pub(super) fn certificate_of(&self, member: &Member) -> Option<&[u8]> {
        if self.is_me(&member.peer_id) {
            return Some(&self.me.certificate);
        }
        let described = self.descriptors.get(&member.peer_id).filter(|held| held.fingerprint == member.fingerprint);
        let described = described.map(|held| held.descriptor.certificate.as_slice());
        described.or_else(|| self.certificates.get(&member.peer_id).map(Vec::as_slice))
    }

    pub(super) fn has_certificate(&self, member: &Member) -> bool {
        self.certificate_of(member).is_some()
    }

    /// The member with this PeerId in any pinned group.
    fn named(&self, peer: &PeerId) -> Option<&Member> {
        self.pins.values().filter_map(|pin| pin.gd.as_ref()).find_map(|signed| signed.gd.member(peer))
    }

    /// Notes which members of pinned groups have no descriptor here.
    pub(super) fn note_missing(&mut self, now: Now) {
        if !std::mem::take(&mut self.named_changed) {
            return;
        }
        // Members of the own group are told of each other by heartbeats; only if that fails is the DHT asked.
        let later = now.mono + self.beat() * 2;
        let gds = self.pins.values().filter_map(|pin| pin.gd.as_ref());
        for member in gds.flat_map(|signed| signed.gd.members.iter()) {
            let peer = member.peer_id;
            if self.me.member.peer_id != peer && !self.descriptors.contains_key(&peer) {
                let own_group = member.address.group() == self.me.member.address.group();
                let due = if own_group { later } else { now.mono };
                self.lookups.entry(peer).or_default().due.get_or_insert(due);
            }
        }
    }

    /// Peers that a gd names and whose descriptors are not here.
    pub(super) fn sought(&self) -> impl Iterator<Item = PeerId> {
        let open = self.lookups.iter().filter(|(_, lookup)| lookup.in_flight || lookup.due.is_some());
        open.map(|(peer, _)| *peer).filter(|peer| !self.descriptors.contains_key(peer))
    }

    /// The descriptor of `peer` is here: it is not looked for any more.
    pub(super) fn described(&mut self, peer: &PeerId) {
        if let Some(lookup) = self.lookups.get_mut(peer) {
            lookup.due = None;
            lookup.fails = 0;
        }
    }

    fn in_flight(&self) -> usize {
        self.lookups.values().filter(|lookup| lookup.in_flight).count()
    }

    /// Whether a look for `peer` is under way or due.
    pub(super) fn is_sought(&self, now: Now, peer: &PeerId) -> bool {
        self.lookups.get(peer).is_some_and(|lookup| lookup.in_flight || lookup.due.is_some_and(|due| due <= now.mono))
    }

    /// When the next look is due.
    pub(super) fn next_lookup(&self) -> Option<MonoTime> {
        if self.in_flight() >= IN_FLIGHT_MAX {
            return None;
        }
        self.lookups.values().filter(|lookup| !lookup.in_flight).filter_map(|lookup| lookup.due).min()
    }

    /// Begins the looks that are due, a few at a time.
    pub(super) fn look_up_due(&mut self, now: Now) {
        let room = IN_FLIGHT_MAX.saturating_sub(self.in_flight());
        let is_due = |lookup: &Lookup| !lookup.in_flight && lookup.due.is_some_and(|due| due <= now.mono);
        let due: Vec<PeerId> =
            self.lookups.iter().filter(|(_, lookup)| is_due(lookup)).map(|(peer, _)| *peer).take(room).collect();
        for peer in due {
            self.look_up(now, peer);
        }
    }

    /// Looks for `peer`, unless that is under way. Of a peer that no gd names there is nothing to find.
    pub(super) fn look_up(&mut self, now: Now, peer: PeerId) {
        let Some(member) = self.named(&peer).cloned() else {
            if let Some(lookup) = self.lookups.get_mut(&peer) {
                lookup.due = None;
            }
            return;
        };
        let ask = if self.has_certificate(&member) { Vec::new() } else { self.who_knows(member.address.group(), None) };
        let lookup = self.lookups.entry(peer).or_default();
        if !lookup.in_flight {
            lookup.in_flight = true;
            lookup.began = Some(now.mono);
            self.out.act(Action::FetchPeer { member, ask });
        }
    }

    pub(super) fn look_again(&mut self, now: Now, token: Token, peer: PeerId) {
        let known = self.named(&peer).is_some() && !self.is_me(&peer);
        let lookup = self.lookups.get(&peer);
        let in_flight = lookup.is_some_and(|lookup| lookup.in_flight);
        let just_now = lookup.and_then(|l| l.began).is_some_and(|began| now.mono.since(began) < AGAIN);
        let room = lookup.is_none_or(|lookup| lookup.waiting.len() < WAITING_MAX);
        if !known || !room || (just_now && !in_flight) {
            return self.out.reply(token, Reply::Addrs(Vec::new()));
        }
        self.lookups.entry(peer).or_default().waiting.push(token);
        self.look_up(now, peer);
    }

    pub(super) fn peer_fetched(&mut self, now: Now, peer: PeerId, found: PeerFound) {
        let before = self.addrs_of(&peer);
        match found {
            PeerFound::Descriptor(signed) => {
                self.offer_descriptor(*signed);
            }
            PeerFound::Certificate(certificate) => {
                if self.named(&peer).is_some_and(|member| !self.has_certificate(member)) {
                    let certificate = ByteBuf::from(certificate);
                    self.record(vec![Event::Certificate { peer, certificate }], Vec::new());
                }
            }
            PeerFound::Nothing => {}
        }
        let after = self.addrs_of(&peer);
        let described = self.descriptors.contains_key(&peer);
        let mut waiting = Vec::new();
        if let Some(lookup) = self.lookups.get_mut(&peer) {
            waiting = std::mem::take(&mut lookup.waiting);
            lookup.in_flight = false;
            lookup.fails = if described { 0 } else { lookup.fails.saturating_add(1) };
            lookup.due = (!described).then(|| now.mono + backoff(lookup.fails));
        }
        let newer = if after == before { Vec::new() } else { after };
        for token in waiting {
            self.out.reply(token, Reply::Addrs(newer.clone()));
        }
        self.added_with(&peer);
    }

    /// When the acting master puts the gd again; others only watch.
    pub(super) fn gd_due(&self) -> Option<MonoTime> {
        self.acting.then_some(self.put_gd.due)
    }

    pub(super) fn descriptor_due(&self) -> Option<MonoTime> {
        self.own.as_ref().map(|_| self.put_descriptor.due)
    }

    /// Puts what is due into the DHT.
    pub(super) fn renew(&mut self, now: Now) {
        if self.home().is_none() {
            return;
        }
        if self.gd_due().is_some_and(|due| due <= now.mono) {
            self.put_gd(now);
        }
        if let Some(own) = self.own.as_ref().filter(|_| self.put_descriptor.due <= now.mono) {
            self.put_descriptor.due = now.mono + ENTRY_RENEWAL;
            self.out.act(Action::PublishDescriptor {
                address: own.descriptor.address.clone(),
                signed: own.signed.clone(),
                expiry: now.wall + ENTRY_VALIDITY,
            });
        }
    }

    /// Puts the gd into the DHT now.
    pub(super) fn put_gd(&mut self, now: Now) {
        if let Some(own) = self.own_gd() {
            let (group, signed) = (own.gd.group.clone(), own.signed.clone());
            self.put_gd.due = now.mono + ENTRY_RENEWAL;
            self.out.act(Action::PublishGd { group, signed, expiry: now.wall + ENTRY_VALIDITY });
        }
    }

    pub(super) fn entry_put(&mut self, now: Now, entry: Entry, ok: bool) {
        let renewal = match entry {
            Entry::Gd => &mut self.put_gd,
            Entry::Descriptor => &mut self.put_descriptor,
        };
        renewal.fails = if ok { 0 } else { renewal.fails.saturating_add(1) };
        if !ok {
            renewal.due = now.mono + backoff(renewal.fails);
        }
    }
}
