//! What a peer's past answers let expect of it: rate and delay. A hint for scheduling, never a reason to trust.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::model::{MonoTime, PeerId};

/// Weight of the newest sample in the moving averages, in percent.
const NEWEST_PERCENT: u64 = 30;
/// Most peers that are remembered; the one not heard of for longest is forgotten.
const PEERS_MAX: usize = 512;
/// How far back a meter looks, milliseconds: long enough for a few blocks of a slow uplink, short enough to follow a change.
const MEMORY_MS: u64 = 1000;
/// A meter is believed after so much busy time, milliseconds: before it a burst of the source's own limit is all it has seen.
const SETTLED_MS: u64 = 100;
/// How much of a meter's memory a score of earlier answers fills, milliseconds: what is measured now soon outweighs it.
const PRIOR_MS: u64 = 150;

/// Rate and delay of one peer, moving averages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Bytes a second while it answers.
    pub rate_bytes_s: u64,
    /// From a request to its first block.
    pub delay_ms: u64,
    /// Counts samples over all peers; the least is the oldest.
    #[serde(skip)]
    touched: u64,
}

/// Scores of the peers that answered of late.
#[derive(Debug, Clone, Default)]
pub struct PeerScores {
    scores: BTreeMap<PeerId, Score>,
    samples: u64,
}

impl PeerScores {
    /// Takes a measured rate and delay into account.
    pub fn measured(&mut self, peer: PeerId, rate_bytes_s: u64, delay: Duration) {
        let delay_ms = millis(delay).min(60_000);
        self.samples += 1;
        let touched = self.samples;
        let average = |old: u64, new: u64| (old / 100) * (100 - NEWEST_PERCENT) + (new / 100) * NEWEST_PERCENT;
        self.scores
            .entry(peer)
            .and_modify(|score| {
                score.rate_bytes_s = average(score.rate_bytes_s, rate_bytes_s);
                score.delay_ms = (score.delay_ms * (100 - NEWEST_PERCENT) + delay_ms * NEWEST_PERCENT) / 100;
                score.touched = touched;
            })
            .or_insert(Score { rate_bytes_s, delay_ms, touched });
        if self.scores.len() > PEERS_MAX {
            let oldest = self.scores.iter().min_by_key(|(_, score)| score.touched).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.scores.remove(&peer));
        }
    }
    /// The score of a peer, once it has answered.
    pub fn of(&self, peer: &PeerId) -> Option<Score> {
        self.scores.get(peer).copied()
    }
}

/// Measures one peer while it is asked: bytes that arrived over the time in which some were due. Time in which nothing is
/// asked of the peer does not count, and what is older than about a second fades.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// Bytes that arrived, faded.
    bytes: u64,
    /// Busy time, faded like them, microseconds: of milliseconds the rounding would eat what blocks that come fast add.
    busy_us: u64,
    /// Since when something is due and nothing came; none while nothing is due.
    since: Option<MonoTime>,
}

impl Meter {
    /// A meter that starts from what is known of the peer.
    pub fn starting_at(score: Option<Score>) -> Self {
        let Some(score) = score else { return Self::default() };
        Self { bytes: score.rate_bytes_s.saturating_mul(PRIOR_MS) / 1000, busy_us: PRIOR_MS * 1000, since: None }
    }
    /// Something is due from now on.
    pub fn starts(&mut self, now: MonoTime) {
        self.since.get_or_insert(now);
    }
    /// Nothing is due any more.
    pub fn rests(&mut self) {
        self.since = None;
    }
    /// Bytes arrived.
    pub fn arrived(&mut self, now: MonoTime, bytes: u64) {
        let ms = self.since.map_or(0, |since| millis(now.since(since)));
        (self.bytes, self.busy_us) = self.with(ms, bytes);
        self.since = Some(now);
    }
    /// Whether what it says rests on enough.
    pub fn is_settled(&self) -> bool {
        self.busy_us >= SETTLED_MS * 1000
    }
    /// Bytes a second; none before it is settled. A silence longer than `granule` bytes should take counts as it lasts: the
    /// rate is never more than if these came right now.
    pub fn rate(&self, now: MonoTime, granule: u64) -> Option<u64> {
        if !self.is_settled() {
            return None;
        }
        let rate = |(bytes, us): (u64, u64)| {
            let a_second = u128::from(bytes) * 1_000_000 / u128::from(us.max(1));
            u64::try_from(a_second).unwrap_or(u64::MAX)
        };
        let silence = self.since.map_or(0, |since| millis(now.since(since)));
        Some(rate((self.bytes, self.busy_us)).min(rate(self.with(silence, granule))).max(1))
    }
    /// What it would hold after `bytes` came in `ms`.
    fn with(&self, ms: u64, bytes: u64) -> (u64, u64) {
        let fade = |sum: u64| {
            let faded = u128::from(sum) * u128::from(MEMORY_MS) / u128::from(MEMORY_MS.saturating_add(ms));
            u64::try_from(faded).unwrap_or(u64::MAX)
        };
        (fade(self.bytes).saturating_add(bytes), fade(self.busy_us).saturating_add(ms.saturating_mul(1000)))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};

    use super::*;

    #[test]
    fn scores_follow_the_newest_answers_and_stay_bounded() {
        let mut scores = PeerScores::default();
        let peer = PeerId::new([1; 32]);
        scores.measured(peer, 1_000_000, Duration::from_millis(5));
        assert_eq!(scores.of(&peer).unwrap().rate_bytes_s, 1_000_000);
        scores.measured(peer, 2_000_000, Duration::from_millis(5));
        assert_eq!(scores.of(&peer).unwrap().rate_bytes_s, 1_300_000);
        for i in 0..2000u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&i.to_be_bytes());
            scores.measured(PeerId::new(id), 1, Duration::ZERO);
        }
        assert!(scores.scores.len() <= PEERS_MAX && scores.of(&peer).is_none());
    }

    const GRANULE: u64 = 65_536;

    /// Feeds `seconds` of blocks at `rate` from `from` on; gives the end.
    fn feed(meter: &mut Meter, from: u64, rate: u64, seconds: u64) -> u64 {
        let blocks = rate * seconds / GRANULE;
        for block in 1..=blocks {
            meter.arrived(MonoTime(from + block * GRANULE * 1000 / rate), GRANULE);
        }
        from + blocks * GRANULE * 1000 / rate
    }

    #[test]
    fn a_meter_finds_the_rate_and_follows_its_change() {
        let mut meter = Meter::default();
        meter.starts(MonoTime(1000));
        assert_eq!(meter.rate(MonoTime(1001), GRANULE), None);
        let end = feed(&mut meter, 1000, 2_500_000, 3);
        let rate = meter.rate(MonoTime(end), GRANULE).unwrap();
        assert!((2_450_000..=2_550_000).contains(&rate), "{rate}");
        let end = feed(&mut meter, end, 500_000, 4);
        let rate = meter.rate(MonoTime(end), GRANULE).unwrap();
        assert!((490_000..=640_000).contains(&rate), "{rate}");
    }

    #[test]
    fn a_silence_counts_while_it_lasts_and_idle_time_does_not() {
        let mut meter = Meter::default();
        meter.starts(MonoTime(0));
        let end = feed(&mut meter, 0, 2_500_000, 2);
        let before = meter.rate(MonoTime(end), GRANULE).unwrap();
        assert_eq!(meter.rate(MonoTime(end + 20), GRANULE).unwrap(), before, "a block takes longer than that");
        assert!(meter.rate(MonoTime(end + 2000), GRANULE).unwrap() < before / 2);
        meter.rests();
        assert_eq!(meter.rate(MonoTime(end + 60_000), GRANULE).unwrap(), before);
        meter.starts(MonoTime(end + 60_000));
        assert_eq!(meter.rate(MonoTime(end + 60_010), GRANULE).unwrap(), before);
    }

    #[test]
    fn a_score_is_where_a_meter_starts() {
        let mut scores = PeerScores::default();
        let peer = PeerId::new([1; 32]);
        scores.measured(peer, 1_000_000, Duration::from_millis(5));
        let meter = Meter::starting_at(scores.of(&peer));
        assert_eq!(meter.rate(MonoTime(7), GRANULE), Some(1_000_000));
        assert_eq!(Meter::starting_at(None).rate(MonoTime(7), GRANULE), None);
    }
    /// Any number, the ends more often than by chance.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![2 => 0..10_000_000u64, 1 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)]
    }

    fn peer(n: u16) -> PeerId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::new(id)
    }

    /// What a meter is told, and how many milliseconds before.
    #[derive(Debug, Clone)]
    enum Told {
        Starts,
        Rests,
        Arrived(u64),
    }

    fn told() -> impl Strategy<Value = (u64, Told)> {
        let told = prop_oneof![1 => Just(Told::Starts), 1 => Just(Told::Rests), 4 => number().prop_map(Told::Arrived)];
        (prop_oneof![4 => 0..3_000u64, 1 => number()], told)
    }

    proptest! {
        #[test]
        fn a_score_lies_between_what_was_measured_and_the_newest_peers_have_one(
            samples in vec((0..700u16, number(), number()), 1..900)
        ) {
            let mut scores = PeerScores::default();
            for (n, rate, delay_ms) in samples {
                let before = scores.of(&peer(n));
                scores.measured(peer(n), rate, Duration::from_millis(delay_ms));
                let delay_ms = delay_ms.min(60_000);
                let now = scores.of(&peer(n)).unwrap();
                let old = before.unwrap_or(now);
                // An average is rounded down, of a rate to hundreds.
                let between = |old: u64, new: u64, now: u64, slack: u64| {
                    (old.min(new).saturating_sub(slack)..=old.max(new)).contains(&now)
                };
                prop_assert!(between(old.rate_bytes_s, rate, now.rate_bytes_s, 200), "{old:?} {rate} {now:?}");
                prop_assert!(between(old.delay_ms, delay_ms, now.delay_ms, 1), "{old:?} {delay_ms} {now:?}");
                prop_assert!(before.is_some() || (now.rate_bytes_s, now.delay_ms) == (rate, delay_ms));
                prop_assert!(scores.scores.len() <= PEERS_MAX);
            }
        }

        #[test]
        fn who_answered_last_is_remembered_and_who_did_not_for_longest_is_forgotten(
            order in vec(0..700u16, 1..1500)
        ) {
            let mut scores = PeerScores::default();
            order.iter().for_each(|n| scores.measured(peer(*n), 1, Duration::ZERO));
            let mut newest: Vec<u16> = Vec::new();
            order.iter().rev().for_each(|n| if !newest.contains(n) { newest.push(*n) });
            let kept = newest.len().min(PEERS_MAX);
            prop_assert!(newest[..kept].iter().all(|n| scores.of(&peer(*n)).is_some()));
            prop_assert!(newest[kept..].iter().all(|n| scores.of(&peer(*n)).is_none()));
        }

        #[test]
        fn a_score_comes_to_what_is_measured_again_and_again(
            first in number(), rate in 1_000..1u64 << 50, delay_ms in 0..60_000u64
        ) {
            let mut scores = PeerScores::default();
            scores.measured(peer(1), first, Duration::from_millis(first));
            for _ in 0..130 {
                scores.measured(peer(1), rate, Duration::from_millis(delay_ms));
            }
            let score = scores.of(&peer(1)).unwrap();
            // What is rounded down in each step adds up: 200 bytes of 30 %, and 1 ms.
            prop_assert!(score.rate_bytes_s.abs_diff(rate) <= 700, "{score:?}");
            prop_assert!(score.delay_ms.abs_diff(delay_ms) <= 4, "{score:?}");
        }

        #[test]
        fn a_meter_says_no_rate_before_it_is_settled_never_0_and_a_silence_never_makes_it_more(
            known in (any::<bool>(), number()), all in vec(told(), 0..40), granule in number(), silence in 0..100_000u64
        ) {
            let score = Score { rate_bytes_s: known.1, delay_ms: 1, touched: 1 };
            let mut meter = Meter::starting_at(known.0.then_some(score));
            let mut now = MonoTime(0);
            for (pause, told) in all {
                now = MonoTime(now.0.saturating_add(pause));
                let (busy, is_due) = (meter.busy_us, meter.since.is_some());
                match told {
                    Told::Starts => meter.starts(now),
                    Told::Rests => meter.rests(),
                    Told::Arrived(bytes) => {
                        meter.arrived(now, bytes);
                        prop_assert!(meter.bytes >= bytes, "what comes counts at once");
                        prop_assert!(is_due || meter.busy_us == busy, "time in which nothing is due does not count");
                    }
                }
                let (rate, later) = (meter.rate(now, granule), MonoTime(now.0.saturating_add(silence)));
                prop_assert!(rate.is_some() == meter.is_settled() && rate != Some(0));
                let before = meter.rate(meter.since.unwrap_or(now), granule);
                prop_assert!(meter.rate(later, granule) <= before, "a silence makes nothing faster");
                prop_assert!(meter.since.is_some() || meter.rate(later, granule) == before, "idle time changes nothing");
                let mut ended = meter.clone();
                ended.arrived(later, granule);
                prop_assert!(meter.rate(later, granule) <= ended.rate(later, granule), "as if it came right now");
            }
        }

        #[test]
        fn a_meter_follows_the_newest_rate_whatever_was_before(
            before in vec((1..50u64, 1..1u64 << 30), 0..20), ms in 1..100u64, bytes in 1_000..1u64 << 30
        ) {
            let (mut meter, mut now) = (Meter::default(), MonoTime(0));
            meter.starts(now);
            // Ten seconds of the newest make a tenth of all that was before 2 ^ -14 of it.
            let newest = std::iter::repeat_n((ms, bytes), usize::try_from(20_000 / ms).unwrap());
            for (ms, bytes) in before.into_iter().chain(newest) {
                now = now + Duration::from_millis(ms);
                meter.arrived(now, bytes);
            }
            let (rate, is) = (meter.rate(now, 0).unwrap(), bytes * 1000 / ms);
            prop_assert!(rate.abs_diff(is) <= is / 50, "{rate} instead of {is}");
        }
    }
}
