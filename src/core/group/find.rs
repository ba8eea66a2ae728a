//! Finding a group that was pinned a moment ago: whoever wants a mail of it waits until it is known where its members are. It
//! never waits longer than a few seconds, and asks nobody itself: it only hastens the looks that are due anyway.

use std::time::Duration;

use super::Group;
use super::answers::Reply;
use crate::core::Token;
use crate::model::group::Member;
use crate::model::{GroupName, MonoTime, Now};

/// Longest wait for a group's descriptor and its members' places. A mail program waits for the answer.
const FIND_MAX: Duration = Duration::from_secs(10);
/// A gd that a notice contradicts is looked for again at most so often.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// Most requests that wait.
const FINDING_MAX: usize = 256;

/// Somebody waits until a group's members can be asked.
#[derive(Debug)]
pub(super) struct Finding {
    token: Token,
    group: GroupName,
    until: MonoTime,
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

    /// A notice names a member or a key of `group` that the gd here does not: answers once a newer one was looked for, at once
    /// if that was tried a moment ago.
    pub(super) fn renew_gd(&mut self, now: Now, token: Token, group: GroupName) {
        let room = self.renewing.len() < FINDING_MAX;
        let looks = self.pins.get_mut(&group).filter(|_| room).is_some_and(|pin| {
            let just_now = pin.looked_at.is_some_and(|at| now.mono.since(at) < RENEW_AGAIN);
            if !just_now && !pin.fetching {
                pin.refresh_at = now.mono;
            }
            !just_now || pin.fetching
        });
        if looks {
            self.renewing.push((token, group));
        } else {
            self.out.reply(token, Reply::Found);
        }
    }

    /// A look for the gd of `group` ended.
    pub(super) fn answer_renewed(&mut self, group: &GroupName) {
        let waiting: Vec<_> = self.renewing.extract_if(.., |(_, of)| of == group).collect();
        if !waiting.is_empty() {
            // Whoever waits looks into the picture next.
            self.publish_picture();
        }
        for (token, _) in waiting {
            self.out.reply(token, Reply::Found);
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
