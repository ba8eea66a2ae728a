//! A mail goes from submit to read, and no peer ever keeps it in memory.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::{Letter, Random, Team};

/// The mail, which does not compress: whoever keeps it, sealed or clear, has at least this much.
const MAIL: usize = 136 << 20;
/// Most that a peer may have, bytes. A fetch may keep 64 MiB of parity that waits for its stripes; all else is half of that.
const MOST: u64 = 124 << 20;
/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// Watches the memory of peers that is not backed by a file.
struct Watch {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<BTreeMap<String, u64>>,
}

impl Watch {
    fn begin(team: &Team, names: &[&str]) -> Self {
        let pids: Vec<(String, u32)> =
            names.iter().map(|name| ((*name).to_owned(), team.peer(name).pid.expect("it runs"))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watcher = std::thread::spawn(move || {
            let mut most = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for (name, pid) in &pids {
                    // Who was killed has none.
                    let now = anonymous_bytes(*pid).unwrap_or_default();
                    let known: &mut u64 = most.entry(name.clone()).or_default();
                    *known = now.max(*known);
                }
                std::thread::sleep(LOOK);
            }
            most
        });
        Self { stop, watcher }
    }

    /// The most that each had.
    fn end(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.watcher.join().unwrap()
    }
}

/// `RssAnon` of a process, bytes.
fn anonymous_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// A letter whose text is random bytes, but for those that mean something to SMTP.
fn letter(team: &Team) -> Letter {
    let id = "<large@acme>".to_owned();
    let mut bytes = format!(
        "From: {}\r\nTo: {}\r\nSubject: large\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: {id}\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=apart\r\n\r\n--apart\r\n\r\nHere it is.\r\n\
         --apart\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
        team.address("alice"),
        team.address("rita")
    )
    .into_bytes();
    let mut random = Random::new();
    let mut line = [0; 900];
    while bytes.len() < MAIL {
        random.fill(&mut line);
        line.iter_mut().filter(|byte| matches!(**byte, 0 | b'\r' | b'\n' | b'.')).for_each(|byte| *byte = b'x');
        bytes.extend_from_slice(&line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"--apart--\r\n");
    Letter { id, bytes }
}

#[test]
fn no_peer_keeps_a_mail_in_memory_from_submit_to_read() {
    let team = Team::of_six();
    let watch = Watch::begin(&team, &["alice", "bob", "carol", "dave", "erin", "frank", "rita"]);
    let mail = team.submit("alice", &["rita"], letter(&team));
    let sealed = team.wait_until_safe(&mail, 2);
    assert!(sealed.length > u64::try_from(MAIL).unwrap(), "it did not shrink");
    // With the holder of a data fragment gone too, stripes are rebuilt from parity.
    let holder = sealed.holders.iter().find(|(_, part)| *part == "fragment 0").expect("somebody holds it");
    team.kill(&["alice", holder.0.name().as_str()]);

    let mut rita = team.reader("rita");
    rita.reads_every_byte_of(&mail);
    let uid = rita.sees(&mail);
    for (section, from, len) in [("", 5 << 20, 80 << 20), ("2", 1000, 90 << 20), ("TEXT", 0, 10)] {
        let asked = format!("UID FETCH {uid} (BODY.PEEK[{section}]<{from}.{len}>)");
        let answers = rita.imap.command(&asked).unwrap();
        let literal = answers.iter().find_map(|answer| answer.literals.first()).expect("its bytes");
        assert_eq!(literal.len(), len, "{asked}");
        if section.is_empty() {
            assert!(*literal == mail.letter.bytes[from..from + len], "{asked}");
        }
    }
    let most = watch.end();
    eprintln!(
        "most that each had, MiB: {:?}",
        most.iter().map(|(name, bytes)| (name, bytes >> 20)).collect::<Vec<_>>()
    );
    assert!(most.values().all(|bytes| (1..MOST).contains(bytes)), "somebody kept a mail of {MAIL} bytes: {most:?}");
}

/// Letters of one line again and again: sealed they are shorter than a block, and are pulled as one.
const REPEATED: usize = 40 << 20;
const LETTERS: u32 = 4;
/// Less than two of them.
const MOST_OF_REPEATED: u64 = 72 << 20;

#[test]
fn r9_mails_that_are_short_while_they_are_sealed_are_in_no_memory_when_they_are_opened() {
    let team = Team::of_two();
    let watch = Watch::begin(&team, &["alice", "bob"]);
    let letters = (0..LETTERS).map(|n| {
        let id = format!("<repeated-{n}@acme>");
        let mut bytes = format!(
            "From: {}\r\nTo: {}\r\nSubject: again\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-ID: {id}\r\n\r\n",
            team.address("alice"),
            team.address("bob")
        )
        .into_bytes();
        while bytes.len() < REPEATED {
            bytes.extend_from_slice(&[b'x'; 900]);
            bytes.extend_from_slice(b"\r\n");
        }
        Letter { id, bytes }
    });
    let mails: Vec<_> = letters.map(|letter| team.submit("alice", &["bob"], letter)).collect();
    let mut bob = team.reader("bob");
    for mail in &mails {
        bob.reads_every_byte_of(mail);
    }
    let most = watch.end();
    assert!(
        most.values().all(|bytes| (1..MOST_OF_REPEATED).contains(bytes)),
        "somebody kept one of {REPEATED} bytes: {most:?}"
    );
}
