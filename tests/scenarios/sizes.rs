//! Mails of every awkward size: nothing at all, one line, and sealed to one byte below, at and above a block, a stripe and the
//! line below which mails stay whole; sent, mirrored, and read to the byte once their sender is dead.

use std::collections::BTreeSet;

use roost::console::protocol::{OutboxLine, Request};
use roost::model::SubmissionId;

use crate::harness::{Letter, Mail, Team, wait_for};

const BLOCK: u64 = 65_536;
/// Below it a mail stays whole, in the team of fragments.
const WHOLE_BELOW: u64 = 40_000;
/// Most letters until the sealed lengths around one border have been met.
const TRIES: usize = 30;

fn team(members: &str, policy: &str) -> Team {
    Team::of_text(&format!(
        "[[group]]\nname = \"acme\"\nmembers = [{members}]\n[group.replication]\n{policy}\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n\
         [[contacts]]\npeer = \"rita@readers\"\nwith = [\"alice@acme\"]\n"
    ))
}

/// A letter of exactly `size` bytes that does not get shorter when it is compressed.
fn letter(number: usize, size: u64) -> Letter {
    let id = format!("<size.{number:04}@acme>");
    let head = format!(
        "From: alice@acme\r\nTo: rita@readers\r\nSubject: size\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: {id}\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    let mut random = blake3::Hasher::new().update(id.as_bytes()).update(&size.to_be_bytes()).finalize_xof();
    let mut body = vec![0; usize::try_from(size).unwrap() - bytes.len() - 2];
    random.fill(&mut body);
    // Mails have no bare CR, LF or NUL.
    body.iter_mut().filter(|byte| b"\r\n\0.".contains(byte)).for_each(|byte| *byte = b'x');
    bytes.extend(body);
    bytes.extend_from_slice(b"\r\n");
    Letter { id, bytes }
}

/// The mails that were sent, and what is known of them.
struct Sent<'a> {
    team: &'a Team,
    mails: Vec<Mail>,
    seen: BTreeSet<SubmissionId>,
}

impl Sent<'_> {
    /// Sends one; gives its sealed length.
    fn send(&mut self, letter: Letter) -> u64 {
        self.mails.push(self.team.submit("alice", &["rita"], letter));
        let (line, length) = wait_for("it is sealed", || {
            let lines: Vec<OutboxLine> = self.team.ask("alice", &Request::Outbox);
            let line = lines.into_iter().find(|line| !self.seen.contains(&line.submission))?;
            Some((line.submission, line.sealed.first()?.length))
        });
        self.seen.insert(line);
        length
    }

    /// Sends until mails of one byte less than `border`, of just that and of one more have been sealed.
    fn around(&mut self, border: u64) {
        let mut wanted = BTreeSet::from([border - 1, border, border + 1]);
        let mut size = border - 1_500;
        for _ in 0..TRIES {
            let sealed = self.send(letter(self.mails.len(), size));
            wanted.remove(&sealed);
            let Some(next) = wanted.first() else { return };
            // Sealing adds nearly always the same.
            size = next + size - sealed;
        }
        panic!("nothing was sealed to {wanted:?} bytes");
    }
}

fn sizes(team: &Team, borders: &[u64], safe: i32) {
    let mut sent = Sent { team, mails: Vec::new(), seen: BTreeSet::new() };
    for body in ["", "x\r\n"] {
        let mut small = letter(sent.mails.len(), 300);
        let at = small.bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        small.bytes.truncate(at);
        small.bytes.extend_from_slice(body.as_bytes());
        sent.send(small);
    }
    borders.iter().for_each(|border| sent.around(*border));
    let lines = wait_for("all are announced and safe", || {
        let lines: Vec<OutboxLine> = team.ask("alice", &Request::Outbox);
        let done = |line: &OutboxLine| {
            let announced = line.receivers.values().all(|state| state == "announced");
            announced && line.sealed.iter().all(|sealed| sealed.safe >= safe)
        };
        (lines.len() == sent.mails.len() && lines.iter().all(done)).then_some(lines)
    });
    for sealed in lines.iter().flat_map(|line| &line.sealed) {
        let is_whole = borders[0] != WHOLE_BELOW || sealed.length < WHOLE_BELOW;
        assert_eq!(sealed.encoding == "whole", is_whole, "{} bytes: {}", sealed.length, sealed.encoding);
    }
    let mut rita = team.reader("rita");
    for mail in &sent.mails {
        rita.sees(mail);
    }
    team.kill(&["alice"]);
    sent.mails.iter().for_each(|mail| rita.reads_in_the_end(mail));
}

#[test]
fn mails_of_every_awkward_size_are_read_from_fragments_to_the_byte() {
    let policy = format!(
        "mode = \"fragments\"\nfragments = {{ k = 2, n = 3 }}\ncopies = 2\nwhole_below = \"{WHOLE_BELOW} B\"\n"
    );
    let team = team("\"alice\", \"bob\", \"carol\", \"dave\"", &policy);
    // A stripe of 2 blocks; and 3, where the last stripe has two blocks as short as they can be.
    sizes(&team, &[WHOLE_BELOW, BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK], 1);
}

#[test]
fn mails_of_every_awkward_size_are_read_from_whole_copies_to_the_byte() {
    let team = team("\"alice\", \"bob\", \"carol\"", "mode = \"full\"\ncopies = 2\n");
    sizes(&team, &[BLOCK, 2 * BLOCK], 1);
}
