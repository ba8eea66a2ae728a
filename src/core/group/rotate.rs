//! How a pin follows its group's key: only by the chain of signatures that a gd carries, each key's for the next, and the move
//! is kept and shown (R11). It never chooses between two keys that one key signed for.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::changes::{Change, Wish};
use super::error::GroupError;
use super::events::Event;
use super::types::{RecoveryCode, SignedGd};
use super::{Group, Pin};
use crate::core::Token;
use crate::model::{Fingerprint, GroupName, MonoTime, Now, WallTime};

/// Most changes of one group's key that are kept; the latest stay.
const ROTATIONS_MAX: usize = 16;

/// A group's key is another: the one before signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Which group.
    #[serde(rename = "g")]
    pub group: GroupName,
    /// The key that was pinned.
    #[serde(rename = "o")]
    pub from: Fingerprint,
    /// The key that is pinned since.
    #[serde(rename = "n")]
    pub to: Fingerprint,
    /// The gd that brought it.
    #[serde(rename = "v")]
    pub gd_version: u64,
    /// When this peer took it.
    #[serde(rename = "t")]
    pub at: WallTime,
}

/// How a gd's key stands to the pinned one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kin {
    /// It is the pinned one.
    Same,
    /// The pinned one signed for it, at once or through others.
    Heir,
    /// It came before the pinned one and is not used any more.
    Retired,
    /// Nobody who is pinned vouches for it.
    Stranger,
}

impl Pin {
    /// A group of this key, of which nothing else is known yet.
    pub(super) fn new(key: Fingerprint, since: Option<WallTime>) -> Self {
        Self {
            key,
            since,
            gd: None,
            gd_digest: None,
            rivals: BTreeSet::new(),
            forks: BTreeSet::new(),
            changes: Vec::new(),
            former: Vec::new(),
            rotations: Vec::new(),
            refresh_at: MonoTime::default(),
            fetching: false,
            fails: 0,
            looked: None,
        }
    }

    /// Keys that came before the pinned one.
    pub(super) fn retired(&self) -> BTreeSet<Fingerprint> {
        let told = self.gd.as_ref().map(|held| held.lineage.as_slice()).unwrap_or_default();
        self.rotations.iter().map(|rotation| rotation.from).chain(told.iter().copied()).collect()
    }

    pub(super) fn kin(&self, signed: &SignedGd) -> Kin {
        if signed.key == self.key {
            Kin::Same
        } else if signed.lineage.contains(&self.key) {
            Kin::Heir
        } else if self.retired().contains(&signed.key) {
            Kin::Retired
        } else {
            Kin::Stranger
        }
    }
}

/// Whether the pinned key signed for two of these, neither of which comes from the other: people choose then.
pub(super) fn divided(pinned: &Fingerprint, candidates: &[SignedGd]) -> bool {
    let heirs = || candidates.iter().filter(|c| c.lineage.contains(pinned));
    let apart =
        |a: &SignedGd, b: &SignedGd| a.key != b.key && !a.lineage.contains(&b.key) && !b.lineage.contains(&a.key);
    heirs().any(|a| heirs().any(|b| apart(a, b)))
}

impl Group {
    /// What taking a gd of a new key makes durable before the gd itself.
    pub(super) fn rotation(&self, now: Now, signed: &SignedGd) -> Option<Event> {
        let pin = self.pins.get(&signed.gd.group)?;
        let (group, gd_version) = (signed.gd.group.clone(), signed.gd.version);
        let rotation = Rotation { group, from: pin.key, to: signed.key, gd_version, at: now.wall };
        (pin.kin(signed) == Kin::Heir).then_some(Event::KeyRotated(rotation))
    }

    pub(super) fn apply_rotation(&mut self, rotation: Rotation) {
        if rotation.group == *self.group() {
            // What an invite proves is bound to the key that it names.
            self.invites.clear();
        }
        if let Some(pin) = self.pins.get_mut(&rotation.group) {
            pin.key = rotation.to;
            pin.rivals.remove(&rotation.to);
            pin.rotations.push(rotation);
            let over = pin.rotations.len().saturating_sub(ROTATIONS_MAX);
            pin.rotations.drain(..over);
        }
    }

    /// `roost group recover`: whoever has the recovery code acts for the group. The code's key signs a new one, which only this
    /// member holds.
    pub(super) fn recover(&mut self, now: Now, token: Token, code: RecoveryCode) {
        if self.home().is_none() {
            let error = self.no_group();
            return self.refuse(token, error);
        }
        let wish = Wish::TakeOver(self.me.member.address.clone());
        self.change(now, Change { code: Some(code), ..Change::new(token, wish) });
    }

    /// `roost group remove`.
    pub(super) fn remove(&mut self, now: Now, token: Token, address: crate::model::Address) {
        let member = self.changeable().and_then(|own| {
            if address == self.me.member.address {
                return Err(GroupError::RemoveSelf { address: address.clone() });
            }
            let member = own.gd.member_at(&address).cloned();
            member.ok_or_else(|| GroupError::NoSuchMember { address: address.clone() })
        });
        match member {
            Err(error) => self.refuse(token, error),
            Ok(member) => self.change(now, Change::new(token, Wish::Remove(member))),
        }
    }
}
