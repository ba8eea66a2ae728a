//! Changes of the gd: each is a gd of the next version, signed by the group key, one at a time. It never signs, and never loses
//! a change silently: one that another holder overtook is made again on top of what is newest.
//!
//! Two holders may sign one version each. Then every peer takes the one with the smaller digest, and whoever signed the other
//! sees, by the versions that a gd says it was made from, that its change is not in, and makes it again.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::answers::Reply;
use super::error::GroupError;
use super::events::Event;
use super::rotate::Rotation;
use super::types::{Action, NewGroup, OldKey, RecoveryCode, SignedDescriptor, SignedGd};
use super::{Errand, Group};
use crate::core::{Effect, Token};
use crate::model::group::{BUILT_ON_MAX, GroupDescriptor, HANDOVERS_MAX, Member};
use crate::model::policy::MEMBERS_MAX;
use crate::model::{Address, Digest, Fingerprint, Now, Policy};

/// Most changes that wait for the group key; as many as may join.
const CHANGES_MAX: usize = 128;
/// Most changes that could not be made again and are shown; the latest stay.
const OVERTAKEN_MAX: usize = 16;

/// What is to be different in the next gd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// This member is added.
    Admit(Member),
    /// How members' mail is kept.
    Policy(Policy),
    /// This member is not named any more; if it held the group key, the key is another.
    Remove(Member),
    /// This member is to hold the group key too.
    Grant(Address),
    /// Others take over what this member holds.
    Leaving(Address),
    /// This member stays after all.
    Stay(Address),
    /// The key is another, and only this member holds it.
    TakeOver(Address),
}

impl Wish {
    /// In a few words, for people.
    fn words(&self) -> String {
        match self {
            Wish::Admit(member) => format!("the admission of {}", member.address),
            Wish::Policy(_) => "the change of the policy".to_owned(),
            Wish::Remove(member) => format!("the removal of {}", member.address),
            Wish::Grant(address) => format!("the grant of the group key to {address}"),
            Wish::Leaving(address) | Wish::Stay(address) => format!("the leaving of {address}"),
            Wish::TakeOver(address) => format!("the recovery by {address}"),
        }
    }

    /// Whether `gd` is as wished.
    fn is_so(&self, gd: &GroupDescriptor) -> bool {
        match self {
            Wish::Admit(member) => gd.members.contains(member),
            Wish::Policy(policy) => gd.policy == *policy,
            Wish::Remove(member) => gd.member(&member.peer_id).is_none(),
            Wish::Grant(address) => gd.key_holders.contains(address),
            Wish::Leaving(address) => gd.leaving.contains(address) || gd.member_at(address).is_none(),
            Wish::Stay(address) => !gd.leaving.contains(address),
            Wish::TakeOver(address) => gd.key_holders.iter().eq([address]),
        }
    }
}

/// A change that this peer signed and that may still be overtaken by another holder's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mine {
    /// The version it became.
    #[serde(rename = "v")]
    pub version: u64,
    /// That gd, as it was signed.
    #[serde(rename = "x")]
    pub digest: Digest,
    /// What was changed.
    #[serde(rename = "w")]
    pub wish: Wish,
}

/// A change that another holder's overtook and that could not be made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overtaken {
    /// The version it had become.
    #[serde(rename = "v")]
    pub version: u64,
    /// What it was.
    #[serde(rename = "w")]
    pub what: String,
    /// Why it could not be made again.
    #[serde(rename = "y")]
    pub why: String,
}

/// A change of the gd that waits for its signature.
#[derive(Debug)]
pub(super) struct Change {
    /// Whom to answer; nobody when it is made again.
    pub(super) token: Option<Token>,
    pub(super) wish: Wish,
    /// Whether another peer asked, and is answered with the signed gd.
    pub(super) by_peer: bool,
    /// Of whom is admitted.
    pub(super) descriptor: Option<Box<SignedDescriptor>>,
    /// The key to take over with.
    pub(super) code: Option<RecoveryCode>,
    /// The change that this one makes again.
    pub(super) redo: Option<Digest>,
}

impl Change {
    pub(super) fn new(token: Token, wish: Wish) -> Self {
        Self { token: Some(token), wish, by_peer: false, descriptor: None, code: None, redo: None }
    }
    fn again(mine: Mine) -> Self {
        Self { token: None, wish: mine.wish, by_peer: false, descriptor: None, code: None, redo: Some(mine.digest) }
    }
}

/// A gd by the bytes that were signed.
pub(super) fn digest(signed: &SignedGd) -> Digest {
    Digest::new(*blake3::hash(&signed.signed).as_bytes())
}

impl Group {
    pub(super) fn change(&mut self, now: Now, change: Change) {
        let waiting = self.changes.len();
        if waiting >= CHANGES_MAX {
            return self.change_failed(&change, GroupError::Busy { waiting });
        }
        self.changes.push_back(change);
        self.next_change(now);
    }

    fn change_failed(&mut self, change: &Change, error: GroupError) {
        if let Some(token) = change.token {
            return self.refuse(token, error);
        }
        let passes = matches!(
            error,
            GroupError::KeyNotHere { .. }
                | GroupError::NotKeyHolder { .. }
                | GroupError::NoGroup { .. }
                | GroupError::Busy { .. }
                | GroupError::Signing { .. }
        );
        // What may pass is tried again with the next gd, and when the key comes.
        if let Some(lost) = self.mine.iter().find(|mine| Some(mine.digest) == change.redo).filter(|_| !passes) {
            let overtaken = Overtaken { version: lost.version, what: lost.wish.words(), why: error.to_string() };
            let events = vec![Event::Settled { digest: lost.digest }, Event::Overtaken(overtaken)];
            self.record(events, Vec::new());
        }
    }

    /// Asks for the signature of the next change, if none is under way.
    pub(super) fn next_change(&mut self, now: Now) {
        while self.signing.is_none() {
            let Some(change) = self.changes.pop_front() else {
                return;
            };
            match self.changed(now, &change) {
                Ok((gd, key, None)) => {
                    self.signing = Some(change);
                    self.out.act(Action::SignGd { gd, key });
                }
                Ok((gd, _, Some(old))) => {
                    self.signing = Some(change);
                    self.out.act(Action::RotateKey { gd, old });
                }
                Err(error) => self.change_failed(&change, error),
            }
        }
    }

    /// The gd after `change`, the key now, and that key again if it is to be replaced. Checks again what an earlier change may have made untrue.
    fn changed(&self, now: Now, change: &Change) -> Result<(GroupDescriptor, Fingerprint, Option<OldKey>), GroupError> {
        let own = match change.wish {
            Wish::TakeOver(_) => self.home().ok_or_else(|| self.no_group())?,
            _ => self.changeable()?,
        };
        let (mut gd, key, tip) = (own.gd.clone(), own.key, digest(own));
        let mut old = None;
        match &change.wish {
            Wish::Admit(member) => self.with_member(&mut gd, member)?,
            Wish::Policy(policy) => {
                super::membership::large_enough(policy, gd.members.len())?;
                gd.policy = policy.clone();
            }
            Wish::Remove(member) => {
                let address = &member.address;
                if gd.member(&member.peer_id) != Some(member) {
                    return Err(GroupError::NoSuchMember { address: address.clone() });
                }
                gd.members.retain(|m| m.address != *address);
                gd.leaving.remove(address);
                old = gd.key_holders.remove(address).then_some(OldKey::Held(key));
            }
            Wish::Grant(address) => {
                gd.member_at(address).ok_or_else(|| GroupError::NoSuchMember { address: address.clone() })?;
                gd.key_holders.insert(address.clone());
            }
            Wish::Leaving(address) | Wish::Stay(address) => {
                gd.member_at(address).ok_or_else(|| GroupError::NoSuchMember { address: address.clone() })?;
                if matches!(change.wish, Wish::Leaving(_)) {
                    gd.leaving.insert(address.clone());
                } else {
                    gd.leaving.remove(address);
                }
            }
            Wish::TakeOver(address) => {
                gd.key_holders = [address.clone()].into();
                old = change.code.clone().map(|code| OldKey::Recovery { code, key });
            }
        }
        gd.version += 1;
        gd.at = now.wall;
        gd.built_on.insert(0, tip);
        gd.built_on.truncate(BUILT_ON_MAX);
        if old.is_some() {
            // Room for one more.
            let over = (gd.handovers.len() + 1).saturating_sub(HANDOVERS_MAX);
            gd.handovers.drain(..over);
        }
        Ok((gd, key, old))
    }

    fn with_member(&self, gd: &mut GroupDescriptor, member: &Member) -> Result<(), GroupError> {
        let (name, members) = (member.address.name().clone(), gd.members.len());
        if gd.member_at(&member.address).is_some_and(|m| m.peer_id != member.peer_id)
            || self.invites.get(&name).is_some_and(|i| i.used_by.is_some_and(|by| by != member.peer_id))
        {
            return Err(GroupError::Used { name });
        }
        let is_new = gd.member_at(&member.address).is_none();
        if is_new && gd.member(&member.peer_id).is_some() {
            return Err(GroupError::Proof { name });
        }
        if is_new && members >= usize::from(MEMBERS_MAX) {
            return Err(GroupError::Full { members });
        }
        gd.members.retain(|m| m.address != member.address);
        gd.members.push(member.clone());
        Ok(())
    }

    pub(super) fn gd_signed(&mut self, now: Now, result: Result<SignedGd, String>) {
        self.signed(now, result.map(|signed| (signed, None)));
    }

    pub(super) fn key_rotated(&mut self, now: Now, result: Result<NewGroup, String>) {
        self.signed(now, result.map(|NewGroup { gd, recovery }| (gd, Some(recovery))));
    }

    fn signed(&mut self, now: Now, result: Result<(SignedGd, Option<RecoveryCode>), String>) {
        let Some(change) = self.signing.take() else {
            return;
        };
        match result {
            Err(why) if change.code.is_some() => self.change_failed(&change, GroupError::Recovery { why }),
            Err(why) => self.change_failed(&change, GroupError::Signing { why }),
            Ok((signed, recovery)) => {
                if signed.gd.built_on.first() == self.own_gd().map(digest).as_ref() {
                    self.changed_durably(now, change, signed, recovery);
                } else {
                    // Another holder was faster: the change is made again on top of what is newest now.
                    self.changes.push_front(change);
                }
            }
        }
        self.next_change(now);
    }

    fn changed_durably(&mut self, now: Now, change: Change, signed: SignedGd, recovery: Option<RecoveryCode>) {
        let Change { token, wish, by_peer, descriptor, redo, .. } = change;
        let (gd_version, bytes, key) = (signed.gd.version, signed.signed.clone(), signed.key);
        let (group, mut others) = (self.group().clone(), self.others());
        let mut events: Vec<Event> = redo.map(|digest| Event::Settled { digest }).into_iter().collect();
        let mut then = Vec::new();
        if let Some(old) = self.pins.get(&group).map(|pin| pin.key).filter(|_| recovery.is_some()) {
            let rotation = Rotation { group: group.clone(), from: old, to: key, gd_version, at: now.wall };
            events.extend([Event::KeyRotated(rotation), Event::HoldsKey { group: group.clone(), key }]);
            then.push(Effect::Act(Action::ForgetKeys { group, but: key }));
        }
        if let Wish::Admit(member) = &wish {
            events.push(Event::Admitted { name: member.address.name().clone(), by: member.peer_id });
            others.retain(|peer| *peer != member.peer_id);
        }
        events.push(Event::Changed(Mine { version: gd_version, digest: digest(&signed), wish: wish.clone() }));
        if let Some(token) = token {
            let reply = match &wish {
                _ if by_peer => Reply::Admitted(bytes),
                Wish::Policy(_) => Reply::PolicySet { gd_version },
                _ => Reply::Changed { gd_version, recovery },
            };
            then.push(Effect::Reply(token, reply));
        }
        self.take(now, signed, events, then);
        let mut news: Vec<ByteBuf> = Vec::new();
        if let Some(descriptor) = descriptor {
            news.push(descriptor.signed.clone());
            self.offer_descriptor(*descriptor);
        }
        self.put_gd(now);
        // Members learn it at once, so that a group forms quickly; whoever is off learns it from heartbeats.
        for peer in others {
            self.send_heartbeat(now, peer, Errand { regular: false, introduced: false }, news.clone(), true);
        }
    }

    /// Makes again what this peer changed and the newest gd was not made from.
    pub(super) fn redo_overtaken(&mut self, now: Now) {
        let Some(own) = self.home() else { return };
        let (tip, built_on, version) = (digest(own), own.gd.built_on.clone(), own.gd.version);
        let window = u64::try_from(BUILT_ON_MAX).unwrap_or(u64::MAX);
        let gd = own.gd.clone();
        let is_in = |mine: &Mine| mine.digest == tip || built_on.contains(&mine.digest);
        let under_way = |digest: &Digest| {
            self.changes.iter().chain(&self.signing).any(|change| change.redo.as_ref() == Some(digest))
        };
        let out: Vec<Mine> = self.mine.iter().filter(|m| !is_in(m) && !under_way(&m.digest)).cloned().collect();
        for mine in out {
            if mine.wish.is_so(&gd) {
                self.record(vec![Event::Settled { digest: mine.digest }], Vec::new());
            } else if mine.version + window < version {
                // So many versions later nobody can tell whether it was overtaken or undone since.
                let why = format!("it is more than {window} versions old; look whether it still holds");
                let overtaken = Overtaken { version: mine.version, what: mine.wish.words(), why };
                let events = vec![Event::Settled { digest: mine.digest }, Event::Overtaken(overtaken)];
                self.record(events, Vec::new());
            } else {
                self.change(now, Change::again(mine));
            }
        }
    }

    pub(super) fn apply_changed(&mut self, mine: Mine) {
        let window = u64::try_from(BUILT_ON_MAX).unwrap_or(u64::MAX);
        let oldest = mine.version.saturating_sub(window);
        self.mine.retain(|earlier| earlier.version > oldest);
        self.mine.push(mine);
    }

    pub(super) fn apply_overtaken(&mut self, overtaken: Overtaken) {
        self.overtaken.push(overtaken);
        let over = self.overtaken.len().saturating_sub(OVERTAKEN_MAX);
        self.overtaken.drain(..over);
    }
}
