//! Moments at which a brain wants to be woken, one for each thing it waits for. It never reads a clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::MonoTime;

/// Timers by name: setting one again moves it.
#[derive(Debug)]
pub(super) struct Timers<T> {
    by_time: BTreeSet<(MonoTime, T)>,
    armed: BTreeMap<T, MonoTime>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), armed: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Timers<T> {
    /// Arms `timer` for `at`.
    pub(super) fn set(&mut self, timer: T, at: MonoTime) {
        self.cancel(&timer);
        self.by_time.insert((at, timer.clone()));
        self.armed.insert(timer, at);
    }
    /// Arms `timer` for `at`, unless it is armed for an earlier moment.
    pub(super) fn set_earlier(&mut self, timer: T, at: MonoTime) {
        if self.armed.get(&timer).is_none_or(|armed| *armed > at) {
            self.set(timer, at);
        }
    }
    /// Disarms `timer`.
    pub(super) fn cancel(&mut self, timer: &T) {
        if let Some(at) = self.armed.remove(timer) {
            self.by_time.remove(&(at, timer.clone()));
        }
    }
    /// Whether `timer` is armed.
    pub(super) fn is_set(&self, timer: &T) -> bool {
        self.armed.contains_key(timer)
    }
    /// Takes one timer whose moment has come.
    pub(super) fn pop_due(&mut self, now: MonoTime) -> Option<T> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.armed.remove(&timer);
        Some(timer)
    }
    /// The earliest moment.
    pub(super) fn next(&self) -> Option<MonoTime> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_setting_one_again_moves_it() {
        let mut timers = Timers::default();
        timers.set("b", MonoTime(20));
        timers.set("a", MonoTime(10));
        timers.set("a", MonoTime(30));
        timers.set_earlier("b", MonoTime(40));
        assert_eq!(timers.next(), Some(MonoTime(20)));
        assert_eq!(timers.pop_due(MonoTime(19)), None);
        assert_eq!(timers.pop_due(MonoTime(50)), Some("b"));
        assert!(timers.is_set(&"a"));
        timers.cancel(&"a");
        assert_eq!(timers.pop_due(MonoTime(50)), None);
    }
}
