//! The rows of a bench of replication, and what follows from them. They are computed from measurements; nothing is measured here.

use serde::Serialize;

use super::arms::{Arm, Comparison};
use super::group::Done;
use super::measure::{Stored, real};
use crate::cli::bench::report::median;

/// A row: an arm at one size, in the mix, or in a repair. The rows of full copies stand in each comparison, with the same figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// `keep`, `mix` or `repair`.
    pub(super) what: &'static str,
    /// How mails were kept.
    pub(super) arm: String,
    /// With what that is compared.
    pub(super) comparison: Comparison,
    /// Length of each attachment; none in the mix.
    pub(super) size: Option<u64>,
    /// How many mails there were.
    pub(super) mails: u64,
    /// Lengths of all of them, sealed.
    pub(super) sealed_bytes: u64,
    /// How many a reader opened and found the same as what was sent, to the byte: all, or the bench fails.
    pub(super) verified_mails: u64,
    #[serde(flatten)]
    pub(super) kept: Option<Kept>,
    #[serde(flatten)]
    pub(super) repair: Option<Repair>,
}

/// What keeping the mails of a row cost, all of them together where it does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Kept {
    /// Lengths of all files on members' disks, the owner not counted: parts and manifests.
    pub(super) stored_bytes: u64,
    /// For each sealed byte.
    pub(super) stored_ratio: f64,
    /// The same in theory: n/k, or the number of copies.
    pub(super) theory_ratio: f64,
    /// What the members' file systems gave those files, in whole blocks.
    pub(super) allocated_bytes: u64,
    /// Bodies of parts and manifests that peers served for that.
    pub(super) moved_bytes: u64,
    /// For each sealed byte.
    pub(super) moved_ratio: f64,
    /// All that the loopback carried beside the submission and what an idle group sends: also TLS, heads, msglists, holdings, ns.
    pub(super) wire_bytes: u64,
    /// From the 250 to safe(target), median.
    pub(super) seconds_to_safe: f64,
    /// The same, least and most.
    pub(super) seconds_to_safe_range: [f64; 2],
    /// Processor seconds of all peers from the submission to safe, less what an idle group uses.
    pub(super) cpu_s: f64,
    /// For each mail, milliseconds.
    pub(super) cpu_ms_per_mail: f64,
}

/// What it took to be safe again after a member was lost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Repair {
    /// Who has what is missing: `sender`, or `members` while that is off.
    pub(super) repaired_from: &'static str,
    /// Members of the group, the sender counted.
    pub(super) members: u64,
    /// Parts that were lost with the member.
    pub(super) lost_parts: u64,
    /// Bytes that must be read: the parts, or what they are rebuilt from.
    pub(super) must_move_bytes: u64,
    /// Bytes that peers served.
    pub(super) repair_bytes: u64,
    /// The one over the other.
    pub(super) repair_ratio: f64,
    /// From the kill until the acting master called the member lost.
    pub(super) detect_seconds: f64,
    /// From then until everything was as safe as before.
    pub(super) repair_seconds: f64,
    /// Processor seconds of all peers from the kill on, less what an idle group uses.
    pub(super) cpu_s: f64,
    /// How long the group was watched after that.
    pub(super) quiet_seconds: f64,
    /// Bytes that peers served meanwhile.
    pub(super) quiet_bytes: u64,
    /// Bytes that they wrote to disk meanwhile.
    pub(super) quiet_written_bytes: u64,
    /// Packets on the loopback meanwhile, for each running peer and minute; also those of other programs.
    pub(super) quiet_packets_per_peer_minute: f64,
    /// Bytes that moved when the member came back.
    pub(super) return_bytes: u64,
}

/// What one turn of one arm was.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn {
    /// Of each mail: sealed length, and seconds to safe.
    pub(super) mails: Vec<(u64, f64)>,
    /// Lengths of the mails as they were submitted.
    pub(super) clear: u64,
    /// What was on the members' disks.
    pub(super) stored: Stored,
    /// What all peers did until everything was safe.
    pub(super) done: Done,
}

/// What a group does when it does nothing, measured between turns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Idle {
    seconds: f64,
    cpu: f64,
    wire: f64,
}

impl Idle {
    /// Adds what was measured.
    pub(super) fn add(&mut self, done: &Done) {
        self.seconds += done.seconds;
        self.cpu += done.cpu;
        self.wire += real(done.loopback.bytes);
    }
    /// Processor seconds in `seconds`.
    pub(super) fn cpu_in(&self, seconds: f64) -> f64 {
        if self.seconds > 0.0 { self.cpu / self.seconds * seconds } else { 0.0 }
    }
    fn wire_in(&self, seconds: f64) -> f64 {
        if self.seconds > 0.0 { self.wire / self.seconds * seconds } else { 0.0 }
    }
}

/// Three digits behind the point say enough.
pub(super) fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The turns of one arm at one size, or in the mix, as its rows.
pub(super) fn kept_rows(arm: &Arm, size: Option<u64>, turns: &[Turn], idle: Idle) -> Vec<Row> {
    let mails: Vec<(u64, f64)> = turns.iter().flat_map(|turn| turn.mails.iter().copied()).collect();
    let sealed: u64 = mails.iter().map(|(length, _)| length).sum();
    let stored = turns.iter().map(|turn| turn.stored).fold(Stored::default(), Stored::and);
    let moved: u64 = turns.iter().map(|turn| turn.done.served).sum();
    let in_theory: f64 = mails.iter().map(|(length, _)| real(*length) * arm.ratio(*length)).sum();
    let cpu: f64 = turns.iter().map(|turn| turn.done.cpu - idle.cpu_in(turn.done.seconds)).sum::<f64>().max(0.0);
    let on_wire = |turn: &Turn| real(turn.done.loopback.bytes) - real(turn.clear) - idle.wire_in(turn.done.seconds);
    let wire = turns.iter().map(on_wire).sum::<f64>().max(0.0);
    let seconds: Vec<f64> = mails.iter().map(|(_, seconds)| *seconds).collect();
    let each = real(sealed.max(1));
    let count = u64::try_from(mails.len()).unwrap_or(u64::MAX);
    let kept = Kept {
        stored_bytes: stored.bytes,
        stored_ratio: thousandths(real(stored.bytes) / each),
        theory_ratio: thousandths(in_theory / each),
        allocated_bytes: stored.allocated,
        moved_bytes: moved,
        moved_ratio: thousandths(real(moved) / each),
        wire_bytes: whole(wire),
        seconds_to_safe: thousandths(median(seconds.clone())),
        seconds_to_safe_range: [
            thousandths(seconds.iter().copied().fold(f64::INFINITY, f64::min)),
            thousandths(seconds.iter().copied().fold(0.0, f64::max)),
        ],
        cpu_s: thousandths(cpu),
        cpu_ms_per_mail: thousandths(cpu * 1000.0 / real(count.max(1))),
    };
    let row = |comparison: &Comparison| Row {
        what: if size.is_some() { "keep" } else { "mix" },
        arm: arm.name(),
        comparison: *comparison,
        size,
        mails: count,
        sealed_bytes: sealed,
        verified_mails: count,
        kept: Some(kept),
        repair: None,
    };
    arm.comparisons().iter().map(row).collect()
}

/// A number of bytes without its fraction.
pub(super) fn whole(bytes: f64) -> u64 {
    format!("{:.0}", bytes.max(0.0)).parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::replication::measure::Loopback;

    #[test]
    fn what_an_idle_group_does_anyway_is_not_counted() {
        let mut idle = Idle::default();
        let rest = Done { seconds: 2.0, cpu: 0.2, loopback: Loopback { bytes: 200, packets: 2 }, ..Done::default() };
        idle.add(&rest);
        let turn = Turn {
            mails: vec![(1000, 0.5), (1000, 0.7)],
            clear: 3000,
            stored: Stored { bytes: 3400, allocated: 8192, files: 4 },
            done: Done {
                seconds: 1.0,
                cpu: 1.1,
                served: 3500,
                written: 0,
                loopback: Loopback { bytes: 9000, packets: 9 },
            },
        };
        let arm = crate::cli::bench::replication::arms::tests_arm();
        let rows = kept_rows(&arm, Some(900), &[turn], idle);
        assert_eq!(rows.len(), 2, "full copies stand in two comparisons");
        let kept = rows[0].kept.unwrap();
        assert_eq!((kept.cpu_s, kept.wire_bytes, kept.seconds_to_safe), (1.0, 5900, 0.6));
        assert_eq!((kept.stored_ratio, kept.moved_ratio, kept.theory_ratio), (1.7, 1.75, 3.0));
    }
}
