//! Deliberately broken peers: each saboteur stands between a brain and the world and breaks one rule. They exist to show that
//! the checker sees.
//!
//! The first seed, from 0 on, in which each is caught. `cargo test --test simulation caught -- --nocapture` prints how they are now.
//!
//! ```text
//! R1  HoldsWithoutRoom      0      R7  KeepsTombstoned       0
//! R1  YesBeforeDurable      0      R7  Resurrects            0
//! R2  KeepsOldKey           1      R7  SaysCancelled       121
//! R2  NeverRepeats          0      R7  SaysTooLate           0
//! R2  SwallowsDsn           0      R8  CountsTwice           0
//! R3  BelievesTombstones    0      R8  DropsUntold           0
//! R3  EmptyListDeletes      0      R8  IgnoresMisses         0
//! R3  ExpiresByAnyClock     0      R8  NeverScrubs           0
//! R3  ForgetsTheLost        0      R9  AsksWithoutBound      0
//! R3  FreesEarly            0      R10 SpillsNotes           0
//! R3  LeavesWithParts       0      R11 BelievesAnyNs         0
//! R4  AnySignerFrees        0      R11 FollowsRetired        0
//! R5  FilesTwice            0      R12 NeverRests            0
//! R6  KeepsUnchecked       24      R12 NeverSure             1
//! R6  SkipsVerification     2
//! ```

use super::checker::Rule;
use super::clocks;
use super::full_disk;
use super::liars::Lie;
use super::members::Change;
use super::params::{Params, another_policy};
use super::rng::Rng;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saboteur {
    /// What hangs on a commit is done before it is durable.
    YesBeforeDurable,
    /// DSNs are said to be filed and are not.
    SwallowsDsn,
    /// An empty page of a msglist deletes all that is held for its owner.
    EmptyListDeletes,
    /// An nr is taken whoever signed it.
    AnySignerFrees,
    /// An ns that comes again is filed again.
    FilesTwice,
    /// Blocks and whole mails are not checked.
    SkipsVerification,
    /// What does not fit on a full disk is said to be there.
    HoldsWithoutRoom,
    /// An ns is believed whoever signed it.
    BelievesAnyNs,
    /// Each answer is a reason for more questions.
    AsksWithoutBound,
    /// Parts are given up before their owner knows.
    DropsUntold,
    /// A clock that the group found to be wrong is used all the same.
    ExpiresByAnyClock,
    /// A part is kept, and reported, without a look at its blocks.
    KeepsUnchecked,
    /// What is held is said to be right, and nobody looks.
    NeverScrubs,
    /// A tombstone is believed whoever signed it.
    BelievesTombstones,
    /// Parts of a mail that is gone stay on the disk.
    KeepsTombstoned,
    /// One member's word is counted for another one too.
    CountsTwice,
    /// A member takes every other one to be back whenever it has asked it.
    NeverRests,
    /// An owner that was restored does not hear from members what is gone.
    Resurrects,
    /// A cancel that is uncertain is said to be `cancelled`.
    SaysCancelled,
    /// A cancel that is uncertain is said to be `too late`.
    SaysTooLate,
    /// A missed audit takes nothing from safe(f).
    IgnoresMisses,
    /// A cancel stays uncertain for ever.
    NeverSure,
    /// An ns that reached somebody once is never sent again.
    NeverRepeats,
    /// A member takes every other one to hold all parts already.
    FreesEarly,
    /// A member that wants to leave keeps nothing until others have it.
    LeavesWithParts,
    /// What is held for a member that the view calls lost goes.
    ForgetsTheLost,
    /// The reader's pin never follows to the next key of its group.
    KeepsOldKey,
    /// What a key before the pinned one signed is believed.
    FollowsRetired,
    /// An owner's note to itself is put into its msglist unsealed.
    SpillsNotes,
}

impl Saboteur {
    /// All of them.
    pub(crate) const ALL: [Saboteur; 29] = [
        Saboteur::YesBeforeDurable,
        Saboteur::SwallowsDsn,
        Saboteur::EmptyListDeletes,
        Saboteur::AnySignerFrees,
        Saboteur::FilesTwice,
        Saboteur::SkipsVerification,
        Saboteur::HoldsWithoutRoom,
        Saboteur::BelievesAnyNs,
        Saboteur::AsksWithoutBound,
        Saboteur::DropsUntold,
        Saboteur::ExpiresByAnyClock,
        Saboteur::KeepsUnchecked,
        Saboteur::NeverScrubs,
        Saboteur::BelievesTombstones,
        Saboteur::KeepsTombstoned,
        Saboteur::CountsTwice,
        Saboteur::NeverRests,
        Saboteur::Resurrects,
        Saboteur::SaysCancelled,
        Saboteur::SaysTooLate,
        Saboteur::IgnoresMisses,
        Saboteur::NeverSure,
        Saboteur::NeverRepeats,
        Saboteur::FreesEarly,
        Saboteur::LeavesWithParts,
        Saboteur::ForgetsTheLost,
        Saboteur::KeepsOldKey,
        Saboteur::FollowsRetired,
        Saboteur::SpillsNotes,
    ];
    /// The rule that it breaks.
    pub(crate) fn breaks(self) -> Rule {
        match self {
            Saboteur::YesBeforeDurable | Saboteur::HoldsWithoutRoom => Rule::R1,
            Saboteur::AsksWithoutBound => Rule::R9,
            Saboteur::BelievesAnyNs | Saboteur::FollowsRetired => Rule::R11,
            Saboteur::SwallowsDsn | Saboteur::NeverRepeats | Saboteur::KeepsOldKey => Rule::R2,
            Saboteur::ExpiresByAnyClock
            | Saboteur::EmptyListDeletes
            | Saboteur::FreesEarly
            | Saboteur::LeavesWithParts
            | Saboteur::ForgetsTheLost
            | Saboteur::BelievesTombstones => Rule::R3,
            Saboteur::AnySignerFrees => Rule::R4,
            Saboteur::FilesTwice => Rule::R5,
            Saboteur::SkipsVerification | Saboteur::KeepsUnchecked => Rule::R6,
            Saboteur::KeepsTombstoned | Saboteur::Resurrects | Saboteur::SaysCancelled | Saboteur::SaysTooLate => {
                Rule::R7
            }
            Saboteur::CountsTwice | Saboteur::IgnoresMisses | Saboteur::NeverScrubs | Saboteur::DropsUntold => Rule::R8,
            Saboteur::SpillsNotes => Rule::R10,
            Saboteur::NeverRests | Saboteur::NeverSure => Rule::R12,
        }
    }
    /// Makes sure that what it breaks happens in the run.
    pub(crate) fn favour(self, params: &mut Params) {
        match self {
            Saboteur::AnySignerFrees => params.hostile = true,
            Saboteur::SkipsVerification => (params.liars, params.lies) = (1, [Lie::BadBlocks].into()),
            Saboteur::KeepsUnchecked => {
                (params.liars, params.lies, params.crashes) = (1, [Lie::BadBlocks].into(), 8);
                params.policies = vec![another_policy(&mut Rng::new(params.seed), params)];
            }
            Saboteur::NeverScrubs => params.rots = 8,
            Saboteur::HoldsWithoutRoom => params.full = full_disk::some(params, &mut Rng::new(params.seed)),
            Saboteur::BelievesAnyNs => (params.junk, params.by_dht) = (40, true),
            Saboteur::BelievesTombstones => (params.liars, params.lies) = (1, [Lie::ForgesTombstones].into()),
            Saboteur::FilesTwice => params.duplicate = 100,
            Saboteur::Resurrects => (params.old_disks, params.eager, params.mails) = (4, true, 8),
            Saboteur::SaysCancelled => (params.cancels, params.eager, params.mails, params.by_dht) = (8, true, 8, true),
            Saboteur::SaysTooLate => params.cancels += 4,
            Saboteur::IgnoresMisses => (params.liars, params.lies) = (2, [Lie::BadBlocks].into()),
            Saboteur::NeverSure => params.cancels += 4,
            Saboteur::FreesEarly | Saboteur::DropsUntold => {
                let mut rng = Rng::new(params.seed);
                params.policies = (0..2).map(|_| another_policy(&mut rng, params)).collect();
            }
            Saboteur::NeverRepeats => {
                (params.old_disks, params.eager, params.mails, params.by_dht) = (4, false, 8, false)
            }
            Saboteur::LeavesWithParts => params.changes = vec![Change::Leave(params.faults_ms / 2, 1)],
            Saboteur::ForgetsTheLost => {
                params.changes = vec![Change::FalseView(params.faults_ms / 2, params.faults_ms)]
            }
            Saboteur::KeepsOldKey | Saboteur::FollowsRetired => {
                (params.rotations, params.known_outside, params.mails) = (vec![params.faults_ms / 3], true, 8);
            }
            Saboteur::ExpiresByAnyClock => params.jumps = clocks::far_ahead(params),
            _ => {}
        }
    }
    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| format!("{s:?}") == name)
    }
}
