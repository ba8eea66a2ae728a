//! Groups that mail waits for and whose key nobody pinned: looks for candidates and shows them. It never pins one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Group;
use super::contacts::CANDIDATES_MAX;
use super::types::{Action, GdFound};
use crate::model::{Fingerprint, GroupName, MonoTime, Now};

/// Groups that are looked for at a time.
const WANTED_MAX: usize = 100;
/// The pause before the second look; it doubles.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The longest pause between looks while mail waits.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);
/// A group that no mail asked for this long is forgotten: the outbox asks every 5 minutes at least while one waits.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Keys that say they are a group's.
pub type Candidates = BTreeMap<GroupName, BTreeSet<Fingerprint>>;

/// A group that mail waits for.
#[derive(Debug, Default)]
pub(super) struct Unpinned {
    candidates: BTreeSet<Fingerprint>,
    wanted_at: MonoTime,
    look_at: MonoTime,
    fetching: bool,
    looks: u32,
}

impl Group {
    /// Mail waits for somebody of this group.
    pub(super) fn want(&mut self, now: Now, group: GroupName) {
        if self.pins.contains_key(&group) || group == *self.group() {
            return;
        }
        if self.unpinned.len() >= WANTED_MAX && !self.unpinned.contains_key(&group) {
            return;
        }
        let new = Unpinned { look_at: now.mono, ..Unpinned::default() };
        self.unpinned.entry(group).or_insert(new).wanted_at = now.mono;
    }

    /// Looks for the candidates that are due; forgets groups that are pinned now or that nothing waits for.
    pub(super) fn look_for_candidates(&mut self, now: Now) {
        let before = self.unpinned.len();
        self.unpinned
            .retain(|group, one| !self.pins.contains_key(group) && now.mono.since(one.wanted_at) <= FORGOTTEN_AFTER);
        self.dirty |= self.unpinned.len() < before;
        for (group, one) in &mut self.unpinned {
            if !one.fetching && one.look_at <= now.mono {
                one.fetching = true;
                self.out.act(Action::FetchGd { group: group.clone(), ask: Vec::new() });
            }
        }
        if self.dirty {
            self.publish_picture();
        }
    }

    pub(super) fn next_look_for_candidates(&self) -> Option<MonoTime> {
        self.unpinned.values().filter(|one| !one.fetching).map(|one| one.look_at).min()
    }

    /// What a look for the candidates of a group brought. Finding none says nothing: those who know it may be off.
    pub(super) fn candidates_found(&mut self, now: Now, group: &GroupName, found: GdFound) {
        let Some(one) = self.unpinned.get_mut(group) else { return };
        one.fetching = false;
        one.look_at = now.mono + LOOK_AGAIN.saturating_mul(1 << one.looks.min(10)).min(LOOK_AGAIN_MAX);
        one.looks = one.looks.saturating_add(1);
        let fitting = found.candidates.into_iter().filter(|candidate| candidate.gd.group == *group);
        let keys: BTreeSet<Fingerprint> = fitting.map(|candidate| candidate.key).take(CANDIDATES_MAX).collect();
        if !keys.is_empty() && keys != one.candidates {
            one.candidates = keys;
            self.dirty = true;
        }
    }

    /// Every group that mail waits for, with the keys that say they are its own.
    pub(super) fn candidates(&self) -> Candidates {
        self.unpinned.iter().map(|(group, one)| (group.clone(), one.candidates.clone())).collect()
    }
}
