//! What a peer's process costs, as the kernel counts it in /proc: processor, disk, memory. It alters nothing.

use std::fs;

use anyhow::Context as _;

/// Clock ticks a second in /proc, on every Linux there is.
const TICKS: u32 = 100;

/// What a process took so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::cli::bench) struct Taken {
    /// Processor time, in user and kernel mode.
    pub(in crate::cli::bench) cpu_s: f64,
    /// Bytes that it had written to storage.
    pub(in crate::cli::bench) written_bytes: u64,
    /// Memory of its own that is not backed by a file.
    pub(in crate::cli::bench) rss_anon_bytes: u64,
}

impl Taken {
    /// Of the process `pid`, now.
    pub(in crate::cli::bench) fn by(pid: u32) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("{path}: the peer is gone"))
        };
        Self::parse(&read("stat")?, &read("io")?, &read("status")?).context("/proc says something else than it did")
    }

    fn parse(stat: &str, io: &str, status: &str) -> Option<Self> {
        // The name stands in brackets, and may have spaces and brackets in it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
        let cpu_s = (f64::from(ticks(11)?) + f64::from(ticks(12)?)) / f64::from(TICKS);
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let rss_anon_bytes = field(status, "RssAnon:")? * 1024;
        Some(Self { cpu_s, written_bytes: field(io, "write_bytes:")?, rss_anon_bytes })
    }

    /// What was taken since `before`; memory as it is now.
    pub(in crate::cli::bench) fn since(self, before: Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            rss_anon_bytes: self.rss_anon_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 99 1 1";
        let taken = Taken::parse(stat, "rchar: 1\nwrite_bytes: 4096\n", "Name:\tx\nRssAnon:\t   12 kB\n").unwrap();
        assert_eq!(taken, Taken { cpu_s: 3.0, written_bytes: 4096, rss_anon_bytes: 12_288 });
        assert!(Taken::by(std::process::id()).unwrap().rss_anon_bytes > 0);
    }
}
