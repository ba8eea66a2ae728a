//! Whole groups under virtual time: the brains of up to 100 members each, founded and joined as people do it, while members fail and
//! return, then a time in which nothing happens. What they send, who acts, who is called lost and whether the gd can be found is
//! looked at from outside. Heartbeats are counted, not packets; the DHT is one shelf that never fails.

mod network;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::time::Instant;

use self::network::{Counts, Network};
use crate::cli::progress::Progress;
use crate::core::Brain as _;
use crate::core::group::{INVITE_VALIDITY, Input, Reply, Status};
use crate::core::jitter::Jitter;
use crate::model::dht::DhtKey;
use crate::model::policy::MEMBERS_MAX;
use crate::model::{Address, MonoTime, PeerId, Policy, Secret};

/// Between two looks at a group.
const LOOK: Duration = Duration::from_secs(600);
/// Who was started, or killed, longer ago than this is known to be up, or down, by all: more than four heartbeats and a probe.
const KNOWN_AFTER: Duration = Duration::from_secs(120);
/// After all have returned, and before the time in which nothing happens.
const CALM_DOWN: Duration = Duration::from_secs(900);
/// The time in which nothing happens.
const QUIET: Duration = Duration::from_secs(3600);
/// Members besides the acting master that are looked at each time.
const ASKED: usize = 4;
/// How long a member stays up.
const UP: [Duration; 2] = [Duration::from_secs(4 * 3600), Duration::from_secs(40 * 3600)];
/// How long it is down, and the percentage of times: a restart, a night, a day.
const DOWN: [(u64, [Duration; 2]); 3] = [
    (60, [Duration::from_secs(60), Duration::from_secs(1800)]),
    (30, [Duration::from_secs(2 * 3600), Duration::from_secs(9 * 3600)]),
    (10, [Duration::from_secs(20 * 3600), Duration::from_secs(26 * 3600)]),
];

/// What groups came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Groups {
    /// Peers in all.
    pub(super) peers: u32,
    /// Groups that they make.
    pub(super) groups: u32,
    /// Virtual time in which members failed and returned, hours.
    pub(super) virtual_h: f64,
    /// How long all of it took here.
    pub(super) seconds: f64,
    /// How often a member failed.
    pub(super) failures: u32,
    /// The share of time that a member was up, the mean.
    pub(super) up: f64,
    /// Heartbeats that a member sent in a minute of being up, the mean.
    pub(super) beats_a_minute: f64,
    /// Requests and answers that a member sent in a minute of being up, the mean.
    pub(super) messages_a_minute: f64,
    /// The same of the member that sent most between two looks: an acting master's.
    pub(super) busiest_a_minute: f64,
    /// Reads and puts in the DHT by a member in an hour of being up.
    pub(super) dht_an_hour: f64,
    /// Views that were signed.
    pub(super) views: u32,
    /// How often another member was to act.
    pub(super) masters: u32,
    /// Members that were asked who acts, once that could be known.
    pub(super) asked: u32,
    /// Of those, how many named the first that was up.
    pub(super) agreed: u32,
    /// Members that had been down for longer than `lost_after`, at a look.
    pub(super) lost_due: u32,
    /// Of those, how many the acting master called lost.
    pub(super) lost_named: u32,
    /// Members that were up and that it called lost.
    pub(super) lost_wrong: u32,
    /// Looks at the DHT, and how many of them found the newest gd.
    pub(super) gd_looks: u32,
    pub(super) gd_found: u32,
    /// Events that a member made durable in a day.
    pub(super) events_a_day: f64,
    /// Bytes of the largest state of a brain, when its group had been founded and at the end.
    pub(super) state_bytes_at_first: u64,
    pub(super) state_bytes_at_last: u64,
    /// The same figures while nothing happened, and all were up.
    pub(super) rest_messages_a_minute: f64,
    pub(super) rest_busiest_a_minute: f64,
    pub(super) rest_events: u64,
    /// What a shell would not go on after.
    pub(super) faults: Vec<String>,
    #[serde(skip)]
    pub(super) sums: Sums,
}

/// What the means are made from.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    up_min: f64,
    all_min: f64,
    beats: f64,
    messages: f64,
    dht: f64,
    events: f64,
    rest_messages: f64,
    rest_min: f64,
}

/// Runs `peers` peers in as few groups as that makes, on all cores, for `span` of virtual time.
pub(super) fn run(peers: u32, span: Duration, seed: u64, progress: &Progress) -> anyhow::Result<Groups> {
    let began = Instant::now();
    let most = u32::from(MEMBERS_MAX);
    let groups = peers.div_ceil(most);
    let todo = Mutex::new((0..groups).map(|n| (n, (peers - n * most).min(most))).collect::<Vec<_>>());
    let done: Mutex<Vec<anyhow::Result<Groups>>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().ok().and_then(|mut todo| todo.pop());
                    let Some((n, members)) = next else { return };
                    let group = one(n, members, span, seed.wrapping_add(u64::from(n) << 32));
                    if let Ok(mut done) = done.lock() {
                        done.push(group);
                        progress.at(&format!("{} of {groups} groups under virtual time", done.len()), None);
                    }
                }
            });
        }
    });
    let done = done.into_inner().map_err(|_| anyhow::anyhow!("a group's thread panicked"))?;
    ensure!(done.len() == usize::try_from(groups)?, "a group's thread ended early");
    let mut all = Groups { peers, groups, virtual_h: span.as_secs_f64() / 3600.0, ..Groups::default() };
    for group in done {
        all.add(group?);
    }
    all.means();
    all.seconds = began.elapsed().as_secs_f64();
    Ok(all)
}

/// One group: founded, failing, resting.
fn one(n: u32, members: u32, span: Duration, seed: u64) -> anyhow::Result<Groups> {
    let mut stage = Stage::found(n, members, seed)?;
    stage.fail(span)?;
    stage.rest();
    stage.told.faults.append(&mut stage.network.faults);
    Ok(stage.told)
}

struct Stage {
    network: Network,
    draws: Jitter,
    /// When each member fails or returns.
    turns: Vec<MonoTime>,
    gd: DhtKey,
    told: Groups,
    /// What each had done at the last look, and when that was.
    before: Vec<Counts>,
    looked: MonoTime,
    master: Option<PeerId>,
    view: Option<crate::model::WallTime>,
}

impl Stage {
    /// A founder, and members that join by its invites.
    fn found(n: u32, members: u32, seed: u64) -> anyhow::Result<Self> {
        let mut network = Network::new();
        let address = |m: u32| format!("m{m}@g{n}").parse::<Address>();
        let group = address(0)?.group().clone();
        let founder = network.start(address(0)?);
        let policy = Policy::default();
        let token_group = group.clone();
        let created = network.ask(founder, |token| Input::CreateGroup { token, group: token_group, policy });
        ensure!(matches!(created, Some(Reply::Created { .. })), "the group is not founded: {created:?}");
        for m in 1..members {
            let at = network.start(address(m)?);
            let name = address(m)?.name().clone();
            let secret = Secret::new(*blake3::hash(&m.to_be_bytes()).as_bytes());
            let invite = |token| Input::Invite { token, name, secret, valid: INVITE_VALIDITY };
            let Some(Reply::Invite(invite)) = network.ask(founder, invite) else {
                anyhow::bail!("member {m} is not invited");
            };
            let joined = network.ask(at, |token| Input::Join { token, invite });
            ensure!(matches!(joined, Some(Reply::Joined { .. })), "member {m} does not join: {joined:?}");
        }
        network.pass(network.now.mono + CALM_DOWN);
        let before = network.nodes.iter().map(|node| node.counts).collect();
        let looked = network.now.mono;
        let (gd, told) = (DhtKey::Group(group), Groups::default());
        let turns = Vec::new();
        let draws = Jitter::new(seed);
        let mut stage = Self { network, draws, turns, gd, told, before, looked, master: None, view: None };
        let first = stage.network.nodes.len();
        // The first failures are spread as if this had gone on for long.
        stage.turns = (0..first).map(|_| stage.network.now.mono + stage.draws.between(Duration::ZERO, UP[1])).collect();
        stage.told.state_bytes_at_first = stage.largest_state();
        Ok(stage)
    }

    fn largest_state(&self) -> u64 {
        self.network.nodes.iter().map(|node| node.brain.live_bytes()).max().unwrap_or_default()
    }

    /// Members fail and return, and are looked at.
    fn fail(&mut self, span: Duration) -> anyhow::Result<()> {
        let end = self.network.now.mono + span;
        while self.network.now.mono < end {
            let look = (self.looked + LOOK).min(end);
            let turn = self.turns.iter().copied().enumerate().min_by_key(|(_, at)| *at);
            let (at, due) = turn.context("a group without members")?;
            if due < look {
                self.network.pass(due);
                self.turn(at);
            } else {
                self.network.pass(look);
                self.look();
            }
        }
        Ok(())
    }

    /// A member that is up fails, and one that is down returns.
    fn turn(&mut self, at: usize) {
        let [least, most] = if self.network.nodes[at].up {
            self.network.kill(at);
            self.told.failures += 1;
            let mut drawn = self.draws.below(100);
            let span = DOWN.iter().find(|(share, _)| {
                let hit = drawn < *share;
                drawn = drawn.saturating_sub(*share);
                hit
            });
            span.map_or(DOWN[0].1, |(_, span)| *span)
        } else {
            self.network.restart(at);
            UP
        };
        self.turns[at] = self.network.now.mono + self.draws.between(least, most);
    }

    /// What all have done since the last look, in sum and by the busiest.
    fn counted(&mut self) -> (Counts, f64) {
        let now = self.network.now.mono;
        let minutes = now.since(self.looked).as_secs_f64() / 60.0;
        let (mut sum, mut busiest) = (Counts::default(), 0.0_f64);
        for (node, before) in self.network.nodes.iter().zip(&mut self.before) {
            let since = Counts {
                messages: node.counts.messages - before.messages,
                beats: node.counts.beats - before.beats,
                dht: node.counts.dht - before.dht,
                events: node.counts.events - before.events,
            };
            sum.messages += since.messages;
            sum.beats += since.beats;
            sum.dht += since.dht;
            sum.events += since.events;
            busiest = busiest.max(number(since.messages) / minutes.max(1.0 / 60.0));
            *before = node.counts;
        }
        self.looked = now;
        (sum, busiest)
    }

    fn look(&mut self) {
        let minutes = self.network.now.mono.since(self.looked).as_secs_f64() / 60.0;
        let (sum, busiest) = self.counted();
        let up = u32::try_from(self.network.nodes.iter().filter(|node| node.up).count()).unwrap_or(0);
        let all = u32::try_from(self.network.nodes.len()).unwrap_or(0);
        let sums = &mut self.told.sums;
        sums.up_min += f64::from(up) * minutes;
        sums.all_min += f64::from(all) * minutes;
        sums.beats += number(sum.beats);
        sums.messages += number(sum.messages);
        sums.dht += number(sum.dht);
        sums.events += number(sum.events);
        self.told.busiest_a_minute = self.told.busiest_a_minute.max(busiest);
        self.look_at_gd();
        self.look_at_master();
    }

    fn look_at_gd(&mut self) {
        let newest = self.network.nodes.iter().find(|node| node.up).map(|node| node.brain.current().roster.gd_version);
        self.told.gd_looks += 1;
        self.told.gd_found += u32::from(newest == self.network.gd_version_in_dht(&self.gd));
    }

    /// Whether a member has been up, or down, for so long that all can know it.
    fn is_known(&self, at: usize) -> bool {
        self.network.now.mono.since(self.network.nodes[at].since) > KNOWN_AFTER
    }

    fn look_at_master(&mut self) {
        // Members joined in the order of their numbers, so that is the order of succession.
        let live = (0..self.network.nodes.len()).filter(|at| self.network.nodes[*at].up);
        let live: Vec<usize> = live.collect();
        let Some(first) = live.first().copied() else { return };
        let second = live.get(1).copied().unwrap_or(first);
        let status = self.network.status(first);
        if self.master.replace(status.peer_id) != Some(status.peer_id) {
            self.told.masters += 1;
        }
        if (0..=second).any(|at| !self.is_known(at)) {
            return;
        }
        self.look_at_view(&status);
        let mut asked = BTreeSet::from([first]);
        for _ in 0..ASKED {
            let drawn = self.draws.below(u64::try_from(live.len()).unwrap_or(1));
            asked.extend(live.get(usize::try_from(drawn).unwrap_or_default()));
        }
        asked.retain(|at| self.is_known(*at));
        for at in asked {
            let named = self.network.status(at).acting_master;
            self.told.asked += 1;
            self.told.agreed += u32::from(named.as_ref() == Some(&status.address));
        }
    }

    /// Whom the acting master calls lost.
    fn look_at_view(&mut self, status: &Status) {
        if self.view != status.view_at {
            self.view = status.view_at;
            self.told.views += 1;
        }
        let lost_after = status.policy.lost_after.duration() + KNOWN_AFTER;
        for (at, member) in status.members.iter().enumerate() {
            let Some(node) = self.network.nodes.get(at) else { continue };
            let span = self.network.now.mono.since(node.since);
            if !node.up && span > lost_after {
                self.told.lost_due += 1;
                self.told.lost_named += u32::from(member.lost);
            }
            self.told.lost_wrong += u32::from(node.up && span > KNOWN_AFTER && member.lost);
        }
    }

    /// All return, and then nothing happens.
    fn rest(&mut self) {
        for at in 0..self.network.nodes.len() {
            if !self.network.nodes[at].up {
                self.network.restart(at);
            }
        }
        self.network.pass(self.network.now.mono + CALM_DOWN);
        self.counted();
        self.network.pass(self.network.now.mono + QUIET);
        let (sum, busiest) = self.counted();
        self.told.rest_busiest_a_minute = busiest;
        self.told.rest_events = sum.events;
        self.told.sums.rest_messages = number(sum.messages);
        let members = u32::try_from(self.network.nodes.len()).unwrap_or(0);
        self.told.sums.rest_min = f64::from(members) * QUIET.as_secs_f64() / 60.0;
        self.told.state_bytes_at_last = self.largest_state();
    }
}

fn number(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

impl Groups {
    fn add(&mut self, group: Groups) {
        self.failures += group.failures;
        self.views += group.views;
        self.masters += group.masters.saturating_sub(1);
        self.asked += group.asked;
        self.agreed += group.agreed;
        self.lost_due += group.lost_due;
        self.lost_named += group.lost_named;
        self.lost_wrong += group.lost_wrong;
        self.gd_looks += group.gd_looks;
        self.gd_found += group.gd_found;
        self.rest_events += group.rest_events;
        self.busiest_a_minute = self.busiest_a_minute.max(group.busiest_a_minute);
        self.rest_busiest_a_minute = self.rest_busiest_a_minute.max(group.rest_busiest_a_minute);
        self.state_bytes_at_first = self.state_bytes_at_first.max(group.state_bytes_at_first);
        self.state_bytes_at_last = self.state_bytes_at_last.max(group.state_bytes_at_last);
        self.faults.extend(group.faults);
        let (sums, more) = (&mut self.sums, group.sums);
        sums.up_min += more.up_min;
        sums.all_min += more.all_min;
        sums.beats += more.beats;
        sums.messages += more.messages;
        sums.dht += more.dht;
        sums.events += more.events;
        sums.rest_messages += more.rest_messages;
        sums.rest_min += more.rest_min;
    }

    fn means(&mut self) {
        let sums = self.sums;
        let up_min = sums.up_min.max(1.0);
        self.up = sums.up_min / sums.all_min.max(1.0);
        self.beats_a_minute = sums.beats / up_min;
        self.messages_a_minute = sums.messages / up_min;
        self.dht_an_hour = sums.dht / up_min * 60.0;
        self.events_a_day = sums.events / up_min * 1440.0;
        self.rest_messages_a_minute = sums.rest_messages / sums.rest_min.max(1.0);
    }

    /// Whether the groups kept to what they must: who is up is not called lost, the gd is there, they agree and rest.
    pub(super) fn holds(&self) -> bool {
        let most = |part: u32, all: u32| f64::from(part) >= 0.99 * f64::from(all);
        self.faults.is_empty()
            && self.lost_wrong == 0
            && self.rest_events == 0
            && self.gd_found == self.gd_looks
            && most(self.agreed, self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_agree_who_acts_keep_their_gd_in_the_dht_and_rest() {
        let span = Duration::from_secs(30 * 3600);
        let told = run(6, span, 1, &Progress::start("")).unwrap();
        assert_eq!((told.groups, told.peers), (1, 6));
        assert!(told.failures > 3 && told.masters > 0 && told.lost_due > 3, "{told:?}");
        assert!(told.holds(), "{told:?}");
        assert!(told.lost_named * 2 > told.lost_due, "{told:?}");
        // Two targets, six times a minute, and as many answers.
        assert!((told.beats_a_minute - 12.0).abs() < 1.5, "{told:?}");
        assert!(told.rest_messages_a_minute > 20.0 && told.rest_messages_a_minute < 30.0, "{told:?}");
        assert!(told.state_bytes_at_last < told.state_bytes_at_first * 2, "{told:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_week() {
        let run =
            || Groups { seconds: 0.0, ..run(3, Duration::from_secs(10 * 3600), 7, &Progress::start("")).unwrap() };
        assert_eq!(run(), run());
    }
}
