//! What the brain shows and keeps: its status, the picture it publishes, the events of a compacted journal. It changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::answers::{Located, Picture, PinnedGroup};
use super::changes::Overtaken;
use super::conflicts::KeyChange;
use super::events::Event;
use super::join::Joining;
use super::rotate::Rotation;
use super::types::SignedDescriptor;
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
    /// It was a member and left.
    Left,
    /// It was a member, and the group does not name it any more.
    Removed,
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
    /// Whether the group key is on its disk: whoever is named as a holder fetches it from another one.
    pub key_here: bool,
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
    /// Keys of pinned groups that are others since, as the ones before signed.
    pub rotations: Vec<Rotation>,
    /// Changes that another holder's overtook and that could not be made again.
    pub overtaken: Vec<Overtaken>,
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
    /// It is on its way out: others take over what it holds.
    pub leaving: bool,
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
                leaving: BTreeSet::new(),
                silent: BTreeSet::new(),
            },
            Some(own) => {
                let lost = self.view.as_ref().map(|view| view.lost.clone()).unwrap_or_default();
                let leaving = own.gd.members.iter().filter(|m| own.gd.leaving.contains(&m.address));
                let leaving: BTreeSet<PeerId> = leaving.map(|m| m.peer_id).collect();
                let silent = leaving.intersection(&lost).copied().collect();
                let lost: BTreeSet<PeerId> = lost.union(&leaving).copied().collect();
                Roster {
                    me,
                    group,
                    gd_version: own.gd.version,
                    policy: own.gd.policy.clone(),
                    members: own.gd.members.clone(),
                    lost: lost.into_iter().filter(|peer| own.gd.member(peer).is_some()).collect(),
                    leaving,
                    silent,
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
        let invited = self.joining.iter().flat_map(Joining::peers).map(|peer| &peer.peer_id);
        for peer in self.hints.keys().chain(carded).chain(invited) {
            peers.insert(*peer, by_card(peer));
        }
        for (group, pin) in &self.pins {
            groups.insert(
                group.clone(),
                PinnedGroup {
                    key: pin.key,
                    retired: pin.retired(),
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
            role: self.role(),
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
        events.extend(self.held_key.map(|key| Event::HoldsKey { group: self.group().clone(), key }));
        events.extend(self.mine.iter().cloned().map(Event::Changed));
        events.extend(self.overtaken.iter().cloned().map(Event::Overtaken));
        events.extend(self.left.then(|| Event::Left { gd_version: self.own_version() }));
        events
    }

    fn role(&self) -> Role {
        match self.home().map(|own| own.gd.members.first()) {
            Some(Some(first)) if self.is_me(&first.peer_id) => Role::Founder,
            Some(_) => Role::Member,
            None if self.own_gd().is_none() => Role::Alone,
            None if self.left => Role::Left,
            None => Role::Removed,
        }
    }

    fn member_status(&self, now: Now, member: &Member) -> MemberStatus {
        let peer = member.peer_id;
        let gd = self.home().map(|own| &own.gd);
        let key_holder = gd.is_some_and(|gd| gd.key_holders.contains(&member.address));
        let leaving = gd.is_some_and(|gd| gd.leaving.contains(&member.address));
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
            lost: self.view.as_ref().is_some_and(|view| view.lost.contains(&peer)),
            key_holder,
            leaving,
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
        let address_of = |peer: &PeerId| home.and_then(|own| own.gd.member(peer)).map(|m| m.address.clone());
        let others = self.pins.iter().filter(|(group, _)| *group != self.group());
        Status {
            address: me.address.clone(),
            peer_id: me.peer_id,
            role: self.role(),
            group_key: self.pins.get(self.group()).map(|pin| pin.key),
            gd_version: roster.gd_version,
            key_holder: home.is_some_and(|own| own.gd.key_holders.contains(&me.address)),
            key_here: self.has_key(),
            policy: roster.policy.clone(),
            members: roster.members.iter().map(|m| self.member_status(now, m)).collect(),
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
            rotations: self.pins.values().flat_map(|pin| pin.rotations.iter().cloned()).collect(),
            overtaken: self.overtaken.clone(),
            open_invites: self.open_invites(now),
        }
    }
}
