//! What a peer's past answers let expect of it: rate and delay. A hint for scheduling, never a reason to trust.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::model::PeerId;

/// Weight of the newest sample in the moving averages, in percent.
const NEWEST_PERCENT: u64 = 30;
/// Most peers that are remembered; the one not heard of for longest is forgotten.
const PEERS_MAX: usize = 512;

/// Rate and delay of one peer, moving averages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Bytes a second while it answers.
    pub rate_bytes_s: u64,
    /// From a request to its first byte.
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
    /// Takes an answer into account: `bytes` came in `took`, the first of them after `delay`.
    pub fn answered(&mut self, peer: PeerId, bytes: u64, delay: Duration, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_mul(1000) / ms;
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.samples += 1;
        let touched = self.samples;
        let average = |old: u64, new: u64| (old / 100) * (100 - NEWEST_PERCENT) + (new / 100) * NEWEST_PERCENT;
        self.scores
            .entry(peer)
            .and_modify(|score| {
                score.rate_bytes_s = average(score.rate_bytes_s, rate);
                score.delay_ms =
                    (score.delay_ms * (100 - NEWEST_PERCENT) + delay_ms.min(60_000) * NEWEST_PERCENT) / 100;
                score.touched = touched;
            })
            .or_insert(Score { rate_bytes_s: rate, delay_ms, touched });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_follow_the_newest_answers_and_stay_bounded() {
        let mut scores = PeerScores::default();
        let peer = PeerId::new([1; 32]);
        scores.answered(peer, 1_000_000, Duration::from_millis(5), Duration::from_secs(1));
        assert_eq!(scores.of(&peer).unwrap().rate_bytes_s, 1_000_000);
        scores.answered(peer, 2_000_000, Duration::from_millis(5), Duration::from_secs(1));
        assert_eq!(scores.of(&peer).unwrap().rate_bytes_s, 1_300_000);
        for i in 0..2000u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&i.to_be_bytes());
            scores.answered(PeerId::new(id), 1, Duration::ZERO, Duration::ZERO);
        }
        assert!(scores.scores.len() <= PEERS_MAX && scores.of(&peer).is_none());
    }
}
