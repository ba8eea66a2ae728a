//! The arms of a bench of replication: what each keeps of a mail, by which policy, and what that costs in theory. It measures nothing.

use serde::Serialize;

use super::args::{ArmArg, ReplicationArgs};
use crate::cli::output::WrongUse;
use crate::model::policy::{KOfN, MEMBERS_MAX};
use crate::model::{ByteSize, Encoding, Mode, Policy, Span};

/// Until a silent member counts as lost where none is killed: never within a bench.
const NEVER: Span = Span::hours(1);

/// With what an arm is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Comparison {
    /// As many bytes.
    EqualStorage,
    /// As many members can be lost.
    EqualLosses,
    /// What a group does that configured nothing.
    DefaultPolicy,
}

/// One way to keep mails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arm {
    /// Which one.
    pub(super) is: ArmArg,
    /// Whole copies.
    copies: u8,
    /// Fragments.
    fragments: KOfN,
}

impl Arm {
    /// In words.
    pub(super) fn name(&self) -> String {
        let KOfN { k, n } = self.fragments;
        match self.is {
            ArmArg::Full => format!("full {} copies", self.copies),
            ArmArg::EqualStorage | ArmArg::EqualLosses => format!("fragments {k}/{n}"),
            ArmArg::DefaultPolicy => format!("default {k}/{n}"),
        }
    }
    /// The comparisons that it stands in.
    pub(super) fn comparisons(&self) -> &'static [Comparison] {
        match self.is {
            ArmArg::Full => &[Comparison::EqualStorage, Comparison::EqualLosses],
            ArmArg::EqualStorage => &[Comparison::EqualStorage],
            ArmArg::EqualLosses => &[Comparison::EqualLosses],
            ArmArg::DefaultPolicy => &[Comparison::DefaultPolicy],
        }
    }
    /// The policy that keeps mails so; a killed member counts as lost after `lost_after`, if one is killed.
    pub(super) fn policy(&self, lost_after: Option<Span>) -> Policy {
        let default = Policy::default();
        let whole_below = if self.is == ArmArg::DefaultPolicy { default.whole_below } else { ByteSize(0) };
        let mode = if self.is == ArmArg::Full { Mode::Full } else { Mode::Fragments };
        let lost_after = lost_after.unwrap_or(NEVER);
        let KOfN { k, n } = self.fragments;
        let copies = self.copies.max(n - k + 1);
        Policy { mode, fragments: self.fragments, copies, whole_below, lost_after, ..default }
    }
    /// How it keeps a sealed mail of `length` bytes in a group that is large enough.
    pub(super) fn encoding(&self, length: u64) -> Encoding {
        self.policy(None).encoding_for(length, usize::from(MEMBERS_MAX))
    }
    /// How many members hold a part of it.
    pub(super) fn places(&self, length: u64) -> usize {
        match self.encoding(length) {
            Encoding::Whole => usize::from(self.policy(None).copies),
            Encoding::Fragments { n, .. } => usize::from(n),
        }
    }
    /// safe(f) once all of them have theirs.
    pub(super) fn safe(&self, length: u64) -> i32 {
        let needed = self.encoding(length).needed();
        i32::try_from(self.places(length)).unwrap_or(i32::MAX) - i32::try_from(needed).unwrap_or(0)
    }
    /// Bytes that are stored for each byte of the mail: n/k, or the number of copies.
    pub(super) fn ratio(&self, length: u64) -> f64 {
        match self.encoding(length) {
            Encoding::Whole => f64::from(self.policy(None).copies),
            Encoding::Fragments { k, n } => f64::from(n) / f64::from(k),
        }
    }
    /// Members besides a sender that it needs.
    pub(super) fn others(&self) -> u8 {
        self.policy(None).others_needed()
    }
}

/// Whole copies that survive as many losses as the policy.
pub(super) fn copies(args: &ReplicationArgs) -> u8 {
    let KOfN { k, n } = args.policy.0;
    args.copies.unwrap_or(n - k + 1)
}

/// The arms that run, and the names of those that the group is too small for.
///
/// # Errors
/// [`WrongUse`] when what was asked for compares nothing.
pub(super) fn arms(args: &ReplicationArgs) -> anyhow::Result<(Vec<Arm>, Vec<String>)> {
    let KOfN { k, n } = args.policy.0;
    let copies = copies(args);
    let wrong = |why: String| Err(WrongUse { why }.into());
    if k < 2 || k == n {
        return wrong(format!(
            "--policy {k}/{n}: K must be 2 or more, and below N, or it is whole copies or survives nothing"
        ));
    }
    if copies != n - k + 1 {
        let (losses, losses_of_copies) = (n - k, copies - 1);
        return wrong(format!(
            "{copies} copies survive {losses_of_copies} losses, any {k} of {n} survives {losses}: give --copies {}",
            losses + 1
        ));
    }
    let stores_as_much = KOfN { k, n: k.saturating_mul(copies) };
    let asked = if args.arms.is_empty() {
        vec![ArmArg::Full, ArmArg::EqualStorage, ArmArg::EqualLosses]
    } else {
        args.arms.clone()
    };
    let arm = |is: &ArmArg| {
        let fragments = if *is == ArmArg::EqualStorage { stores_as_much } else { args.policy.0 };
        Arm { is: *is, copies, fragments }
    };
    let all: Vec<Arm> = asked.iter().map(arm).collect();
    let fits = |arm: &Arm| arm.others() < args.members;
    let left_out: Vec<String> = all.iter().filter(|arm| !fits(arm)).map(Arm::name).collect();
    let fitting: Vec<Arm> = all.into_iter().filter(fits).collect();
    if fitting.is_empty() {
        return wrong(format!("--members {} are too few for {}", args.members, left_out.join(", ")));
    }
    Ok((fitting, left_out))
}

/// The default policy with these fragments, which the mix is kept by too.
pub(super) fn default_arm(args: &ReplicationArgs) -> Arm {
    Arm { is: ArmArg::DefaultPolicy, copies: copies(args), fragments: args.policy.0 }
}

/// Three full copies.
#[cfg(test)]
pub(super) fn tests_arm() -> Arm {
    Arm { is: ArmArg::Full, copies: 3, fragments: KOfN { k: 3, n: 5 } }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: ReplicationArgs,
    }

    fn asked(words: &[&str]) -> ReplicationArgs {
        Typed::try_parse_from([&["bench"], words].concat()).unwrap().args
    }

    #[test]
    fn equal_storage_and_equal_losses_follow_from_the_policy() {
        let (all, left_out) = arms(&asked(&[])).unwrap();
        let names: Vec<String> = all.iter().map(Arm::name).collect();
        assert_eq!(names, ["full 3 copies", "fragments 3/9", "fragments 3/5"]);
        assert!(left_out.is_empty());
        let length = 1 << 20;
        let ratios: Vec<f64> = all.iter().map(|arm| arm.ratio(length)).collect();
        assert_eq!((ratios[0], ratios[1]), (3.0, 3.0));
        let safe: Vec<i32> = all.iter().map(|arm| arm.safe(length)).collect();
        assert_eq!(safe, [2, 6, 2]);
        assert!(all.iter().all(|arm| arm.policy(None).check().is_ok()));
        assert_eq!(all[2].encoding(1), Encoding::Fragments { k: 3, n: 5 }, "whole_below is off");
        assert_eq!(default_arm(&asked(&[])).encoding(1), Encoding::Whole);
    }

    #[test]
    fn an_arm_that_the_group_is_too_small_for_is_left_out_and_named() {
        let (all, left_out) = arms(&asked(&["--members", "8"])).unwrap();
        assert_eq!((all.len(), left_out), (2, vec!["fragments 3/9".to_owned()]));
        assert!(arms(&asked(&["--members", "8", "--arm", "equal-storage"])).unwrap_err().is::<WrongUse>());
    }

    #[test]
    fn a_comparison_of_unequal_things_is_refused() {
        for wrong in [vec!["--copies", "4"], vec!["--policy", "1/3"], vec!["--policy", "5/5"]] {
            assert!(arms(&asked(&wrong)).unwrap_err().is::<WrongUse>(), "{wrong:?}");
        }
        assert!(arms(&asked(&["--policy", "4/6", "--copies", "3", "--members", "13"])).is_ok());
    }
}
