//! What the drill itself took from disks or falsified there, so that nobody is blamed for it: those parts and sealed mails alone, and
//! only until their peers have had their say. It reads no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{Address, Digest, MailId, Part};

/// A peer that found out nothing for so long after its disk was spoiled is no longer excused.
const EXCUSED_FOR: Duration = Duration::from_secs(150);

/// A part that was on a disk: whose mail, which, and which part of it.
pub(super) type Lost = (Address, MailId, Part);

/// Everything that was spoiled, peer by peer.
#[derive(Debug, Default)]
pub(super) struct Spoiled {
    peers: BTreeMap<Address, Disk>,
}

/// One peer's disk.
#[derive(Debug, Default)]
struct Disk {
    /// Its parts as they were before, of which nothing was heard since.
    parts: BTreeMap<Lost, Digest>,
    /// The sealed mails that were in its outbox, and have not come back.
    blobs: BTreeSet<MailId>,
    /// When the spoiling was done; it is under way before.
    since: Option<Duration>,
}

impl Spoiled {
    /// A disk is about to be spoiled, on which these are.
    pub(super) fn begins(&mut self, peer: &Address, parts: BTreeMap<Lost, Digest>, blobs: BTreeSet<MailId>) {
        let disk = self.peers.entry(peer.clone()).or_default();
        disk.parts.extend(parts);
        disk.blobs.extend(blobs);
        disk.since = None;
    }

    /// It is spoiled.
    pub(super) fn is_done(&mut self, peer: &Address, now: Duration) {
        if let Some(disk) = self.peers.get_mut(peer) {
            disk.since = Some(now);
        }
    }

    /// Whether `owner` may still believe that `member` has this part, though its disk has not.
    pub(super) fn excuses(&self, member: &Address, lost: &Lost, now: Duration) -> bool {
        self.peers.get(member).is_some_and(|disk| {
            let over = disk.since.is_some_and(|since| now.saturating_sub(since) > EXCUSED_FOR);
            !over && disk.parts.contains_key(lost)
        })
    }

    /// Whether the drill took this sealed mail from its owner's outbox.
    pub(super) fn excuses_blob(&self, owner: &Address, h: &MailId) -> bool {
        self.peers.get(owner).is_some_and(|disk| disk.blobs.contains(h))
    }

    /// A sealed mail is in its owner's outbox; it is not excused any more if that was spoiled before.
    pub(super) fn sees_blob(&mut self, owner: &Address, h: &MailId) {
        if let Some(disk) = self.peers.get_mut(owner).filter(|disk| disk.since.is_some()) {
            disk.blobs.remove(h);
        }
    }

    /// The parts of mails of `owner` that are excused on disks that are spoiled by now, for who looks at these disks.
    pub(super) fn excused_of(&self, owner: &Address) -> Vec<(Address, Lost, Digest)> {
        let done = self.peers.iter().filter(|(_, disk)| disk.since.is_some());
        let parts = done.flat_map(|(peer, disk)| disk.parts.iter().map(move |(lost, was)| (peer, lost, was)));
        let of = parts.filter(|(_, (whose, ..), _)| whose == owner);
        of.map(|(peer, lost, was)| (peer.clone(), lost.clone(), *was)).collect()
    }

    /// A disk has a part again, as it was: what is said of it from now on is measured there.
    pub(super) fn is_mended(&mut self, member: &Address, lost: &Lost) {
        if let Some(disk) = self.peers.get_mut(member) {
            disk.parts.remove(lost);
        }
    }

    /// What `owner` says at one moment who has of its mails. Who is named for some mail counts as a member there; so where it is not
    /// named for a part that it had, its own report or an audit has said so, and only a new report makes it one that has.
    pub(super) fn hears(&mut self, owner: &Address, named: &BTreeMap<MailId, BTreeMap<Address, Part>>) {
        for (member, disk) in self.peers.iter_mut().filter(|(_, disk)| disk.since.is_some()) {
            if named.values().any(|holders| holders.contains_key(member)) {
                disk.parts.retain(|(whose, h, part), _| {
                    let holders = named.get(h).filter(|_| whose == owner);
                    holders.is_none_or(|holders| holders.get(member) == Some(part))
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Address {
        format!("{name}@acme").parse().unwrap()
    }

    fn h(n: u8) -> MailId {
        MailId::new([n; 20])
    }

    fn lost(n: u8) -> Lost {
        (who("bob"), h(n), Part::Whole)
    }

    /// Carol's disk had mails 1 and 2 of bob when it was emptied, at 10 s.
    fn emptied() -> Spoiled {
        let mut spoiled = Spoiled::default();
        let parts = [1, 2].map(|n| (lost(n), Digest::new([n; 32]))).into();
        spoiled.begins(&who("carol"), parts, [h(9)].into());
        spoiled.is_done(&who("carol"), Duration::from_secs(10));
        spoiled
    }

    const SOON: Duration = Duration::from_secs(12);

    #[test]
    fn only_what_was_on_the_disk_at_that_moment_is_excused() {
        let spoiled = emptied();
        assert!(spoiled.excuses(&who("carol"), &lost(1), SOON));
        assert!(!spoiled.excuses(&who("carol"), &lost(3), SOON), "it came later, or never");
        assert!(!spoiled.excuses(&who("carol"), &(who("bob"), h(1), Part::Fragment { k: 2, i: 0 }), SOON));
        assert!(!spoiled.excuses(&who("dave"), &lost(1), SOON), "nobody touched that disk");
        assert!(!spoiled.excuses(&who("carol"), &lost(1), Duration::from_secs(161)), "it had time enough to find out");
    }

    #[test]
    fn a_report_ends_the_excuse_and_a_view_that_calls_the_member_lost_does_not() {
        let mut spoiled = emptied();
        let named = |members: &[&str]| -> BTreeMap<Address, Part> {
            members.iter().map(|name| (who(name), Part::Whole)).collect()
        };
        spoiled.hears(&who("bob"), &[(h(1), named(&["dave"])), (h(2), named(&[]))].into());
        assert!(
            spoiled.excuses(&who("carol"), &lost(1), SOON),
            "carol counts for no mail now: that is the view's word"
        );
        spoiled.hears(&who("dave"), &[(h(1), named(&["carol"]))].into());
        spoiled.hears(&who("bob"), &[(h(1), named(&["carol"])), (h(2), named(&["dave"]))].into());
        assert!(spoiled.excuses(&who("carol"), &lost(1), SOON));
        assert!(!spoiled.excuses(&who("carol"), &lost(2), SOON), "named again it must have it again");
        spoiled.is_mended(&who("carol"), &lost(1));
        assert!(!spoiled.excuses(&who("carol"), &lost(1), SOON));
    }

    #[test]
    fn a_sealed_mail_that_came_back_is_watched_again_but_not_while_it_is_being_taken() {
        let mut spoiled = Spoiled::default();
        spoiled.begins(&who("carol"), BTreeMap::new(), [h(9)].into());
        spoiled.sees_blob(&who("carol"), &h(9));
        assert!(spoiled.excuses_blob(&who("carol"), &h(9)) && !spoiled.excuses_blob(&who("carol"), &h(8)));
        spoiled.is_done(&who("carol"), Duration::ZERO);
        spoiled.sees_blob(&who("carol"), &h(9));
        assert!(!spoiled.excuses_blob(&who("carol"), &h(9)));
        assert_eq!(emptied().excused_of(&who("bob")).len(), 2);
        assert!(emptied().excused_of(&who("dave")).is_empty());
    }
}
