//! What the replicator shows of itself. It never changes anything.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Replicator;
use super::follow::FollowState;
use super::owner::Owner;
use super::scheme::scheme;
use crate::core::placement::live_others;
use crate::model::holding::HoldingRefusal;
use crate::model::{Address, Encoding, MailId, Now, PeerId};

/// Mails that are named one by one.
const NAMED_MAX: usize = 100;
/// Most mails of one owner that are looked at to name some: a status costs the same however many there are.
const LOOKED_AT_MAX: usize = 1000;

/// How the msglist of an owner is read at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FollowShown {
    /// Everything that it says is known.
    Ok,
    /// More is being read.
    Behind,
    /// It does not answer.
    Unreachable,
    /// It is not a member any more.
    Gone,
}

/// One owner in [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnerStatus {
    /// Who.
    pub address: Address,
    /// Its PeerId.
    pub peer: PeerId,
    /// The last entry that was read.
    pub cursor: String,
    /// How it is read.
    pub follow: FollowShown,
    /// Seconds since it stopped answering.
    pub unreachable_s: Option<u64>,
    /// Mails it has in its list and that are not over.
    pub mails: usize,
    /// Parts held for it.
    pub parts: usize,
    /// Parts that were given up in words, and whose files are here until others have said once more that they hold theirs.
    pub going: usize,
    /// Those of both for which a member on its way out waits no longer: their owner is no member any more, and for ten minutes nobody
    /// took one of them over.
    pub untaken: usize,
    /// Bytes of the parts that are held.
    pub bytes: u64,
    /// Parts that wait to be mirrored.
    pub wanted: usize,
    /// Mails of which a part was refused, at most 100.
    pub refused: BTreeMap<MailId, HoldingRefusal>,
    /// Holdings that the owner has not acknowledged.
    pub reports: usize,
    /// What does not fit in its msglist.
    pub conflicts: Vec<String>,
    /// Where it signed lists that contradict each other, in the epoch that it is in.
    pub forked_at: Vec<String>,
}

/// What the replicator shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Whether the msglists have been read since the start, so that mirrors are served.
    pub ready: bool,
    /// Every owner that is known.
    pub owners: Vec<OwnerStatus>,
    /// Parts being pulled.
    pub under_way: usize,
    /// Mails that have fewer holders than they should, because no member is to spare.
    pub degraded: usize,
    /// Some of them, at most 100.
    pub degraded_mails: Vec<MailId>,
}

impl Status {
    /// Parts here for which a member on its way out waits: others are to hold them first.
    pub fn waited_for(&self) -> usize {
        self.owners.iter().map(|owner| owner.parts + owner.going - owner.untaken).sum()
    }
    /// Parts that go with it, because nobody took them over.
    pub fn untaken(&self) -> usize {
        self.owners.iter().map(|owner| owner.untaken).sum()
    }
}

impl Replicator {
    pub(super) fn show(&self, now: Now) -> Status {
        let mut degraded = 0;
        let mut degraded_mails = Vec::new();
        for (id, owner) in self.owners.iter() {
            // There are few encodings, and each answer holds for all mails of one.
            let of_encoding = owner.by_encoding.iter();
            let lacking: BTreeMap<Encoding, usize> =
                of_encoding.filter(|(e, _)| self.lacks_members(id, **e)).map(|(e, mails)| (*e, *mails)).collect();
            degraded += lacking.values().sum::<usize>();
            let some = owner.mails.iter().take(if lacking.is_empty() { 0 } else { LOOKED_AT_MAX });
            let named = some.filter(|(_, mail)| lacking.contains_key(&mail.encoding)).map(|(h, _)| *h);
            degraded_mails.extend(named.take(NAMED_MAX - degraded_mails.len()));
        }
        Status {
            ready: self.roster.is_some() && self.owners.iter().all(|(_, o)| o.follow.is_ready()),
            owners: self.owners.iter().map(|(id, owner)| show_owner(*id, owner, now)).collect(),
            under_way: self.mirrors.under_way(),
            degraded,
            degraded_mails,
        }
    }
    /// Whether the group has too few live members for what an encoding, or the policy, asks for.
    fn lacks_members(&self, owner: &PeerId, encoding: Encoding) -> bool {
        let Some(roster) = &self.roster else { return false };
        let live = live_others(roster, owner);
        let wanted = match encoding {
            Encoding::Whole => usize::from(roster.policy.copies),
            Encoding::Fragments { .. } => scheme(encoding, 0).places(),
        };
        live < wanted
    }
}

fn show_owner(peer: PeerId, owner: &Owner, now: Now) -> OwnerStatus {
    let refused = owner.refused.iter().filter_map(|h| Some((*h, owner.mails.get(h)?.refused?)));
    let forks = owner.forks.iter().map(|at| format!("it signed two msglists that contradict each other at {at}"));
    let current = owner.forks.iter().filter(|at| at.epoch >= owner.list.cursor().epoch);
    let follow = match owner.follow.state {
        FollowState::Off => FollowShown::Gone,
        _ if owner.follow.unreachable_since.is_some() => FollowShown::Unreachable,
        _ if owner.follow.behind => FollowShown::Behind,
        _ => FollowShown::Ok,
    };
    OwnerStatus {
        address: owner.address.clone(),
        peer,
        cursor: owner.list.cursor().to_string(),
        follow,
        unreachable_s: owner.follow.unreachable_since.map(|since| now.mono.since(since).as_secs()),
        mails: owner.mails.len(),
        parts: owner.parts,
        going: owner.going(),
        untaken: if owner.is_given_up_on(now) { owner.parts + owner.going() } else { 0 },
        bytes: owner.bytes,
        wanted: owner.wanted.len(),
        refused: refused.take(NAMED_MAX).collect::<BTreeMap<MailId, _>>(),
        reports: owner.reports.len(),
        forked_at: current.map(ToString::to_string).collect(),
        conflicts: forks.chain(owner.trouble.clone()).collect(),
    }
}
