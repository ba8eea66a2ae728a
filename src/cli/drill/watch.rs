//! Looks again and again at what senders' peers show of their outboxes, and at the disks that this must be borne out by. It asks
//! and reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::census;
use super::crew::{Crew, digest_of};
use super::events::{Event, MailNo, Short};
use crate::cli::demo::play::encoding;
use crate::console::protocol::{OutboxLine, Request, SealedLine};
use crate::model::{Address, Encoding, MailId, Part};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(1500);
/// Most members whose losses are tried one by one.
const MEMBERS_MAX: usize = 16;
/// Longest silence of a peer that is asked.
const SILENCE: Duration = Duration::from_secs(5);

/// Until the drill ends.
pub(super) fn watch(crew: &Crew) {
    let mut on_disk: BTreeMap<(MailNo, MailId), (Address, PathBuf)> = BTreeMap::new();
    let mut memory = BTreeMap::new();
    while crew.is_working() {
        // Each life of a process has its own figure, which is gone with it.
        census::memory(crew, &mut memory);
        for person in &crew.people {
            let lines = lines(crew, &person.address);
            hear(crew, &person.address, &lines);
            for (mail, line) in lines {
                for sealed in &line.sealed {
                    crew.is_called(mail, sealed.h);
                    let blob = crew.home(&person.address).outbox_blob(&sealed.h);
                    if blob.exists() {
                        crew.spoiled().sees_blob(&person.address, &sealed.h);
                        on_disk.insert((mail, sealed.h), (person.address.clone(), blob));
                    }
                    claim(crew, &person.address, mail, sealed);
                }
            }
        }
        on_disk.retain(|(mail, h), (owner, blob)| {
            let there = blob.exists();
            // What the drill itself took from a disk was not freed by its peer.
            if !there && !crew.spoiled().excuses_blob(owner, h) {
                crew.log.add(Event::Freed { mail: *mail });
            }
            there
        });
        std::thread::sleep(EVERY);
    }
}

/// Ends the excuses of members that have had their say about what the drill did to their disks.
fn hear(crew: &Crew, owner: &Address, lines: &[(MailNo, OutboxLine)]) {
    let excused = crew.spoiled().excused_of(owner);
    if excused.is_empty() {
        return;
    }
    for (member, lost, was) in excused {
        let (_, h, part) = &lost;
        let now = fs::read(crew.home(&member).mirror_part(owner, h, *part));
        if now.is_ok_and(|bytes| digest_of(&bytes) == was) {
            crew.spoiled().is_mended(&member, &lost);
        }
    }
    let sealed = lines.iter().flat_map(|(_, line)| &line.sealed);
    let named = sealed.map(|sealed| {
        let part = |(member, text): (&Address, &String)| Some((member.clone(), part_of(encoding(sealed), text)?));
        (sealed.h, sealed.holders.iter().filter_map(part).collect())
    });
    crew.spoiled().hears(owner, &named.collect());
}

/// What waits in the outbox of a peer, whoever's it is; nothing when it does not answer.
pub(super) fn outbox(crew: &Crew, peer: &Address) -> Option<Vec<OutboxLine>> {
    let control = crew.cluster.control_of(peer).giving_up_after(SILENCE);
    control.ask_telling(&Request::Outbox, &mut |_, _| {}).ok()
}

/// What waits in the outbox of a peer of the drill's mails; nothing when it does not answer.
pub(super) fn lines(crew: &Crew, peer: &Address) -> Vec<(MailNo, OutboxLine)> {
    let number = |line: &OutboxLine| crew.letters.number(&format!("{} ", line.subject.as_deref()?));
    let lines = outbox(crew, peer).unwrap_or_default();
    lines.into_iter().filter_map(|line| Some((number(&line)?, line))).collect()
}

/// Whether every other peer answers and has nothing in its outbox that waits for this reader: what was read there is known to have
/// been received, or to have been taken back.
pub(super) fn nothing_waits_for(crew: &Crew, reader: &Address) -> bool {
    let others = crew.people.iter().map(|person| &person.address).filter(|other| *other != reader);
    let is_done = |lines: Vec<OutboxLine>| !lines.iter().any(|line| line.receivers.contains_key(reader));
    others.into_iter().all(|other| outbox(crew, other).is_some_and(is_done))
}

/// Compares the safe(f) that is shown with the disks of those who are said to hold parts.
fn claim(crew: &Crew, owner: &Address, mail: MailNo, sealed: &SealedLine) {
    if sealed.holders.is_empty() {
        return;
    }
    let start = crew.log.now();
    let mut counted = bears_out(&on_disks(crew, owner, sealed));
    let mut short = None;
    if counted < sealed.safe {
        // It may have ended, or moved, between the question and the look: only what is still said is untrue.
        let still = lines(crew, owner).into_iter().flat_map(|(_, line)| line.sealed).find(|now| now.h == sealed.h);
        let Some(still) = still.filter(|still| still.holders == sealed.holders && still.safe == sealed.safe) else {
            return;
        };
        let held = on_disks(crew, owner, &still);
        counted = bears_out(&held);
        if counted < sealed.safe {
            if !lines(crew, owner).iter().any(|(_, line)| line.sealed.contains(&still)) {
                return;
            }
            let lacks = lacking(crew, owner, &still, &held);
            short = Some(Short { owner: owner.to_string(), lacks, look: crew.log.now().saturating_sub(start) });
        }
    }
    let holders = sealed.holders.iter().map(|(holder, part)| format!("{holder} {part}")).collect::<Vec<_>>().join(", ");
    crew.log.add(Event::Claimed { mail, shown: sealed.safe, counted, holders, short });
}

/// What each member but the owner has of a mail on its disk. Whoever has parts counts with all of them, also one that took over from
/// one that is named and has told nobody yet.
fn on_disks(crew: &Crew, owner: &Address, sealed: &SealedLine) -> BTreeMap<Address, Vec<Part>> {
    let encoding = encoding(sealed);
    let held = crew.people.iter().map(|person| &person.address).filter(|member| *member != owner).map(|member| {
        let named = sealed.holders.get(member).and_then(|part| part_of(encoding, part));
        let parts = crew.home(member).mirrored_parts(owner).unwrap_or_default();
        let parts = parts.into_iter().filter(|(h, _)| *h == sealed.h).map(|(_, part)| part).collect();
        let excused = |part: &Part| crew.spoiled().excuses(member, &(owner.clone(), sealed.h, *part), crew.log.now());
        (member.clone(), borne_out(named.filter(excused), parts))
    });
    held.filter(|(_, parts): &(Address, Vec<Part>)| !parts.is_empty()).collect()
}

/// What a member's disk bears out. From a disk that the drill itself spoiled a part may be gone that its peer had confirmed before, and
/// may not know of yet; so where it is excused the one that is named counts too. Of several only one is named.
fn borne_out(named_and_excused: Option<Part>, mut parts: Vec<Part>) -> Vec<Part> {
    parts.extend(named_and_excused.filter(|part| !parts.contains(part)));
    parts
}

/// The members that are said to hold a part that is not among theirs.
fn lacking(crew: &Crew, owner: &Address, sealed: &SealedLine, held: &BTreeMap<Address, Vec<Part>>) -> Vec<String> {
    let encoding = encoding(sealed);
    let has = |member: &Address, part: &str| {
        let part = part_of(encoding, part);
        held.get(member).is_some_and(|parts| part.is_some_and(|part| parts.contains(&part)))
    };
    let others = crew.people.iter().map(|person| &person.address).filter(|member| *member != owner);
    let named = others.filter_map(|member| Some((member, sealed.holders.get(member)?)));
    named.filter(|(member, part)| !has(member, part)).map(|(member, _)| member.to_string()).collect()
}

fn part_of(encoding: Encoding, text: &str) -> Option<Part> {
    match (encoding, text.strip_prefix("fragment ")) {
        (Encoding::Fragments { k, .. }, Some(i)) => i.trim().parse().ok().map(|i| Part::Fragment { k, i }),
        (_, None) if text == "whole" => Some(Part::Whole),
        _ => None,
    }
}

/// safe(f) as the disks have it: how many of these members can go, whichever they are, with enough left. Every loss is tried, from
/// the smallest: not the arithmetic of the peers, which is what is to be checked.
fn bears_out(held: &BTreeMap<Address, Vec<Part>>) -> i32 {
    // A drill's group is small; of a larger one the first members are a lower bound.
    let held: Vec<&Vec<Part>> = held.values().take(MEMBERS_MAX).collect();
    let all: u32 = 1 << held.len();
    let left = |lost: u32| {
        held.iter().zip(0_u32..).filter(move |(_, at)| lost & (1 << at) == 0).flat_map(|(parts, _)| parts.iter())
    };
    let fatal = (0..all).filter(|lost| !is_enough(left(*lost).copied())).map(u32::count_ones).min();
    fatal.map_or(0, |members| i32::try_from(members).unwrap_or(i32::MAX)) - 1
}

/// Whether a mail can be read from these.
fn is_enough(parts: impl Iterator<Item = Part>) -> bool {
    let mut fragments: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
    for part in parts {
        match part {
            Part::Whole => return true,
            Part::Fragment { k, i } => fragments.entry(k).or_default().insert(i),
        };
    }
    fragments.iter().any(|(k, indices)| indices.len() >= usize::from(*k))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the drill `lying-member`: a member that was spoiled held two parts more than the one that its owner named.
    #[test]
    fn a_member_whose_disk_was_spoiled_counts_with_all_that_is_there_and_with_what_is_named() {
        let part = |i| Part::Fragment { k: 2, i };
        assert_eq!(borne_out(Some(part(3)), vec![part(0), part(2), part(3)]), [part(0), part(2), part(3)]);
        assert_eq!(borne_out(Some(part(3)), vec![part(0)]), [part(0), part(3)]);
        assert_eq!(borne_out(None, vec![part(0)]), [part(0)], "of others only what is there");
    }

    #[test]
    fn what_disks_bear_out_is_counted_in_members_that_can_go() {
        let part = |text: &str| part_of(Encoding::Fragments { k: 2, n: 4 }, text).unwrap();
        let has = |members: &[&[&str]]| {
            let of = |(parts, n): (&&[&str], u32)| -> (Address, Vec<Part>) {
                (format!("m{n}@acme").parse().unwrap(), parts.iter().map(|text| part(text)).collect())
            };
            bears_out(&members.iter().zip(0..).map(of).collect())
        };
        assert_eq!(has(&[&["fragment 0"], &["fragment 1"], &["fragment 3"]]), 1);
        assert_eq!(has(&[&["fragment 0"], &["fragment 0"]]), -1, "one part twice is one part");
        assert_eq!(has(&[&["fragment 2"], &["fragment 3"], &["fragment 2"], &["fragment 3"]]), 1);
        assert_eq!(has(&[&["fragment 0"], &["whole"]]), 0);
        assert_eq!(has(&[&["fragment 0", "whole"], &["fragment 1", "fragment 0"], &["fragment 1"]]), 1);
        assert_eq!(has(&[&["whole"], &["whole"], &["whole"]]), 2);
        assert_eq!(has(&[]), -1);
    }
}
