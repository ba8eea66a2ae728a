//! The limit on what this peer serves, in bytes a second, over all callers together. It delays; it never refuses and never reorders.
//!
//! A token bucket in the form of one moment, `free_at`: when the last byte let through will have been paid for. Whoever
//! wants to send waits for its turn first come first served, one chunk a turn, so streams share the rate evenly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// How much may go out at once after a pause: a tenth of a second of the rate, so that a limit never makes small answers wait.
const BURST: Duration = Duration::from_millis(100);
/// Bytes a turn while a limit is set: small, so that a slow uplink is shared finely and nobody waits long for a sign of life.
const LIMITED_CHUNK: usize = 16 * 1024;
/// Bytes a turn without a limit: fewer hops between disk and socket, and still a bounded buffer for each of many streams.
const FREE_CHUNK: usize = 128 * 1024;

/// A limit on served bytes a second; shared by all connections, may be changed while running.
#[derive(Debug)]
pub struct UploadLimit {
    /// Bytes a second; 0 is unlimited.
    rate: AtomicU64,
    /// When what was let through is paid for. Tokio's mutex queues fairly.
    free_at: Mutex<Option<Instant>>,
}

impl UploadLimit {
    /// A limit of `bytes_per_second`; `None`, and 0, are unlimited.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { rate: AtomicU64::new(bytes_per_second.unwrap_or(0)), free_at: Mutex::new(None) }
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
        if self.get().is_some() { LIMITED_CHUNK } else { FREE_CHUNK }
    }
    /// Waits until `bytes` may go out. A caller that gives up while it waits takes nothing from the others.
    pub async fn take(&self, bytes: usize) {
        if self.get().is_none() {
            return;
        }
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
            limit.take(100_000).await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(9_700) && took <= Duration::from_millis(10_000), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let limit = UploadLimit::new(None);
        let start = Instant::now();
        for _ in 0..1000 {
            limit.take(1 << 20).await;
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
                    limit.take(10_000).await;
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

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_takes_nothing() {
        let limit = UploadLimit::new(Some(1000));
        limit.take(2000).await;
        let start = Instant::now();
        for _ in 0..10 {
            assert!(tokio::time::timeout(Duration::from_millis(1), limit.take(100_000)).await.is_err());
        }
        limit.take(1).await;
        assert!(start.elapsed() <= Duration::from_millis(2100), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_can_be_changed_and_lifted_while_running() {
        let limit = UploadLimit::new(Some(1000));
        limit.take(1000).await;
        limit.set(Some(1_000_000));
        let start = Instant::now();
        for _ in 0..10 {
            limit.take(100_000).await;
        }
        assert!(start.elapsed() <= Duration::from_secs(2));
        limit.set(None);
        let start = Instant::now();
        limit.take(1 << 30).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
