//! On what a bench ran: the machine, and the commit of the checkout that the program lies in. It measures nothing.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// What the figures of a run hold for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Machine {
    /// Its processor, as it names itself.
    pub(in crate::cli) processor: String,
    /// Cores that this process may use.
    pub(in crate::cli) cores: usize,
    /// Memory, in bytes.
    pub(in crate::cli) memory_bytes: u64,
    /// The kernel's release.
    pub(in crate::cli) kernel: String,
    /// `release` or `debug`: figures of a debug build say nothing about speed.
    pub(in crate::cli) build: &'static str,
}

impl Machine {
    /// This one. What it does not tell is left empty.
    pub(in crate::cli) fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = kib.trim_end_matches("kB").trim().parse().unwrap_or(0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }

    /// On one line.
    pub(in crate::cli) fn line(&self) -> String {
        let gib = self.memory_bytes >> 30;
        format!("{} cores, {gib} GiB, {}, Linux {}, {} build", self.cores, self.processor, self.kernel, self.build)
    }
}

/// The commit of the checkout that this program lies in, with `-dirty` when files differ from it; `unknown` elsewhere.
pub(in crate::cli) fn commit() -> String {
    let git = |folder: &Path, args: &[&str]| {
        let out = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let program = std::env::current_exe().ok();
    // A target folder elsewhere is told by the folder that the command was typed in.
    let places = [program.as_deref().and_then(Path::parent), Some(Path::new("."))];
    let found = places.into_iter().flatten().find_map(|folder| {
        let commit = git(folder, &["rev-parse", "--short=12", "HEAD"])?;
        let changed = git(folder, &["status", "--porcelain", "--untracked-files=no"])?;
        Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
    });
    found.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_tells_of_itself() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.line().contains(&format!("{} cores", machine.cores)), "{}", machine.line());
        let commit = commit();
        assert!(commit == "unknown" || commit.len() >= 12, "{commit}");
    }
}
