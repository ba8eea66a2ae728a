//! Contact cards and pins: the trust roots of other groups. It never pins silently and never replaces a pinned key.

use std::time::Duration;

use super::answers::Reply;
use super::conflicts::Contradiction;
use super::error::GroupError;
use super::events::Event;
use super::rotate::divided;
use super::types::{Action, GdFound};
use super::{CONTACTS_MAX, Group, PINS_MAX, backoff};
use crate::core::{Effect, Token};
use crate::model::card::{CARD_PEERS_MAX, Card, CardPeer};
use crate::model::group::Member;
use crate::model::{Address, Fingerprint, GroupName, Now, PeerId};

/// Between two looks for a newer gd of a pinned group.
pub(super) const REFRESH: Duration = Duration::from_secs(3600);
/// Most candidates for a group that are looked at.
pub(super) const CANDIDATES_MAX: usize = 16;
/// Most peers that are asked for one thing.
pub(super) const ASKED_MAX: usize = 5;

/// Somebody waits until a contact's group is known.
#[derive(Debug)]
pub(super) struct Adding {
    token: Token,
    group: GroupName,
    address: Option<Address>,
}

impl Group {
    /// These members with where they are, this peer first, at most `max`; who is nowhere is left out.
    pub(super) fn card_peers<'a>(&self, members: impl Iterator<Item = &'a Member>, max: usize) -> Vec<CardPeer> {
        let (mine, others): (Vec<_>, Vec<_>) = members.map(|m| m.peer_id).partition(|peer| self.is_me(peer));
        let placed = mine.into_iter().chain(others).map(|peer_id| CardPeer { peer_id, addrs: self.addrs_of(&peer_id) });
        placed.filter(|peer| !peer.addrs.is_empty()).take(max).collect()
    }

    pub(super) fn make_card(&mut self, token: Token) {
        let card = self.home().map(|own| Card {
            address: self.me.member.address.clone(),
            group_key: own.key,
            peers: self.card_peers(own.gd.members.iter(), CARD_PEERS_MAX),
        });
        match card {
            Some(card) => self.out.reply(token, Reply::Card(card)),
            None => {
                let group = self.group().clone();
                self.refuse(token, GroupError::NoGroup { group });
            }
        }
    }

    /// What pinning `key` for `group` makes durable, or why it may not be.
    fn may_pin(&self, now: Now, group: &GroupName, key: Fingerprint) -> Result<Vec<Event>, GroupError> {
        match self.pins.get(group) {
            // A card that was printed before the key was replaced is as good.
            Some(pin) if pin.key == key || pin.retired().contains(&key) => Ok(Vec::new()),
            Some(pin) => Err(GroupError::PinConflict { group: group.clone(), pinned: pin.key, offered: key }),
            // The own group is pinned by creating or joining it.
            None if group == self.group() => Err(GroupError::NoGroup { group: group.clone() }),
            None if self.pins.len() >= PINS_MAX => {
                Err(GroupError::TooManyContacts { known: self.pins.len(), what: "groups" })
            }
            None => Ok(vec![Event::Pinned { group: group.clone(), key, at: Some(now.wall) }]),
        }
    }

    pub(super) fn add_contact(&mut self, now: Now, token: Token, mut card: Card) {
        card.peers.truncate(CARD_PEERS_MAX);
        let known = self.contacts.len();
        let room = known < CONTACTS_MAX || self.contacts.contains_key(&card.address);
        let events = self.may_pin(now, card.address.group(), card.group_key).and_then(|events| {
            if room { Ok(events) } else { Err(GroupError::TooManyContacts { known, what: "contacts" }) }
        });
        match events {
            Err(error) => self.refuse(token, error),
            Ok(mut events) => {
                let (address, peers) = (card.address, card.peers);
                events.push(Event::Contact { address: address.clone(), peers });
                self.record(events, Vec::new());
                self.add(now, token, address.group().clone(), Some(address));
            }
        }
    }

    pub(super) fn pin(&mut self, now: Now, token: Token, group: GroupName, key: Fingerprint) {
        match self.may_pin(now, &group, key) {
            Err(error) => self.refuse(token, error),
            Ok(events) => {
                self.record(events, Vec::new());
                self.add(now, token, group, None);
            }
        }
    }

    fn add(&mut self, now: Now, token: Token, group: GroupName, address: Option<Address>) {
        if let Some(pin) = self.pins.get_mut(&group) {
            pin.refresh_at = now.mono;
        }
        self.adding.push(Adding { token, group, address });
    }

    pub(super) fn remove_contact(&mut self, token: Token, address: Address) {
        let group = address.group().clone();
        let last = !self.contacts.keys().any(|other| *other.group() == group && *other != address);
        let unpinned = last && group != *self.group() && self.pins.contains_key(&group);
        let is_contact = self.contacts.contains_key(&address);
        if !is_contact && !unpinned {
            return self.refuse(token, GroupError::NoContact { address });
        }
        let mut events = Vec::new();
        if is_contact {
            events.push(Event::NoContact { address: address.clone() });
        }
        if unpinned {
            // Nobody waits for a group that is not to be known.
            let waiting: Vec<Adding> = self.adding.extract_if(.., |adding| adding.group == group).collect();
            for adding in waiting {
                self.refuse(adding.token, GroupError::NoContact { address: address.clone() });
            }
            events.push(Event::Unpinned { group });
        }
        self.record(events, vec![Effect::Reply(token, Reply::ContactRemoved { unpinned })]);
    }

    /// Looks for the gds that are due.
    pub(super) fn refresh(&mut self, now: Now) {
        let due = |pin: &super::Pin| !pin.fetching && pin.refresh_at <= now.mono;
        let groups: Vec<GroupName> = self.pins.iter().filter(|(_, pin)| due(pin)).map(|(g, _)| g.clone()).collect();
        for group in groups {
            // Members tell each other of a newer gd with every heartbeat; the DHT is read to see other candidates.
            let is_told = group == *self.group() && !self.is_freshened(&group);
            let ask = if is_told { Vec::new() } else { self.who_knows(&group, None) };
            if let Some(pin) = self.pins.get_mut(&group) {
                pin.fetching = true;
                self.out.act(Action::FetchGd { group, ask });
            }
        }
    }

    /// A member has a newer gd but refuses this peer.
    pub(super) fn fetch_own_gd(&mut self, now: Now, from: PeerId) {
        let group = self.group().clone();
        if let Some(pin) = self.pins.get_mut(&group).filter(|pin| !pin.fetching) {
            pin.fetching = true;
            pin.refresh_at = now.mono + REFRESH;
            self.out.act(Action::FetchGd { group, ask: vec![from] });
        }
    }

    /// Peers of `group` that may be asked, but not `about`: those of the contacts' cards, then members whose place is known.
    pub(super) fn who_knows(&self, group: &GroupName, about: Option<&PeerId>) -> Vec<PeerId> {
        let cards = self.contacts.iter().filter(|(address, _)| address.group() == group);
        let named = cards.flat_map(|(_, peers)| peers.iter().map(|peer| peer.peer_id));
        let members = self.pins.get(group).and_then(|pin| pin.gd.as_ref());
        let placed = members.into_iter().flat_map(|signed| signed.gd.members.iter().map(|m| m.peer_id));
        let placed = placed.filter(|peer| !self.addrs_of(peer).is_empty());
        let mut ask: Vec<PeerId> = Vec::new();
        for peer in named.chain(placed) {
            if ask.len() < ASKED_MAX && !ask.contains(&peer) && !self.is_me(&peer) && about != Some(&peer) {
                ask.push(peer);
            }
        }
        ask
    }

    pub(super) fn gd_fetched(&mut self, now: Now, group: &GroupName, found: GdFound) {
        let Some(pin) = self.pins.get_mut(group) else {
            return;
        };
        let key = pin.key;
        let mut candidates: Vec<_> = found.candidates.into_iter().filter(|c| c.gd.group == *group).collect();
        pin.best_first(&mut candidates);
        candidates.truncate(CANDIDATES_MAX);
        let ok = candidates.iter().any(|c| c.key == key || c.lineage.contains(&key));
        pin.fetching = false;
        pin.fails = if ok { 0 } else { pin.fails.saturating_add(1) };
        pin.refresh_at = now.mono + if ok { REFRESH } else { backoff(pin.fails) };
        pin.looked = Some(now.mono);
        let divided = divided(&key, &candidates);
        self.note_forks(group, &candidates);
        for candidate in candidates {
            if divided && candidate.lineage.contains(&key) {
                // R11: shown, never chosen.
                self.note_contradiction(group, Contradiction::Rival(candidate.key));
            } else {
                self.offer_gd(now, candidate);
            }
        }
        self.note_missing(now);
        self.freshened(now, group, ok);
        let waiting: Vec<Adding> = self.adding.extract_if(.., |adding| adding.group == *group).collect();
        for adding in waiting {
            self.go_on_adding(now, adding, found.why.as_deref());
        }
    }

    /// The gd is here or could not be had: answers, or looks for the contact's certificate first.
    fn go_on_adding(&mut self, now: Now, adding: Adding, why: Option<&str>) {
        let gd = self.pins.get(&adding.group).and_then(|pin| pin.gd.as_ref()).map(|signed| &signed.gd);
        let member = gd.zip(adding.address.as_ref()).and_then(|(gd, address)| gd.member_at(address)).cloned();
        let note = match (gd, &adding.address, &member) {
            (None, _, _) => {
                let why = why.unwrap_or("no member answers and the DHT has none signed by the pinned key");
                Some(format!("the descriptor of {} could not be had yet: {why}; it is tried again", adding.group))
            }
            (Some(_), Some(address), None) => Some(format!("{} does not name {address} as a member", adding.group)),
            _ => None,
        };
        match member {
            Some(member) if !self.has_certificate(&member) => {
                self.look_up(now, member.peer_id);
                self.adding.push(adding);
            }
            member => self.added(&adding, member.as_ref(), note),
        }
    }

    /// A look for `peer` ended: answers whoever added it as a contact.
    pub(super) fn added_with(&mut self, peer: &PeerId) {
        let gds: Vec<&Member> = self.adding.iter().filter_map(|adding| self.member_of(adding)).collect();
        if !gds.iter().any(|member| member.peer_id == *peer) {
            return;
        }
        for adding in std::mem::take(&mut self.adding) {
            match self.member_of(&adding).cloned() {
                Some(member) if member.peer_id == *peer => {
                    let note = (!self.has_certificate(&member)).then(|| {
                        format!("the certificate of {} could not be had yet; it is tried again", member.address)
                    });
                    self.added(&adding, Some(&member), note);
                }
                _ => self.adding.push(adding),
            }
        }
    }

    fn member_of(&self, adding: &Adding) -> Option<&Member> {
        let gd = &self.pins.get(&adding.group)?.gd.as_ref()?.gd;
        gd.member_at(adding.address.as_ref()?)
    }

    fn added(&mut self, adding: &Adding, member: Option<&Member>, note: Option<String>) {
        let gd_version = self.pins.get(&adding.group).and_then(|pin| pin.gd.as_ref()).map(|signed| signed.gd.version);
        let certificate = member.is_some_and(|member| self.has_certificate(member));
        let reply = Reply::ContactAdded { gd_version, certificate, note };
        // All that was found meanwhile is durable before the answer.
        self.out.commit(Vec::new(), vec![Effect::Reply(adding.token, reply)]);
    }
}
