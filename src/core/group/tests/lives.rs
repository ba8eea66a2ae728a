//! Lives of groups, each drawn from a seed: joins, leaves, removals, grants and policies, while members die, are cut off, have wrong
//! clocks, and strangers lay gds of their own into the DHT. Whatever happened: pins move only along keys that were handed on (R11),
//! and when everything has healed all agree, and rest (R12).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::MINUTE;
use super::network::{Network, sign_gd};
use crate::core::group::{INVITE_VALIDITY, Input, Reply, Role};
use crate::model::group::LeaveStage;
use crate::model::{Address, Fingerprint, Policy, Secret, Span};
use crate::wire::encode;

/// Lives of a plain `cargo test`; `ROOST_LIVES` says how many else.
const LIVES: u64 = 12;
const NAMES: [&str; 8] =
    ["alice@acme", "bob@acme", "carol@acme", "dave@acme", "erin@acme", "frank@acme", "grace@acme", "heidi@acme"];
/// What happens in a life.
const DEEDS: u64 = 40;

struct Life {
    net: Network,
    draws: u64,
    seed: u64,
    started: BTreeSet<&'static str>,
    up: BTreeSet<&'static str>,
    /// Whom the last change that was said to be done made a member, or none.
    named: BTreeMap<&'static str, bool>,
    founder: Fingerprint,
    /// What was done, for people.
    told: Vec<String>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut net = Network::new();
        net.group_of(&NAMES[..4], Policy { lost_after: Span::secs(300), ..Policy::default() });
        net.pass(MINUTE);
        let founder = net.status(NAMES[0]).group_key.unwrap();
        let first: BTreeSet<&'static str> = NAMES[..4].iter().copied().collect();
        let named = first.iter().map(|name| (*name, true)).collect();
        Self { net, draws: 0, seed, started: first.clone(), up: first, named, founder, told: Vec::new() }
    }
    fn below(&mut self, n: usize) -> usize {
        self.draws += 1;
        let digest = blake3::hash(&[self.seed.to_be_bytes(), self.draws.to_be_bytes()].concat());
        usize::from(u16::from_be_bytes([digest.as_bytes()[0], digest.as_bytes()[1]])) % n.max(1)
    }
    fn pick(&mut self, all: &[&'static str]) -> Option<&'static str> {
        let at = self.below(all.len());
        all.get(at).copied()
    }
    fn any_up(&mut self) -> Option<&'static str> {
        let up: Vec<&'static str> = self.up.iter().copied().collect();
        self.pick(&up)
    }
    fn holder(&mut self) -> Option<&'static str> {
        let holds = |name: &&'static str| {
            let status = self.net.status(name);
            status.key_holder && status.key_here && matches!(status.role, Role::Founder | Role::Member)
        };
        let holders: Vec<&'static str> = self.up.iter().copied().filter(holds).collect();
        self.pick(&holders)
    }
    fn say(&mut self, what: String) {
        self.told.push(format!("{:>7} s {what}", self.net.now.mono.0 / 1000));
    }

    fn joins(&mut self) {
        let (Some(holder), at) = (self.holder(), self.below(NAMES.len())) else { return };
        let name = NAMES[at];
        if self.started.insert(name) {
            self.net.start(name);
            self.up.insert(name);
        }
        if !self.up.contains(name) {
            return;
        }
        let local = name.parse::<Address>().unwrap().name().clone();
        let secret = Secret::new(*blake3::hash(&self.draws.to_be_bytes()).as_bytes());
        let invited =
            self.net.ask(holder, |token| Input::Invite { token, name: local, secret, valid: INVITE_VALIDITY });
        let Reply::Invite(invite) = invited else { return };
        let reply = self.net.join(name, &invite);
        self.say(format!("{name} joins by {holder}: {reply:?}"));
        if matches!(reply, Reply::Joined { .. }) {
            self.named.insert(name, true);
        } else {
            // Its join may have been written down all the same.
            self.named.remove(name);
        }
    }
    fn leaves(&mut self) {
        let Some(name) = self.any_up().filter(|name| *name != NAMES[0]) else { return };
        let stage = [LeaveStage::Begin, LeaveStage::Stay, LeaveStage::Go][self.below(3)];
        let reply = self.net.ask(name, |token| Input::Leave { token, stage });
        self.say(format!("{name} leaves, {stage:?}: {reply:?}"));
        match (stage, reply) {
            (LeaveStage::Go, Reply::Changed { .. }) => drop(self.named.insert(name, false)),
            (LeaveStage::Go, _) => drop(self.named.remove(name)),
            _ => {}
        }
    }
    fn removes(&mut self) {
        let (Some(holder), at) = (self.holder(), self.below(NAMES.len())) else { return };
        let (name, address) = (NAMES[at], NAMES[at].parse().unwrap());
        let reply = self.net.ask(holder, |token| Input::Remove { token, address });
        self.say(format!("{holder} removes {name}: {reply:?}"));
        if matches!(reply, Reply::Changed { .. }) {
            self.named.insert(name, false);
        }
    }
    fn grants(&mut self) {
        let (Some(holder), at) = (self.holder(), self.below(NAMES.len())) else { return };
        let address = NAMES[at].parse().unwrap();
        let reply = self.net.ask(holder, |token| Input::Grant { token, address });
        self.say(format!("{holder} grants {}: {reply:?}", NAMES[at]));
    }
    fn sets_policy(&mut self) {
        let Some(holder) = self.holder() else { return };
        let policy =
            Policy { lost_after: Span::secs(120 + u64::try_from(self.below(600)).unwrap()), ..Policy::default() };
        let reply = self.net.ask(holder, |token| Input::SetPolicy { token, policy });
        self.say(format!("{holder} sets a policy: {reply:?}"));
    }
    fn dies(&mut self) {
        if let Some(name) = self.any_up().filter(|_| self.up.len() > 2) {
            self.say(format!("{name} dies"));
            self.net.kill(name);
            self.up.remove(name);
        }
    }
    fn starts_again(&mut self) {
        let down: Vec<&'static str> = self.started.difference(&self.up).copied().collect();
        if let Some(name) = self.pick(&down) {
            self.say(format!("{name} starts again"));
            self.net.restart(name);
            self.up.insert(name);
        }
    }
    fn is_cut(&mut self) {
        let n = self.below(self.started.len());
        let island: Vec<&'static str> = self.started.iter().copied().take(n).collect();
        self.say(format!("cut off are {island:?}"));
        self.net.cut_off(&island);
    }
    /// Somebody lays a gd with itself as the only member into the DHT, of a later version and under a key of its own.
    fn stranger(&mut self, claims_handover: bool) {
        let Some(name) = self.any_up() else { return };
        let Some(own) = self.net.node(name).brain.own_gd().map(|own| (own.gd.clone(), own.key)) else { return };
        let (mut gd, key) = own;
        let stranger = Fingerprint::new([66; 20]);
        gd.version += 5;
        gd.members.truncate(1);
        gd.group_certificate = stranger.as_bytes().to_vec();
        gd.handovers.clear();
        if claims_handover {
            gd.handovers.push(serde_bytes::ByteBuf::from(encode(&(key, stranger))));
        }
        self.say("a stranger lays a gd into the DHT".to_owned());
        let forged = sign_gd(gd, stranger);
        let group = forged.gd.group.clone();
        self.net.publish_gd(forged);
        // Whoever looks for it finds it.
        for name in self.up.clone() {
            let group = group.clone();
            self.net.ask(name, |token| Input::Freshen { token, group });
        }
    }

    fn deed(&mut self) {
        match self.below(16) {
            0..=2 => self.joins(),
            3 => self.leaves(),
            4 => self.removes(),
            5 => self.grants(),
            6 => self.sets_policy(),
            7 | 8 => self.dies(),
            9..=11 => self.starts_again(),
            12 => self.is_cut(),
            13 => self.net.heal(),
            14 => {
                let (name, skew) = (self.any_up().unwrap(), [0, 90_000, 600_000][self.below(3)]);
                self.net.node(name).skew_ms = skew;
            }
            _ => self.stranger(false),
        }
        let pause = [1, 20, 60, 300, 900][self.below(5)];
        self.net.pass(Duration::from_secs(pause));
    }

    /// R11: every pin is the founder's key, or one that was handed on from it.
    fn wrong_pin(&self) -> Option<String> {
        let mut right = BTreeSet::from([self.founder]);
        while let Some((_, to)) = self.net.handed.iter().find(|(from, to)| right.contains(from) && !right.contains(to))
        {
            right.insert(*to);
        }
        let pinned = |name: &&&'static str| self.net.status(name).group_key.is_some_and(|key| !right.contains(&key));
        self.started.iter().find(pinned).map(|name| format!("R11: {name} pins a key that nobody handed on"))
    }

    /// Everything heals.
    fn heals(&mut self) {
        self.net.heal();
        for name in self.started.clone() {
            self.net.node(name).skew_ms = 0;
            if self.up.insert(name) {
                self.net.restart(name);
            }
        }
        self.net.pass(60 * MINUTE);
    }

    /// R12: all members that are named agree about the gd, and nobody else thinks that it is one; then all rest.
    fn disagreement(&mut self) -> Option<String> {
        let all: Vec<_> = self.started.iter().map(|name| (*name, self.net.status(name))).collect();
        let is_in = |role: Role| matches!(role, Role::Founder | Role::Member);
        // Two keys that one key signed for, and changes that cannot be made again, are shown, and left to people.
        let forked = self.net.handed.iter().any(|(from, to)| self.net.handed.iter().any(|(f, t)| f == from && t != to));
        if forked {
            return None;
        }
        let newest = all.iter().filter(|(_, status)| is_in(status.role)).max_by_key(|(_, status)| status.gd_version)?;
        let members = |status: &crate::core::group::Status| -> BTreeSet<String> {
            status.members.iter().map(|m| m.address.to_string()).collect()
        };
        let (first, truth) = newest;
        for (name, status) in &all {
            let named = members(truth).contains(*name);
            let same = (status.gd_version, status.group_key, members(status))
                == (truth.gd_version, truth.group_key, members(truth));
            if named && !same {
                return Some(format!(
                    "R12: {name} has not the gd of {first}: {} and {}",
                    status.gd_version, truth.gd_version
                ));
            }
            if !named && is_in(status.role) {
                return Some(format!("R12: {name} thinks that it is a member"));
            }
        }
        let overtaken = all.iter().any(|(_, status)| !status.overtaken.is_empty());
        let wrong = self.named.iter().find(|(name, named)| members(truth).contains(**name) != **named);
        if let Some((name, named)) = wrong.filter(|_| !overtaken) {
            return Some(format!("R2: that {name} is a member: {named}, was said to be done, and is not so"));
        }
        let written = self.net.events();
        self.net.pass(30 * MINUTE);
        (self.net.events() != written).then(|| "R12: an idle group writes to its disks".to_owned())
    }

    /// What is wrong with this life.
    fn live(&mut self) -> Option<String> {
        for _ in 0..DEEDS {
            self.deed();
            if let Some(wrong) = self.wrong_pin() {
                return Some(wrong);
            }
        }
        self.heals();
        self.wrong_pin().or_else(|| self.disagreement())
    }
}

#[test]
fn whatever_happens_to_a_group_its_pins_move_by_right_and_all_agree_in_the_end() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("ROOST_LIFE").unwrap_or(0);
    for seed in first..first + number("ROOST_LIVES").unwrap_or(LIVES) {
        let mut life = Life::new(seed);
        if let Some(wrong) = life.live() {
            panic!("life {seed}: {wrong}\n{}\nagain: ROOST_LIFE={seed} ROOST_LIVES=1", life.told.join("\n"));
        }
    }
}

#[test]
fn a_shell_that_does_not_look_who_signed_a_handover_is_caught() {
    let mut life = Life::new(0);
    life.stranger(true);
    life.net.pass(MINUTE);
    assert!(life.wrong_pin().is_some_and(|why| why.starts_with("R11")), "{:?}", life.told);
}
