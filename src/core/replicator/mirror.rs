//! Mirroring: which part is pulled next, fairly among the owners, within bounds. It never says a part is held before the shell
//! said that it is on disk and checked (R1, R6).

use std::collections::BTreeMap;
use std::time::Duration;

use super::owner::{Task, Wait};
use super::types::{Action, Event, MirrorFailure, MirrorOrder};
use super::{Replicator, part_bytes};
use crate::model::group::Roster;
use crate::model::holding::HoldingRefusal;
use crate::model::{MailId, MonoTime, Part, PeerId, Urgency};

/// Parts pulled at a time: enough that many fsyncs share one commit of the file system.
const UNDER_WAY_MAX: usize = 16;
/// Of these, large ones: they share one uplink anyway.
const LARGE_MAX: usize = 4;
/// From here on a part is large.
const LARGE_BYTES: u64 = 1024 * 1024;
/// Pauses after this peer's disk failed or was full.
const DISK_PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1800));

/// What is being pulled.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    pub(super) under_way: usize,
    large: usize,
    /// Whose turn it was last.
    last: Option<PeerId>,
    /// Bytes being pulled, for the quota.
    reserved: BTreeMap<PeerId, u64>,
    /// Nothing is pulled until then: the disk was full.
    full_until: Option<MonoTime>,
    full_tries: u32,
}

impl Mirrors {
    /// Something was removed from the disk, so it is worth trying again.
    pub(super) fn space_freed(&mut self) {
        self.full_until = None;
    }
    pub(super) fn next_try(&self, now: MonoTime) -> Option<MonoTime> {
        self.full_until.filter(|at| *at > now)
    }
    fn begin(&mut self, owner: PeerId, bytes: u64) {
        self.under_way += 1;
        self.large += usize::from(bytes >= LARGE_BYTES);
        *self.reserved.entry(owner).or_default() += bytes;
        self.last = Some(owner);
    }
    fn end(&mut self, owner: &PeerId, bytes: u64) {
        self.under_way = self.under_way.saturating_sub(1);
        self.large = self.large.saturating_sub(usize::from(bytes >= LARGE_BYTES));
        if let Some(reserved) = self.reserved.get_mut(owner) {
            *reserved = reserved.saturating_sub(bytes);
        }
    }
}

impl Replicator {
    /// Starts pulling as much as may be pulled at a time, one part of each owner in turn.
    pub(super) fn start_mirrors(&mut self) {
        if self.mirrors.next_try(self.now.mono).is_some() {
            return;
        }
        while self.mirrors.under_way < UNDER_WAY_MAX
            && let Some((owner, h, part, bytes)) = self.next_wanted()
        {
            let Some(o) = self.owners.get(&owner) else { return };
            let reserved = self.mirrors.reserved.get(&owner).copied().unwrap_or(0);
            let quota = self.config.quota.bytes();
            let beyond = o.bytes.saturating_add(reserved).saturating_add(bytes) > quota;
            if beyond {
                self.refuse(owner, h, part, HoldingRefusal::Quota);
                self.wait(owner, h, Wait::Quota, None);
                continue;
            }
            self.mirrors.begin(owner, bytes);
            self.order(owner, h, part);
        }
    }

    /// The next part in turn, taken from its queue. Large ones wait while enough of them are under way.
    fn next_wanted(&mut self) -> Option<(PeerId, MailId, Part, u64)> {
        let large_too = self.mirrors.large < LARGE_MAX;
        let ids = self.owners.ids();
        let turn = self.mirrors.last.map_or(0, |last| ids.partition_point(|id| *id <= last));
        let (before, after) = ids.split_at(turn);
        for id in after.iter().chain(before) {
            let Some(owner) = self.owners.get_mut(id) else { continue };
            let mails = &owner.mails;
            let wanted = owner.wanted.iter().find_map(|(at, h)| {
                let mail = mails.get(h)?;
                let part = mail.goal?;
                let bytes = part_bytes(mail.length, part);
                (large_too || bytes < LARGE_BYTES).then_some((*at, *h, part, bytes))
            });
            if let Some((at, h, part, bytes)) = wanted {
                owner.wanted.remove(&(at, h));
                return Some((*id, h, part, bytes));
            }
        }
        None
    }

    fn order(&mut self, owner: PeerId, h: MailId, part: Part) {
        let me = self.roster.as_ref().map(|r| r.me.peer_id);
        let mut sources = self.placed(&owner, &h).unwrap_or_default();
        // Whoever is on its way out is placed nowhere, and may hold what is to be taken over.
        let counting =
            |roster: &Roster| roster.leaving.iter().copied().filter(|m| roster.counts(m)).collect::<Vec<_>>();
        sources.extend(self.roster.as_ref().map(counting).unwrap_or_default());
        sources.retain(|member| Some(*member) != me && *member != owner);
        let Some(o) = self.owners.get_mut(&owner) else { return };
        let owner_answers = o.follow.unreachable_since.is_none();
        let address = o.address.clone();
        let Some(mail) = o.mails.get_mut(&h) else { return };
        mail.task = Task::Pulling;
        // What the list has just named waits to be safe; all else was placed before, and moves or is repaired.
        let urgency = if mail.noted.is_some() { Urgency::Prompt } else { Urgency::Background };
        self.out.act(Action::Mirror(MirrorOrder {
            owner,
            address,
            h,
            part,
            length: mail.length,
            digest: mail.digest,
            encoding: mail.encoding,
            expiry: mail.expiry,
            owner_answers,
            sources,
            urgency,
        }));
    }

    pub(super) fn on_mirrored(&mut self, owner: PeerId, h: MailId, part: Part, result: Result<(), MirrorFailure>) {
        let over = self.is_over(&owner, &h);
        let Some(mail) = self.owners.mail_mut(&owner, &h) else { return };
        if mail.task != Task::Pulling {
            return;
        }
        mail.task = Task::Idle;
        self.mirrors.end(&owner, part_bytes(mail.length, part));
        match result {
            Ok(()) => {
                mail.tries = 0;
                self.mirrors.full_tries = 0;
                self.probe_went_well(&owner);
                // Also when it is over by now: then it is dropped like every part.
                let mut batch = Vec::new();
                self.record(&mut batch, Event::Held { owner, h, part });
                self.confirm_choice(owner, h, &mut batch);
                self.commit(batch, Vec::new());
                self.plan_scrub(owner, h, part);
                self.evaluate(owner, h);
            }
            Err(_) if over => self.evaluate(owner, h),
            Err(failure) => self.on_mirror_failed(owner, h, part, failure),
        }
    }

    fn on_mirror_failed(&mut self, owner: PeerId, h: MailId, part: Part, failure: MirrorFailure) {
        match failure {
            MirrorFailure::NoSource { .. } => self.wait(owner, h, Wait::Sources, None),
            MirrorFailure::Gone { tombstone } => {
                let mut batch = Vec::new();
                let gone = self.take_loose_tombstone(owner, &tombstone, &mut batch);
                self.commit(batch, Vec::new());
                if let Some(gone) = gone {
                    self.evaluate(owner, gone);
                }
                if gone != Some(h) {
                    self.wait(owner, h, Wait::Sources, None);
                }
            }
            MirrorFailure::BadBlocks { why } => {
                if let Some(o) = self.owners.get_mut(&owner) {
                    o.trouble = Some(format!("{part} of {h} does not fit its msglist entry: {why}"));
                }
                self.refuse(owner, h, part, HoldingRefusal::BadBlocks);
                self.wait(owner, h, Wait::Blocks, None);
            }
            MirrorFailure::DiskFull => {
                self.mirrors.full_tries = self.mirrors.full_tries.saturating_add(1);
                let pause = self.jitter.back_off(DISK_PAUSE.0, DISK_PAUSE.1, self.mirrors.full_tries);
                self.mirrors.full_until = Some(self.now.mono + pause);
                self.refuse(owner, h, part, HoldingRefusal::DiskFull);
                self.wait(owner, h, Wait::Disk, Some(DISK_PAUSE));
            }
            MirrorFailure::Disk { why } => {
                if let Some(o) = self.owners.get_mut(&owner) {
                    o.trouble = Some(format!("{part} of {h} cannot be kept on this peer's disk: {why}"));
                }
                self.wait(owner, h, Wait::Disk, Some(DISK_PAUSE));
            }
        }
    }

    /// Tells the owner that its part is not taken, unless it was told the same already.
    fn refuse(&mut self, owner: PeerId, h: MailId, part: Part, why: HoldingRefusal) {
        if self.owners.mail(&owner, &h).is_some_and(|mail| mail.refused != Some(why)) {
            let mut batch = Vec::new();
            self.record(&mut batch, Event::Refused { owner, h, part, why });
            self.commit(batch, Vec::new());
        }
    }
}
