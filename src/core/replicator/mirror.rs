//! Mirroring: which part is pulled next, fairly among the owners, within bounds. It never says a part is held before the shell
//! said that it is on disk and checked (R1, R6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::owner::{Owner, Task, Wait};
use super::types::{Action, Event, MirrorFailure, MirrorOrder, Mirrored};
use super::{Replicator, part_bytes};
use crate::model::group::Roster;
use crate::model::holding::HoldingRefusal;
use crate::model::{MailId, MonoTime, Part, PeerId, Urgency};
use crate::wire::http::PARTS_ASKED_MAX;

/// Parts pulled at a time, each by requests of its own: enough that many fsyncs share one commit of the file system.
const ALONE_MAX: usize = 16;
/// Up to here a part is short: what asking for it costs is more than its bytes cost, so those that are wanted at the same time are asked
/// for together. Two blocks, since an answer is in memory as a whole.
pub const SHORT_BYTES: u64 = 128 * 1024;
/// Short parts pulled at a time, in all: as many as one owner may have, and as many again for those that answer while it does not.
const TOGETHER_MAX: usize = 2 * PARTS_ASKED_MAX;
/// Wanted parts of one owner that are looked at, from the oldest on, for one that there is room for now.
const LOOKED_AT: usize = 256;
/// Bytes of the parts that are asked for in one request, if it is more than one part.
const TOGETHER_BYTES: u64 = 1024 * 1024;
/// Of these, large ones: they share one uplink anyway.
const LARGE_MAX: usize = 4;
/// From here on a part is large.
const LARGE_BYTES: u64 = 1024 * 1024;
/// Pauses after this peer's disk failed or was full.
const DISK_PAUSE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1800));

/// What is being pulled.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    alone: usize,
    large: usize,
    together: BTreeSet<(PeerId, MailId)>,
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
    /// Parts under way.
    pub(super) fn under_way(&self) -> usize {
        self.alone + self.together.len()
    }
    /// Whether short parts of an owner are under way.
    pub(super) fn has_short(&self, owner: &PeerId) -> bool {
        self.short_of(owner).next().is_some()
    }
    fn short_of(&self, owner: &PeerId) -> impl Iterator<Item = &MailId> {
        let (first, owner) = ((*owner, MailId::new([0; MailId::LEN])), *owner);
        self.together.range(first..).take_while(move |(of, _)| *of == owner).map(|(_, h)| h)
    }
    fn is_full(&self) -> bool {
        self.alone >= ALONE_MAX && self.together.len() >= TOGETHER_MAX
    }
    fn has_room(&self, owner: &PeerId, bytes: u64, together: bool) -> bool {
        if together {
            return self.together.len() < TOGETHER_MAX && self.short_of(owner).count() < PARTS_ASKED_MAX;
        }
        self.alone < ALONE_MAX && (bytes < LARGE_BYTES || self.large < LARGE_MAX)
    }
    fn begin(&mut self, owner: PeerId, h: MailId, bytes: u64, together: bool) {
        if together {
            self.together.insert((owner, h));
        } else {
            self.alone += 1;
            self.large += usize::from(bytes >= LARGE_BYTES);
        }
        *self.reserved.entry(owner).or_default() += bytes;
        self.last = Some(owner);
    }
    fn end(&mut self, owner: &PeerId, h: &MailId, bytes: u64) {
        if !self.together.remove(&(*owner, *h)) {
            self.alone = self.alone.saturating_sub(1);
            self.large = self.large.saturating_sub(usize::from(bytes >= LARGE_BYTES));
        }
        if let Some(reserved) = self.reserved.get_mut(owner) {
            *reserved = reserved.saturating_sub(bytes);
        }
    }
}

impl Replicator {
    /// Starts pulling as much as may be pulled at a time, one part of each owner in turn. Short ones are asked for at once if they are
    /// alone, and together if several are wanted by now.
    pub(super) fn start_mirrors(&mut self) {
        if self.mirrors.next_try(self.now.mono).is_some() {
            return;
        }
        let mut together: BTreeMap<PeerId, Vec<MirrorOrder>> = BTreeMap::new();
        while let Some((owner, h, part, bytes)) = self.next_wanted() {
            let Some(o) = self.owners.get(&owner) else { break };
            let reserved = self.mirrors.reserved.get(&owner).copied().unwrap_or(0);
            let quota = self.config.quota.bytes();
            let beyond = o.bytes.saturating_add(reserved).saturating_add(bytes) > quota;
            if beyond {
                self.refuse(owner, h, part, HoldingRefusal::Quota);
                self.wait(owner, h, Wait::Quota, None);
                continue;
            }
            let is_short = o.asked_together(bytes);
            self.mirrors.begin(owner, h, bytes, is_short);
            let Some(order) = self.order(owner, h, part) else { break };
            if is_short {
                together.entry(owner).or_default().push(order);
            } else {
                self.out.act(Action::Mirror(vec![order]));
            }
        }
        for orders in together.into_values().flat_map(in_requests) {
            self.out.act(Action::Mirror(orders));
        }
    }

    /// The next part in turn, taken from its queue. One that there is no room for now waits, and lets others pass.
    fn next_wanted(&mut self) -> Option<(PeerId, MailId, Part, u64)> {
        if self.mirrors.is_full() {
            return None;
        }
        let ids = self.owners.ids();
        let turn = self.mirrors.last.map_or(0, |last| ids.partition_point(|id| *id <= last));
        let (before, after) = ids.split_at(turn);
        for id in after.iter().chain(before) {
            let Some(owner) = self.owners.get_mut(id) else { continue };
            let wanted = owner.wanted.iter().take(LOOKED_AT).find_map(|(at, h)| {
                let mail = owner.mails.get(h)?;
                let part = mail.goal?;
                let bytes = part_bytes(mail.length, part);
                let room = self.mirrors.has_room(id, bytes, owner.asked_together(bytes));
                room.then_some((*at, *h, part, bytes))
            });
            if let Some((at, h, part, bytes)) = wanted {
                owner.wanted.remove(&(at, h));
                return Some((*id, h, part, bytes));
            }
        }
        None
    }

    fn order(&mut self, owner: PeerId, h: MailId, part: Part) -> Option<MirrorOrder> {
        let me = self.roster.as_ref().map(|r| r.me.peer_id);
        let mut sources = self.placed(&owner, &h).unwrap_or_default();
        // Whoever is on its way out is placed nowhere, and may hold what is to be taken over.
        let counting =
            |roster: &Roster| roster.leaving.iter().copied().filter(|m| roster.counts(m)).collect::<Vec<_>>();
        sources.extend(self.roster.as_ref().map(counting).unwrap_or_default());
        sources.retain(|member| Some(*member) != me && *member != owner);
        let o = self.owners.get_mut(&owner)?;
        let owner_answers = o.answers();
        let address = o.address.clone();
        let mail = o.mails.get_mut(&h)?;
        mail.task = Task::Pulling;
        // What the list has just named waits to be safe; all else was placed before, and moves or is repaired.
        let urgency = if mail.noted.is_some() { Urgency::Prompt } else { Urgency::Background };
        Some(MirrorOrder {
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
        })
    }

    /// Parts were pulled, or could not be. What is here now is made durable, and told, in one piece.
    pub(super) fn on_mirrored(&mut self, owner: PeerId, results: Vec<Mirrored>) {
        let (mut here, mut failed, mut batch) = (Vec::new(), Vec::new(), Vec::new());
        for Mirrored { h, part, result } in results {
            let Some(mail) = self.owners.mail_mut(&owner, &h) else { continue };
            if mail.task != Task::Pulling {
                continue;
            }
            mail.task = Task::Idle;
            self.mirrors.end(&owner, &h, part_bytes(mail.length, part));
            match result {
                Ok(()) => {
                    mail.tries = 0;
                    // Also when it is over by now: then it is dropped like every part.
                    self.record(&mut batch, Event::Held { owner, h, part });
                    self.confirm_choice(owner, h, &mut batch);
                    here.push((h, part));
                }
                Err(failure) => failed.push((h, part, failure)),
            }
        }
        if !here.is_empty() {
            self.mirrors.full_tries = 0;
            self.probe_went_well(&owner);
        }
        self.commit(batch, Vec::new());
        for (h, part) in here {
            self.plan_scrub(owner, h, part);
            self.evaluate(owner, h);
        }
        for (h, part, failure) in failed {
            if self.is_over(&owner, &h) {
                self.evaluate(owner, h);
            } else {
                self.on_mirror_failed(owner, h, part, failure);
            }
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

impl Owner {
    /// Whether it answered last time.
    fn answers(&self) -> bool {
        self.follow.unreachable_since.is_none()
    }
    /// Whether a part of so many bytes is asked for along with others. Where it has to be had from others each goes its own way.
    fn asked_together(&self, bytes: u64) -> bool {
        bytes <= SHORT_BYTES && self.answers()
    }
}

/// One owner's short parts, in as few requests as their bytes allow.
fn in_requests(orders: Vec<MirrorOrder>) -> Vec<Vec<MirrorOrder>> {
    let (mut requests, mut bytes): (Vec<Vec<MirrorOrder>>, u64) = (Vec::new(), 0);
    for order in orders {
        let more = part_bytes(order.length, order.part);
        match requests.last_mut() {
            Some(request) if bytes + more <= TOGETHER_BYTES => {
                bytes += more;
                request.push(order);
            }
            _ => {
                bytes = more;
                requests.push(vec![order]);
            }
        }
    }
    requests
}
