//! Time as values: wall time for what travels and expires, monotonic time for timers. Nothing in here reads a clock.

use std::fmt;
use std::ops::Add;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::size::SizeError;

/// Absolute time: milliseconds since the Unix epoch, UTC. What expires, expires at one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl WallTime {
    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: WallTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
    /// Whole seconds since the Unix epoch.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }
    /// This long before, stopping at the epoch.
    pub fn before(self, span: Duration) -> WallTime {
        WallTime(self.0.saturating_sub(millis(span)))
    }
}
impl Add<Duration> for WallTime {
    type Output = WallTime;
    fn add(self, span: Duration) -> WallTime {
        WallTime(self.0.saturating_add(millis(span)))
    }
}

/// Monotonic time: milliseconds since this peer started. What a timer is armed by; it never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: MonoTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
impl Add<Duration> for MonoTime {
    type Output = MonoTime;
    fn add(self, span: Duration) -> MonoTime {
        MonoTime(self.0.saturating_add(millis(span)))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Both clocks at one moment: what a brain is told with every input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For timers.
    pub mono: MonoTime,
    /// For expiry and for what travels.
    pub wall: WallTime,
}
impl Now {
    /// Whether the wall clock was set, forward or back, by more than `by` between `earlier` and this: it then went another way than
    /// the monotonic one.
    pub fn was_set_since(self, earlier: Now, by: Duration) -> bool {
        let went = i128::from(self.wall.0) - i128::from(earlier.wall.0);
        let took = i128::from(self.mono.0) - i128::from(earlier.mono.0);
        (went - took).unsigned_abs() > by.as_millis()
    }
}

impl Now {
    /// The moment `span` later on both clocks.
    pub fn after(self, span: Duration) -> Now {
        Now { mono: self.mono + span, wall: self.wall + span }
    }
}

/// A length of time as people write it in a config: `"30 s"`, `"1 h"`, `"7 d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

const SPAN_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

impl Span {
    /// `n` days.
    pub const fn days(n: u64) -> Span {
        Span(Duration::from_secs(n * 86_400))
    }
    /// `n` hours.
    pub const fn hours(n: u64) -> Span {
        Span(Duration::from_secs(n * 3600))
    }
    /// `n` seconds.
    pub const fn secs(n: u64) -> Span {
        Span(Duration::from_secs(n))
    }
    /// The length as the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}
impl FromStr for Span {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let bad = || SizeError::Span { text: text.chars().take(80).collect() };
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let n: u64 = text[..split].parse().map_err(|_| bad())?;
        let unit = text[split..].trim();
        let (_, ms) = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        n.checked_mul(*ms).map(|ms| Span(Duration::from_millis(ms))).ok_or_else(bad)
    }
}
impl TryFrom<String> for Span {
    type Error = SizeError;
    fn try_from(text: String) -> Result<Self, SizeError> {
        text.parse()
    }
}
impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = millis(self.0);
        let (unit, per) =
            SPAN_UNITS.iter().find(|(_, per)| ms >= *per && ms.is_multiple_of(*per)).unwrap_or(&("s", 1000));
        write!(f, "{} {unit}", ms / per)
    }
}
impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_from_one_that_went_on_or_stood_still_for_a_while() {
        let at = |mono, wall| Now { mono: MonoTime(mono), wall: WallTime(wall) };
        let minute = Duration::from_secs(60);
        let before = at(1_000, 5_000_000);
        assert!(!at(901_000, 5_900_000).was_set_since(before, minute));
        assert!(!at(1_000, 5_060_000).was_set_since(before, minute));
        assert!(
            at(1_000, 5_060_001).was_set_since(before, minute) && at(61_001, 5_000_000).was_set_since(before, minute)
        );
        assert!(at(2_000, 0).was_set_since(before, minute), "back");
    }

    #[test]
    fn spans_are_read_and_printed_as_people_write_them() {
        for (text, ms) in
            [("7 d", 604_800_000u64), ("1 h", 3_600_000), ("30 s", 30_000), ("5min", 300_000), ("20 ms", 20)]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_millis(ms));
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        for bad in ["", "7", "d", "7 weeks", "-1 s", "99999999999999999999 d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
