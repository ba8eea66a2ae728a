//! Real peers for scenarios: `Team::of_six()`, `team.kill("bob")`, `team.corrupt("carol", &mail)`,
//! `team.reader("rita").opens(&mail)`. Everything ends when the team is dropped.

pub(crate) mod browser;
mod dht_look;
mod disks;
pub(crate) mod forged;
pub(crate) mod hostile;
mod letters;
mod machine;
mod network;
mod people;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use roost::cli::cluster::{ClusterDir, ClusterPeer};
use roost::cli::demo::smtp_client::SmtpClient;
use roost::cli::progress::Report;
use roost::config::cluster::Cluster;
use roost::console::protocol::{OutboxLine, PeerStatus, Request, SealedLine};
use roost::model::{Address, Fingerprint, MailId, SubmissionId};
use roost::store::home::Home;
use tempfile::TempDir;

pub(crate) use dht_look::DhtLook;
pub(crate) use disks::OldDisk;
pub(crate) use letters::{Letter, Random};
pub(crate) use machine::Machine;
pub(crate) use network::{Network, Side};
pub(crate) use people::Reader;

/// The program under test.
pub(crate) const ROOST: &str = env!("CARGO_BIN_EXE_roost");
/// Longest wait for anything that must happen; never a measure of how fast it is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// A group that writes nothing for so long rests: what is tried again is tried within it, at first.
const REST: Duration = Duration::from_secs(5);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until `see` finds something.
pub(crate) fn wait_for<T>(what: &str, mut see: impl FnMut() -> Option<T>) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(found) = see() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not seen after {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK);
    }
}

/// Bytes of the files in a folder.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.metadata().map_or(0, |data| data.len())).sum()
}

/// Peers on this machine, in a folder of their own.
pub(crate) struct Team {
    cluster: ClusterDir,
    dir: TempDir,
}

/// A mail that was taken with 250.
pub(crate) struct Mail {
    /// Who sent it.
    pub(crate) from: String,
    /// What was submitted.
    pub(crate) letter: Letter,
}

impl Team {
    /// `cluster-config/team-of-six.toml`: alice to frank in acme, fragments 3 of 5, and rita@readers.
    pub(crate) fn of_six() -> Self {
        Self::from_file("team-of-six.toml")
    }

    /// `cluster-config/team-of-three.toml`: alice, bob and carol in acme, two whole copies.
    pub(crate) fn of_three() -> Self {
        Self::from_file("team-of-three.toml")
    }

    /// alice and bob in acme, one whole copy.
    pub(crate) fn of_two() -> Self {
        let text = "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\"]\n\
                    [group.replication]\nmode = \"full\"\ncopies = 1\n";
        Self::of(&Cluster::parse("pair", text).unwrap())
    }

    /// The peers of a cluster file's text.
    pub(crate) fn of_text(text: &str) -> Self {
        Self::of(&Cluster::parse("a test's own", text).unwrap())
    }

    /// Brings the peers of another cluster file up in the same folder: those that are there stay.
    pub(crate) fn grow(&self, text: &str) {
        self.cluster.up(&Cluster::parse("a test's own", text).unwrap()).unwrap();
    }

    /// dave@acme and rita@readers, who have each other's card.
    pub(crate) fn of_two_groups() -> Self {
        let text = "[[group]]\nname = \"acme\"\nmembers = [\"dave\"]\n\
                    [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n\
                    [[contacts]]\npeer = \"rita@readers\"\nwith = [\"dave@acme\"]\n";
        Self::of(&Cluster::parse("pair", text).unwrap())
    }

    fn from_file(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config").join(name);
        Self::of(&Cluster::load(&path).unwrap())
    }

    fn of(file: &Cluster) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::make(dir.path(), Path::new(ROOST), Report::silent()).unwrap();
        let team = Self { cluster, dir };
        team.cluster.up(file).unwrap();
        team
    }

    /// The address of `name`.
    pub(crate) fn address(&self, name: &str) -> Address {
        self.cluster.find(name).unwrap()
    }

    fn addresses(&self, names: &[&str]) -> Vec<Address> {
        names.iter().map(|name| self.address(name)).collect()
    }

    /// The peer of `name`, as `roost cluster status` shows it.
    pub(crate) fn peer(&self, name: &str) -> ClusterPeer {
        let address = self.address(name);
        self.cluster.status().unwrap().peers.into_iter().find(|peer| peer.address == address).unwrap()
    }

    /// Every peer.
    pub(crate) fn peers(&self) -> Vec<ClusterPeer> {
        self.cluster.status().unwrap().peers
    }

    /// The key of the group of `name`, which runs.
    pub(crate) fn group_key(&self, name: &str) -> Fingerprint {
        self.status(name).group.key.unwrap().parse().unwrap()
    }

    /// The home of `name`.
    pub(crate) fn home(&self, name: &str) -> Home {
        Home::at(self.cluster.home_of(&self.address(name)))
    }

    /// The folder of that home.
    pub(crate) fn home_dir(&self, name: &str) -> PathBuf {
        self.cluster.home_of(&self.address(name))
    }

    /// Sets `key` of a section in the config of `name`, which is stopped and started for it.
    pub(crate) fn configure(&self, name: &str, section: &str, line: &str) {
        self.stop(&[name]);
        let path = self.home(name).config_file();
        let text = fs::read_to_string(&path).unwrap();
        let (key, _) = line.split_once(" = ").unwrap();
        let rest: Vec<&str> = text.lines().filter(|old| !old.starts_with(&format!("{key} ="))).collect();
        let head = format!("[{section}]");
        let with = rest.join("\n").replace(&head, &format!("{head}\n{line}"));
        fs::write(&path, with + "\n").unwrap();
        self.start(&[name]);
    }

    /// Where the HTTPS routes of `name` listen on loopback.
    pub(crate) fn https_port(&self, name: &str) -> u16 {
        roost::config::Config::load(&self.home(name).config_file()).unwrap().net.https_port
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, names: &[&str]) {
        let addresses = self.addresses(names);
        assert_eq!(self.cluster.kill(&addresses).unwrap(), addresses, "somebody did not run");
    }

    /// A clean stop.
    pub(crate) fn stop(&self, names: &[&str]) {
        let addresses = self.addresses(names);
        assert_eq!(self.cluster.stop(&addresses).unwrap(), addresses, "somebody did not run");
    }

    /// Starts them again; they answer when this returns.
    pub(crate) fn start(&self, names: &[&str]) {
        self.cluster.start(&self.addresses(names)).unwrap();
    }

    /// Asks the running peer of `name`.
    pub(crate) fn ask<T: serde::de::DeserializeOwned>(&self, name: &str, request: &Request) -> T {
        let control = self.cluster.control_of(&self.address(name));
        control.ask_telling(request, &mut |_, _| {}).unwrap_or_else(|e| panic!("{name}, asked {request:?}: {e}"))
    }

    /// Asks the running peer of `name`; what it says when it refuses.
    pub(crate) fn try_ask<T: serde::de::DeserializeOwned>(&self, name: &str, request: &Request) -> Result<T, String> {
        let control = self.cluster.control_of(&self.address(name));
        control.ask_telling(request, &mut |_, _| {}).map_err(|e| e.to_string())
    }

    /// `roost status` of `name`.
    pub(crate) fn status(&self, name: &str) -> PeerStatus {
        self.ask(name, &Request::Status)
    }

    /// Everything that the peer of `name` printed.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.home(name).log_file()).unwrap_or_default()
    }

    /// `from` submits a letter by SMTP; it was taken with 250 when this returns.
    pub(crate) fn submit(&self, from: &str, to: &[&str], letter: Letter) -> Mail {
        self.submit_to(from, &self.addresses(to), letter)
    }

    /// The same, to anybody.
    pub(crate) fn submit_to(&self, from: &str, to: &[Address], letter: Letter) -> Mail {
        let peer = self.peer(from);
        let mut smtp = SmtpClient::login(&peer.smtp, &peer.address.to_string(), &peer.password).unwrap();
        smtp.submit(&peer.address, to, &letter.bytes).unwrap();
        Mail { from: from.to_owned(), letter }
    }

    /// A new letter of about `size` bytes from `from` to `to`.
    pub(crate) fn letter(&self, from: &str, to: &str, size: usize) -> Letter {
        Letter::new(&self.address(from), &self.address(to), size)
    }

    /// What waits in the outbox of the mail's sender; there is only this mail.
    pub(crate) fn outbox_line(&self, mail: &Mail) -> Option<OutboxLine> {
        let lines: Vec<OutboxLine> = self.ask(&mail.from, &Request::Outbox);
        assert!(lines.len() <= 1, "more than one mail waits: {lines:?}");
        lines.into_iter().next()
    }

    /// Waits until the mail is announced, and `f` more members can go.
    pub(crate) fn wait_until_safe(&self, mail: &Mail, f: i32) -> SealedLine {
        wait_for("the mail is announced and safe", || {
            let line = self.outbox_line(mail)?;
            let announced = line.receivers.values().all(|state| state == "announced");
            line.sealed.into_iter().next().filter(|sealed| announced && sealed.safe >= f)
        })
    }

    /// Flips a bit in every 4 KiB of the part of the mail that `member` holds for `owner`, so that every block is wrong.
    pub(crate) fn corrupt(&self, member: &str, owner: &str, h: &MailId) {
        let owner = self.address(owner);
        let home = self.home(member);
        let parts = home.mirrored_parts(&owner).unwrap();
        let (_, part) = parts.iter().find(|(mail, _)| mail == h).expect("the member holds a part");
        let path = home.mirror_part(&owner, h, *part);
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
        fs::write(&path, bytes).unwrap();
    }

    /// The mail program of `name`.
    pub(crate) fn reader(&self, name: &str) -> Reader {
        let peer = self.peer(name);
        Reader::login(&peer)
    }

    /// A folder for what a test needs besides.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Waits until none of them writes anything for a while.
    pub(crate) fn rests(&self, names: &[&str]) {
        let written = || -> Vec<u64> { names.iter().map(|name| bytes_in(&self.home(name).journal_dir())).collect() };
        let (mut last, mut since) = (written(), tokio::time::Instant::now());
        wait_for("the group rests", || {
            let now = written();
            if now != last {
                (last, since) = (now, tokio::time::Instant::now());
            }
            (since.elapsed() > REST).then_some(())
        });
    }

    /// Submissions that wait in the outbox of `name`.
    pub(crate) fn waiting(&self, name: &str) -> Vec<SubmissionId> {
        let lines: Vec<OutboxLine> = self.ask(name, &Request::Outbox);
        lines.into_iter().map(|line| line.submission).collect()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        let _closed = self.cluster.kill_all();
        if !std::thread::panicking() {
            return;
        }
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let log = fs::read_to_string(entry.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- the end of {}'s log\n{}", entry.file_name().to_string_lossy(), last.join("\n"));
        }
    }
}
