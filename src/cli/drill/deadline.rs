//! When a drill must be over, so that somebody who waits for it knows how long. It ends nothing by itself.

use std::time::Duration;

use tokio::time::Instant;

/// All scenarios together, with the kills that a storm has unless more are asked for.
const ALL: Duration = Duration::from_secs(30 * 60);
/// Those kills.
const KILLS: u32 = 100;
/// What each more takes, at most: a pause, a start, and a share of what comes afterwards.
const A_KILL: Duration = Duration::from_secs(2);
/// What is kept of it for the end of a scenario: until all that is due is done, three minutes, and for [`REST`].
const FINISH: Duration = Duration::from_secs(270);
/// What is kept of that once all is done, or is not waited for any more: to see whether the group rests, and for [`COUNT`].
const REST: Duration = Duration::from_secs(90);
/// What is kept of that to count everything and to end the peers.
const COUNT: Duration = Duration::from_secs(30);

/// The time of a drill is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a drill's time is over: {} min", limit.as_secs() / 60)]
pub(super) struct OutOfTime {
    /// How long it was.
    pub(super) limit: Duration,
}

/// When a drill must be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    /// Of a drill that starts now, whose storm has so many kills.
    pub(super) fn with(kills: u32) -> Self {
        Self { start: Instant::now(), limit: ALL + A_KILL * kills.saturating_sub(KILLS) }
    }

    /// What a scenario has left before it must come to its end.
    pub(super) fn left(&self) -> Duration {
        self.until_end().saturating_sub(FINISH)
    }

    /// What there is left with the end itself.
    fn until_end(&self) -> Duration {
        self.limit.saturating_sub(self.start.elapsed())
    }

    /// How long what is due may still be waited for.
    pub(super) fn to_settle(self) -> Duration {
        self.until_end().saturating_sub(REST)
    }

    /// How long the group may still be watched while it rests.
    pub(super) fn to_rest(self) -> Duration {
        self.until_end().saturating_sub(COUNT)
    }

    /// # Errors
    /// [`OutOfTime`] when a scenario must not go on.
    pub(super) fn check(&self) -> Result<(), OutOfTime> {
        if self.left().is_zero() { Err(OutOfTime { limit: self.limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drill_is_over_after_half_an_hour_or_as_much_later_as_it_has_more_kills() {
        let (usual, storm) = (Deadline::with(100), Deadline::with(1000));
        tokio::time::advance(Duration::from_secs(25 * 60)).await;
        assert!(usual.check().is_ok() && usual.left() == Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(usual.check().unwrap_err().to_string(), "a drill's time is over: 30 min");
        assert_eq!((usual.left(), usual.until_end()), (Duration::ZERO, FINISH));
        assert_eq!((usual.to_settle(), usual.to_rest()), (FINISH - REST, FINISH - COUNT));
        // Whoever uses up what there is to settle has still some to rest and to count in.
        tokio::time::advance(usual.to_settle()).await;
        assert_eq!((usual.to_settle(), usual.to_rest()), (Duration::ZERO, REST - COUNT));
        tokio::time::advance(usual.to_rest()).await;
        assert_eq!((usual.to_rest(), usual.until_end()), (Duration::ZERO, COUNT));
        assert!(storm.check().is_ok());
        tokio::time::advance(FINISH * 2).await;
        assert_eq!(usual.until_end(), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(30 * 60)).await;
        assert!(storm.check().is_err());
    }
}
