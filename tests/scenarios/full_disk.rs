//! A full disk: 452 at SMTP, said everywhere where people look, nothing half-stored, and the peer goes on once there is room.
//! The kernel refuses to let any file of the peer grow beyond a limit: to the peer that is a disk without room.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use roost::cli::demo::smtp_client::SmtpClient;

use crate::harness::browser::Browser;
use crate::harness::{Letter, Mail, ROOST, Team, wait_for};

/// A mail that is far smaller than the journal is by then.
const SMALL: usize = 500;

/// alice, started by the test itself, so that her files can be limited.
struct Limited<'a> {
    team: &'a Team,
    process: Child,
}

impl<'a> Limited<'a> {
    fn start(team: &'a Team) -> Self {
        let mut log = File::options().create(true).append(true).open(team.home("alice").log_file()).unwrap();
        // The log grows no more either, as on a full disk: that must not end the peer.
        log.write_all(&b"this log is long already\n".repeat(200_000)).unwrap();
        let process = Command::new(ROOST)
            .args(["up", "--home"])
            .arg(team.home_dir("alice"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let alice = Self { team, process };
        wait_for("alice answers", || alice.login());
        alice
    }

    fn login(&self) -> Option<SmtpClient> {
        let peer = self.team.peer("alice");
        SmtpClient::login(&peer.smtp, &peer.address.to_string(), &peer.password).ok()
    }

    /// No file may grow beyond `bytes`; none at all lifts that.
    fn limit_files(&self, bytes: Option<u64>) {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let pid = self.process.id().to_string();
        let set =
            Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:unlimited")]).status().unwrap();
        assert!(set.success());
    }

    /// The journal is as long as a file may be.
    fn fill_journal(&self) {
        let logs = fs::read_dir(self.team.home("alice").journal_dir()).unwrap().flatten();
        self.limit_files(logs.map(|log| log.metadata().unwrap().len()).max());
    }

    /// Submits a letter of `size` bytes to bob: taken, or refused with this.
    fn submits(&self, size: usize) -> Result<Mail, (Letter, String)> {
        let letter = self.team.letter("alice", "bob", size);
        let (alice, bob) = (self.team.address("alice"), [self.team.address("bob")]);
        match self.login().unwrap().submit(&alice, &bob, &letter.bytes) {
            Ok(_) => Ok(Mail { from: "alice".to_owned(), letter }),
            Err(said) => Err((letter, said.to_string())),
        }
    }

    /// Status, metrics and the web page say that `store` is full, and what to do; or that nothing is.
    fn shows_full(&self, store: Option<&str>) {
        wait_for("status says what is full", || {
            let shown = self.team.status("alice");
            let stores: Vec<&str> = shown.disk_full.iter().map(|full| full.store.as_str()).collect();
            // What a small limit stops besides is no matter here.
            store.map_or(stores.is_empty(), |store| stores.contains(&store)).then_some(())
        });
        let shown = self.team.status("alice");
        let browser = Browser::logged_in(self.team, "alice");
        let (json, metrics) = (browser.get("/status.json").body, browser.get("/metrics").body);
        assert!(metrics.contains(&format!("\nroost_disk_full {}\n", u8::from(store.is_some()))), "{metrics}");
        assert_eq!(shown.attention.iter().any(|line| line.contains("disk is full")), store.is_some(), "{shown:?}");
        if let Some(store) = store {
            assert!(metrics.contains(&format!("\nroost_disk_full_store{{store=\"{store}\"}} 1\n")), "{metrics}");
            assert!(json.contains(&format!("\"store\":\"{store}\"")), "{json}");
            let what = &shown.disk_full.iter().find(|full| full.store == store).unwrap().what;
            assert!(what.contains(&format!("/{store}")) || store == "journal", "{what}");
            assert!(what.contains("free some space"), "{what}");
        }
    }

    fn spooled(&self) -> BTreeSet<OsString> {
        let spool = fs::read_dir(self.team.home_dir("alice").join("spool")).unwrap();
        spool.flatten().map(|entry| entry.file_name()).collect()
    }
}

/// Files under a folder in which these bytes are.
fn files_with(folder: &Path, wanted: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        // What goes while it is looked at holds nothing any more.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            found.extend(bytes.windows(wanted.len()).any(|window| window == wanted).then_some(path));
        }
    }
    found
}

impl Drop for Limited<'_> {
    fn drop(&mut self) {
        // One that has ended is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_full_disk_is_shown_with_its_store_and_what_was_taken_is_read_once_and_what_was_refused_never() {
    let team = Team::of_two();
    // Bob must not take anything before the end.
    team.stop(&["bob", "alice"]);
    let alice = Limited::start(&team);
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    taken.push(alice.submits(20_000).unwrap_or_else(|(_, said)| panic!("{said}")));
    alice.shows_full(None);

    // No room for a large mail.
    alice.limit_files(Some(2 * 1024 * 1024));
    let (letter, said) = alice.submits(6_000_000).err().expect("there is no room");
    assert!(said.contains("452 4.3.1") && said.contains("free some"), "{said}");
    refused.push(letter);
    alice.shows_full(Some("spool"));
    taken.push(alice.submits(30_000).unwrap_or_else(|(_, said)| panic!("a small one fits: {said}")));
    alice.shows_full(None);

    // No room in the journal: whoever is told 452 has nothing stored, and whoever is told 250 is not lost.
    for killed in [false, true] {
        alice.limit_files(None);
        alice.fill_journal();
        // What comes in the very moment in which the disk becomes full may be taken: then it is in the spool.
        let (letter, said) = wait_for("452", || match alice.submits(SMALL) {
            Ok(mail) => {
                taken.push(mail);
                None
            }
            Err(refused) => Some(refused),
        });
        assert!(said.contains("452 4.3.1"), "{said}");
        refused.push(letter);
        alice.shows_full(Some("journal"));
        let spooled = alice.spooled();
        for size in [SMALL, 60_000, 700_000, SMALL] {
            let (letter, said) = alice.submits(size).err().expect("there is still no room");
            assert!(said.contains("452 4.3.1"), "{size} bytes: {said}");
            refused.push(letter);
        }
        let left: Vec<_> = alice.spooled().difference(&spooled).cloned().collect();
        assert!(left.is_empty(), "nothing of the refused mails is in the spool: {left:?}");
        for letter in &refused {
            let found = files_with(&team.home_dir("alice"), letter.id.as_bytes());
            assert!(found.is_empty(), "nothing of a refused mail is in any file: {found:?}");
        }
        if killed {
            break;
        }
        alice.limit_files(None);
        let again = wait_for("mail is taken again, without a restart", || alice.submits(SMALL).ok());
        taken.push(again);
        alice.shows_full(None);
    }
    drop(alice);
    team.start(&["alice", "bob"]);
    let mut bob = team.reader("bob");
    for mail in &taken {
        bob.reads_in_the_end(mail);
        assert_eq!(bob.uids_of(mail).len(), 1, "read once");
    }
    wait_for("the outbox is empty", || team.waiting("alice").is_empty().then_some(()));
    for letter in refused {
        let refused = Mail { from: "alice".to_owned(), letter };
        assert!(bob.uids_of(&refused).is_empty(), "a refused mail never arrives");
    }
}
