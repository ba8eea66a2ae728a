//! Looks again and again at what senders' peers show of their outboxes, and at the disks that this must be borne out by. It asks
//! and reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::crew::Crew;
use super::events::{Event, MailNo};
use crate::cli::demo::play::encoding;
use crate::console::protocol::{OutboxLine, Request, SealedLine};
use crate::model::{Address, Encoding, MailId, Part};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(1500);
/// Longest silence of a peer that is asked.
const SILENCE: Duration = Duration::from_secs(5);

/// Until the drill ends.
pub(super) fn watch(crew: &Crew) {
    let mut on_disk: BTreeMap<(MailNo, MailId), (Address, PathBuf)> = BTreeMap::new();
    while crew.is_working() {
        for person in &crew.people {
            for (mail, line) in lines(crew, &person.address) {
                for sealed in &line.sealed {
                    crew.is_called(mail, sealed.h);
                    let blob = crew.home(&person.address).outbox_blob(&sealed.h);
                    if blob.exists() && !crew.is_spoiled(&person.address) {
                        on_disk.insert((mail, sealed.h), (person.address.clone(), blob));
                    }
                    claim(crew, &person.address, mail, sealed);
                }
            }
        }
        on_disk.retain(|(mail, _), (owner, blob)| {
            let there = blob.exists();
            // What the drill itself took from a disk was not freed by its peer.
            if !there && !crew.is_spoiled(owner) {
                crew.log.add(Event::Freed { mail: *mail });
            }
            there
        });
        std::thread::sleep(EVERY);
    }
}

/// What waits in the outbox of a peer of the drill's mails; nothing when it does not answer.
pub(super) fn lines(crew: &Crew, peer: &Address) -> Vec<(MailNo, OutboxLine)> {
    let control = crew.cluster.control_of(peer).giving_up_after(SILENCE);
    let lines: Vec<OutboxLine> = control.ask_telling(&Request::Outbox, &mut |_, _| {}).unwrap_or_default();
    let number = |line: &OutboxLine| crew.letters.number(&format!("{} ", line.subject.as_deref()?));
    lines.into_iter().filter_map(|line| Some((number(&line)?, line))).collect()
}

/// Compares the safe(f) that is shown with the disks of those who are said to hold parts.
fn claim(crew: &Crew, owner: &Address, mail: MailNo, sealed: &SealedLine) {
    if sealed.holders.is_empty() {
        return;
    }
    let mut counted = count(crew, owner, sealed);
    if counted < sealed.safe {
        // It may have ended, or moved, between the question and the look: only what is still said is untrue.
        let still = lines(crew, owner).into_iter().flat_map(|(_, line)| line.sealed).find(|now| now.h == sealed.h);
        let Some(still) = still.filter(|still| still.holders == sealed.holders && still.safe == sealed.safe) else {
            return;
        };
        counted = count(crew, owner, &still);
        if counted < sealed.safe && !lines(crew, owner).iter().any(|(_, line)| line.sealed.contains(&still)) {
            return;
        }
    }
    let holders = sealed.holders.iter().map(|(holder, part)| format!("{holder} {part}")).collect::<Vec<_>>().join(", ");
    crew.log.add(Event::Claimed { mail, shown: sealed.safe, counted, holders });
}

/// safe(f) as the disks have it: how many members can go, until the rest has too little. Whoever has a part counts, also one that
/// took over from one that is named and has told nobody yet.
fn count(crew: &Crew, owner: &Address, sealed: &SealedLine) -> i32 {
    let encoding = encoding(sealed);
    let parts =
        crew.people.iter().map(|person| &person.address).filter(|member| *member != owner).filter_map(|member| {
            let named = sealed.holders.get(member).and_then(|part| part_of(encoding, part));
            // A disk that the drill itself spoiled says nothing about what its peer had confirmed before.
            if crew.is_spoiled(member) { named } else { on_disk(crew, member, owner, sealed, named) }
        });
    bears_out(encoding, &parts.collect::<Vec<_>>())
}

/// The part of the mail that is on this member's disk; the one that it is said to have, if that is among several.
fn on_disk(crew: &Crew, member: &Address, owner: &Address, sealed: &SealedLine, named: Option<Part>) -> Option<Part> {
    let fragments = match encoding(sealed) {
        Encoding::Whole => Vec::new(),
        Encoding::Fragments { k, n } => (0..n).map(|i| Part::Fragment { k, i }).collect(),
    };
    let home = crew.home(member);
    let mut all = named.into_iter().chain([Part::Whole]).chain(fragments);
    all.find(|part| home.mirror_part(owner, &sealed.h, *part).exists())
}

fn part_of(encoding: Encoding, text: &str) -> Option<Part> {
    match (encoding, text.strip_prefix("fragment ")) {
        (Encoding::Fragments { k, .. }, Some(i)) => i.trim().parse().ok().map(|i| Part::Fragment { k, i }),
        (_, None) if text == "whole" => Some(Part::Whole),
        _ => None,
    }
}

/// How many members more can go when each of them has one of these parts.
fn bears_out(encoding: Encoding, parts: &[Part]) -> i32 {
    let whole = parts.iter().filter(|part| **part == Part::Whole).count();
    let fragments: BTreeSet<u8> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Fragment { i, .. } => Some(*i),
            Part::Whole => None,
        })
        .collect();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let (whole, fragments) = (number(whole), number(fragments.len()));
    match encoding {
        Encoding::Fragments { k, .. } if fragments >= i32::from(k) => whole + fragments - i32::from(k),
        _ => whole - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_disks_bear_out_is_counted_in_members_that_can_go() {
        let fragments = Encoding::Fragments { k: 2, n: 4 };
        let has = |texts: &[&str], encoding| {
            let parts: Vec<_> = texts.iter().filter_map(|text| part_of(encoding, text)).collect();
            bears_out(encoding, &parts)
        };
        assert_eq!(has(&["fragment 0", "fragment 1", "fragment 3"], fragments), 1);
        assert_eq!(has(&["fragment 0", "fragment 0"], fragments), -1, "one part twice is one part");
        assert_eq!(has(&["fragment 0", "whole"], fragments), 0);
        assert_eq!(has(&["whole", "whole", "whole"], Encoding::Whole), 2);
        assert_eq!(has(&[], Encoding::Whole), -1);
    }
}
