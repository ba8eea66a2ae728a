//! Creating a group, inviting, admitting, and changing the policy. It never signs, and never admits without the proof of an
//! open invite.

use std::collections::BTreeSet;

use serde_bytes::ByteBuf;

use super::answers::Reply;
use super::changes::{Change, Wish};
use super::error::GroupError;
use super::events::Event;
use super::types::{Action, NewGroup, SignedDescriptor};
use super::{CallFailed, Errand, Group, OpenInvite};
use crate::core::{Effect, Token};
use crate::model::card::{CARD_PEERS_MAX, CardPeer, Invite};
use crate::model::group::{GroupDescriptor, Member, PROTOCOL};
use crate::model::policy::MEMBERS_MAX;
use crate::model::{Address, Fingerprint, GroupName, LocalName, Mode, Now, PeerId, Policy, Secret, Span, WallTime};
use crate::seal::check_join_proof;

/// How long an invite is good when nobody says (DESIGN.md section 6).
pub const INVITE_VALIDITY: Span = Span::hours(24);
/// Longest time that one may be good: its secret lets anybody in who finds it.
pub(super) const INVITE_VALIDITY_MAX: Span = Span::days(30);

/// Whether a gd that the right key signed can be lived with: unique members of this group, not too many.
pub(super) fn plausible(gd: &GroupDescriptor) -> bool {
    let addresses: BTreeSet<&Address> = gd.members.iter().map(|m| &m.address).collect();
    let peers: BTreeSet<&PeerId> = gd.members.iter().map(|m| &m.peer_id).collect();
    let count = gd.members.len();
    count <= usize::from(MEMBERS_MAX)
        && addresses.len() == count
        && peers.len() == count
        && addresses.iter().all(|a| *a.group() == gd.group)
        && gd.policy.clone().check().is_ok()
}

/// Refuses a policy that a group of `members` is too small for, with those that would do.
pub(super) fn large_enough(policy: &Policy, members: usize) -> Result<(), GroupError> {
    let others = members.saturating_sub(1);
    if usize::from(policy.others_needed()) <= others {
        return Ok(());
    }
    let asked = match policy.mode {
        Mode::Full => format!("mode = \"full\" with copies = {}", policy.copies),
        Mode::Fragments => {
            let (k, n) = (policy.fragments.k, policy.fragments.n);
            format!("mode = \"fragments\" with any {k} of {n} and copies = {}", policy.copies)
        }
    };
    let would_do = would_do(members);
    Err(GroupError::TooSmall { members, asked, needed: usize::from(policy.others_needed()) + 1, would_do })
}

/// The policies that a group of `members` is large enough for, in words.
pub fn would_do(members: usize) -> String {
    let others = members.saturating_sub(1);
    match others {
        0 => "invite more members first".to_owned(),
        // Fragments of which one is enough are whole copies, so two others have nothing to gain from them.
        1 | 2 => format!("mode = \"full\" with copies up to {others} would do"),
        _ => {
            let k = (others * 3 / 5).max(2);
            format!(
                "mode = \"full\" with copies up to {others} would do, and so would mode = \"fragments\" with n up to {others}, \
                 for example any {k} of {others} with copies = {}",
                others - k + 1
            )
        }
    }
}

impl Group {
    pub(super) fn refuse(&mut self, token: Token, error: GroupError) {
        self.out.reply(token, Reply::Refused(error));
    }

    pub(super) fn create_group(&mut self, now: Now, token: Token, group: GroupName, policy: Policy) {
        let error = if group != *self.group() {
            Some(GroupError::OtherGroup { address: self.me.member.address.clone(), asked: group.clone() })
        } else if self.pins.contains_key(&group) {
            Some(GroupError::HasGroup { group: group.clone() })
        } else if self.creating.is_some() || self.joining.is_some() {
            Some(GroupError::Busy { waiting: 1 })
        } else {
            policy.clone().check().err().map(GroupError::Policy)
        };
        if let Some(error) = error {
            return self.refuse(token, error);
        }
        self.creating = Some(token);
        self.out.act(Action::CreateGroup(GroupDescriptor {
            group,
            version: 1,
            members: vec![self.me.member.clone()],
            policy,
            key_holders: BTreeSet::from([self.me.member.address.clone()]),
            min_protocol: PROTOCOL,
            group_certificate: Vec::new(),
            at: now.wall,
            handovers: Vec::new(),
            built_on: Vec::new(),
            leaving: BTreeSet::new(),
        }));
    }

    pub(super) fn group_created(&mut self, now: Now, result: Result<NewGroup, String>) {
        let Some(token) = self.creating.take() else {
            return;
        };
        match result {
            Err(why) => self.refuse(token, GroupError::Signing { why }),
            Ok(NewGroup { gd, recovery }) => {
                let reply = Effect::Reply(token, Reply::Created { key: gd.key, recovery });
                let (group, key) = (gd.gd.group.clone(), gd.key);
                let pinned = Event::Pinned { group: group.clone(), key, at: Some(now.wall) };
                let events = vec![pinned, Event::HoldsKey { group, key }, Event::Gd(gd)];
                self.record(events, vec![reply]);
                self.founded_or_joined(now);
            }
        }
    }

    /// A gd names this peer for the first time.
    pub(super) fn founded_or_joined(&mut self, now: Now) {
        if let Some(pin) = self.pins.get_mut(self.me.member.address.group()) {
            pin.refresh_at = now.mono + super::contacts::REFRESH;
        }
        self.put_gd.due = now.mono;
        self.put_descriptor.due = now.mono;
        self.next_beat = now.mono;
        self.beat_if_due(now);
    }

    pub(super) fn invite(&mut self, now: Now, token: Token, name: LocalName, secret: Secret, valid: Span) {
        match self.may_invite(now, &name, valid) {
            Err(error) => self.refuse(token, error),
            Ok(group_key) => {
                let expiry = now.wall + valid.duration();
                let invite = Invite {
                    group: self.group().clone(),
                    name: name.clone(),
                    group_key,
                    peers: self.inviting_peers(),
                    secret: secret.clone(),
                    expiry,
                };
                let reply = Effect::Reply(token, Reply::Invite(invite));
                self.record(vec![Event::Invited { name, secret, expiry }], vec![reply]);
            }
        }
    }

    fn may_invite(&self, now: Now, name: &LocalName, valid: Span) -> Result<Fingerprint, GroupError> {
        if valid.duration().is_zero() || valid > INVITE_VALIDITY_MAX {
            return Err(GroupError::Validity { asked: valid, longest: INVITE_VALIDITY_MAX });
        }
        let own = self.changeable()?;
        let (key, members) = (own.key, own.gd.members.len());
        let address = Address::new(name.clone(), self.group().clone());
        if own.gd.member_at(&address).is_some() {
            return Err(GroupError::NameTaken { address });
        }
        if members >= usize::from(MEMBERS_MAX) {
            return Err(GroupError::Full { members });
        }
        let open = self.invites.iter().filter(|(other, invite)| invite.expiry > now.wall && *other != name).count();
        if open >= usize::from(MEMBERS_MAX) {
            return Err(GroupError::TooManyInvites { open });
        }
        Ok(key)
    }

    /// Keeps an invite. Of too many those go that end first: fewer are open, so these are over.
    pub(super) fn apply_invited(&mut self, name: LocalName, secret: Secret, expiry: WallTime) {
        self.invites.remove(&name);
        while self.invites.len() >= usize::from(MEMBERS_MAX) {
            let Some(first) = self.invites.iter().min_by_key(|(_, invite)| invite.expiry).map(|(name, _)| name.clone())
            else {
                break;
            };
            self.invites.remove(&first);
        }
        self.invites.insert(name, OpenInvite { secret, expiry, used_by: None });
    }

    /// Key holders first, for only they admit; this peer before all.
    fn inviting_peers(&self) -> Vec<CardPeer> {
        let holders = self.home().map(|own| &own.gd.key_holders);
        let is_holder = |m: &&Member| holders.is_some_and(|h| h.contains(&m.address));
        let members = self.home().map(|own| own.gd.members.as_slice()).unwrap_or_default();
        self.card_peers(members.iter().filter(is_holder), CARD_PEERS_MAX)
    }

    pub(super) fn admit(&mut self, now: Now, token: Token, caller: PeerId, descriptor: SignedDescriptor, proof: &[u8]) {
        match self.may_admit(now, caller, &descriptor, proof) {
            Err(error) => self.refuse(token, error),
            Ok(Some(signed)) => {
                self.offer_descriptor(descriptor);
                // The gd that names it may not be durable yet: the answer waits for all that was recorded before.
                self.out.commit(Vec::new(), vec![Effect::Reply(token, Reply::Admitted(signed))]);
            }
            Ok(None) => {
                let (address, peer_id) = (descriptor.descriptor.address.clone(), descriptor.descriptor.peer_id);
                let wish = Wish::Admit(Member { address, peer_id, fingerprint: descriptor.fingerprint });
                let descriptor = Some(Box::new(descriptor));
                self.change(now, Change { by_peer: true, descriptor, ..Change::new(token, wish) });
            }
        }
    }

    /// The signed gd if the caller is named in it already; nothing if it is to be added.
    fn may_admit(
        &self,
        now: Now,
        caller: PeerId,
        offered: &SignedDescriptor,
        proof: &[u8],
    ) -> Result<Option<ByteBuf>, GroupError> {
        let own = self.changeable()?;
        let address = &offered.descriptor.address;
        let name = address.name().clone();
        let invite = self.invites.get(&name).filter(|_| address.group() == self.group());
        let invite = invite.ok_or_else(|| GroupError::NoInvite { name: name.clone() })?;
        let fits = offered.descriptor.peer_id == caller
            && check_join_proof(proof, &invite.secret, &caller, &offered.fingerprint, &own.key);
        if !fits {
            return Err(GroupError::Proof { name });
        }
        if invite.used_by.is_some_and(|by| by != caller) {
            return Err(GroupError::Used { name });
        }
        if invite.expiry <= now.wall {
            return Err(GroupError::Expired { name });
        }
        if own.gd.member_at(address).is_some_and(|m| m.peer_id == caller && m.fingerprint == offered.fingerprint) {
            return Ok(Some(own.signed.clone()));
        }
        if invite.used_by.is_some() {
            // It was a member by this invite, and was removed since.
            return Err(GroupError::NoInvite { name });
        }
        Ok(None)
    }

    pub(super) fn set_policy(&mut self, now: Now, token: Token, policy: Policy) {
        let checked = self.changeable().and_then(|own| {
            let policy = policy.check().map_err(GroupError::Policy)?;
            large_enough(&policy, own.gd.members.len())?;
            Ok((policy.clone(), own.gd.policy == policy, own.gd.version))
        });
        match checked {
            Err(error) => self.refuse(token, error),
            Ok((_, true, gd_version)) => self.out.reply(token, Reply::PolicySet { gd_version }),
            Ok((policy, false, _)) => self.change(now, Change::new(token, Wish::Policy(policy))),
        }
    }

    /// A member refused a heartbeat for membership: both compare versions.
    pub(super) fn refused_by(&mut self, now: Now, peer: PeerId, errand: Errand, gd_version: u64) {
        let own = self.own_version();
        // Of two versions that were signed at the same time, each side may have one: both are told.
        if gd_version <= own && errand.regular {
            self.send_heartbeat(now, peer, Errand { regular: false, introduced: false }, Vec::new(), true);
        }
        if gd_version >= own {
            self.fetch_own_gd(now, peer);
        }
    }
}

/// One line on a failed call, for people.
pub(super) fn in_words(failed: &CallFailed) -> &str {
    match failed {
        CallFailed::Unreachable { why } | CallFailed::Refused { why, .. } | CallFailed::Bad { why } => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::KOfN;

    #[test]
    fn what_a_refused_policy_is_told_would_do_is_possible_for_that_group() {
        let large = Policy { fragments: KOfN { k: 60, n: 100 }, copies: 100, ..Policy::default() };
        for members in 2..=usize::from(MEMBERS_MAX) {
            let others = members - 1;
            let said = large_enough(&large, members).unwrap_err().to_string();
            let number = |after: &str| -> Option<u8> {
                let rest = said.split_once("would do")?.0.len();
                let (_, rest) = said[rest..].split_once(after).or_else(|| said.split_once(after))?;
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            };
            let full = Policy { mode: Mode::Full, copies: number("copies up to ").unwrap(), ..Policy::default() };
            assert!(large_enough(&full.check().unwrap(), members).is_ok(), "{said}");
            if others < 3 {
                assert!(!said.contains("for example"), "{said}");
                continue;
            }
            let (k, copies) = (
                number("for example any ").unwrap(),
                said.rsplit(' ').find_map(|word| word.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()),
            );
            let fragments = KOfN { k, n: u8::try_from(others).unwrap() };
            let policy = Policy { mode: Mode::Fragments, fragments, copies: copies.unwrap(), ..Policy::default() };
            assert!(large_enough(&policy.check().unwrap(), members).is_ok(), "{said}");
        }
    }
}
