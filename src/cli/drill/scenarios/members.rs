//! Members that are there and do not do what they should: slow ones, and ones whose disks lie. They are falsified only on disks.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;

use super::{READ, STEADY};
use crate::cli::drill::around::SLOW;
use crate::cli::drill::events::{Event, Gone};
use crate::cli::drill::scene::{PATIENCE, Probe, Scene, Skipped};
use crate::console::protocol::{PeerStatus, Request};
use crate::model::Address;

/// Mails that are followed.
const PROBES: usize = 6;
/// The same where a member lies: so many that some reader most likely asks the liar for a block, which it needs not.
const LIES: usize = 18;
/// So often a lie is tried that nobody was told.
const LIES_ROUNDS: usize = 4;
/// Members that a lie needs, each in a part of its own.
const ROLES: usize = 4;
/// A slow member works for this long,
const AWAKE: Duration = Duration::from_millis(60);
/// then does nothing for this long.
const ASLEEP: Duration = Duration::from_millis(940);

/// A member behind delay and connections that break, and then one that works a sixteenth of the time.
pub(super) fn slow_member(scene: &mut Scene) -> anyhow::Result<()> {
    scene.pass(STEADY);
    let sender = scene.member(1)?;
    let slow = scene.member(SLOW)?;
    match &scene.around {
        Some(around) => {
            around.storms(true);
            scene.say(&format!("from now on what goes to {slow} is late, and its connections break now and then"));
            scene.pass(STEADY);
        }
        None => scene
            .left_out
            .push("delay and breaking connections: a team's own peer is not moved behind a proxy".to_owned()),
    }
    let probes = scene.probes(&sender, std::slice::from_ref(&slow), PROBES)?;
    scene.kill(std::slice::from_ref(&sender))?;
    scene.log().add(Event::Down { peer: slow.to_string(), how: Gone::Silent });
    scene.say(&format!("{slow} works only {} ms of every second", AWAKE.as_millis()));
    scene.release();
    let start = scene.log().now();
    while scene.read_of(&probes) < probes.len() && scene.log().now() - start < READ {
        scene.signal(&slow, Signal::SIGSTOP)?;
        scene.pass(ASLEEP);
        scene.signal(&slow, Signal::SIGCONT)?;
        scene.pass(AWAKE);
    }
    let (read, took) = (scene.read_of(&probes), scene.log().now() - start);
    let all = probes.len();
    scene.check(
        2,
        read == all,
        format!("{read} of {all} mails were read beside a slow member within {} s", took.as_secs()),
    );
    scene.thaw(&slow)?;
    scene.around.iter().for_each(|around| around.storms(false));
    scene.start(&[sender])?;
    scene.pass(STEADY);
    Ok(())
}

/// What was done to a member's parts of some mails.
struct Falsified {
    /// Each part, as it was before.
    before: Vec<(PathBuf, Vec<u8>)>,
    /// How many of them are gone; the others are altered.
    removed: usize,
}

/// Flips a bit in every 4 KiB of what `member` holds of these mails, and removes every third part.
fn falsify(scene: &Scene, member: &Address, owner: &Address, probes: &[Probe]) -> anyhow::Result<Falsified> {
    let home = scene.crew.home(member);
    let parts = home.mirrored_parts(owner)?;
    let mut done = Falsified { before: Vec::new(), removed: 0 };
    for (h, part) in parts.into_iter().filter(|(h, _)| probes.iter().any(|probe| probe.sealed.h == *h)) {
        let path = home.mirror_part(owner, &h, part);
        let shown = || path.display().to_string();
        let before = fs::read(&path).with_context(shown)?;
        if done.before.len() % 3 == 2 {
            fs::remove_file(&path).with_context(shown)?;
            done.removed += 1;
        } else {
            let mut bytes = before.clone();
            bytes.iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
            fs::write(&path, bytes).with_context(shown)?;
        }
        done.before.push((path, before));
    }
    let (all, removed) = (done.before.len(), done.removed);
    scene.say(&format!(
        "on the disk of {member} {} parts are altered in every block and {removed} are gone, which it said to hold",
        all - removed
    ));
    Ok(done)
}

/// Its owner's audits find what a member cannot show, and the member mends its disk.
fn mends(scene: &mut Scene, sender: &Address, liar: &Address) -> anyhow::Result<()> {
    if scene.is_own {
        scene.left_out.push("audits: those of a team's own peers are too far apart for a drill".to_owned());
        return Ok(());
    }
    let probes = scene.probes(sender, std::slice::from_ref(liar), PROBES)?;
    let Falsified { before, .. } = scene.spoil(liar, || falsify(scene, liar, sender, &probes))?;
    let is_mended = |(path, before): &&(PathBuf, Vec<u8>)| fs::read(path).is_ok_and(|now| now == *before);
    let mended = || before.iter().filter(is_mended).count();
    scene.wait(PATIENCE, || (mended() == before.len()).then_some(()));
    let (now, all) = (mended(), before.len());
    let why =
        format!("{now} of {all} parts that {liar} could not show were found by audits and mended, as its disk shows");
    scene.say(&why);
    scene.check(8, now == all, why);
    scene.reads_all(&probes, READ, "after the member had mended its disk");
    Ok(())
}

/// What readers saw of a member that lies.
#[derive(Debug, Default, PartialEq, Eq)]
struct SeenLying {
    /// Altered blocks that they got of it.
    bad: u64,
    /// Readers that got one, and name nobody.
    silent: Vec<String>,
    /// Readers that give no answer.
    unasked: Vec<String>,
}

impl SeenLying {
    /// Whether it is known that altered blocks were served and that each reader who got one names who served it.
    fn is_named_by_all(&self) -> bool {
        self.bad > 0 && self.silent.is_empty() && self.unasked.is_empty()
    }

    fn text(&self, liar: &Address) -> String {
        let mut text = format!("{} altered blocks were served", self.bad);
        if self.is_named_by_all() {
            text.push_str(&format!(", and every reader that got one names {liar}"));
        }
        if !self.silent.is_empty() {
            text.push_str(&format!("; {} got one and do not name {liar}", self.silent.join(", ")));
        }
        if !self.unasked.is_empty() {
            text.push_str(&format!("; {} do not say what they got", self.unasked.join(", ")));
        }
        text
    }

    /// One reader's word, if it answers.
    fn hears(&mut self, reader: &Address, liar: &Address, status: Option<&PeerStatus>) {
        let Some(status) = status else { return self.unasked.push(reader.to_string()) };
        let sources = status.pulls.iter().flat_map(|pull| &pull.sources);
        let of_liar = sources.filter(|source| source.address == liar.to_string());
        let bad: u64 = of_liar.map(|source| source.bad_blocks).sum();
        self.bad += bad;
        if bad > 0 && !status.attention.iter().any(|line| line.contains(&liar.to_string())) {
            self.silent.push(reader.to_string());
        }
    }
}

/// What the readers of these mails say that `liar` gave them.
fn seen_lying(scene: &Scene, liar: &Address, probes: &[Probe]) -> SeenLying {
    let ways = probes.iter().filter_map(|probe| scene.crew.way(probe.mail));
    let readers: BTreeSet<Address> = ways.map(|way| scene.crew.people[way.to].address.clone()).collect();
    let mut seen = SeenLying::default();
    for reader in &readers {
        let status = scene.ask::<PeerStatus>(reader, &Request::Status).ok();
        seen.hears(reader, liar, status.as_ref());
    }
    seen
}

/// Mails are read beside a member that has altered what it holds of them; what their readers say of it.
fn lies(scene: &mut Scene, sender: &Address, liar: &Address, dead: &Address) -> anyhow::Result<SeenLying> {
    let probes = scene.probes(sender, &[liar.clone(), dead.clone()], LIES)?;
    scene.spoil(liar, || falsify(scene, liar, sender, &probes))?;
    scene.kill(&[sender.clone(), dead.clone()])?;
    scene.reads_all(&probes, READ, &format!("although {liar} serves altered blocks"));
    let seen = seen_lying(scene, liar, &probes);
    scene.start(&[sender.clone(), dead.clone()])?;
    scene.pass(STEADY);
    Ok(seen)
}

/// A member that serves other bytes than it took, and lacks what it said to hold.
pub(super) fn lying_member(scene: &mut Scene) -> anyhow::Result<()> {
    // A sender, a liar, one that dies, and one that has what is true.
    if scene.members.len() < ROLES {
        let why =
            format!("a group of {} has too few members beside a sender, a liar and a dead one", scene.members.len());
        return Err(Skipped { why }.into());
    }
    scene.pass(STEADY);
    let sender = scene.member(1)?;
    let liar = scene.member(2)?;
    let dead = scene.members.last().cloned().context("the group is empty")?;
    let mut seen = lies(scene, &sender, &liar, &dead)?;
    for _ in 1..LIES_ROUNDS {
        // Readers may have had all that they needed of others.
        if seen != SeenLying::default() {
            break;
        }
        seen = lies(scene, &sender, &liar, &dead)?;
    }
    scene.check(6, seen.is_named_by_all(), seen.text(&liar));
    mends(scene, &sender, &liar)?;
    super::impostor::impostor(scene, &sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lie_that_nobody_was_told_or_that_somebody_says_nothing_of_proves_nothing() {
        let liar: Address = "carol@acme".parse().unwrap();
        let reader: Address = "dave@acme".parse().unwrap();
        let none = SeenLying::default();
        assert!(!none.is_named_by_all() && none.text(&liar) == "0 altered blocks were served");
        let named = SeenLying { bad: 2, ..SeenLying::default() };
        assert!(named.is_named_by_all() && named.text(&liar).ends_with("names carol@acme"));
        let mut unasked = SeenLying { bad: 2, ..SeenLying::default() };
        unasked.hears(&reader, &liar, None);
        assert!(!unasked.is_named_by_all() && unasked.text(&liar).contains("dave@acme do not say"));
        let silent = SeenLying { bad: 1, silent: vec![reader.to_string()], ..SeenLying::default() };
        assert!(!silent.is_named_by_all() && silent.text(&liar).contains("dave@acme got one and do not name"));
    }
}
