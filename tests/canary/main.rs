//! R10, secrets stay home: words in every part of some mails are in no file of any home but their senders' and readers', there
//! only in places that are named here, and in no byte that passes between peers before TLS encrypts it; and what lies on disk or
//! passes as sealed is. Real peers over loopback, in this one process, so that a recorder sees the clear side of every connection.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(test)]
mod scan;
#[cfg(test)]
mod sealed;
#[cfg(test)]
mod team;
#[cfg(test)]
mod wire;

use std::collections::BTreeMap;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::deflate::compress_to_vec;
use roost::model::{Address, Part};

use scan::{Word, contains, files_with, found};
use sealed::{begins_sealed, is_sealed};
use team::{Peer, founded, wait_for};
use wire::Recording;

/// Where in a mail a word stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the header: travels in the ns, for the reader's stub.
    Subject,
    /// The display name of the receiver that everybody sees.
    To,
    /// The display name of the one that nobody else may see.
    Bcc,
    /// The name of the attachment, which is in the body structure.
    FileName,
    /// In the text.
    Text,
    /// In the attachment, in base64.
    Attached,
}

const PLACES: [Place; 6] = [Place::Subject, Place::To, Place::Bcc, Place::FileName, Place::Text, Place::Attached];

/// One mail, with a word of its own in each place.
struct Canary {
    from: Address,
    to: Address,
    bcc: Option<Address>,
    /// In the order of [`PLACES`].
    words: Vec<String>,
    /// The mail as it is submitted.
    mail: Vec<u8>,
}

impl Canary {
    fn new(from: &Address, to: &Address, bcc: Option<&Address>, lines: usize) -> Self {
        let words: Vec<String> = PLACES.iter().map(|place| word(*place)).collect();
        let of = |place| &words[PLACES.iter().position(|other| *other == place).unwrap()];
        let bcc_field = bcc.map(|bcc| format!("Bcc: {} <{bcc}>\r\n", of(Place::Bcc))).unwrap_or_default();
        let mut mail = format!(
            "From: {from}\r\nTo: {} <{to}>\r\n{bcc_field}Subject: about {subject}\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\
             Message-ID: <{subject}@acme>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=part\r\n\r\n\
             --part\r\nContent-Type: text/plain\r\n\r\n",
            of(Place::To),
            subject = of(Place::Subject)
        );
        // Said often, and each time after other random words: it must not compress away, and no read may cut every one in two.
        let mut random = blake3::Hasher::new().update(of(Place::Text).as_bytes()).finalize_xof();
        for _ in 0..lines {
            let mut noise = [0; 24];
            random.fill(&mut noise);
            mail.push_str(&format!("{} {}\r\n", hex::encode(noise), of(Place::Text)));
        }
        let attached = STANDARD.encode(format!("attached: {0} {0}", of(Place::Attached)));
        mail.push_str(&format!(
            "--part\r\nContent-Type: application/octet-stream; name={}.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             {attached}\r\n--part--\r\n",
            of(Place::FileName)
        ));
        Self { from: from.clone(), to: to.clone(), bcc: bcc.cloned(), words, mail: mail.into_bytes() }
    }

    fn word(&self, place: Place) -> &str {
        &self.words[PLACES.iter().position(|other| *other == place).unwrap()]
    }

    fn is_read_by(&self, address: &Address) -> bool {
        self.to == *address || self.bcc.as_ref() == Some(address)
    }

    /// `reader` opens it, and it says what was written.
    fn is_opened_by(&self, reader: &Peer) {
        let mut imap = reader.imap();
        let uid = wait_for("the mail is in INBOX", || {
            imap.command("NOOP").unwrap();
            imap.uid_search(&format!("SUBJECT {}", self.word(Place::Subject))).unwrap().first().copied()
        });
        let body = imap.fetch(uid, "", &mut |_, _| {}).unwrap();
        assert!(contains(&body, self.word(Place::Text).as_bytes()), "the reader reads it");
    }
}

/// A new word, whose first letters say in a failure where it stood.
fn word(place: Place) -> String {
    let mut seed = [0; 12];
    getrandom::fill(&mut seed).unwrap();
    format!("{}{}", format!("{place:?}").to_lowercase(), hex::encode(seed))
}

/// When homes are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// The mails are sealed, mirrored and announced; nobody has opened one.
    Waiting,
    /// Everybody has read, and the outboxes are empty.
    Read,
}

/// Where in the home of `address` the word of `mail` in `place` may lie in the clear: the first folder of the path.
fn may_lie(when: When, mail: &Canary, place: Place, address: &Address) -> &'static [&'static str] {
    let in_the_header = matches!(place, Place::Subject | Place::To | Place::FileName);
    match (when, mail.from == *address, mail.is_read_by(address) && place != Place::Bcc) {
        // The body is its mail program's to keep; here it is sealed, also for the sender. Of the header there is what the
        // mailbox Outbox shows while the mail waits, and the subject for `roost outbox` and for a DSN.
        (_, true, _) if place == Place::Subject => &["journal", "mail"],
        (When::Waiting, true, _) if in_the_header => &["mail"],
        (_, true, _) => &[],
        // The stub that the ns brought.
        (When::Waiting, _, true) if in_the_header => &["mail"],
        (When::Read, _, true) => &["mail"],
        // Nobody but the sender ever learns to whom else it went in secret.
        _ => &[],
    }
}

/// Looks for every word in every file of every home; names what lies where it may not.
fn leaks(when: When, peers: &[Peer], mails: &[Canary], words: &[Word]) -> Vec<String> {
    let mut wrong = Vec::new();
    for peer in peers {
        for (path, here) in files_with(peer.home.root(), words) {
            for index in here {
                let (mail, place) = (&mails[index / PLACES.len()], PLACES[index % PLACES.len()]);
                let may = may_lie(when, mail, place, &peer.address);
                if !may.iter().any(|folder| path.starts_with(folder)) {
                    let path = path.display();
                    wrong.push(format!(
                        "{when:?}: a word of {place:?}, {} to {}: {}/{path}",
                        mail.from, mail.to, peer.address
                    ));
                }
            }
        }
    }
    wrong
}

/// Checks that every blob of every home is sealed: own mails and whole copies to their end, fragments of which the first bytes are
/// here at their begin. Gives how many of each kind there are.
fn on_disk(peers: &[Peer]) -> BTreeMap<&'static str, usize> {
    let mut seen = BTreeMap::new();
    let mut see = |kind, good: bool, what: String| {
        assert!(good, "{kind} is not sealed: {what}");
        *seen.entry(kind).or_default() += 1;
    };
    for Peer { home, address, .. } in peers {
        for h in home.outbox_mails().unwrap() {
            let bytes = fs::read(home.outbox_blob(&h)).unwrap();
            see("own mail", is_sealed(&bytes), format!("{address} {h}"));
        }
        for owner in home.mirrored_owners().unwrap() {
            for (h, part) in home.mirrored_parts(&owner).unwrap() {
                let bytes = fs::read(home.mirror_part(&owner, &h, part)).unwrap();
                match part {
                    Part::Whole => see("whole copy", is_sealed(&bytes), format!("{address} {h}")),
                    Part::Fragment { i: 0, .. } => {
                        see("first fragment", begins_sealed(&bytes), format!("{address} {h}"))
                    }
                    Part::Fragment { .. } => see("other fragment", true, String::new()),
                }
            }
        }
    }
    seen
}

#[test]
fn r10_a_word_of_a_mail_is_in_no_other_home_and_in_nothing_that_passes_between_peers() {
    let recording = Recording::start();
    let dir = tempfile::tempdir().unwrap();
    let mut peers = founded(dir.path());
    let addresses: Vec<Address> = peers.iter().map(|peer| peer.address.clone()).collect();
    let [alice, bob, carol, dave, rita] = &addresses[..] else { panic!("five peers") };
    // In fragments to somebody who is off, so that its ns waits in the DHT, and in secret to another; whole ones to members.
    let mails = [
        Canary::new(alice, rita, Some(dave), 2000),
        Canary::new(bob, carol, None, 20),
        Canary::new(carol, alice, None, 20),
    ];
    let words: Vec<Word> = mails.iter().flat_map(|mail| &mail.words).map(|word| Word::new(word)).collect();
    peers[4].stop();
    for mail in &mails {
        let sender = peers.iter().find(|peer| peer.address == mail.from).unwrap();
        let receivers: Vec<Address> = [&mail.to].into_iter().chain(&mail.bcc).cloned().collect();
        sender.submit(&receivers, &mail.mail);
    }
    (0..3).for_each(|sender| peers[sender].is_safe());
    assert_eq!(leaks(When::Waiting, &peers, &mails, &words), Vec::<String>::new());
    let kinds: Vec<&str> = on_disk(&peers).into_keys().collect();
    assert_eq!(kinds, ["first fragment", "other fragment", "own mail", "whole copy"], "there is something to look at");

    // That it can fail: one clear file where a part of the mail lies otherwise, deflated as OpenPGP would.
    let planted = peers[2].home.mirror_of(alice).join("planted");
    fs::write(&planted, compress_to_vec(&mails[0].mail, 1)).unwrap();
    let told = leaks(When::Waiting, &peers[2..3], &mails, &words);
    assert!(
        told.len() >= 4 && told.iter().all(|told| told.ends_with("carol@acme/mirror/alice@acme/planted")),
        "{told:?}"
    );
    fs::remove_file(&planted).unwrap();

    // Rita reads while the sender is off, so that her nr waits in the DHT too.
    peers[0].stop();
    peers[4].start();
    mails[0].is_opened_by(&peers[4]);
    wait_for("rita's nr is in the DHT", || {
        let sealed = recording.lock().unwrap().sealed(&addresses);
        (sealed.are.contains_key("nr in the DHT") || !sealed.not.is_empty()).then_some(())
    });
    peers[0].start();
    for (mail, reader) in [(0, 3), (1, 2), (2, 0)] {
        mails[mail].is_opened_by(&peers[reader]);
    }
    (0..3).for_each(|sender| peers[sender].is_done());
    assert_eq!(leaks(When::Read, &peers, &mails, &words), Vec::<String>::new());
    peers.iter_mut().for_each(Peer::stop);

    let recording = recording.lock().unwrap();
    let sealed = recording.sealed(&addresses);
    assert_eq!(sealed.not, Vec::<String>::new(), "not sealed");
    let kinds: Vec<&str> = sealed.are.into_keys().collect();
    let all = ["a first fragment", "a mail", "nr by HTTPS", "nr in the DHT", "ns by HTTPS", "ns in the DHT"];
    assert_eq!(kinds, all, "each of them passed");
    for bytes in recording.all() {
        let leaked: Vec<&str> = found(bytes, &words).into_iter().map(|index| words[index].text()).collect();
        assert_eq!(leaked, Vec::<&str>::new(), "passed between peers");
    }
    // What is looked for is found where it may be: each word of a mail at its reader, but the one that only the sender knows.
    let at_rita: Vec<usize> = files_with(peers[4].home.root(), &words).into_iter().flat_map(|(_, here)| here).collect();
    for (index, place) in PLACES.iter().enumerate().filter(|(_, place)| **place != Place::Bcc) {
        assert!(at_rita.contains(&index), "rita's home has the word of {place:?}");
    }
}
