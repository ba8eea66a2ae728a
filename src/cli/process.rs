//! Peers as processes: started in the background, recognised by their home, signalled, and waited for. It never signals a
//! process that it does not recognise, and never by name.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::cluster::surroundings::StartedWith;
use crate::store::home::Home;

/// How often a process is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(10);
/// Longest time for a process to show its command line or to end.
const CLEAR: Duration = Duration::from_secs(1);
/// What is shown of the end of a log, bytes.
const LOG_TAIL: u64 = 2000;

/// A process id, as files and JSON have it.
pub(super) type ProcessId = u32;

/// Starts `program up` on `home` in a session of its own, with nothing of this process open in it; gives its pid.
pub(super) fn spawn_peer(program: &Path, home: &Path, with: &StartedWith) -> anyhow::Result<ProcessId> {
    let log_file = Home::at(home).log_file();
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log_file);
    let log = log.with_context(|| format!("{} cannot be written", log_file.display()))?;
    let mut words = with.before.iter().map(OsString::as_os_str).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().unwrap_or(program.as_os_str()));
    command.args(words).envs(&with.variables);
    command.arg("up").arg("--detached").arg("--home").arg(home);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
    Ok(child.id())
}

/// Closes what this process inherited besides standard input, output and error. Only at the start, before anything is open.
pub(super) fn close_inherited() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The folder that was just listed is among them, and closed already.
        let _ = nix::unistd::close(fd);
    }
}

fn pid_of(pid: ProcessId) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}

/// What a process id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The peer on that home.
    Peer,
    /// Somebody else, so the peer is gone.
    Other,
    /// A process without a command line: it has only just started, or is just ending. A process that was killed keeps its
    /// files, the lock of its home among them, until its last thread has ended.
    Unclear,
    /// Nobody.
    Gone,
}

fn look(pid: ProcessId, home: &Path) -> Seen {
    let Some(raw) = pid_of(pid) else { return Seen::Gone };
    // A child of this process that ended stays a zombie until it is waited for.
    let _ = waitpid(raw, Some(WaitPidFlag::WNOHANG));
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if !command.is_empty() {
        let home = home.as_os_str().as_encoded_bytes();
        return if command.split(|b| *b == 0).any(|word| word == home) { Seen::Peer } else { Seen::Other };
    }
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Seen::Gone };
    // The name in parentheses may have spaces and parentheses of its own.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if matches!(state, Some('Z' | 'X')) && threads <= 1 { Seen::Gone } else { Seen::Unclear }
}

/// Whether `pid` is a live process that was started on `home`.
pub(super) fn is_peer(pid: ProcessId, home: &Path) -> bool {
    let mut seen = Seen::Unclear;
    wait_until(CLEAR, || {
        seen = look(pid, home);
        seen != Seen::Unclear
    });
    seen == Seen::Peer
}

/// Whether nothing is left of the peer on `home`, its lock and its ports included.
pub(super) fn is_gone(pid: ProcessId, home: &Path) -> bool {
    matches!(look(pid, home), Seen::Gone | Seen::Other)
}

/// Sends `signal` to the peer, if it is the one on `home`; gives whether it was.
pub(super) fn signal(pid: ProcessId, home: &Path, signal: Signal) -> anyhow::Result<bool> {
    let Some(raw) = pid_of(pid).filter(|_| is_peer(pid, home)) else { return Ok(false) };
    match kill(raw, signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(e) => bail!(
            "the peer on {} (pid {pid}) cannot be signalled: {e}; does it belong to another user?",
            home.display()
        ),
    }
}

/// Waits until the peer on `home` is gone; gives whether it is.
pub(super) fn wait_gone(pid: ProcessId, home: &Path, limit: Duration) -> bool {
    wait_until(limit, || is_gone(pid, home))
}

/// Looks until `done` or the time is over; gives which.
pub(super) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Kills the peer on `home` with SIGKILL and waits until it is gone.
pub(super) fn kill_peer(pid: ProcessId, home: &Path) -> anyhow::Result<bool> {
    let was = signal(pid, home, Signal::SIGKILL)?;
    if was && !wait_gone(pid, home, Duration::from_secs(10)) {
        bail!("the peer on {} (pid {pid}) is still there 10 s after SIGKILL; its disk may hang", home.display());
    }
    Ok(was)
}

/// The end of a peer's log, for an error.
pub(super) fn log_tail(home: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(Home::at(home).log_file())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut text = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_on_that_home_is_recognised_and_killed() {
        let dir = tempfile::tempdir().unwrap();
        let script = "read line";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", dir.path().to_str().unwrap()]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        assert!(wait_until(Duration::from_secs(10), || is_peer(pid, dir.path())));
        assert!(!is_peer(pid, Path::new("/elsewhere")) && !is_peer(std::process::id(), dir.path()));
        assert!(!kill_peer(pid, Path::new("/elsewhere")).unwrap());
        assert!(kill_peer(pid, dir.path()).unwrap());
        assert!(!is_peer(pid, dir.path()) && !kill_peer(pid, dir.path()).unwrap());
        assert!(!is_peer(0, dir.path()));
        // Its end was taken already; what is left is to close its input.
        let _ = child.wait();
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(log_tail(dir.path()), "");
        fs::write(dir.path().join("log"), format!("{}the end", "x".repeat(5000))).unwrap();
        let tail = log_tail(dir.path());
        assert!(tail.len() == 2000 && tail.ends_with("the end"));
    }
}
