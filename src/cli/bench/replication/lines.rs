//! Where the line between whole copies and fragments is, by each criterion, from the rows of a bench of replication.

use std::collections::BTreeMap;

use serde::Serialize;

use super::arms::Comparison;
use super::measure::real;
use super::rows::{Kept, Row};

/// Fragments are better where they cost less than this share of what whole copies cost; whole copies are simpler, and win a tie.
const BETTER: f64 = 0.97;

/// By what it is judged; each for one mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Criterion {
    /// Lengths of the files on members' disks.
    StoredBytes,
    /// The blocks that file systems gave them.
    AllocatedBytes,
    /// Parts and manifests that were served.
    MovedBytes,
    /// All that went over the wire.
    WireBytes,
    /// From the 250 to safe(target).
    SecondsToSafe,
    /// Processor time of all peers.
    CpuS,
}

/// All of them.
pub(super) const CRITERIA: [Criterion; 6] = [
    Criterion::StoredBytes,
    Criterion::AllocatedBytes,
    Criterion::MovedBytes,
    Criterion::WireBytes,
    Criterion::SecondsToSafe,
    Criterion::CpuS,
];

impl Criterion {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Criterion::StoredBytes => "bytes stored",
            Criterion::AllocatedBytes => "disk blocks",
            Criterion::MovedBytes => "bytes moved",
            Criterion::WireBytes => "bytes on the wire",
            Criterion::SecondsToSafe => "time to safe",
            Criterion::CpuS => "processor time",
        }
    }
    fn of(self, kept: &Kept) -> f64 {
        match self {
            Criterion::StoredBytes => real(kept.stored_bytes),
            Criterion::AllocatedBytes => real(kept.allocated_bytes),
            Criterion::MovedBytes => real(kept.moved_bytes),
            Criterion::WireBytes => real(kept.wire_bytes),
            Criterion::SecondsToSafe => kept.seconds_to_safe,
            Criterion::CpuS => kept.cpu_s,
        }
    }
}

/// For each criterion the sealed length below which whole copies win: 0 when fragments win at every size that was tried, nothing
/// when they do not win at the largest.
pub(super) type Lines = BTreeMap<Criterion, Option<u64>>;

/// The lines of one comparison; nothing when it was not made.
pub(super) fn lines(rows: &[Row], comparison: Comparison) -> Option<Lines> {
    let of = |full: bool| {
        let is_it =
            move |row: &&Row| row.what == "keep" && row.comparison == comparison && row.arm.starts_with("full") == full;
        rows.iter().filter(is_it).filter_map(|row| Some((row.size?, (row, row.kept?)))).collect::<BTreeMap<_, _>>()
    };
    let (full, fragments) = (of(true), of(false));
    let pairs: Vec<(u64, Kept, Kept)> = full
        .iter()
        .filter_map(|(size, (row, whole))| {
            let (_, coded) = fragments.get(size)?;
            Some((row.sealed_bytes / row.mails.max(1), *whole, *coded))
        })
        .collect();
    if pairs.is_empty() {
        return None;
    }
    Some(CRITERIA.into_iter().map(|criterion| (criterion, line(&pairs, criterion))).collect())
}

fn line(pairs: &[(u64, Kept, Kept)], criterion: Criterion) -> Option<u64> {
    let wins = |(_, whole, coded): &&(u64, Kept, Kept)| criterion.of(coded) < criterion.of(whole) * BETTER;
    let winning: Vec<u64> = pairs.iter().rev().take_while(wins).map(|(length, _, _)| *length).collect();
    if winning.len() == pairs.len() { Some(0) } else { winning.last().copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(arm: &str, size: u64, stored: u64) -> Row {
        let kept = Kept {
            stored_bytes: stored,
            stored_ratio: 0.0,
            theory_ratio: 0.0,
            allocated_bytes: 100,
            moved_bytes: if arm.starts_with("full") { 100 } else { 50 },
            moved_ratio: 0.0,
            wire_bytes: 0,
            seconds_to_safe: 1.0,
            seconds_to_safe_range: [1.0, 1.0],
            cpu_s: 1.0,
            cpu_ms_per_mail: 1.0,
        };
        Row {
            what: "keep",
            arm: arm.to_owned(),
            comparison: Comparison::EqualLosses,
            size: Some(size),
            mails: 1,
            sealed_bytes: size + 1,
            verified_mails: 1,
            kept: Some(kept),
            repair: None,
        }
    }

    #[test]
    fn the_line_is_the_size_from_which_on_fragments_always_win() {
        let full =
            [(10, 100), (20, 100), (30, 100), (40, 100)].map(|(size, stored)| row("full 3 copies", size, stored));
        let coded = [(10, 50), (20, 99), (30, 60), (40, 50)].map(|(size, stored)| row("fragments 3/5", size, stored));
        let rows = [full, coded].concat();
        let found = lines(&rows, Comparison::EqualLosses).unwrap();
        assert_eq!(found[&Criterion::StoredBytes], Some(31));
        assert_eq!(found[&Criterion::MovedBytes], Some(0), "fragments win everywhere");
        assert_eq!(found[&Criterion::AllocatedBytes], None, "a tie is the whole copies'");
        assert!(lines(&rows, Comparison::EqualStorage).is_none());
    }
}
