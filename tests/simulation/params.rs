//! What one run is like, drawn from its seed alone: who takes part, how mail is kept, what goes wrong and how often.

use std::collections::BTreeSet;
use std::fmt;

use roost::model::policy::KOfN;
use roost::model::{ByteSize, Mode, Policy, Span};

use super::clocks::{self, Jump};
use super::cuts::{self, Cut};
use super::full_disk::{self, Full};
use super::junk;
use super::keys;
use super::liars::Lie;
use super::members::{self, Change};
use super::rng::Rng;
use super::rot;
use super::sabotage::Saboteur;
use super::stops;
use super::views;

/// The parameters of a run.
#[derive(Debug, Clone)]
pub(crate) struct Params {
    /// What all is drawn from.
    pub(crate) seed: u64,
    /// Members of the group `acme`; one more peer reads from outside.
    pub(crate) members: usize,
    /// How the group keeps mail.
    pub(crate) policy: Policy,
    /// Mails that the users submit.
    pub(crate) mails: usize,
    /// Of a thousand messages, how many never arrive while faults last.
    pub(crate) drop: u64,
    /// And how many arrive twice.
    pub(crate) duplicate: u64,
    /// Longest time on the way, milliseconds: what reorders messages.
    pub(crate) latency_ms: u64,
    /// Longest time until a commit or a file is durable, milliseconds.
    pub(crate) fsync_ms: u64,
    /// Crashes, each at an effect.
    pub(crate) crashes: u64,
    /// Partitions that heal.
    pub(crate) partitions: u64,
    /// How long faults last, milliseconds.
    pub(crate) faults_ms: u64,
    /// Members that lie.
    pub(crate) liars: usize,
    /// What they lie about.
    pub(crate) lies: BTreeSet<Lie>,
    /// Whether somebody sends forged words.
    pub(crate) hostile: bool,
    /// Whether the outside reader and the members know each other before.
    pub(crate) known_outside: bool,
    /// Whether notifications all go through the DHT.
    pub(crate) by_dht: bool,
    /// Whether bodies of known senders are pulled at once.
    pub(crate) eager: bool,
    /// Whether the outside reader leaves for good, so that mails to it expire.
    pub(crate) reader_leaves: bool,
    /// Whether disks die for good: a member's, and as many others as one of its mails says may go.
    pub(crate) dead_disks: bool,
    /// How many more than that.
    pub(crate) beyond_safe: usize,
    /// How often users take a mail back.
    pub(crate) cancels: u64,
    /// How often each member is audited, milliseconds.
    pub(crate) audit_every_ms: u64,
    /// Peers that come back with an old disk.
    pub(crate) old_disks: usize,
    /// Clocks differ by up to this, milliseconds.
    pub(crate) skew_ms: u64,
    /// Bits that flip on disks.
    pub(crate) rots: u64,
    /// Ways between peers that are cut.
    pub(crate) cuts: Vec<Cut>,
    /// Clocks that are set wrong.
    pub(crate) jumps: Vec<Jump>,
    /// Who is stopped in order, and when, milliseconds.
    pub(crate) stops: Vec<(u64, usize)>,
    /// Disks that are full for a while.
    pub(crate) full: Vec<Full>,
    /// What strangers do in the DHT.
    pub(crate) junk: u64,
    /// How its policy is changed, and when, milliseconds.
    pub(crate) policies: Vec<(u64, Policy)>,
    /// Who joins and who leaves.
    pub(crate) changes: Vec<Change>,
    /// When the group's key is replaced, milliseconds.
    pub(crate) rotations: Vec<u64>,
    /// A deliberately broken brain.
    pub(crate) saboteur: Option<Saboteur>,
}

impl Params {
    /// What `seed` determines.
    pub(crate) fn draw(seed: u64, saboteur: Option<Saboteur>) -> Self {
        let mut rng = Rng::new(seed ^ 0xa5a5);
        let members = usize::try_from(rng.between(3, 6)).unwrap();
        let reader_leaves = rng.chance(120);
        let by_dht = rng.chance(150);
        let mut params = Self {
            seed,
            members,
            policy: policy(&mut rng, members, reader_leaves),
            mails: usize::try_from(rng.between(2, 8)).unwrap(),
            drop: *rng.pick(&[0, 5, 30, 120]),
            duplicate: *rng.pick(&[0, 10, 80]),
            latency_ms: *rng.pick(&[20, 200, 2500]),
            fsync_ms: *rng.pick(&[5, 60, 600]),
            crashes: rng.between(0, 8),
            partitions: rng.between(0, 2),
            faults_ms: rng.between(5, 90) * 60_000,
            liars: usize::from(rng.chance(300)),
            lies: Lie::draw(seed),
            hostile: rng.chance(400),
            known_outside: rng.chance(600),
            by_dht,
            eager: rng.chance(200),
            reader_leaves,
            dead_disks: rng.chance(200),
            beyond_safe: usize::from(rng.chance(250)),
            cancels: rng.between(0, 3),
            audit_every_ms: *rng.pick(&[600_000, 3_600_000]),
            old_disks: *rng.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 2]),
            skew_ms: *rng.pick(&[0, 500, 20_000]),
            rots: rot::draw(seed),
            cuts: Vec::new(),
            jumps: Vec::new(),
            stops: Vec::new(),
            full: Vec::new(),
            junk: junk::draw(seed),
            policies: Vec::new(),
            changes: Vec::new(),
            rotations: Vec::new(),
            saboteur,
        };
        params.policies = later_policies(&params);
        params.changes = members::draw(&params);
        params.changes.extend(views::draw(&params));
        params.rotations = keys::draw(&params);
        params.cuts = cuts::draw(&params);
        params.jumps = clocks::draw(&params);
        params.stops = stops::draw(&params);
        params.full = full_disk::draw(&params);
        if let Some(saboteur) = saboteur {
            saboteur.favour(&mut params);
        }
        params
    }
}

fn policy(rng: &mut Rng, members: usize, short: bool) -> Policy {
    let others = u64::try_from(members - 1).unwrap();
    // Now and then the group is smaller than its policy.
    let n = if rng.chance(150) { others + 1 } else { rng.between(2.min(others), others) };
    let k = rng.between(1, n.min(3));
    let small = |x: u64| u8::try_from(x).unwrap();
    let copies = rng.between(n - k + 1, n);
    Policy {
        mode: if rng.chance(650) { Mode::Fragments } else { Mode::Full },
        fragments: KOfN { k: small(k), n: small(n) },
        copies: small(copies),
        whole_below: ByteSize::kib(64),
        lost_after: Span::secs(rng.between(5, 60) * 60),
        life: if short { Span::hours(12) } else { Span::days(7) },
        ..Policy::default()
    }
    .check()
    .expect("the policies that are drawn are possible")
}

/// Changes of the policy while mails wait: in some of the runs. Their chance is their own, so that all else is as without them.
fn later_policies(params: &Params) -> Vec<(u64, Policy)> {
    let mut rng = Rng::new(params.seed ^ 0x5a5a);
    let many = *rng.pick(&[0, 0, 0, 1, 1, 2, 3]);
    (0..many).map(|_| another_policy(&mut rng, params)).collect()
}

/// A policy that the group is large enough for, and its moment: while faults last, or soon after.
pub(crate) fn another_policy(rng: &mut Rng, params: &Params) -> (u64, Policy) {
    let at = rng.below(params.faults_ms + 600_000);
    loop {
        let drawn = policy(rng, params.members, params.reader_leaves);
        if usize::from(drawn.others_needed()) < params.members {
            return (at, Policy { lost_after: params.policy.lost_after, ..drawn });
        }
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, members, policy, mails, drop, duplicate, latency_ms, fsync_ms, .. } = self;
        let KOfN { k, n } = policy.fragments;
        write!(
            f,
            "seed {seed}: {members} members and a reader, {:?} {k} of {n}, {} copies, ",
            policy.mode, policy.copies
        )?;
        write!(f, "lost after {}, life {}; {mails} mails; ", policy.lost_after, policy.life)?;
        write!(
            f,
            "of 1000 messages {drop} dropped and {duplicate} twice, up to {latency_ms} ms; fsync up to {fsync_ms} ms; "
        )?;
        write!(f, "{} crashes, {} partitions in {} min; ", self.crashes, self.partitions, self.faults_ms / 60_000)?;
        write!(
            f,
            "liars {} ({:?}), hostile {}, known outside {}, by DHT {}, ",
            self.liars, self.lies, self.hostile, self.known_outside, self.by_dht
        )?;
        write!(
            f,
            "eager {}, reader leaves {}, dead disks {} ({} beyond safe), old disks {}, ",
            self.eager, self.reader_leaves, self.dead_disks, self.beyond_safe, self.old_disks
        )?;
        write!(f, "{} cancels, audits every {} min, ", self.cancels, self.audit_every_ms / 60_000)?;
        for (at, policy) in &self.policies {
            let KOfN { k, n } = policy.fragments;
            write!(f, "at {at} ms {:?} {k} of {n}, {} copies; ", policy.mode, policy.copies)?;
        }
        for change in &self.changes {
            write!(f, "{change:?}; ")?;
        }
        if !self.rotations.is_empty() {
            write!(f, "keys replaced at {:?} ms; ", self.rotations)?;
        }
        write!(
            f,
            "cuts {:?}, clocks {:?}, stops {:?}, full {:?}, {} times junk, {} bits flip, skew {} ms, saboteur {:?}",
            self.cuts, self.jumps, self.stops, self.full, self.junk, self.rots, self.skew_ms, self.saboteur
        )
    }
}
