//! Whether a brain's wall clock can be trusted: it is doubted until the group's brain has compared it, and again once it was set. It reads no clock, and decides nothing: what may expire or be forgotten is for the brain that asks.

use super::{CLOCK_SET, CLOCK_STOOD};
use crate::model::{MonoTime, Now};

/// What a brain knows of its wall clock. It begins in doubt.
#[derive(Debug)]
pub(super) struct ClockDoubt {
    /// Both clocks as they were when the brain last looked.
    seen: Now,
    doubtful: bool,
    /// When the clock was last set or doubted; in a run without that, its start.
    since: MonoTime,
}

impl Default for ClockDoubt {
    fn default() -> Self {
        // One that is ahead must end and free nothing before the group's brain has compared it (R2, R3).
        Self { seen: Now::default(), doubtful: true, since: MonoTime::default() }
    }
}

impl ClockDoubt {
    /// The brain starts: how long the clock stood before says nothing.
    pub(super) fn start(&mut self, now: Now) {
        self.since = now.mono;
    }

    /// What every input and every wake begins with: a clock that was set is doubted from this moment on, not only once the group's
    /// brain has compared it.
    pub(super) fn look(&mut self, now: Now) {
        if now.was_set_since(self.seen, CLOCK_SET) {
            self.set_doubtful(now, true);
        }
        self.seen = now;
    }

    /// The word of the group's brain; whether it ends a doubt.
    pub(super) fn set_doubtful(&mut self, now: Now, doubtful: bool) -> bool {
        if doubtful {
            self.since = now.mono;
        }
        std::mem::replace(&mut self.doubtful, doubtful) && !doubtful
    }

    /// Whether nothing may be ended by the clock as it is.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether the clock is one by which something may be forgotten for good.
    pub(super) fn has_stood(&self, now: Now) -> bool {
        !self.doubtful && now.mono.since(self.since) >= CLOCK_STOOD
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ClockDoubt;
    use crate::core::{CLOCK_SET, CLOCK_STOOD};
    use crate::model::{MonoTime, Now, WallTime};

    const START: Now = Now { mono: MonoTime(1_000), wall: WallTime(1_700_000_000_000) };

    /// A clock that was found to be right a moment after the start.
    fn right() -> ClockDoubt {
        let mut clock = ClockDoubt::default();
        clock.look(START);
        clock.start(START);
        clock.set_doubtful(START, false);
        clock
    }

    #[test]
    fn a_clock_is_doubted_until_it_was_compared() {
        let mut clock = ClockDoubt::default();
        clock.look(START);
        clock.start(START);
        let later = START.after(CLOCK_STOOD * 2);
        clock.look(later);
        assert!(clock.is_doubtful() && !clock.has_stood(later));
        assert!(clock.set_doubtful(later, false), "the doubt ends");
        assert!(!clock.is_doubtful() && !clock.set_doubtful(later, false), "and ends once");
    }

    #[test]
    fn a_clock_has_stood_for_long_only_from_the_start_or_the_last_doubt_on() {
        let mut clock = right();
        let almost = START.after(CLOCK_STOOD - Duration::from_millis(1));
        assert!(!clock.has_stood(almost) && clock.has_stood(START.after(CLOCK_STOOD)));
        clock.set_doubtful(almost, true);
        clock.set_doubtful(almost, false);
        assert!(!clock.has_stood(START.after(CLOCK_STOOD)) && clock.has_stood(almost.after(CLOCK_STOOD)));
        clock.start(almost.after(CLOCK_STOOD));
        assert!(!clock.has_stood(almost.after(CLOCK_STOOD)));
    }

    #[test]
    fn a_clock_that_was_set_is_doubted_at_once_and_one_that_drifts_is_not() {
        for wall in [START.wall + CLOCK_SET * 2, WallTime(START.wall.0 - 600_000)] {
            let mut clock = right();
            let set = Now { wall, ..START };
            clock.look(set);
            assert!(clock.is_doubtful());
            assert!(clock.set_doubtful(set, false) && !clock.has_stood(set.after(CLOCK_STOOD / 2)));
            clock.look(set.after(CLOCK_STOOD));
            assert!(!clock.is_doubtful() && clock.has_stood(set.after(CLOCK_STOOD)), "it was set once");
        }
        let mut clock = right();
        clock.look(Now { mono: START.mono + CLOCK_STOOD, wall: START.wall + CLOCK_STOOD + CLOCK_SET });
        assert!(!clock.is_doubtful());
    }
}
