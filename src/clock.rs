//! The peer's clocks, the only place that reads the machine's. Brains get time as an argument.

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

/// The machine's wall clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's wall clock")]
pub fn system_wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
