//! A member in whose place a liar of the drill's own answers: what it forges and withholds changes nothing. It leaves the member's
//! disk as it was.

use anyhow::Context as _;

use super::{READ, STEADY};
use crate::actors::identity::Identity;
use crate::cli::drill::liar::{About, Liar};
use crate::cli::drill::scene::{Probe, Scene};
use crate::cli::drill::stranger::{Place, place_of};
use crate::cli::drill::watch;
use crate::model::{Address, PeerId};

/// Mails that are followed.
const PROBES: usize = 6;

/// Parts of these mails on the disks of all members but one.
fn parts_but_at(scene: &Scene, but: &Address, owner: &Address, probes: &[Probe]) -> usize {
    let of = |member: &Address| {
        let parts = scene.crew.home(member).mirrored_parts(owner).unwrap_or_default();
        parts.into_iter().filter(|(h, _)| probes.iter().any(|probe| probe.sealed.h == *h)).count()
    };
    scene.members.iter().filter(|member| *member != but).map(of).sum()
}

fn identity(scene: &Scene, peer: &Address) -> anyhow::Result<Identity> {
    Identity::load(&scene.crew.home(peer)).with_context(|| peer.to_string())
}

fn peer_id(scene: &Scene, peer: &Address) -> anyhow::Result<PeerId> {
    Ok(identity(scene, peer)?.peer_id())
}

/// What the liar is to know of these mails.
fn about(scene: &Scene, sender: &Address, probes: &[Probe]) -> anyhow::Result<Vec<About>> {
    let owner = identity(scene, sender)?;
    let lines = watch::lines(&scene.crew, sender);
    let of = |probe: &Probe| {
        let (_, line) =
            lines.iter().find(|(mail, _)| *mail == probe.mail).context("a mail that nobody opened has gone")?;
        let reader = line.receivers.keys().next().cloned().context("a mail to nobody")?;
        let from = (sender.clone(), owner.peer_id());
        let to = (reader.clone(), peer_id(scene, &reader)?);
        let certificate = owner.openpgp.certificate().clone();
        Ok(About { h: probe.sealed.h, submission: line.submission, from, certificate, to })
    };
    probes.iter().map(of).collect()
}

/// How many of these mails their owner still waits for, told by nobody that they ended.
fn still_wait(scene: &Scene, sender: &Address, probes: &[Probe]) -> usize {
    let lines = watch::lines(&scene.crew, sender);
    let waits = |probe: &&Probe| {
        let line = lines.iter().find(|(mail, _)| *mail == probe.mail);
        line.is_some_and(|(_, line)| line.receivers.values().all(|state| state == "announced"))
    };
    probes.iter().filter(waits).count()
}

/// A liar with a member's keys in its place: forged tombstones and nr, stale and empty msglists, parts that it withholds.
pub(super) fn impostor(scene: &mut Scene, sender: &Address) -> anyhow::Result<()> {
    if scene.is_own {
        scene.left_out.push("forged words in a member's name: a team's own keys are not used for that".to_owned());
        return Ok(());
    }
    let (liar, asks) = (scene.member(3)?, scene.member(4)?);
    let people = scene.crew.people.iter().map(|person| place_of(&scene.crew.home(&person.address)));
    let places: Vec<Place> = people.collect::<anyhow::Result<_>>()?;
    let fragments = (scene.policy.fragments.k, scene.policy.fragments.n);
    let mut played = Liar::new((liar.clone(), identity(scene, &liar)?), places, peer_id(scene, sender)?, fragments)?;
    let probes = scene.probes(sender, std::slice::from_ref(&liar), PROBES)?;
    let (before, all) = (parts_but_at(scene, &liar, sender, &probes), probes.len());
    let about = about(scene, sender, &probes)?;

    scene.kill(std::slice::from_ref(&liar))?;
    let (_, place) = place_of(&scene.crew.home(&liar))?;
    played.serve(place.https, &about)?;
    let posted = played.post(&about)?;
    let forged = posted.taken + posted.refused;
    scene.say(&format!(
        "a liar with the keys of {liar} withholds its parts and posted {forged} forged tombstones and nr"
    ));
    scene.pass(STEADY);
    let waiting = still_wait(scene, sender, &probes);
    scene.check(
        4,
        waiting == all,
        format!(
            "{waiting} of {all} mails still wait for their readers after {forged} forged words, {} refused at once",
            posted.refused
        ),
    );
    // Whoever starts while the owner is away asks other members for its list: this one, too.
    scene.kill(std::slice::from_ref(sender))?;
    scene.stop(std::slice::from_ref(&asks))?;
    scene.start(std::slice::from_ref(&asks))?;
    scene.pass(STEADY);
    let after = parts_but_at(scene, &liar, sender, &probes);
    scene.check(
        3,
        after >= before,
        format!("{after} parts after stale and empty msglists and forged tombstones, {before} before"),
    );
    scene.reads_all(&probes, READ, &format!("although {liar} claims every fragment and gives none"));
    let (lists, parts) = played.asked();
    scene.say(&format!("the liar was asked for msglists {lists} times and for parts {parts} times"));
    played.stop();
    scene.start(&[sender.clone(), liar])?;
    scene.pass(STEADY);
    Ok(())
}
