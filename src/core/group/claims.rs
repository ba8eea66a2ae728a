//! What a notification says of its sender's group, held against the pinned one (R11). It only judges: it pins nothing and asks nobody.

use std::collections::BTreeSet;

use crate::model::group::GroupDescriptor;
use crate::model::{Address, Fingerprint, GroupName, PeerId};

/// What an ns claims, as nobody has verified yet.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Whose mail it is.
    pub from: &'a Address,
    /// The sender's OpenPGP key.
    pub fingerprint: Fingerprint,
    /// The key of the sender's group, as the sender knew it when the mail was sealed.
    pub group_key: Fingerprint,
}

/// What this peer has pinned for the sender's group.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Which group.
    pub group: &'a GroupName,
    /// The pinned key.
    pub key: &'a Fingerprint,
    /// Keys that came before it.
    pub retired: &'a BTreeSet<Fingerprint>,
    /// The newest gd that it signed.
    pub gd: Option<&'a GroupDescriptor>,
}

/// How a claim stands to what is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The gd names the sender, with this peer.
    Named(PeerId),
    /// The key is the pinned one, and no gd is here yet: its sender is a stranger, about whom the user is asked.
    Pinned,
    /// Not now, and why: a newer gd may say so.
    NotYet(String),
    /// It is not true, and why.
    Forged(String),
}

/// Judges a claim by the gd that is here; `is_over` when the newest that could be had was looked for so often that no newer one is
/// waited for ([`Doubts::is_over`](super::Doubts::is_over)).
pub fn judge(claim: &Claim<'_>, known: &Known<'_>, is_over: bool) -> Standing {
    let Known { group, key, retired, gd } = known;
    if claim.group_key != **key && !retired.contains(&claim.group_key) {
        return if is_over {
            Standing::Forged(format!("the key pinned for {group} is {key}, not {}", claim.group_key))
        } else {
            // The group's key may have been replaced, and the gd that says so is on its way: a look finds what the DHT and members have,
            // which may all be older. The one here says nothing about a sender that joined since.
            Standing::NotYet(format!(
                "the key pinned for {group} is {key}, not {}; a newer gd may say so",
                claim.group_key
            ))
        };
    }
    match (gd, gd.and_then(|gd| gd.member_at(claim.from))) {
        (None, _) => Standing::Pinned,
        (_, Some(member)) if member.fingerprint == claim.fingerprint => Standing::Named(member.peer_id),
        (_, Some(member)) => Standing::Forged(format!(
            "the key of {} is {}, not {}; its group has signed no change",
            member.address, member.fingerprint, claim.fingerprint
        )),
        // One that names it may come later.
        (_, None) => Standing::NotYet(format!("the gd of {group} that is known here does not name it")),
    }
}
