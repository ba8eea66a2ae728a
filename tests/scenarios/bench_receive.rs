//! The papers' experiment in small, as `roost bench receive` tells it.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::ROOST;

/// Fields that every row has.
const FIELDS: [&str; 13] = [
    "kind",
    "size",
    "n",
    "connections",
    "group",
    "notify",
    "seconds_submit",
    "seconds_total",
    "cpu_s",
    "traffic_bytes",
    "peak_rss_bytes",
    "stored_bytes",
    "fsync_ms",
];

/// Runs a bench; gives what it tells as JSON.
fn bench(words: &[&str]) -> Value {
    let done = Command::new(ROOST).arg("bench").args(words).arg("--json").stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let out = String::from_utf8(done.stdout).unwrap();
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn the_bench_of_receiving_reads_every_mail_to_the_byte_and_tells_what_it_cost() {
    let told = bench(&["receive", "--n", "6", "--kind", "text,binary", "--size", "2K", "--connections", "2"]);
    assert_eq!(told["bench"], "receive");
    let rows = told["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{told}");
    for row in rows {
        for field in FIELDS {
            assert!(!row[field].is_null(), "{field}: {row}");
        }
        assert_eq!((row["n"].as_u64(), row["identical"].as_u64()), (Some(6), Some(6)), "{row}");
        assert_eq!((row["group"].as_str(), row["notify"].as_str()), (Some("alone"), Some("direct-first")), "{row}");
        // A mail of 2 KiB in base64 was sealed, pulled, kept at the reader's: more than half of it each must have gone over.
        for bytes in ["traffic_bytes", "stored_bytes", "peak_rss_bytes"] {
            assert!(row[bytes].as_u64() > Some(6 * 1024), "{bytes}: {row}");
        }
        assert!(
            row["seconds_total"].as_f64() >= Some(0.0)
                && row["seconds_total"].as_f64() >= row["seconds_submit"].as_f64()
        );
    }
}

#[test]
fn the_bench_of_receiving_takes_a_folder_of_ones_own_mails() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("1.eml", "From: a@b\nTo: c@d\nSubject: one\nX-Own: kept\n\nwithout date or id\n.\n..\n"),
        ("2.eml", "From: a@b\r\nTo: c@d\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <2@b>\r\n\r\n\r\n"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let told = bench(&["receive", "--eml", dir.path().to_str().unwrap(), "--no-namespace"]);
    let row = &told["rows"][0];
    assert_eq!(
        (row["kind"].as_str(), row["n"].as_u64(), row["identical"].as_u64()),
        (Some("eml"), Some(2), Some(2)),
        "{row}"
    );
    assert!(row["traffic_counted_by"].as_str().unwrap().starts_with("sock_diag"), "{row}");
    assert!(row["traffic_bytes"].as_u64() > Some(500), "{row}");
}

#[test]
fn the_bench_of_accepting_carries_less_the_more_is_deleted_unread() {
    let told = bench(&["accept", "--n", "8", "--accept", "0,50,100", "--size", "20K", "--connections", "2"]);
    assert_eq!(told["bench"], "accept");
    let rows = told["rows"].as_array().unwrap();
    let seen: Vec<[Option<u64>; 3]> =
        rows.iter().map(|row| ["accept_percent", "accepted", "refused"].map(|field| row[field].as_u64())).collect();
    assert_eq!(
        seen,
        [[Some(0), Some(0), Some(8)], [Some(50), Some(4), Some(4)], [Some(100), Some(8), Some(0)]],
        "{told}"
    );
    // Bodies of 20 KiB that do not compress: eight of them are 160 KiB, what else is said is far less.
    let traffic = |at: usize| rows[at]["traffic_bytes"].as_u64().unwrap();
    assert!(traffic(0) + 60_000 < traffic(1) && traffic(1) + 60_000 < traffic(2), "{told}");
}

#[test]
fn a_mail_in_a_group_of_six_is_opened_once_it_is_safe_and_single_mails_are_timed() {
    let told =
        bench(&["receive", "--n", "3", "--kind", "text", "--size", "1K", "--group", "3-of-5", "--open", "when-safe"]);
    let row = &told["rows"][0];
    let figures = ["identical", "safe_when_received"].map(|field| row[field].as_u64());
    assert_eq!((figures, row["group"].as_str()), ([Some(3), Some(3)], Some("3-of-5")), "{row}");
    let told = bench(&["receive", "--latency", "--n", "2"]);
    let row = &told["rows"][0];
    let ms = ["accepted_ms", "stub_ms", "body_ms"].map(|field| row[field].as_f64().unwrap());
    assert!(ms.iter().all(|ms| *ms > 0.0) && ms[1] <= ms[2] && row["identical"] == 2, "{row}");
}
