//! The turns of a bench of replication: mails are sent under one arm's policy, become safe, are counted on the members' disks, and
//! are opened and compared. Arms take turns, so that whatever else the machine does meets all of them.

use super::args::ReplicationArgs;
use super::arms::{Arm, default_arm};
use super::group::{Group, Sent};
use super::measure::real;
use super::rows::{Idle, Row, Turn, kept_rows, whole};
use crate::cli::progress::Progress;
use crate::model::{ByteSize, MailId};

/// Mails below this go ten in a turn: processor time is counted in hundredths of a second.
const SMALL: ByteSize = ByteSize::mib(1);
/// So many.
const SMALL_IN_A_TURN: usize = 10;
/// The mix: of so many mails in a hundred, the least and the greatest attachment. An assumption; `--help` says so.
const MIX: [(f64, ByteSize, ByteSize); 4] = [
    (70.0, ByteSize::kib(1), ByteSize::kib(16)),
    (15.0, ByteSize::kib(16), ByteSize::kib(128)),
    (12.0, ByteSize::kib(128), ByteSize::mib(2)),
    (3.0, ByteSize::mib(2), ByteSize::mib(16)),
];

/// Attachments of the mix, the same for the same seed.
pub(super) fn mix(count: u32, seed: u64) -> Vec<ByteSize> {
    let mut random = blake3::Hasher::new_derive_key("roost bench mix").update(&seed.to_le_bytes()).finalize_xof();
    let mut draw = || {
        let mut bytes = [0; 4];
        random.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    };
    let mut one = || {
        let (mut of_hundred, within) = (draw() * 100.0, draw());
        let mut class = MIX[0];
        for (share, least, most) in MIX {
            class = (share, least, most);
            if of_hundred < share {
                break;
            }
            of_hundred -= share;
        }
        let (_, least, most) = class;
        let (least, most) = (real(least.bytes()), real(most.bytes()));
        ByteSize(whole(least * (most / least).powf(within)))
    };
    (0..count).map(|_| one()).collect()
}

/// Arm, from the one whose turn it is first.
fn in_turn(arms: &[Arm], turn: u32) -> Vec<(usize, &Arm)> {
    let first = usize::try_from(turn).unwrap_or(0) % arms.len().max(1);
    let all: Vec<(usize, &Arm)> = arms.iter().enumerate().collect();
    let (before, from) = all.split_at(first.min(all.len()));
    [from, before].concat()
}

/// All turns at all sizes.
pub(super) fn sizes(
    group: &mut Group,
    args: &ReplicationArgs,
    arms: &[Arm],
    idle: &mut Idle,
) -> anyhow::Result<Vec<Row>> {
    let mut turns: Vec<Vec<Vec<Turn>>> = vec![vec![Vec::new(); arms.len()]; args.sizes.len()];
    for run in 0..args.runs {
        for (size, of_size) in args.sizes.iter().zip(&mut turns) {
            let count = if *size < SMALL { SMALL_IN_A_TURN } else { 1 };
            for round in 0..args.mails {
                for (at, arm) in in_turn(arms, run + round) {
                    let turn = turn(group, arm, &vec![*size; count], idle)?;
                    of_size.get_mut(at).into_iter().for_each(|turns| turns.push(turn.clone()));
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (size, of_size) in args.sizes.iter().zip(&turns) {
        for (arm, turns) in arms.iter().zip(of_size).filter(|(_, turns)| !turns.is_empty()) {
            rows.extend(kept_rows(arm, Some(size.bytes()), turns, *idle));
        }
    }
    Ok(rows)
}

/// The mix, by every arm, and by the default policy.
pub(super) fn mixed(
    group: &mut Group,
    args: &ReplicationArgs,
    arms: &[Arm],
    idle: &mut Idle,
) -> anyhow::Result<Vec<Row>> {
    if args.mix == 0 {
        return Ok(Vec::new());
    }
    let mut arms = arms.to_vec();
    let default = default_arm(args);
    if args.arms.is_empty() && !arms.contains(&default) {
        arms.push(default);
    }
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); arms.len()];
    for run in 0..args.runs {
        for (round, some) in (run..).zip(mix(args.mix, args.seed).chunks(SMALL_IN_A_TURN)) {
            for (at, arm) in in_turn(&arms, round) {
                let turn = turn(group, arm, some, idle)?;
                turns.get_mut(at).into_iter().for_each(|turns| turns.push(turn.clone()));
            }
        }
    }
    Ok(arms.iter().zip(&turns).flat_map(|(arm, turns)| kept_rows(arm, None, turns, *idle)).collect())
}

/// One turn of one arm.
fn turn(group: &mut Group, arm: &Arm, sizes: &[ByteSize], idle: &mut Idle) -> anyhow::Result<Turn> {
    let _bar = Progress::start(&format!("{}: {} mails of {}", arm.name(), sizes.len(), sizes[0]));
    idle.add(&group.prepare(arm, None)?);
    let (mut imap, first) = group.reader()?;
    let mails: Vec<Vec<u8>> = sizes.iter().map(|size| group.letter(*size)).collect::<anyhow::Result<_>>()?;
    let mut turn = Turn::default();
    for mail in &mails {
        turn.clear += u64::try_from(mail.len())?;
    }
    let before = group.begin()?;
    let mut sent: Vec<Sent> = Vec::new();
    for mail in mails {
        sent.push(group.send(arm, mail)?);
    }
    turn.done = group.done_since(&before)?;
    let names: Vec<MailId> = sent.iter().map(|sent| sent.sealed.h).collect();
    turn.stored = group.stored(&names);
    turn.mails = sent.iter().map(|sent| (sent.sealed.length, sent.seconds_to_safe)).collect();
    group.read(&mut imap, first, &sent)?;
    if let (Some(size), Some((length, seconds))) = (sizes.first(), turn.mails.first()) {
        group.stage.report.line(&format!(
            "{}: {} of {size} ({} sealed) safe after {seconds:.3} s",
            arm.name(),
            sizes.len(),
            ByteSize(*length)
        ));
    }
    Ok(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_has_the_shares_that_it_says_and_is_the_same_for_the_same_seed() {
        let drawn = mix(20_000, 1);
        assert_eq!(drawn, mix(20_000, 1));
        assert_ne!(drawn, mix(20_000, 2));
        for (share, least, most) in MIX {
            let count = drawn.iter().filter(|size| (least..most).contains(size)).count();
            let found = real(u64::try_from(count).unwrap()) / 200.0;
            assert!((found - share).abs() < 1.5, "{least} to {most}: {found} % instead of {share} %");
        }
        assert!(drawn.iter().all(|size| *size <= ByteSize::mib(16)));
    }

    #[test]
    fn every_arm_is_the_first_in_its_turn() {
        let arm = super::super::arms::tests_arm();
        let arms = vec![arm; 3];
        let order = |turn| in_turn(&arms, turn).iter().map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!([order(0), order(1), order(5)], [vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1]]);
    }
}
