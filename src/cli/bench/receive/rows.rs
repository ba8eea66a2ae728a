//! The rows of a bench of receiving, and their medians. They are computed from measurements; nothing is measured here.

use serde::Serialize;

use super::args::{GroupArg, Kind, NotifyArg, OpenArg};
use super::scene::Taken;
use crate::cli::bench::replication::measure::real;
use crate::cli::bench::report::median;

/// What a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(in crate::cli::bench) struct Wanted {
    /// Where the sender is.
    pub(in crate::cli::bench) group: GroupArg,
    /// How the reader is told.
    pub(in crate::cli::bench) notify: NotifyArg,
    /// When mails are opened.
    pub(in crate::cli::bench) open: OpenArg,
    /// SMTP connections.
    pub(in crate::cli::bench) connections: u32,
    /// What the attachments are made of.
    pub(in crate::cli::bench) kind: Kind,
    /// Their length; nothing where a folder's mails differ.
    pub(in crate::cli::bench) size: Option<u64>,
    /// How many mails at most; with medians, how many there were.
    pub(in crate::cli::bench) n: u32,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli::bench) struct Row {
    /// What the attachments are made of.
    pub(in crate::cli::bench) kind: Kind,
    /// Their length, bytes.
    pub(in crate::cli::bench) size: Option<u64>,
    /// Mails.
    pub(in crate::cli::bench) n: u32,
    /// SMTP connections.
    pub(in crate::cli::bench) connections: u32,
    /// Where the sender is.
    pub(in crate::cli::bench) group: GroupArg,
    /// How the reader is told.
    pub(in crate::cli::bench) notify: NotifyArg,
    /// When mails are opened.
    pub(in crate::cli::bench) open: OpenArg,
    /// From the first byte submitted to the last 250.
    pub(in crate::cli::bench) seconds_submit: f64,
    /// From the first byte submitted to the last body read; with members also until every mail was safe(2) or received.
    pub(in crate::cli::bench) seconds_total: f64,
    /// Processor time of all peers, until the sender knows that all were received.
    pub(in crate::cli::bench) cpu_s: f64,
    /// Bytes to and from the reader's peer, until then.
    pub(in crate::cli::bench) traffic_bytes: u64,
    /// How they were counted.
    pub(in crate::cli::bench) traffic_counted_by: &'static str,
    /// Of those, what came.
    pub(in crate::cli::bench) rx_bytes: u64,
    /// And what went.
    pub(in crate::cli::bench) tx_bytes: u64,
    /// Frames, both ways; 0 where sockets are counted.
    pub(in crate::cli::bench) packets: u64,
    /// The most memory that each peer had, added up.
    pub(in crate::cli::bench) peak_rss_bytes: u64,
    /// What the homes of all peers grew by.
    pub(in crate::cli::bench) stored_bytes: u64,
    /// Median of an append of 4 KiB and its fsync on this disk, before the run.
    pub(in crate::cli::bench) fsync_ms: f64,
    /// Bytes of the mails as they were submitted.
    pub(in crate::cli::bench) mail_bytes: u64,
    /// Mails that were read and are what was submitted, to the byte: all of them.
    pub(in crate::cli::bench) identical: u32,
    /// With members: mails that were safe(2) already when they were received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli::bench) safe_when_received: Option<u64>,
    /// Processor time of the clients: submission, reading, comparing. In no other figure.
    pub(in crate::cli::bench) clients_cpu_s: f64,
    /// The same peer by peer.
    pub(in crate::cli::bench) peers: Vec<PeerCost>,
}

/// What one peer took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli::bench) struct PeerCost {
    /// Whose it is.
    pub(in crate::cli::bench) address: String,
    /// Processor time.
    pub(in crate::cli::bench) cpu_s: f64,
    /// The most memory it had.
    pub(in crate::cli::bench) peak_rss_bytes: u64,
    /// What its home grew by.
    pub(in crate::cli::bench) stored_bytes: u64,
}

impl From<Taken> for PeerCost {
    fn from(taken: Taken) -> Self {
        Self {
            address: taken.address.to_string(),
            cpu_s: taken.cpu_s,
            peak_rss_bytes: taken.peak_rss_bytes,
            stored_bytes: taken.stored_bytes,
        }
    }
}

/// What one mail costs: medians of the runs of one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli::bench) struct PerMail {
    /// What the row is of.
    #[serde(flatten)]
    pub(in crate::cli::bench) of: Wanted,
    /// Whether the reader's traffic is whole frames, as a conventional system's is; else what its sockets passed on.
    pub(in crate::cli::bench) traffic_in_frames: bool,
    /// Runs.
    pub(in crate::cli::bench) runs: usize,
    /// Milliseconds until the last 250.
    pub(in crate::cli::bench) submit_ms: f64,
    /// Milliseconds in all.
    pub(in crate::cli::bench) total_ms: f64,
    /// Milliseconds of processor time.
    pub(in crate::cli::bench) cpu_ms: f64,
    /// Bytes to and from the reader's peer.
    pub(in crate::cli::bench) traffic_bytes: f64,
    /// Bytes by which homes grew.
    pub(in crate::cli::bench) stored_bytes: f64,
    /// Bytes of the mail itself.
    pub(in crate::cli::bench) mail_bytes: f64,
    /// Peak of memory, of all peers together; not divided.
    pub(in crate::cli::bench) peak_rss_bytes: f64,
}

impl PerMail {
    /// Of these runs of one row.
    fn of(of: Wanted, runs: &[&Row]) -> Self {
        let middle = |figure: &dyn Fn(&Row) -> f64| median(runs.iter().map(|row| figure(row)).collect());
        let each = |figure: &dyn Fn(&Row) -> f64| middle(&|row| figure(row) / f64::from(row.n.max(1)));
        Self {
            // A folder may have fewer than were wanted.
            of: Wanted { n: runs.iter().map(|row| row.n).min().unwrap_or_default(), ..of },
            traffic_in_frames: runs.iter().all(|row| row.packets > 0),
            runs: runs.len(),
            submit_ms: each(&|row| row.seconds_submit * 1000.0),
            total_ms: each(&|row| row.seconds_total * 1000.0),
            cpu_ms: each(&|row| row.cpu_s * 1000.0),
            traffic_bytes: each(&|row| real(row.traffic_bytes)),
            stored_bytes: each(&|row| real(row.stored_bytes)),
            mail_bytes: each(&|row| real(row.mail_bytes)),
            peak_rss_bytes: middle(&|row| real(row.peak_rss_bytes)),
        }
    }
}

/// The medians of all rows, in the order in which they first ran.
pub(in crate::cli::bench) fn medians(runs: &[(Wanted, Row)]) -> Vec<PerMail> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for (of, _) in runs {
        if !wanted.contains(of) {
            wanted.push(*of);
        }
    }
    let rows = |of: &Wanted| runs.iter().filter(|(other, _)| other == of).map(|(_, row)| row).collect::<Vec<_>>();
    wanted.into_iter().map(|of| PerMail::of(of, &rows(&of))).collect()
}

#[cfg(test)]
pub(in crate::cli::bench) mod tests {
    use super::*;

    /// A run of ten mails that took so many seconds.
    pub(in crate::cli::bench) fn run(size: u64, kind: Kind, seconds: f64) -> (Wanted, Row) {
        let wanted = Wanted {
            group: GroupArg::Alone,
            notify: NotifyArg::DirectFirst,
            open: OpenArg::AtOnce,
            connections: 4,
            kind,
            size: Some(size),
            n: 10,
        };
        let row = Row {
            kind,
            size: Some(size),
            n: 10,
            connections: 4,
            group: wanted.group,
            notify: wanted.notify,
            open: wanted.open,
            seconds_submit: seconds / 2.0,
            seconds_total: seconds,
            cpu_s: seconds * 1.5,
            traffic_bytes: 10 * size,
            traffic_counted_by: "test",
            rx_bytes: 9 * size,
            tx_bytes: size,
            packets: 20,
            peak_rss_bytes: 50 << 20,
            stored_bytes: 10 * size,
            fsync_ms: 1.0,
            mail_bytes: 10 * size,
            identical: 10,
            safe_when_received: None,
            clients_cpu_s: 0.1,
            peers: Vec::new(),
        };
        (wanted, row)
    }

    #[test]
    fn medians_are_of_one_mail_and_of_the_runs_of_one_row() {
        let runs = [
            run(1024, Kind::Text, 0.1),
            run(2048, Kind::Text, 9.0),
            run(1024, Kind::Text, 0.3),
            run(1024, Kind::Text, 0.2),
        ];
        let medians = medians(&runs);
        assert_eq!(medians.len(), 2);
        let few = super::medians(&runs.clone().map(|(wanted, row)| (Wanted { n: 1000, ..wanted }, row)));
        assert_eq!((few[0].of.n, few[0].traffic_in_frames), (10, true));
        assert!(medians[0].runs == 3 && (medians[0].total_ms - 20.0).abs() < 1e-9, "{medians:?}");
        assert_eq!(medians[0].traffic_bytes, 1024.0);
    }
}
