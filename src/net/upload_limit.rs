//! The limit on what this peer serves, in bytes a second, over all callers together. It delays; it never refuses and never reorders.
//!
//! A token bucket in the form of one moment, `free_at`: when the last byte let through will have been paid for. Whoever
//! wants to send waits for its turn first come first served, one chunk a turn, so streams share the rate evenly. A timer that
//! fires late loses nothing: the next chunk is reckoned from when this one was due. Everything that nobody waits for, such as repair,
//! is one stream together: it has the whole rate while nobody else wants it, and at most half of it while somebody does. Every body of a mail or manifest goes
//! through it, whoever asks and from wherever, this machine too: readers, members that mirror or repair, audits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::model::Urgency;

/// How much may go out at once after a pause: a twenty-fifth of a second of the rate. Enough for timers that fire late on a
/// busy machine, and less than a hundredth of what goes out in five seconds.
const BURST: Duration = Duration::from_millis(40);
/// Turns a second while a limit is set: a slow uplink is shared finely, and nobody waits long for a sign of life.
const TURNS_A_SECOND: u64 = 100;
/// Least and most bytes of such a turn.
const LIMITED_CHUNK: (u64, u64) = (1024, 64 * 1024);
/// Bytes a turn without a limit: fewer hops between disk and socket, and still a bounded buffer for each of many streams.
const FREE_CHUNK: usize = 128 * 1024;

/// A limit on served bytes a second; shared by all connections, may be changed while running.
#[derive(Debug)]
pub struct UploadLimit {
    /// Bytes a second; 0 is unlimited.
    rate: AtomicU64,
    /// When what was let through is paid for. Tokio's mutex queues fairly.
    free_at: Mutex<Option<Instant>>,
    /// Held by the one background stream that is in the queue.
    background: Mutex<()>,
    /// Bytes let through since the start.
    passed: AtomicU64,
}

impl UploadLimit {
    /// A limit of `bytes_per_second`; `None`, and 0, are unlimited.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            rate: AtomicU64::new(bytes_per_second.unwrap_or(0)),
            free_at: Mutex::new(None),
            background: Mutex::new(()),
            passed: AtomicU64::new(0),
        }
    }
    /// Sets another limit, for every stream from its next chunk on.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        self.rate.store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
    }
    /// The limit in bytes a second, if there is one.
    pub fn get(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }
    /// Bytes that a stream should send in one turn.
    pub fn chunk_bytes(&self) -> usize {
        let (least, most) = LIMITED_CHUNK;
        let chunk = self.get().map(|rate| (rate / TURNS_A_SECOND).clamp(least, most));
        chunk.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(FREE_CHUNK)
    }
    /// Bytes let through since the start, limited or not.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
    /// Waits until `bytes` may go out. A caller that gives up while it waits takes nothing from the others.
    pub async fn take(&self, bytes: usize, urgency: Urgency) {
        if self.get().is_some() {
            let _turn = match urgency {
                Urgency::Prompt => None,
                Urgency::Background => Some(self.background.lock().await),
            };
            self.wait_for_turn(bytes).await;
        }
        self.passed.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    async fn wait_for_turn(&self, bytes: usize) {
        let mut free_at = self.free_at.lock().await;
        let Some(rate) = self.get() else { return };
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = free_at.map_or(earliest, |at| at.max(earliest));
        if start > now {
            tokio::time::sleep_until(start).await;
        }
        *free_at = Some(start + cost(bytes, rate));
    }
}

/// How long `bytes` take at `rate` bytes a second.
fn cost(bytes: usize, rate: u64) -> Duration {
    let nanos = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000) / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_go_out_at_the_rate_and_no_faster() {
        let limit = UploadLimit::new(Some(1_000_000));
        let start = Instant::now();
        for _ in 0..100 {
            limit.take(100_000, Urgency::Prompt).await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(9_800) && took <= Duration::from_millis(10_000), "{took:?}");
        assert_eq!(limit.passed(), 10_000_000);
    }

    /// Bytes that four streams together were let send in each tenth of a second.
    async fn tenths(rate: u64, seconds: usize) -> Vec<u64> {
        let limit = Arc::new(UploadLimit::new(Some(rate)));
        for _ in 0..4 {
            let limit = limit.clone();
            tokio::spawn(async move {
                loop {
                    limit.take(limit.chunk_bytes(), Urgency::Prompt).await;
                }
            });
        }
        let (start, mut last, mut all) = (Instant::now(), 0, Vec::new());
        for tenth in 1..=u32::try_from(seconds * 10).unwrap() {
            tokio::time::sleep_until(start + Duration::from_millis(100) * tenth).await;
            all.push(limit.passed() - last);
            last += all.last().unwrap();
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn five_seconds_are_right_to_a_hundredth_and_there_are_no_bursts() {
        for rate in [625_000u64, 2_500_000, 10_000_000] {
            let tenths = tenths(rate, 5).await;
            let sum: u64 = tenths.iter().sum();
            assert!(sum.abs_diff(rate * 5) <= rate * 5 / 100, "{rate}: {sum}");
            for (at, bytes) in tenths.iter().enumerate().skip(1) {
                assert!(bytes.abs_diff(rate / 10) <= rate / 40, "{rate}: {bytes} in tenth {at}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_earns_no_more_than_the_burst() {
        let limit = UploadLimit::new(Some(1_000_000));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..100 {
            limit.take(10_000, Urgency::Prompt).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(940), "{:?}", start.elapsed());
    }

    #[test]
    fn a_turn_fits_the_rate() {
        let turn = |rate| UploadLimit::new(rate).chunk_bytes();
        assert_eq!([turn(Some(1000)), turn(Some(2_500_000)), turn(Some(1 << 40))], [1024, 25_000, 64 * 1024]);
        assert_eq!(turn(None), FREE_CHUNK);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let limit = UploadLimit::new(None);
        let start = Instant::now();
        for _ in 0..1000 {
            limit.take(1 << 20, Urgency::Prompt).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_share_the_rate_evenly() {
        let limit = Arc::new(UploadLimit::new(Some(100_000)));
        let sent: Arc<[AtomicU64; 4]> = Arc::default();
        for stream in 0..4 {
            let (limit, sent) = (limit.clone(), sent.clone());
            tokio::spawn(async move {
                loop {
                    limit.take(10_000, Urgency::Prompt).await;
                    sent[stream].fetch_add(10_000, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        for stream in sent.iter() {
            let bytes = stream.load(Ordering::Relaxed);
            assert!((480_000..=520_000).contains(&bytes), "{bytes}");
        }
    }

    /// Bytes that prompt and background streams were let send within 20 s at 100 000 bytes a second.
    async fn shares(prompt: usize, background: usize) -> (u64, u64) {
        let limit = Arc::new(UploadLimit::new(Some(100_000)));
        let sent: Arc<[AtomicU64; 2]> = Arc::default();
        let all = [(prompt, Urgency::Prompt), (background, Urgency::Background)];
        for (class, urgency) in all.into_iter().enumerate().flat_map(|(at, (n, u))| std::iter::repeat_n((at, u), n)) {
            let (limit, sent) = (limit.clone(), sent.clone());
            tokio::spawn(async move {
                loop {
                    limit.take(1000, urgency).await;
                    sent[class].fetch_add(1000, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        (sent[0].load(Ordering::Relaxed), sent[1].load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn repair_has_the_rate_that_nobody_else_wants_and_at_most_half_of_it_otherwise() {
        let (_, alone) = shares(0, 10).await;
        assert!((1_980_000..=2_020_000).contains(&alone), "{alone}");
        let (reader, repair) = shares(1, 10).await;
        assert!(reader >= 990_000, "a reader beside ten repairs: {reader} and {repair}");
        assert!(repair >= 900_000, "the repair goes on: {repair}");
        let (readers, repair) = shares(4, 10).await;
        assert!(readers >= 1_580_000 && repair >= 360_000, "four readers: {readers} and {repair}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_takes_nothing() {
        let limit = UploadLimit::new(Some(1000));
        limit.take(2000, Urgency::Prompt).await;
        let start = Instant::now();
        for _ in 0..10 {
            assert!(
                tokio::time::timeout(Duration::from_millis(1), limit.take(100_000, Urgency::Prompt)).await.is_err()
            );
        }
        limit.take(1, Urgency::Prompt).await;
        assert!(start.elapsed() <= Duration::from_millis(2100), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_can_be_changed_and_lifted_while_running() {
        let limit = UploadLimit::new(Some(1000));
        limit.take(1000, Urgency::Prompt).await;
        limit.set(Some(1_000_000));
        let start = Instant::now();
        for _ in 0..10 {
            limit.take(100_000, Urgency::Prompt).await;
        }
        assert!(start.elapsed() <= Duration::from_secs(2));
        limit.set(None);
        let start = Instant::now();
        limit.take(1 << 30, Urgency::Prompt).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
