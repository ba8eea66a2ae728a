//! The scenarios: what each makes fail, and what only it looks at. They end nothing that they did not break themselves.

mod clocks;
mod crashes;
mod disks;
mod group;
mod impostor;
mod members;
mod storm;
mod strangers;

use std::time::Duration;

use super::args::{DrillArgs, Name};
use super::scene::Scene;
use crate::core::jitter::Jitter;

/// How long readers have for the mails that are followed; each open may take as long as its sources are tried.
const READ: Duration = Duration::from_secs(120);
/// Steady mail before and after something fails.
const STEADY: Duration = Duration::from_secs(6);

/// Some milliseconds between these.
fn few(random: &mut Jitter, from_ms: u64, to_ms: u64) -> Duration {
    random.between(Duration::from_millis(from_ms), Duration::from_millis(to_ms))
}

/// Plays one of them, from a group at work to a group that is whole again.
pub(super) fn play(name: Name, scene: &mut Scene, args: &DrillArgs) -> anyhow::Result<()> {
    match name {
        Name::All => Ok(()),
        Name::SenderDead => crashes::sender_dead(scene),
        Name::FDead => crashes::f_dead(scene),
        Name::FPlusOneDead => crashes::f_plus_one_dead(scene),
        Name::MasterDead => group::master_dead(scene),
        Name::SlowMember => members::slow_member(scene),
        Name::LyingMember => members::lying_member(scene),
        Name::EmptyDisk => disks::empty_disk(scene),
        Name::OldBackup => disks::old_backup(scene),
        Name::DiskFull => disks::disk_full(scene),
        Name::KillStorm => storm::kill_storm(scene, args.kills),
        Name::RollingRestart => crashes::rolling_restart(scene),
        Name::Partition => group::partition(scene),
        Name::ClockJump => clocks::clock_jump(scene),
        Name::DhtJunk => strangers::dht_junk(scene),
    }
}
