//! What the brain shows and keeps: its status, the picture it publishes, the events of a compacted journal. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::conflicts::KeyChange;
use super::types::{Event, Located, Picture, PinnedGroup, SignedDescriptor};
use super::unpinned::Candidates;
use super::{Group, Pin};
use crate::model::card::CardPeer;
use crate::model::group::{Member, Roster};
use crate::model::{Address, Fingerprint, GroupName, LocalName, Now, PeerId, Policy, Span, WallTime};

/// What this peer is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It made the group.
    Founder,
    /// It joined.
    Member,
    /// It has no group yet.
    Alone,
}

/// What the brain shows of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// This peer.
    pub address: Address,
    /// This peer.
    pub peer_id: PeerId,
    /// What it is in its group.
    pub role: Role,
    /// The group's key, once there is one.
    pub group_key: Option<Fingerprint>,
    /// The gd's version; 0 before there is one.
    pub gd_version: u64,
    /// Whether this peer may change membership and policy.
    pub key_holder: bool,
    /// How members' mail is kept.
    pub policy: Policy,
    /// In the order of succession.
    pub members: Vec<MemberStatus>,
    /// Who says at the moment who counts as lost, as far as this peer knows.
    pub acting_master: Option<Address>,
    /// When the newest view was signed.
    pub view_at: Option<WallTime>,
    /// Whose it is.
    pub view_by: Option<Address>,
    /// This peer's wall clock minus the members' median, milliseconds.
    pub clock_offset_ms: i64,
    /// The clock is off: nothing is expired.
    pub clock_off: bool,
    /// Pinned groups but the own one.
    pub pins: Vec<PinStatus>,
    /// Groups that mail waits for and whose key is not pinned, with the keys that say they are theirs.
    pub candidates: Candidates,
    /// Whom this peer knows by card or request.
    pub contacts: BTreeSet<Address>,
    /// Groups for which more than one candidate was seen.
    pub conflicts: Vec<Conflict>,
    /// Members whose keys changed, with the group key's signature; the latest last.
    pub key_changes: Vec<KeyChange>,
    /// Invites that are not used and not over.
    pub open_invites: Vec<InviteStatus>,
}

/// A member as this peer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// Its address.
    pub address: Address,
    /// Its PeerId.
    pub peer_id: PeerId,
    /// Whether it is up; `null` when this peer has no own word on it: heartbeats go to two members only.
    pub up: Option<bool>,
    /// How long ago it was last heard.
    pub silent_for: Option<Span>,
    /// The view calls it lost.
    pub lost: bool,
    /// It holds the group key.
    pub key_holder: bool,
}

/// A pinned group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PinStatus {
    /// Which.
    pub group: GroupName,
    /// Its key.
    pub key: Fingerprint,
    /// When the user pinned it, as far as that was written down.
    pub since: Option<WallTime>,
    /// Its newest gd, once there is one.
    pub gd_version: Option<u64>,
    /// Members whose certificate is here.
    pub certificates: usize,
    /// Members in all.
    pub members: usize,
}

/// Two candidates for one group: shown, never chosen between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Which group.
    pub group: GroupName,
    /// The pinned key: it stays.
    pub pinned: Fingerprint,
    /// Keys that signed other candidates.
    pub others: BTreeSet<Fingerprint>,
    /// Versions of which the pinned key signed two different gds.
    pub forked_versions: BTreeSet<u64>,
}

/// An invite that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InviteStatus {
    /// For this name.
    pub name: LocalName,
    /// Until then.
    pub expiry: WallTime,
}

impl Group {
    /// The group as this peer is in it: a group of one until a gd names it.
    fn roster(&self) -> Roster {
        let me = self.me.member.clone();
        let group = self.group().clone();
        match self.home() {
            None => Roster {
                members: vec![me.clone()],
                me,
                group,
                gd_version: self.own_version(),
                policy: Policy::default(),
                lost: BTreeSet::new(),
            },
            Some(own) => {
                let lost = self.view.as_ref().map(|view| view.lost.clone()).unwrap_or_default();
                Roster {
                    me,
                    group,
                    gd_version: own.gd.version,
                    policy: own.gd.policy.clone(),
                    members: own.gd.members.clone(),
                    lost: lost.into_iter().filter(|peer| own.gd.member(peer).is_some()).collect(),
                }
            }
        }
    }

    fn located(&self, member: &Member) -> Located {
        Located {
            address: Some(member.address.clone()),
            addrs: self.addrs_of(&member.peer_id),
            certificate: self.certificate_of(member).map(|bytes| Arc::new(bytes.to_vec())),
        }
    }

    pub(super) fn picture(&self) -> Picture {
        let mut groups = BTreeMap::new();
        let mut peers = BTreeMap::new();
        let by_card = |peer: &PeerId| Located { address: None, addrs: self.addrs_of(peer), certificate: None };
        let carded = self.contacts.values().flatten().map(|peer| &peer.peer_id);
        for peer in self.hints.keys().chain(carded) {
            peers.insert(*peer, by_card(peer));
        }
        for (group, pin) in &self.pins {
            groups.insert(
                group.clone(),
                PinnedGroup {
                    key: pin.key,
                    gd: pin.gd.as_ref().map(|signed| Arc::new(signed.gd.clone())),
                    signed_gd: Arc::new(pin.gd.as_ref().map(|signed| signed.signed.to_vec()).unwrap_or_default()),
                },
            );
            for member in pin.gd.iter().flat_map(|signed| signed.gd.members.iter()) {
                peers.insert(member.peer_id, self.located(member));
            }
        }
        peers.insert(self.me.member.peer_id, self.located(&self.me.member));
        Picture {
            roster: Arc::new(self.roster()),
            groups,
            contacts: self.contacts.keys().cloned().collect(),
            peers,
            candidates: self.candidates(),
            clock_off: self.clock_off,
            clock_doubtful: self.clock_off || self.clock_unsure,
        }
    }

    pub(super) fn durable(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (group, pin) in &self.pins {
            events.push(Event::Pinned { group: group.clone(), key: pin.key, at: pin.since });
            events.extend(pin.gd.clone().map(Event::Gd));
            events.extend(pin.odd_events(group));
        }
        for (name, invite) in &self.invites {
            let (secret, expiry) = (invite.secret.clone(), invite.expiry);
            events.push(Event::Invited { name: name.clone(), secret, expiry });
            events.extend(invite.used_by.map(|by| Event::Admitted { name: name.clone(), by }));
        }
        if !self.hints.is_empty() {
            let peers = self.hints.iter().map(|(peer, addrs)| CardPeer { peer_id: *peer, addrs: addrs.clone() });
            events.push(Event::Hints { peers: peers.collect() });
        }
        for (address, peers) in &self.contacts {
            events.push(Event::Contact { address: address.clone(), peers: peers.clone() });
        }
        let described = self.own.iter().chain(self.descriptors.values());
        events.extend(described.map(|signed: &SignedDescriptor| Event::Descriptor(signed.clone())));
        for (peer, certificate) in &self.certificates {
            events.push(Event::Certificate { peer: *peer, certificate: ByteBuf::from(certificate.clone()) });
        }
        events.extend(self.view.as_ref().map(|view| Event::View(ByteBuf::from(view.as_bytes()))));
        events
    }

    fn member_status(&self, now: Now, member: &Member, lost: &BTreeSet<PeerId>, key_holder: bool) -> MemberStatus {
        let peer = member.peer_id;
        let silence = self.silence(now, &peer).filter(|_| !self.is_me(&peer));
        let missed = self.liveness.get(&peer).is_some_and(|live| live.missed > 0);
        let up = if self.is_me(&peer) {
            Some(true)
        } else if missed {
            Some(false)
        } else {
            // Who beats to others than this peer is not heard, and that says nothing.
            let heard = silence.is_some_and(|silence| silence <= self.beat() * 3);
            (heard || self.listening_since.is_some()).then_some(heard)
        };
        MemberStatus {
            address: member.address.clone(),
            peer_id: peer,
            up,
            silent_for: silence.map(Span),
            lost: lost.contains(&peer),
            key_holder,
        }
    }

    fn pin_status(&self, group: &GroupName, pin: &Pin) -> PinStatus {
        let members = pin.gd.as_ref().map(|signed| signed.gd.members.as_slice()).unwrap_or_default();
        PinStatus {
            group: group.clone(),
            key: pin.key,
            since: pin.since,
            gd_version: pin.gd.as_ref().map(|signed| signed.gd.version),
            certificates: members.iter().filter(|member| self.has_certificate(member)).count(),
            members: members.len(),
        }
    }

    fn conflicts(&self) -> Vec<Conflict> {
        let odd = self.pins.iter().filter(|(_, pin)| !pin.rivals.is_empty() || !pin.forks.is_empty());
        odd.map(|(group, pin)| Conflict {
            group: group.clone(),
            pinned: pin.key,
            others: pin.rivals.clone(),
            forked_versions: pin.forks.clone(),
        })
        .collect()
    }

    fn open_invites(&self, now: Now) -> Vec<InviteStatus> {
        let open = self.invites.iter().filter(|(_, i)| i.used_by.is_none() && i.expiry > now.wall);
        open.map(|(name, invite)| InviteStatus { name: name.clone(), expiry: invite.expiry }).collect()
    }

    pub(super) fn status(&self, now: Now) -> Status {
        let roster = self.roster();
        let home = self.home();
        let me = &self.me.member;
        let holds = |member: &Member| home.is_some_and(|own| own.gd.key_holders.contains(&member.address));
        let role = match home.and_then(|own| own.gd.members.first()) {
            None => Role::Alone,
            Some(first) if first.peer_id == me.peer_id => Role::Founder,
            Some(_) => Role::Member,
        };
        let address_of = |peer: &PeerId| home.and_then(|own| own.gd.member(peer)).map(|m| m.address.clone());
        let others = self.pins.iter().filter(|(group, _)| *group != self.group());
        Status {
            address: me.address.clone(),
            peer_id: me.peer_id,
            role,
            group_key: self.pins.get(self.group()).map(|pin| pin.key),
            gd_version: roster.gd_version,
            key_holder: holds(me),
            policy: roster.policy.clone(),
            members: roster.members.iter().map(|m| self.member_status(now, m, &roster.lost, holds(m))).collect(),
            acting_master: self.acting_master(now).as_ref().and_then(address_of),
            view_at: self.view.as_ref().map(|view| view.at),
            view_by: self.view.as_ref().and_then(|view| address_of(&view.master)),
            clock_offset_ms: self.clock_offset_ms,
            clock_off: self.clock_off,
            pins: others.map(|(group, pin)| self.pin_status(group, pin)).collect(),
            candidates: self.candidates(),
            contacts: self.contacts.keys().cloned().collect(),
            conflicts: self.conflicts(),
            key_changes: self.pins.values().flat_map(|pin| pin.changes.iter().cloned()).collect(),
            open_invites: self.open_invites(now),
        }
    }
}
