//! What stays home (R10): nobody but who sent a mail and who receives it has its header, on the disk or in a message. An owner's note to
//! itself, which its msglist carries to all members, is sealed by a model that is no secret, and leaves no byte as it was.

use roost::core::outbox::OwnerNote;
use roost::model::SubmissionId;
use roost::wire;

use super::checker::Rule;
use super::disk::Record;
use super::network::{Answer, Notice, Request};
use super::sabotage::Saboteur;
use super::world::World;

/// What follows the submission in the Message-ID of every mail, and so is in every header.
const MARK: &[u8] = b"@sim";
/// A submission as hexadecimal digits.
const DIGITS: usize = 2 * SubmissionId::LEN;

/// Seals, and opens again: whoever looks for what is inside does not find it.
fn veiled(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0x5a).collect()
}

/// The mails parts of whose headers are in these bytes.
fn named_in(bytes: &[u8]) -> impl Iterator<Item = SubmissionId> {
    let mut from = 0;
    let marks = std::iter::from_fn(move || {
        let at = from + bytes[from..].iter().position(|byte| *byte == MARK[0])?;
        from = at + 1;
        Some(at)
    });
    let marks = marks.filter(|at| bytes[*at..].starts_with(MARK));
    marks.filter_map(|at| std::str::from_utf8(bytes.get(at.checked_sub(DIGITS)?..at)?).ok()?.parse().ok())
}

impl World {
    /// What an owner notes for itself, as its msglist carries it.
    pub(crate) fn seal_note(&self, note: &OwnerNote) -> Vec<u8> {
        let clear = wire::encode(note);
        if self.is(Saboteur::SpillsNotes) { clear } else { veiled(&clear) }
    }

    /// What it reads of that again.
    pub(crate) fn open_note(&self, sealed: &[u8]) -> OwnerNote {
        let clear = if self.is(Saboteur::SpillsNotes) { sealed.to_vec() } else { veiled(sealed) };
        wire::decode(&clear).unwrap()
    }

    /// R10: looks at what is on its way to a disk.
    pub(crate) fn check_written(&mut self, p: usize, record: &Record) {
        let (Record::Outbox(bytes) | Record::Replicator(bytes) | Record::Postbox(bytes) | Record::Group(bytes)) =
            record;
        self.check_secret(p, bytes, "on its disk");
    }

    /// R10: looks at what one peer asks another.
    pub(crate) fn check_request(&mut self, to: usize, request: &Request) {
        match request {
            Request::Notify(Notice::Tombstone(bytes)) => self.check_secret(to, bytes, "in a notice"),
            Request::Holdings(word) => self.check_secret(to, word.as_bytes(), "in a member's word"),
            _ => {}
        }
    }

    /// R10: looks at what it is answered.
    pub(crate) fn check_answer(&mut self, to: usize, answer: &Answer) {
        match answer {
            Answer::Page(page) => {
                let runs = page.runs.iter().flat_map(|run| run.entries.iter().chain([&run.head]).chain(&run.base));
                for bytes in runs.chain(&page.tombstones) {
                    self.check_secret(to, bytes, "in a msglist");
                }
            }
            Answer::Gone(tombstone) => self.check_secret(to, tombstone, "in a tombstone"),
            Answer::Manifest(manifest) => self.check_secret(to, manifest.as_bytes(), "in a manifest"),
            Answer::Refused(why) | Answer::Later(why) => self.check_secret(to, why.as_bytes(), "in a refusal"),
            _ => {}
        }
    }

    fn check_secret(&mut self, p: usize, bytes: &[u8], place: &str) {
        let me = &self.peers[p].address;
        let is_strange = |id: &SubmissionId| {
            let letter = self.truth.letters.get(id);
            letter.is_some_and(|letter| letter.from != p && !letter.receivers.contains(me))
        };
        if let Some(id) = named_in(bytes).find(is_strange) {
            let why = format!("{} has a header of {id} {place}, which it neither sent nor receives", self.name(p));
            self.violate(Rule::R10, why);
        }
    }
}

#[test]
fn r10_a_header_is_found_where_it_is_in_the_clear_and_nowhere_else() {
    let id = SubmissionId::new([0xab; SubmissionId::LEN]);
    let header = format!("To: m1@acme, @s\r\nMessage-ID: <{id}@sim>\r\n").into_bytes();
    assert_eq!(named_in(&header).collect::<Vec<_>>(), [id]);
    assert_eq!(named_in(&[header.clone(), header.clone()].concat()).count(), 2);
    assert_eq!(named_in(&veiled(&header)).count() + named_in(b"@sim").count() + named_in(b"").count(), 0);
    assert_eq!(veiled(&veiled(&header)), header);
}
