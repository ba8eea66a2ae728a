//! Peers that die: the sender, as many members as may, one more, each in turn. Only signals are used, and nothing is deleted.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::{READ, STEADY, few};
use crate::cli::demo::play::encoding;
use crate::cli::drill::availability::Expected;
use crate::cli::drill::scene::{Probe, Scene};
use crate::model::{Address, Encoding};

/// Mails that are followed.
const PROBES: usize = 6;

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
    let sender = scene.member(1)?;
    scene.pass(STEADY);
    let probes = scene.probes(&sender, &[], PROBES)?;
    let parts = parts_on_disks(scene, &sender, &probes);
    scene.kill(std::slice::from_ref(&sender))?;
    scene.pass(STEADY);
    let left = parts_on_disks(scene, &sender, &probes);
    scene.check(
        3,
        left >= parts,
        format!("{left} parts are there while their owner is away, {parts} were when it died"),
    );
    scene.reads_all(&probes, READ, "while their sender was dead");
    scene.expected = Some(Expected::Share(1.0, "no mail loses more than its owner".to_owned()));
    scene.start(&[sender])?;
    scene.pass(STEADY);
    Ok(())
}

/// So many members that die beside a sender, the last ones first.
fn victims(members: &[Address], sender: &Address, f: usize) -> Vec<Address> {
    members.iter().rev().filter(|member| *member != sender).take(f).cloned().collect()
}

/// The sender and as many members as safe(f) says.
pub(super) fn f_dead(scene: &mut Scene) -> anyhow::Result<()> {
    let sender = scene.member(1)?;
    scene.pass(STEADY);
    let mut victims = victims(&scene.members, &sender, scene.promised_f());
    let dead = victims.len();
    let probes = scene.probes(&sender, &victims, PROBES)?;
    let shown = probes.iter().map(|probe| probe.sealed.safe).min().unwrap_or_default();
    victims.push(sender);
    scene.kill(&victims)?;
    scene.reads_all(
        &probes,
        READ,
        &format!("with their sender and {dead} other members dead, as safe({shown}) had said"),
    );
    scene.expected = Some(Expected::Share(1.0, format!("no more than safe({shown}) and the owner are gone")));
    scene.start(&victims)?;
    scene.pass(STEADY);
    Ok(())
}

/// Whether those who are left of its holders have enough of a mail.
fn is_enough(probe: &Probe, dead: &[Address]) -> bool {
    let left = probe.sealed.holders.keys().filter(|holder| !dead.contains(holder)).count();
    match encoding(&probe.sealed) {
        Encoding::Whole => left >= 1,
        Encoding::Fragments { k, .. } => left >= usize::from(k),
    }
}

/// The sender and one member more than safe(f) says: what cannot be had is said to be so, and comes back with any one of them.
pub(super) fn f_plus_one_dead(scene: &mut Scene) -> anyhow::Result<()> {
    let sender = scene.member(1)?;
    let reader = scene.reader_for(&sender)?;
    scene.pass(STEADY);
    let probes = scene.probes(&sender, &scene.crew.all_but(&reader), PROBES)?;
    let (first, f) = (probes.first().context("no mail")?, scene.promised_f());
    let holders = first.sealed.holders.keys().filter(|holder| **holder != reader).cloned();
    let mut victims: Vec<Address> = holders.take(f + 1).collect();
    let first_back = victims.first().cloned().context("nobody holds the mail")?;
    victims.push(sender.clone());
    scene.kill(&victims)?;
    let enough: Vec<Probe> = probes.iter().filter(|probe| is_enough(probe, &victims)).cloned().collect();
    let too_few: Vec<Probe> = probes.iter().filter(|probe| !is_enough(probe, &victims)).cloned().collect();
    scene.release();
    let (read, all) = (scene.all_read(&enough, READ), enough.len());
    if all > 0 {
        scene.check(2, read == all, format!("{read} of {all} mails were read of which enough was left"));
    }
    if too_few.is_empty() {
        scene.left_out.push(format!(
            "mail that cannot be had: with their sender and {} other members dead enough was left of each, as {reader} holds some itself",
            victims.len() - 1
        ));
        scene.start(&victims)?;
    } else {
        refused_and_back(scene, &too_few, &first_back, &victims)?;
    }
    scene.pass(STEADY);
    Ok(())
}

/// Mails of which too few parts are left while all of `dead` are away: each is refused, and can be had once `first` is back.
fn refused_and_back(scene: &mut Scene, too_few: &[Probe], first: &Address, dead: &[Address]) -> anyhow::Result<()> {
    // Each is asked for, and answered with a clear no.
    let answered = scene.wait(READ, || (scene.refused_of(too_few) == too_few.len()).then_some(()));
    let (read, all) = (scene.read_of(too_few), too_few.len());
    let ok = answered.is_some() && read == 0;
    scene.check(
        8,
        ok,
        format!(
            "of {all} mails with one holder fewer than safe(f) allows, {read} were read, the others refused clearly"
        ),
    );
    scene.start(std::slice::from_ref(first))?;
    let back: Vec<Address> = dead.iter().filter(|peer| *peer != first).cloned().collect();
    let again: Vec<Probe> = too_few.iter().filter(|probe| is_enough(probe, &back)).cloned().collect();
    let (read, all) = (scene.all_read(&again, READ), again.len());
    match all {
        0 => scene
            .left_out
            .push(format!("mail that comes back: by chance {first} held none of which too little was left")),
        _ => scene.check(2, read == all, format!("{read} of {all} came with {first} back, their sender still dead")),
    }
    scene.start(&back)
}

/// Every peer is stopped and started, one after the other.
pub(super) fn rolling_restart(scene: &mut Scene) -> anyhow::Result<()> {
    scene.pass(STEADY);
    let everybody: Vec<Address> = scene.crew.people.iter().map(|person| person.address.clone()).collect();
    for peer in everybody {
        scene.stop(std::slice::from_ref(&peer))?;
        let pause = few(&mut scene.random, 500, 1500);
        scene.pass(pause);
        scene.start(&[peer])?;
        let pause = few(&mut scene.random, 1000, 2500);
        scene.pass(pause);
    }
    scene.expected = Some(Expected::Share(1.0, "one peer at a time is away".to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_members_die_as_is_said_and_the_sender_is_none_of_them() {
        let members: Vec<Address> = ["alice@acme", "bob@acme", "carol@acme"].map(|who| who.parse().unwrap()).to_vec();
        let dead = |f| victims(&members, &members[1], f).iter().map(Address::to_string).collect::<Vec<_>>();
        assert_eq!(dead(1), ["carol@acme"]);
        assert_eq!(dead(2), ["carol@acme", "alice@acme"]);
    }
}
