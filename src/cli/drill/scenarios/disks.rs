//! Disks that are empty, old or full. What is deleted belongs to peers of the drill, after the question where they are the team's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{READ, STEADY};
use crate::cli::drill::scene::{PATIENCE, Probe, Scene, Skipped};
use crate::cli::drill::watch;
use crate::model::Address;

/// Mails that are followed.
const PROBES: usize = 6;
/// How large the disk is that becomes full, KiB: less than the longest letter takes once it is sealed, which its peer does as it comes
/// in, and more than any other. Random bytes in hex become half as long.
const SMALL_KIB: u32 = 64;

/// Parts of these mails on one member's disk.
fn parts_at(scene: &Scene, member: &Address, owner: &Address, probes: &[Probe]) -> usize {
    let parts = scene.crew.home(member).mirrored_parts(owner).unwrap_or_default();
    parts.iter().filter(|(h, _)| probes.iter().any(|probe| probe.sealed.h == *h)).count()
}

/// Deletes what is in a folder, and leaves the folder.
fn empty(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())?.flatten() {
        let path = entry.path();
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// A member loses what it held for others, then a sender what it had sent.
pub(super) fn empty_disk(scene: &mut Scene) -> anyhow::Result<()> {
    scene.pass(STEADY);
    let (sender, member) = (scene.member(1)?, scene.member(2)?);
    let probes = scene.probes(&sender, std::slice::from_ref(&member), PROBES)?;
    let before = parts_at(scene, &member, &sender, &probes);
    scene.kill(std::slice::from_ref(&member))?;
    scene.spoil(&member, || empty(&scene.crew.home(&member).mirror_dir()))?;
    scene.say(&format!(
        "the disk of {member} has nothing of others any more; it held {before} parts of the mails that are followed"
    ));
    scene.start(std::slice::from_ref(&member))?;
    let back = scene.wait(PATIENCE, || (parts_at(scene, &member, &sender, &probes) >= before).then_some(()));
    let now = parts_at(scene, &member, &sender, &probes);
    scene.check(12, back.is_some(), format!("{member} holds {now} parts again, {before} before its disk was emptied"));

    if scene.is_own {
        scene.left_out.push("an emptied outbox: a team's own may hold the only copy of a mail".to_owned());
        scene.reads_all(&probes, READ, "after the disk of a member was emptied");
        return Ok(());
    }
    scene.kill(std::slice::from_ref(&sender))?;
    scene.spoil(&sender, || empty(&scene.crew.home(&sender).outbox_dir()))?;
    scene.say(&format!("the outbox of {sender} is gone from its disk"));
    scene.reads_all(&probes, READ, "after the disks of a member and of their sender were emptied");
    scene.start(&[sender])?;
    scene.pass(STEADY);
    Ok(())
}

/// Runs this program on a home, as its user would.
fn roost(home: &Path, args: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(std::env::current_exe()?).args(args).arg("--home").arg(home).output()?;
    if !done.status.success() {
        bail!("roost {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// A peer whose disk is lost comes back from a backup that is older than what it did last.
pub(super) fn old_backup(scene: &mut Scene) -> anyhow::Result<()> {
    scene.pass(STEADY);
    let peer = scene.member(2)?;
    let home = scene.crew.home(&peer).root().to_owned();
    let file = scene.stage.cluster.home().join(format!("{}.roost-backup", peer.name()));
    let shown = file.display().to_string();
    roost(&home, &["backup", "--force", &shown])?;
    scene.say(&format!("{peer} is backed up"));
    let before = scene.probes(&peer, &[], PROBES)?;
    scene.pass(STEADY);
    // What no member has yet goes with the disk, as safe(f) below zero says; and what this peer has taken notice of, and of which
    // its sender has no nr, is announced to it again only within a day. So the drill waits until there is nothing of both.
    scene.quiet(true);
    let safe = scene.wait(PATIENCE, || {
        let lines = watch::lines(&scene.crew, &peer);
        let safe = lines.iter().all(|(_, line)| !line.sealed.is_empty() && line.sealed.iter().all(|s| s.safe >= 0));
        let is_done = safe && spool_is_empty(&home) && scene.is_all_read_by(&peer);
        (is_done && watch::nothing_waits_for(&scene.crew, &peer)).then_some(())
    });
    safe.with_context(|| format!("mail of {peer} does not become safe, or is not read there and its nr taken"))?;
    let why = "mail that lay unopened, or whose nr lay unsent, on the lost disk: it is announced again within a day";
    scene.left_out.push(why.to_owned());
    scene.kill(std::slice::from_ref(&peer))?;
    // Kept aside until the new home is there.
    let lost = PathBuf::from(format!("{}.lost", home.display()));
    scene.spoil(&peer, || {
        fs::rename(&home, &lost)?;
        let restored = roost(&home, &["init", "--restore", &shown]);
        if restored.is_err() {
            fs::rename(&lost, &home)?;
        }
        restored?;
        fs::remove_dir_all(&lost)?;
        Ok(fs::remove_file(&file)?)
    })?;
    scene.say(&format!("the disk of {peer} is lost, and its home made of the backup"));
    scene.start(std::slice::from_ref(&peer))?;
    scene.quiet(false);
    scene.reads_all(&before, READ, "that were sent after the backup by the peer that was restored");
    scene.pass(STEADY);
    Ok(())
}

fn spool_is_empty(home: &Path) -> bool {
    fs::read_dir(home.join("spool")).into_iter().flatten().flatten().next().is_none()
}

/// A small disk over a folder, with what was in it.
struct SmallDisk {
    folder: PathBuf,
    aside: PathBuf,
}

fn mount(args: &[&str], folder: &Path) -> Result<(), String> {
    let done = Command::new("mount").args(args).arg(folder).output().map_err(|e| format!("mount: {e}"))?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()) }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy(&entry.path(), &to)? } else { fs::copy(entry.path(), to).map(drop)? }
    }
    Ok(())
}

impl SmallDisk {
    /// Over the folder of a peer that does not run.
    fn over(scene: &Scene, folder: PathBuf) -> anyhow::Result<Self> {
        let mounted = folder.clone();
        scene.stage.at_end(move || {
            // It is not there when it could not be mounted, and no more when the scenario got to its end.
            let _ = Command::new("umount").arg("-l").arg(mounted).output();
        });
        scene.act(|_| Self::mounted(folder))
    }

    fn mounted(folder: PathBuf) -> anyhow::Result<Self> {
        let aside = PathBuf::from(format!("{}-aside", folder.display()));
        fs::create_dir_all(&folder)?;
        copy(&folder, &aside)?;
        empty(&folder)?;
        // Room for what is there already, and a little more.
        if let Err(why) = mount(&["-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs"], &folder) {
            copy(&aside, &folder)?;
            fs::remove_dir_all(&aside)?;
            return Err(Skipped { why: format!("no small disk can be mounted here: {why}") }.into());
        }
        copy(&aside, &folder)?;
        Ok(Self { folder, aside })
    }

    fn resize(&self, size: &str) -> anyhow::Result<()> {
        mount(&["-o", &format!("remount,size={size}")], &self.folder).map_err(anyhow::Error::msg)
    }

    /// What is in use and `more` KiB.
    fn shrink(&self, more: u32) -> anyhow::Result<()> {
        let used: u64 = crate::cli::drill::census::files(&self.folder)
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|data| data.len().div_ceil(4096) * 4 + 4)
            .sum();
        self.resize(&format!("{}k", used + u64::from(more)))
    }

    /// The folder as it was, with what is on the disk now; its peer does not run.
    fn remove(self) -> anyhow::Result<()> {
        empty(&self.aside)?;
        copy(&self.folder, &self.aside)?;
        let done = Command::new("umount").arg("-l").arg(&self.folder).output()?;
        if !done.status.success() {
            bail!("{} cannot be unmounted: {}", self.folder.display(), String::from_utf8_lossy(&done.stderr).trim());
        }
        copy(&self.aside, &self.folder)?;
        Ok(fs::remove_dir_all(&self.aside)?)
    }
}

/// A sender has no room for new mail, and a member none for others' mail.
pub(super) fn disk_full(scene: &mut Scene) -> anyhow::Result<()> {
    let (sender, member) = (scene.member(1)?, scene.member(2)?);
    let both = [sender.clone(), member.clone()];
    scene.pass(STEADY);
    scene.stop(&both)?;
    let mounted = (|| {
        let spool = SmallDisk::over(scene, scene.crew.home(&sender).spool_dir())?;
        Ok::<_, anyhow::Error>((spool, SmallDisk::over(scene, scene.crew.home(&member).mirror_dir())?))
    })();
    let (spool, mirror) = mounted?;
    scene.start(&both)?;
    spool.shrink(SMALL_KIB)?;
    mirror.shrink(SMALL_KIB)?;
    scene.say(&format!("{sender} has {SMALL_KIB} KiB for new mail, {member} has {SMALL_KIB} KiB for the others' mail"));
    let refused = scene.refused();
    scene.pass(STEADY * 4);
    // Which lengths its letters have is chance: one that does not fit comes sooner or later.
    scene.wait(PATIENCE, || (scene.refused() > refused).then_some(()));
    let full = scene.refused() - refused;
    spool.resize("64m")?;
    mirror.resize("64m")?;
    scene.say("there is room again");
    scene.check(
        9,
        full > 0,
        format!("{full} mails were refused while the disks were full, nothing that was taken is dropped"),
    );
    let probes = scene.probes(&sender, &[], PROBES)?;
    scene.reads_all(&probes, READ, "once there was room again");
    scene.stop(&both)?;
    scene.act(|_| spool.remove().and_then(|()| mirror.remove()))?;
    scene.start(&both)?;
    scene.pass(STEADY);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::drill::letters::Letters;
    use crate::model::WallTime;

    #[test]
    fn the_longest_letter_alone_is_too_much_for_the_small_disk() {
        let (letters, alice, bob) =
            (Letters::new("t", WallTime(0)), "alice@acme".parse().unwrap(), "bob@acme".parse().unwrap());
        let mut lengths: Vec<usize> = (0..6).map(|mail| letters.write(mail, &alice, &bob).len()).collect();
        lengths.sort_unstable();
        let small = usize::try_from(SMALL_KIB).unwrap() << 10;
        // A digit of hex is half a byte, and what deflates it comes close to that.
        assert!(lengths[5] * 9 / 20 > small, "it is refused though nothing else is there");
        assert!(lengths[4] * 2 / 3 < small, "{lengths:?}");
    }
}
