//! Clocks that jump, over the end of a mail's life and back, while their peers run. No file of a peer is touched.

use std::time::Duration;

use anyhow::Context as _;

use super::{READ, STEADY};
use crate::cli::drill::scene::{Probe, Scene};
use crate::model::Address;

/// Mails that are followed.
const PROBES: usize = 6;
/// Two heartbeats, and more: by then a peer has compared its clock.
const COMPARED: Duration = Duration::from_secs(24);
/// A day.
const DAY: Duration = Duration::from_secs(86_400);

fn ms(span: Duration) -> anyhow::Result<i64> {
    i64::try_from(span.as_millis()).context("a jump that is too far")
}

/// Parts of these mails on one member's disk.
fn parts_at(scene: &Scene, member: &Address, owner: &Address, probes: &[Probe]) -> usize {
    let parts = scene.crew.home(member).mirrored_parts(owner).unwrap_or_default();
    parts.iter().filter(|(h, _)| probes.iter().any(|probe| probe.sealed.h == *h)).count()
}

/// A member's clock jumps beyond the life of everything that it holds, then a sender's, and then both behind.
pub(super) fn clock_jump(scene: &mut Scene) -> anyhow::Result<()> {
    let around = scene.around.clone().context("this scenario needs clocks of its own")?;
    let (sender, member) = (scene.member(1)?, scene.member(2)?);
    scene.pass(STEADY);
    let probes = scene.probes(&sender, std::slice::from_ref(&member), PROBES)?;
    let before = parts_at(scene, &member, &sender, &probes);
    // The mails' life, a day of grace, and a day more.
    let far = ms(scene.policy.life.duration() + DAY * 2)?;
    around.jump(&member, far)?;
    scene.say(&format!("the clock of {member} is {} days ahead", far / ms(DAY)?));
    scene.pass(COMPARED);
    let left = parts_at(scene, &member, &sender, &probes);
    scene.check(
        3,
        left >= before,
        format!("{member} keeps {left} of {before} parts although its clock says that they expired"),
    );
    around.jump(&sender, far)?;
    scene.say(&format!("and that of {sender}, who sent them"));
    scene.pass(COMPARED);
    around.jump(&member, -ms(DAY)?)?;
    around.jump(&sender, -ms(Duration::from_secs(3600))?)?;
    scene.say("both are behind now, by a day and an hour");
    scene.reads_all(&probes, READ, "after clocks had jumped over the end of their lives and back");
    scene.pass(STEADY);
    around.jump(&member, 0)?;
    around.jump(&sender, 0)?;
    scene.say("all clocks are right");
    scene.pass(STEADY);
    Ok(())
}
