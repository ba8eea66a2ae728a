//! The peer's clocks, the only place that reads the machine's. Brains get time as an argument.

use std::ffi::OsString;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::{MonoTime, Now, WallTime};

/// Reads both clocks. Monotonic time follows the runtime's clock, so that tests can pause it.
#[derive(Debug, Clone)]
pub struct Clock {
    started: tokio::time::Instant,
    wall: Wall,
}

#[derive(Debug, Clone)]
enum Wall {
    System,
    /// Wall time at `started`; from there it advances with monotonic time.
    Fixed(WallTime),
}

impl Clock {
    /// The machine's clocks; monotonic time starts at zero now.
    pub fn system() -> Self {
        Self { started: tokio::time::Instant::now(), wall: Wall::System }
    }
    /// A clock for tests: wall time starts at `wall` and advances with the runtime's monotonic time.
    pub fn fixed(wall: WallTime) -> Self {
        Self { started: tokio::time::Instant::now(), wall: Wall::Fixed(wall) }
    }
    /// Both clocks now.
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed();
        let mono = MonoTime(0) + elapsed;
        let wall = match self.wall {
            Wall::System => system_wall(),
            Wall::Fixed(start) => start + elapsed,
        };
        Now { mono, wall }
    }
    /// The runtime's instant of a monotonic time.
    pub fn instant(&self, mono: MonoTime) -> tokio::time::Instant {
        self.started + mono.since(MonoTime(0))
    }
}

/// Names a file with a whole number of milliseconds by which wall time is shifted, read whenever the clock is: so drills let the
/// clock of one peer jump while it runs. Without the variable, as always outside of drills, nothing is read.
pub const SHIFT_VARIABLE: &str = "ROOST_CLOCK_SHIFT";

/// The machine's wall clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's wall clock")]
pub fn system_wall() -> WallTime {
    static SHIFT: OnceLock<Option<OsString>> = OnceLock::new();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let shift = SHIFT.get_or_init(|| std::env::var_os(SHIFT_VARIABLE));
    WallTime(shift.as_deref().map_or(wall, |file| wall.saturating_add_signed(shift_in(Path::new(file)))))
}

/// The shift in a file; none when there is no number.
fn shift_in(file: &Path) -> i64 {
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_a_number_in_a_file_and_anything_else_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shift");
        assert_eq!(shift_in(&file), 0);
        for (text, shift) in [("-3600000\n", -3_600_000), ("5", 5), ("soon", 0)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(shift_in(&file), shift);
        }
    }
}
