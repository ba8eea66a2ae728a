//! What a recorded event changes in the brain: the same when it happens and when a journal is replayed. It decides nothing.

use std::collections::BTreeMap;

use super::events::Event;
use super::types::SignedGd;
use super::{Group, Pin};
use crate::model::{Fingerprint, GroupName, PeerId, WallTime};
use crate::wire::Signed;

impl Group {
    pub(super) fn apply(&mut self, event: Event) {
        self.dirty = true;
        match event {
            Event::Pinned { group, key, at } => self.apply_pin(group, key, at),
            Event::Unpinned { group } => self.apply_unpin(&group),
            Event::Gd(gd) => self.apply_gd(gd),
            Event::Rival { group, key } => {
                if let Some(pin) = self.pins.get_mut(&group) {
                    pin.rivals.insert(key);
                }
            }
            Event::ForkedGd { group, version } => {
                if let Some(pin) = self.pins.get_mut(&group) {
                    pin.forks.insert(version);
                }
            }
            Event::KeyChanged(change) => self.apply_key_change(change),
            Event::Former { member } => {
                if let Some(pin) = self.pins.get_mut(member.address.group()) {
                    pin.remember(member);
                }
            }
            Event::Invited { name, secret, expiry } => self.apply_invited(name, secret, expiry),
            Event::Admitted { name, by } => {
                if let Some(invite) = self.invites.get_mut(&name) {
                    invite.used_by = Some(by);
                }
            }
            Event::Hints { peers } => self.hints.extend(peers.into_iter().map(|p| (p.peer_id, p.addrs))),
            Event::Contact { address, peers } => {
                self.contacts.insert(address, peers);
            }
            Event::NoContact { address } => {
                self.contacts.remove(&address);
            }
            Event::Descriptor(signed) => {
                if self.is_me(&signed.descriptor.peer_id) {
                    self.own = Some(signed);
                } else {
                    self.described(&signed.descriptor.peer_id);
                    self.certificates.remove(&signed.descriptor.peer_id);
                    self.descriptors.insert(signed.descriptor.peer_id, signed);
                }
            }
            Event::Certificate { peer, certificate } => {
                self.certificates.insert(peer, certificate.into_vec());
            }
            // What does not verify was never recorded; a view is only a hint, so a bad one is no reason not to start.
            Event::View(bytes) => self.view = Signed::verify(&bytes).ok(),
            Event::KeyRotated(rotation) => self.apply_rotation(rotation),
            Event::HoldsKey { key, .. } => self.held_key = Some(key),
            Event::Changed(mine) => self.apply_changed(mine),
            Event::Settled { digest } => self.mine.retain(|mine| mine.digest != digest),
            Event::Overtaken(overtaken) => self.apply_overtaken(overtaken),
            Event::Left { .. } => self.left = true,
        }
    }

    fn apply_pin(&mut self, group: GroupName, key: Fingerprint, since: Option<WallTime>) {
        self.pins.entry(group).or_insert_with(|| Pin::new(key, since));
    }

    fn apply_unpin(&mut self, group: &GroupName) {
        self.pins.remove(group);
        self.forget_unnamed(group);
    }

    fn apply_gd(&mut self, signed: SignedGd) {
        let group = signed.gd.group.clone();
        if group == *self.group() && signed.gd.member(&self.me.member.peer_id).is_some() {
            self.left = false;
        }
        if let Some(pin) = self.pins.get_mut(&group) {
            pin.follow(signed);
        }
        self.forget_unnamed(&group);
    }

    /// Forgets descriptors, certificates and liveness of peers of `group` that no gd names any more. Nobody answers one that is no member
    /// itself: it forgets how everybody was doing, and their clocks.
    fn forget_unnamed(&mut self, group: &GroupName) {
        self.named_changed = true;
        let named: BTreeMap<PeerId, Fingerprint> = self
            .pins
            .values()
            .filter_map(|pin| pin.gd.as_ref())
            .flat_map(|signed| signed.gd.members.iter().map(|m| (m.peer_id, m.fingerprint)))
            .collect();
        self.descriptors.retain(|peer, d| {
            d.descriptor.address.group() != group || named.get(peer).is_some_and(|f| *f == d.fingerprint)
        });
        self.certificates.retain(|peer, _| named.contains_key(peer));
        self.lookups.retain(|peer, lookup| named.contains_key(peer) || !lookup.waiting.is_empty());
        if group == self.group() {
            let at_home = self.home().is_some();
            self.liveness.retain(|peer, _| at_home && named.contains_key(peer));
        }
    }
}
