//! The group without its acting master, and cut in two: others act, and afterwards there is one group again. It changes no
//! membership.

use std::time::Duration;

use anyhow::Context as _;

use super::{READ, STEADY};
use crate::cli::drill::scene::{Probe, Scene};
use crate::cli::network::Side;
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

/// Waits until each of these sees the same master act, another one than `not`; gives who.
fn agree(scene: &Scene, members: &[Address], not: Option<&Address>) -> Option<Address> {
    scene.wait(TAKE_OVER, || {
        let mut seen = members.iter().map(|member| acting(scene, member));
        let first = seen.next()??;
        (seen.all(|other| other.as_ref() == Some(&first)) && Some(&first) != not).then_some(first)
    })
}

/// Parts of these mails on all disks.
fn parts(scene: &Scene, owner: &Address, probes: &[Probe]) -> usize {
    let of = |member: &Address| scene.crew.home(member).mirrored_parts(owner).unwrap_or_default();
    let is_one = |h| probes.iter().any(|probe| probe.sealed.h == h);
    scene.members.iter().map(|member| of(member).into_iter().filter(|(h, _)| is_one(*h)).count()).sum()
}

/// The group is cut in two halves, each goes on under a master of its own, and is healed.
pub(super) fn partition(scene: &mut Scene) -> anyhow::Result<()> {
    let around = scene.around.clone().context("this scenario needs a network of its own")?;
    let (network, sides) = around.network.as_ref().context("this scenario needs a network of its own")?;
    let on = |side: Side| -> Vec<Address> {
        scene.members.iter().filter(|member| sides.get(*member) == Some(&side)).cloned().collect()
    };
    let (east, west) = (on(Side::East), on(Side::West));
    let mut left_out = Vec::new();
    match network.limit() {
        Ok(rate) => scene.say(&format!("each side sends to the other at {rate} at most")),
        Err(error) => left_out.push(format!("a limited rate between the sides: {error:#}")),
    }
    left_out
        .extend(network.lose().err().map(|error| format!("lost packets, delay (`slow-member` has them): {error:#}")));
    scene.pass(STEADY);
    let sender = east.get(1).or(east.first()).cloned().context("the group is too small")?;
    let probes = scene.probes(&sender, &east, PROBES)?;
    let before = parts(scene, &sender, &probes);
    let first = agree(scene, &scene.members, None).context("nobody acts as master")?;

    network.cut()?;
    scene.say("the group is cut in two halves, three members each");
    let here = agree(scene, &east, None);
    let there = agree(scene, &west, here.as_ref());
    let masters = format!("{} and {}", word(here.as_ref()), word(there.as_ref()));
    scene.check(12, here.is_some() && there.is_some(), format!("while it was cut, {masters} acted, each for one half"));
    scene.pass(STEADY);
    let during = parts(scene, &sender, &probes);
    scene.check(3, during >= before, format!("{during} parts while it was cut, {before} before"));
    scene.release();
    // What its readers can have on their own side they have now; the rest comes when the halves find each other.
    scene.pass(STEADY * 2);
    let read = scene.read_of(&probes);

    network.heal()?;
    scene.say(&format!("healed; {read} of {} mails had been read across the cut", probes.len()));
    let one = agree(scene, &scene.members, None);
    scene.check(12, one.as_ref() == Some(&first), format!("{} acts for all after it was healed", word(one.as_ref())));
    scene.reads_all(&probes, READ, "after it was healed");
    scene.left_out.extend(left_out);
    scene.pass(STEADY);
    Ok(())
}

fn word(who: Option<&Address>) -> String {
    who.map_or("nobody".to_owned(), Address::to_string)
}
