//! R10, secrets stay home: a word in body, subject and file name of a mail is in no file of any other home, and in no byte that
//! passes between peers before TLS encrypts it. Real peers over loopback, in this one process, so that a recorder sees the
//! clear side of every connection.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roost::cli::control::Control;
use roost::cli::demo::imap_client::ImapClient;
use roost::cli::demo::smtp_client::SmtpClient;
use roost::cli::{init, up};
use roost::config::{Config, Notify};
use roost::console::protocol::{Contact, GroupStatus, Line, OutboxLine, Request};
use roost::model::policy::KOfN;
use roost::model::{Address, ByteSize, LocalName, Policy};
use roost::net::tap;
use roost::store::home::Home;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// One peer, running in threads of this process.
struct Peer {
    address: Address,
    home: Home,
    config: Config,
    password: String,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn made(dir: &Path, address: &str) -> Self {
        let address: Address = address.parse().unwrap();
        let mut config = Config::new(address.clone());
        config.net.listen = IpAddr::V4(Ipv4Addr::LOCALHOST);
        config.net.announce = vec![config.net.listen.to_string()];
        config.net.dial_private = true;
        config.mail.notify = Notify::Dht;
        let root = dir.join(address.name().to_string());
        let password = init::make(&root, config).unwrap().password;
        let home = Home::at(&root);
        let config = Config::load(&home.config_file()).unwrap();
        Self { address, home, config, password, thread: None }
    }

    fn start(&mut self) {
        let (home, config) = (self.home.clone(), self.config.clone());
        self.thread = Some(std::thread::spawn(move || {
            let system = actix::System::with_tokio_rt(|| {
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
            });
            system.block_on(up::serve(home, config)).unwrap();
        }));
        wait_for("a peer answers", || self.control().ask::<Value>(&Request::Status).ok());
    }

    fn control(&self) -> Control {
        Control::of(self.home.root())
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> T {
        self.control().ask(request).unwrap()
    }

    fn imap(&self) -> ImapClient {
        let server = format!("127.0.0.1:{}", self.config.mail.imap_port);
        let mut imap = ImapClient::login(&server, &self.address.to_string(), &self.password).unwrap();
        imap.select("INBOX").unwrap();
        imap
    }

    fn submit(&self, to: &Address, mail: &[u8]) {
        let server = format!("127.0.0.1:{}", self.config.mail.smtp_port);
        let mut smtp = SmtpClient::login(&server, &self.address.to_string(), &self.password).unwrap();
        smtp.submit(&self.address, std::slice::from_ref(to), mail).unwrap();
    }

    /// Waits until what was submitted here is safe(1).
    fn is_safe(&self) {
        wait_for("the mail is safe", || {
            let lines: Vec<OutboxLine> = self.ask(&Request::Outbox);
            lines.iter().any(|line| line.sealed.iter().any(|mail| mail.safe >= 1)).then_some(())
        });
    }

    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _: Value = self.ask(&Request::Stop);
            thread.join().unwrap();
        }
    }
}

fn wait_for<T>(what: &str, mut see: impl FnMut() -> Option<T>) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(found) = see() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not seen after {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK);
    }
}

/// alice, bob, carol and dave in acme, any 2 of 3 fragments, and rita in a group of her own, who is not started yet.
fn founded(dir: &Path) -> (Vec<Peer>, Peer) {
    let mut members: Vec<Peer> =
        ["alice@acme", "bob@acme", "carol@acme", "dave@acme"].iter().map(|a| Peer::made(dir, a)).collect();
    members.iter_mut().for_each(Peer::start);
    let fragments = KOfN { k: 2, n: 3 };
    let policy = Policy { fragments, copies: 2, whole_below: ByteSize::kib(16), ..Policy::default() };
    let _: Value = members[0].ask(&Request::GroupCreate { group: "acme".parse().unwrap(), policy });
    for member in &members[1..] {
        let name: LocalName = member.address.name().clone();
        let invite: Line = members[0].ask(&Request::GroupInvite { name });
        let _: GroupStatus = member.ask(&Request::GroupJoin { code: invite.line });
    }
    let mut rita = Peer::made(dir, "rita@readers");
    rita.start();
    let _: Value = rita.ask(&Request::GroupCreate { group: "readers".parse().unwrap(), policy: Policy::default() });
    for (one, other) in [(&members[0], &rita), (&rita, &members[0])] {
        let card: Line = other.ask(&Request::Card);
        let _: Contact = one.ask(&Request::ContactAdd { card: card.line });
    }
    (members, rita)
}

/// The word as somebody who does not encrypt would write it: as it is, and in base64 wherever it may begin in its line.
fn faces(word: &str) -> Vec<Vec<u8>> {
    let mut faces = vec![word.as_bytes().to_vec()];
    for skip in 0..3 {
        let padded = [vec![b' '; skip], word.as_bytes().to_vec()].concat();
        let encoded = STANDARD.encode(padded);
        // The first and the last group of four also depend on what stands beside the word.
        faces.push(encoded.as_bytes()[4..encoded.len() - 4].to_vec());
    }
    faces
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    // Looking for the first byte before comparing is what makes megabytes quick enough in a debug build.
    let Some(first) = what.first() else { return false };
    bytes.iter().enumerate().any(|(at, byte)| byte == first && bytes[at..].starts_with(what))
}

/// Every file below `folder` that has the word in it.
fn files_with(folder: &Path, faces: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, faces));
        } else if let Ok(bytes) = fs::read(&path) {
            let named = faces.iter().any(|face| contains(path.to_string_lossy().as_bytes(), face));
            if named || faces.iter().any(|face| contains(&bytes, face)) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn letter(word: &str, to: &Address, lines: usize) -> Vec<u8> {
    let mut mail = format!(
        "From: alice@acme\r\nTo: {to}\r\nSubject: about {word}\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <{lines}.{word}@acme>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=part\r\n\r\n\
         --part\r\nContent-Type: text/plain\r\n\r\n"
    );
    // Said often, and each time after other random words: it must not compress away, and no read may cut every one in two.
    let mut random = blake3::Hasher::new().update(word.as_bytes()).finalize_xof();
    for _ in 0..lines {
        let mut noise = [0; 24];
        random.fill(&mut noise);
        mail.push_str(&format!("{} {word}\r\n", hex::encode(noise)));
    }
    let attached = STANDARD.encode(format!("attached: {word} {word}"));
    mail.push_str(&format!(
        "--part\r\nContent-Type: application/octet-stream; name={word}.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n\
         {attached}\r\n--part--\r\n"
    ));
    mail.into_bytes()
}

#[test]
fn r10_a_word_of_a_mail_is_in_no_other_home_and_in_nothing_that_passes_between_peers() {
    let mut seed = [0; 12];
    getrandom::fill(&mut seed).unwrap();
    let word = format!("canary{}", hex::encode(seed));
    let faces = faces(&word);
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let recorder = recorded.clone();
    assert!(tap::install(Box::new(move |bytes| recorder.lock().unwrap().extend_from_slice(bytes))));

    let dir = tempfile::tempdir().unwrap();
    let (mut members, mut rita) = founded(dir.path());
    // One mail to somebody who is off, so that its ns waits in the DHT, and one to a member; one whole, one in fragments.
    rita.stop();
    let to_bob = members[1].address.clone();
    members[0].submit(&rita.address, &letter(&word, &rita.address, 2000));
    members[0].submit(&to_bob, &letter(&word, &to_bob, 20));
    members[0].is_safe();
    let others = |members: &[Peer]| -> Vec<String> {
        members[2..].iter().flat_map(|peer| files_with(peer.home.root(), &faces)).collect()
    };
    assert_eq!(others(&members), Vec::<String>::new(), "while the mails are mirrored");

    rita.start();
    for reader in [&rita, &members[1]] {
        let mut imap = reader.imap();
        let uid = wait_for("the mail is in INBOX", || {
            imap.command("NOOP").unwrap();
            imap.uid_search(&format!("SUBJECT {word}")).unwrap().first().copied()
        });
        let body = imap.fetch(uid, "", &mut |_, _| {}).unwrap();
        assert!(contains(&body, word.as_bytes()), "the reader reads it");
    }
    wait_for("both mails end", || members[0].ask::<Vec<OutboxLine>>(&Request::Outbox).is_empty().then_some(()));
    assert_eq!(others(&members), Vec::<String>::new(), "after the mails were read");
    // What is looked for is found where it may be: at the reader.
    assert!(!files_with(rita.home.root(), &faces).is_empty(), "rita's home has the mail");

    members.iter_mut().chain([&mut rita]).for_each(Peer::stop);
    let recorded = recorded.lock().unwrap();
    assert!(contains(&recorded, b"/outbox/") && contains(&recorded, b"/notify"), "the recorder sees requests");
    assert!(recorded.len() > letter(&word, &to_bob, 2000).len(), "the recorder sees bodies");
    for face in &faces {
        assert!(!contains(&recorded, face), "{:?} passed between peers", String::from_utf8_lossy(face));
    }
}
