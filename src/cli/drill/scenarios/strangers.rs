//! Strangers in the DHT: they fill it with junk, and put back what was deleted. They touch no peer in any other way.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;

use super::{READ, STEADY};
use crate::cli::drill::scene::Scene;
use crate::cli::drill::stranger::{Place, Put, Stranger, place_of};
use crate::core::dht::Limits;
use crate::model::Address;
use crate::model::dht::DhtKey;
use crate::wire::dht::Entry;

/// Mails that are followed.
const PROBES: usize = 4;
/// Strangers, each with a key of its own.
const STRANGERS: usize = 4;
/// Requests of each to each peer.
const ROUNDS: usize = 6;
/// Lengths of junk, bytes, in turn: the largest that is allowed, and small ones.
const LENGTHS: [usize; 3] = [LARGEST, 300, 2_000];
/// The largest entry that is allowed, bytes.
const LARGEST: usize = 64 << 10;
/// So much beyond a bound is tried, bytes.
const OVER: u64 = 2 << 20;
/// They give up after this long, however much they have put.
const FLOOD: Duration = Duration::from_secs(60);
/// Keys in one request: together they must fit into one.
const TOGETHER: usize = 16;

/// The keys that everybody's mail goes by.
fn keys(scene: &Scene) -> Vec<DhtKey> {
    let people = scene.crew.people.iter().map(|person| person.address.clone());
    let of = |address: Address| {
        let group = DhtKey::Group(address.group().clone());
        [DhtKey::Ns(address.clone()), DhtKey::Nr(address.clone()), DhtKey::Peer(address), group]
    };
    people.flat_map(of).collect()
}

/// Everybody who runs.
fn places(scene: &Scene, but: &Address) -> anyhow::Result<Vec<Place>> {
    let people = scene.crew.people.iter().filter(|person| person.address != *but);
    people.map(|person| place_of(&scene.crew.home(&person.address))).collect()
}

fn flood(scene: &Scene, places: &[Place]) -> anyhow::Result<Put> {
    let keys = keys(scene);
    let mut all = Put::default();
    let start = scene.log().now();
    for _ in 0..STRANGERS {
        let mut stranger = Stranger::new()?;
        for round in 0..ROUNDS {
            for place in places {
                if scene.log().now() - start > FLOOD {
                    return Ok(all);
                }
                let length = LENGTHS.get(round % LENGTHS.len()).copied().unwrap_or_default();
                for some in keys.chunks(TOGETHER) {
                    all = all.and(stranger.junk(place, some, length)?);
                }
            }
        }
    }
    Ok(all)
}

/// One stranger puts more at one peer than a publisher may have there.
fn over_a_bound(scene: &Scene, place: &Place) -> anyhow::Result<()> {
    let (keys, bound) = (keys(scene), Limits::ENTRIES.publisher);
    let mut stranger = Stranger::new()?;
    let mut put = Put::default();
    let start = scene.log().now();
    for some in keys.chunks(TOGETHER).cycle() {
        let bytes = u64::try_from(put.stored * LARGEST)?;
        let beyond = bytes > bound.bytes + OVER || put.refused > TOGETHER;
        if beyond || put.unanswered > TOGETHER || scene.log().now() - start > FLOOD {
            break;
        }
        put = put.and(stranger.junk(place, some, LARGEST)?);
    }
    let why = format!(
        "one stranger had {} entries of {} KiB kept by one peer, which may keep {} MiB of it, and {} refused",
        put.stored,
        LARGEST >> 10,
        bound.bytes >> 20,
        put.refused
    );
    scene.say(&why);
    scene.check(9, is_bounded(put, bound.bytes), why);
    Ok(())
}

/// Whether somebody was refused before more was kept than may be.
fn is_bounded(put: Put, bytes: u64) -> bool {
    put.refused > 0 && u64::try_from(put.stored * LARGEST).is_ok_and(|stored| stored <= bytes)
}

/// How many mails these announce, each of which is announced at several peers.
fn count_of(announced: &[Entry]) -> usize {
    announced.iter().map(|entry| entry.terms().value).collect::<BTreeSet<_>>().len()
}

/// Takes what announces mail to `reader`, from everybody.
fn announcements(places: &[Place], reader: &Address) -> anyhow::Result<Vec<Entry>> {
    let mut stranger = Stranger::new()?;
    let mut all = Vec::new();
    for place in places {
        all.extend(stranger.take(place, &DhtKey::Ns(reader.clone()))?);
    }
    Ok(all)
}

/// Junk under every key while a reader is away, whose mail is announced in the DHT; afterwards the announcements are put back.
pub(super) fn dht_junk(scene: &mut Scene) -> anyhow::Result<()> {
    scene.pass(STEADY);
    let sender = scene.member(1)?;
    let reader = scene.reader_for(&sender)?;
    // Where nobody is outside, the reader is a member, and what it would hold is missing meanwhile.
    scene.stop(std::slice::from_ref(&reader))?;
    let probes = scene.probes(&sender, &scene.crew.all_but(&reader), PROBES)?;
    let places = places(scene, &reader)?;
    let announced = announcements(&places, &reader)?;
    let mails = count_of(&announced);
    scene.check(
        1,
        mails >= probes.len(),
        format!("{mails} announcements are in the DHT of {} mails that are said to be announced there", probes.len()),
    );
    scene.say(&format!("{STRANGERS} strangers put junk under every key at {} peers", places.len()));
    let put = flood(scene, &places)?;
    let Put { stored, refused, unanswered } = put;
    let why = format!(
        "of {} junk entries {stored} were kept, {refused} refused, {unanswered} not answered",
        stored + refused + unanswered
    );
    scene.say(&why);
    scene.check(9, stored + refused > unanswered, why);
    if scene.is_own {
        scene
            .left_out
            .push("more junk than a peer keeps of one stranger: a team's own would have it for an hour".to_owned());
    } else {
        over_a_bound(scene, places.first().context("nobody is here")?)?;
    }
    scene.start(std::slice::from_ref(&reader))?;
    scene.reads_all(&probes, READ, "that were announced in a DHT full of junk");
    // Until the announcements are deleted, putting them back would be nothing new.
    scene.pass(STEADY);
    let mut stranger = Stranger::new()?;
    let mut back = Put::default();
    for place in &places {
        for some in announced.chunks(TOGETHER) {
            back = back.and(stranger.put(place, some.to_vec())?);
        }
    }
    let why = format!(
        "{} announcements of mail that was read were put back, {} kept for now",
        back.stored + back.refused,
        back.stored
    );
    scene.say(&why);
    scene.stop(std::slice::from_ref(&reader))?;
    scene.start(std::slice::from_ref(&reader))?;
    scene.pass(STEADY);
    // That none of it doubled a mail the mailboxes show at the end: if anything was put back.
    scene.check(5, back.stored + back.refused > 0 && back.unanswered == 0, why);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_bounded_only_where_some_of_it_was_refused_in_time() {
        let put = |stored, refused| Put { stored, refused, unanswered: 0 };
        assert!(is_bounded(put(500, 20), 32 << 20));
        assert!(!is_bounded(put(500, 0), 32 << 20), "nobody found a bound");
        assert!(!is_bounded(put(600, 20), 32 << 20), "it came too late");
    }
}
