//! The group without its acting master: another one acts, and what the first one held is made again. It changes no membership.

use std::time::Duration;

use anyhow::Context as _;

use super::{READ, STEADY};
use crate::cli::drill::scene::{Probe, Scene};
use crate::console::protocol::{GroupStatus, Request};
use crate::model::Address;

/// Mails that are followed.
const PROBES: usize = 6;
/// How long a new master may take, and those that take over what the dead one held.
const TAKE_OVER: Duration = Duration::from_secs(120);

/// Who acts, as `member` sees it.
fn acting(scene: &Scene, member: &Address) -> Option<Address> {
    let group: GroupStatus = scene.ask(member, &Request::GroupStatus).ok()?;
    group.acting_master
}

/// Whether the members that are left hold as many parts of each mail as they can, on their disks.
fn is_whole_again(scene: &Scene, owner: &Address, probes: &[Probe], dead: &Address) -> bool {
    let left: Vec<&Address> = scene.members.iter().filter(|member| *member != dead && *member != owner).collect();
    let parts: Vec<_> =
        left.iter().map(|member| scene.crew.home(member).mirrored_parts(owner).unwrap_or_default()).collect();
    probes.iter().all(|probe| {
        let have = parts.iter().filter(|parts| parts.iter().any(|(h, _)| *h == probe.sealed.h)).count();
        have >= probe.sealed.holders.len().min(left.len())
    })
}

/// The acting master dies.
pub(super) fn master_dead(scene: &mut Scene) -> anyhow::Result<()> {
    scene.pass(STEADY);
    let witness = scene.member(2)?;
    let master = scene.wait(READ, || acting(scene, &witness)).context("nobody acts as master")?;
    let sender = scene.members.iter().find(|member| **member != master && **member != witness).cloned();
    let sender = sender.context("the group is too small")?;
    let probes = scene.probes(&sender, std::slice::from_ref(&master), PROBES)?;
    scene.kill(std::slice::from_ref(&master))?;
    let next = scene.wait(TAKE_OVER, || acting(scene, &witness).filter(|now| *now != master));
    let who = next.as_ref().map_or("nobody".to_owned(), Address::to_string);
    scene.say(&format!("{who} acts now"));
    scene.check(12, next.is_some(), format!("{who} acts after {master} was killed"));
    // What cannot be replaced, because nobody is spare, is not waited for in vain: it cannot become more than there are members.
    let whole = scene.policy.lost_after.duration() < TAKE_OVER;
    if whole {
        let again = scene.wait(TAKE_OVER, || is_whole_again(scene, &sender, &probes, &master).then_some(()));
        scene.check(12, again.is_some(), "what the dead master held was made again at the others, as their disks show");
    } else {
        scene.left_out.push("repair: the group replaces a member only after a longer time than a drill has".to_owned());
    }
    scene.reads_all(&probes, READ, "under the next master");
    scene.start(&[master])?;
    scene.pass(STEADY);
    Ok(())
}
