//! Finding a group that was pinned a moment ago, and freshening the gd of one that is said to have another member or another key:
//! whoever wants that waits for it. It never waits longer than a look or two take, and asks nobody itself: it only hastens the
//! looks.

use std::time::Duration;

use super::answers::Reply;
use super::{Group, Pin};
use crate::core::Token;
use crate::model::group::Member;
use crate::model::{GroupName, MonoTime, Now};

/// Longest wait for a group's descriptor and its members' places. A mail program waits for the answer.
const FIND_MAX: Duration = Duration::from_secs(10);
/// Most requests that wait.
const FINDING_MAX: usize = 256;

/// Between two looks for the gd of a group.
const LOOKS_APART: Duration = Duration::from_secs(2);

/// Somebody waits until the gd that is known of a group is the newest that can be had.
#[derive(Debug)]
pub(super) struct Freshening {
    token: Token,
    group: GroupName,
    /// A look was under way when it was asked for: what that brings may be older.
    skip: bool,
    /// What the look came to; none until it ended.
    fresh: Option<bool>,
}

/// Somebody waits until a group's members can be asked.
#[derive(Debug)]
pub(super) struct Finding {
    token: Token,
    group: GroupName,
    until: MonoTime,
}

impl Pin {
    /// The next look is due soon.
    fn hasten(&mut self, now: MonoTime) {
        let soon = self.looked.map_or(now, |at| now.max(at + LOOKS_APART));
        self.refresh_at = self.refresh_at.min(soon);
    }
}

impl Group {
    /// Answers once the members of `group` are placed, at once where nothing more can be found.
    pub(super) fn find(&mut self, now: Now, token: Token, group: GroupName) {
        if self.finding.len() >= FINDING_MAX {
            return self.out.reply(token, Reply::Found);
        }
        if let Some(pin) = self.pins.get_mut(&group).filter(|pin| pin.gd.is_none()) {
            pin.refresh_at = now.mono;
        }
        self.finding.push(Finding { token, group, until: now.mono + FIND_MAX });
    }

    /// Looks for a newer gd of `group`, and answers once that ended.
    pub(super) fn freshen(&mut self, now: Now, token: Token, group: GroupName) {
        let full = self.freshening.len() >= FINDING_MAX;
        let Some(pin) = self.pins.get_mut(&group).filter(|_| !full) else {
            return self.out.reply(token, Reply::Freshened { fresh: false });
        };
        let skip = pin.fetching;
        pin.hasten(now.mono);
        self.freshening.push(Freshening { token, group, skip, fresh: None });
    }

    /// Whether somebody waits for the newest gd of `group`.
    pub(super) fn is_freshened(&self, group: &GroupName) -> bool {
        self.freshening.iter().any(|waiting| waiting.group == *group)
    }

    /// A look for the gd of `group` ended; whether one of the pinned key was found.
    pub(super) fn freshened(&mut self, now: Now, group: &GroupName, found: bool) {
        for waiting in self.freshening.iter_mut().filter(|waiting| waiting.group == *group) {
            if !std::mem::take(&mut waiting.skip) {
                waiting.fresh = Some(found);
            } else if let Some(pin) = self.pins.get_mut(group) {
                pin.hasten(now.mono);
            }
        }
    }

    /// Answers whose look ended, once the picture shows what it brought.
    pub(super) fn answer_freshened(&mut self) {
        for waiting in std::mem::take(&mut self.freshening) {
            // A group that is not pinned any more is not looked for.
            let fresh = waiting.fresh.or_else(|| (!self.pins.contains_key(&waiting.group)).then_some(false));
            match fresh {
                Some(fresh) => self.out.reply(waiting.token, Reply::Freshened { fresh }),
                None => self.freshening.push(waiting),
            }
        }
    }

    /// When the next one has waited long enough.
    pub(super) fn next_found(&self) -> Option<MonoTime> {
        self.finding.iter().map(|finding| finding.until).min()
    }

    /// Answers who need not wait any more.
    pub(super) fn answer_found(&mut self, now: Now) {
        for finding in std::mem::take(&mut self.finding) {
            if finding.until <= now.mono || self.is_found(now, &finding.group) {
                self.out.reply(finding.token, Reply::Found);
            } else {
                self.finding.push(finding);
            }
        }
    }

    /// Whether there is nothing to wait for: the group is not pinned, or some of its members are placed and the others were
    /// looked for.
    fn is_found(&self, now: Now, group: &GroupName) -> bool {
        let Some(pin) = self.pins.get(group) else {
            return true;
        };
        let Some(signed) = &pin.gd else {
            return false;
        };
        let others = || signed.gd.members.iter().filter(|member| !self.is_me(&member.peer_id));
        let is_placed = |member: &Member| !self.addrs_of(&member.peer_id).is_empty();
        let looked_for = |member: &Member| is_placed(member) || !self.is_sought(now, &member.peer_id);
        others().next().is_none() || (others().any(is_placed) && others().all(looked_for))
    }
}
