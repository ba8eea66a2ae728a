//! Look-ups, by real swarms and by the model, and their figures. Every answer of a real swarm is compared with who is really
//! closest, which is known because all peers are here.

use futures::StreamExt as _;
use serde::Serialize;

use super::model::{Net, Walked};
use super::swarms::{Peer, Swarms};
use crate::cli::bench::outbox::process::Taken;
use crate::cli::bench::report::median;
use crate::core::jitter::Jitter;
use crate::model::{Digest, PeerId};

/// Look-ups under way at the same time: few, or they wait for this machine and not for each other's answers.
const AT_ONCE: usize = 4;
/// So often the tables are looked at anew, because every look-up makes peers meet.
const ROUNDS: u32 = 10;

/// One number of many look-ups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) median: f64,
    pub(super) mean: f64,
    /// 99 % are not above.
    pub(super) p99: f64,
}

impl Figures {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = values.collect();
        all.sort_by(f64::total_cmp);
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        let p99 = all.get((all.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0.0);
        Self { mean: all.iter().sum::<f64>() / f64::from(count), p99, median: median(all) }
    }
}

/// Whose tables a model's look-ups went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Tables {
    /// Those of the swarms.
    Own,
    /// Drawn ones.
    Drawn,
}

/// The look-ups among one number of peers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct LookUps {
    /// How many peers there are.
    pub(super) peers: u32,
    /// Computed, not measured.
    pub(super) model: bool,
    /// Over which tables.
    pub(super) tables: Tables,
    /// How many look-ups there were.
    pub(super) look_ups: u32,
    /// Peers that one of them asked; each answers once.
    pub(super) messages: Figures,
    /// Peers asked one after the other until the closest was. Of real swarms: by walking the same look-up over the tables that
    /// they had.
    pub(super) hops: Figures,
    /// ½ log2 of the peers.
    pub(super) chord: f64,
    /// The share of look-ups that found exactly the closest.
    pub(super) right: f64,
    /// The share of peers asked that could not be reached.
    pub(super) failed: f64,
    /// Peers in a routing table, the mean.
    pub(super) mean_table: f64,
    /// How long one took, on this machine and its memory; nothing of the model.
    pub(super) ms: Option<Figures>,
    /// Memory of this process that no file backs, for each peer; nothing of the model.
    pub(super) bytes_a_peer: Option<u64>,
}

/// ½ log2 `peers`: what Chord asks for a look-up in the mean.
pub(super) fn chord(peers: u32) -> f64 {
    f64::from(peers).log2() / 2.0
}

fn share(part: usize, all: usize) -> f64 {
    let number = |n: usize| u32::try_from(n).map_or(f64::from(u32::MAX), f64::from);
    number(part) / number(all.max(1))
}

/// The draws of one key and one peer.
fn draw(draws: &mut Jitter, peers: usize) -> (usize, Digest) {
    let from = draws.below(u64::try_from(peers).unwrap_or(u64::MAX));
    let byte = |draws: &mut Jitter| u8::try_from(draws.below(256)).unwrap_or_default();
    (usize::try_from(from).unwrap_or_default(), Digest::new(std::array::from_fn(|_| byte(draws))))
}

/// The model's look-ups among `count` peers with drawn tables.
pub(super) fn modelled(count: u32, look_ups: u32, seed: u64) -> LookUps {
    let mut draws = Jitter::new(seed ^ u64::from(count));
    let net = Net::drawn(usize::try_from(count).unwrap_or(usize::MAX), &mut draws);
    let walked: Vec<(bool, Walked)> = (0..look_ups)
        .map(|_| {
            let (from, key) = draw(&mut draws, net.len());
            let walked = net.look_up(from, &key, &mut draws);
            (walked.found == net.closest_of_all(&key, from), walked)
        })
        .collect();
    of_model(count, Tables::Drawn, &walked, net.mean_table())
}

fn of_model(peers: u32, tables: Tables, walked: &[(bool, Walked)], mean_table: f64) -> LookUps {
    LookUps {
        peers,
        model: true,
        tables,
        look_ups: u32::try_from(walked.len()).unwrap_or(u32::MAX),
        messages: Figures::of(walked.iter().map(|(_, walked)| f64::from(walked.asked))),
        hops: Figures::of(walked.iter().map(|(_, walked)| f64::from(walked.hops))),
        chord: chord(peers),
        right: share(walked.iter().filter(|(right, _)| *right).count(), walked.len()),
        failed: 0.0,
        mean_table,
        ms: None,
        bytes_a_peer: None,
    }
}

/// What one look-up of a real swarm took, and the model's walk over the tables of before.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) asked: u32,
    pub(super) failed: u32,
    pub(super) ms: f64,
    pub(super) right: bool,
    pub(super) walked: Walked,
    pub(super) walked_right: bool,
}

/// Look-ups by real swarms, and the same by the model over their own tables.
pub(super) async fn real(swarms: &mut Swarms, look_ups: u32, seed: u64) -> anyhow::Result<[LookUps; 2]> {
    let peers = u32::try_from(swarms.peers.len()).unwrap_or(u32::MAX);
    let mut draws = Jitter::new(seed);
    let mut done = Vec::new();
    let mut tables = Vec::new();
    for round in 0..ROUNDS {
        let net = swarms.net().await?;
        tables.push(net.mean_table());
        let count = look_ups / ROUNDS + u32::from(round < look_ups % ROUNDS);
        done.extend(some(&swarms.peers, &net, count, &mut draws).await?);
    }
    let mean_table = Figures::of(tables.into_iter()).mean;
    let (asked, failed) = done.iter().fold((0, 0), |(a, b), one| (a + one.asked, b + one.failed));
    let measured = LookUps {
        peers,
        model: false,
        tables: Tables::Own,
        look_ups,
        messages: Figures::of(done.iter().map(|one| f64::from(one.asked))),
        hops: Figures::of(done.iter().map(|one| f64::from(one.walked.hops))),
        chord: chord(peers),
        right: share(done.iter().filter(|one| one.right).count(), done.len()),
        failed: f64::from(failed) / f64::from(asked.max(1)),
        mean_table,
        ms: Some(Figures::of(done.iter().map(|one| one.ms))),
        bytes_a_peer: Some(Taken::by(std::process::id())?.rss_anon_bytes / u64::from(peers.max(1))),
    };
    let walked: Vec<(bool, Walked)> = done.into_iter().map(|one| (one.walked_right, one.walked)).collect();
    Ok([measured, of_model(peers, Tables::Own, &walked, mean_table)])
}

/// Some look-ups, a few at a time.
pub(super) async fn some(peers: &[Peer], net: &Net, count: u32, draws: &mut Jitter) -> anyhow::Result<Vec<Done>> {
    let drawn: Vec<_> = (0..count).map(|_| (draw(draws, peers.len()), draws.clone())).collect();
    let one = |((from, key), mut draws): ((usize, Digest), Jitter)| async move {
        let found = peers[from].port.look_up(key).await?;
        let closest = net.closest_of_all(&key, from);
        let really: Vec<PeerId> = closest.iter().map(|peer| peers[*peer].id).collect();
        let walked = net.look_up(from, &key, &mut draws);
        anyhow::Ok(Done {
            asked: found.asked,
            failed: found.failed,
            ms: found.took.as_secs_f64() * 1000.0,
            right: found.peers == really,
            walked_right: walked.found == closest,
            walked,
        })
    };
    let all = futures::stream::iter(drawn.into_iter().map(one)).buffer_unordered(AT_ONCE);
    all.collect::<Vec<_>>().await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::progress::Progress;

    #[test]
    fn figures_are_the_middle_the_mean_and_what_one_in_a_hundred_is_above() {
        let figures = Figures::of((1..=200).map(f64::from));
        assert_eq!((figures.median, figures.mean, figures.p99), (100.5, 100.5, 198.0));
        let few = Figures::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!((few.median, few.mean, few.p99), (2.0, 2.0, 3.0));
        assert_eq!(Figures::of(std::iter::empty()), Figures::default());
    }

    #[test]
    fn the_model_asks_as_many_as_real_swarms_do_over_their_own_tables() {
        let system = super::super::system().unwrap();
        system.block_on(async {
            let mut swarms = Swarms::start(40, 5, &Progress::start("")).await.unwrap();
            let mut draws = Jitter::new(5);
            let (mut real, mut model, mut right) = (0, 0, 0);
            const ROUNDS: u32 = 12;
            for _ in 0..ROUNDS {
                let net = swarms.net().await.unwrap();
                for done in some(&swarms.peers, &net, 5, &mut draws).await.unwrap() {
                    (real, model) = (real + done.asked, model + done.walked.asked);
                    right += u32::from(done.right && done.walked_right);
                    assert!(done.walked.hops >= 1);
                }
            }
            // Which answer overtakes which is chance, more so on a busy machine; and peers meet meanwhile.
            assert!(real.abs_diff(model) * 5 <= model, "swarms asked {real}, the model {model}");
            assert!(right >= ROUNDS * 5 - 2, "{right} of {} found exactly the closest", ROUNDS * 5);
            let [measured, walked] = super::real(&mut swarms, 20, 6).await.unwrap();
            assert_eq!((measured.model, walked.model, measured.look_ups, walked.look_ups), (false, true, 20, 20));
            assert_eq!(measured.hops, walked.hops);
            swarms.stop().await;
        });
    }

    #[test]
    fn drawn_tables_give_the_same_for_the_same_seed_and_grow_with_log_n() {
        let few = modelled(100, 200, 1);
        let many = modelled(3000, 200, 1);
        assert_eq!(few, modelled(100, 200, 1));
        assert!(few.model && few.right == 1.0 && many.right > 0.98, "{few:?} {many:?}");
        assert!(many.hops.mean > few.hops.mean && many.hops.mean < 2.0 * many.chord, "{few:?} {many:?}");
        assert!((many.chord - 5.775).abs() < 0.01, "{many:?}");
    }
}
