//! Peers that die: the sender, as many members as may, one more, each in turn. Only signals are used, and nothing is deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::drill::availability::Expected;
use crate::cli::drill::scene::{Probe, Scene};
use crate::model::Address;

/// Mails that are followed.
const PROBES: usize = 6;
/// How long the readers have for them; each open may take as long as its sources are tried.
const READ: Duration = Duration::from_secs(60);
/// Steady mail before and after something fails.
const STEADY: Duration = Duration::from_secs(6);

/// Parts of these mails that are on the members' disks.
fn parts_on_disks(scene: &Scene, owner: &Address, probes: &[Probe]) -> usize {
    let mails: BTreeSet<_> = probes.iter().map(|probe| probe.sealed.h).collect();
    let of = |member: &Address| {
        let parts = scene.crew.home(member).mirrored_parts(owner).unwrap_or_default();
        parts.into_iter().filter(|(h, _)| mails.contains(h)).count()
    };
    scene.members.iter().map(of).sum()
}

/// A sender that dies as soon as its mail is safe.
pub(super) fn sender_dead(scene: &mut Scene) -> anyhow::Result<()> {
    let sender = scene.members.get(1).cloned().context("the group is too small")?;
    scene.pass(STEADY);
    let probes = scene.probes(&sender, &[], PROBES)?;
    let parts = parts_on_disks(scene, &sender, &probes);
    scene.kill(std::slice::from_ref(&sender))?;
    scene.pass(STEADY);
    let left = parts_on_disks(scene, &sender, &probes);
    scene.check(3, left >= parts, format!("{left} of {parts} parts are still there while their owner is away"));
    scene.release();
    let read = scene.all_read(&probes, READ);
    let all = probes.len();
    scene.check(2, read == all, format!("{read} of {all} mails were read while their sender was dead"));
    scene.expected = Some(Expected::Share(1.0, "no mail loses more than its owner".to_owned()));
    scene.start(std::slice::from_ref(&sender))?;
    scene.pass(STEADY);
    Ok(())
}
