//! What the replicator shows of itself. It never changes anything.

use std::collections::BTreeMap;

use super::Replicator;
use super::follow::FollowState;
use super::owner::Owner;
use super::scheme::scheme;
use super::types::{FollowShown, OwnerStatus, Status};
use crate::core::placement::live_others;
use crate::model::{Encoding, MailId, Now, PeerId};

/// Mails that are named one by one.
const NAMED_MAX: usize = 100;
/// Most mails of one owner that are looked at to name some: a status costs the same however many there are.
const LOOKED_AT_MAX: usize = 1000;

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
        bytes: owner.bytes,
        wanted: owner.wanted.len(),
        refused: refused.take(NAMED_MAX).collect::<BTreeMap<MailId, _>>(),
        reports: owner.reports.len(),
        forked_at: current.map(ToString::to_string).collect(),
        conflicts: forks.chain(owner.trouble.clone()).collect(),
    }
}
