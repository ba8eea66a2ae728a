//! A few real peers over loopback, in threads of this process, so that a recorder sees the clear side of every connection.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use roost::cli::control::Control;
use roost::cli::demo::imap_client::ImapClient;
use roost::cli::demo::smtp_client::SmtpClient;
use roost::cli::{init, up};
use roost::config::{Config, Notify};
use roost::console::protocol::{Contact, GroupStatus, Line, OutboxLine, Request};
use roost::model::policy::KOfN;
use roost::model::{Address, ByteSize, LocalName, Policy, Span};
use roost::store::home::Home;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// One peer, running in threads of this process.
pub(crate) struct Peer {
    pub(crate) address: Address,
    pub(crate) home: Home,
    config: Config,
    password: String,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn made(dir: &Path, address: &str, notify: Notify) -> Self {
        let address: Address = address.parse().unwrap();
        let mut config = Config::new(address.clone());
        config.net.listen = IpAddr::V4(Ipv4Addr::LOCALHOST);
        config.net.announce = vec![config.net.listen.to_string()];
        config.net.dial_private = true;
        config.mail.notify = notify;
        config.mail.poll = Span::secs(5);
        let root = dir.join(address.name().to_string());
        let password = init::make(&root, config).unwrap().password;
        let home = Home::at(&root);
        let config = Config::load(&home.config_file()).unwrap();
        Self { address, home, config, password, thread: None }
    }

    pub(crate) fn start(&mut self) {
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

    pub(crate) fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> T {
        self.control().ask(request).unwrap()
    }

    pub(crate) fn imap(&self) -> ImapClient {
        let server = format!("127.0.0.1:{}", self.config.mail.imap_port);
        let mut imap = ImapClient::login(&server, &self.address.to_string(), &self.password).unwrap();
        imap.select("INBOX").unwrap();
        imap
    }

    pub(crate) fn submit(&self, to: &[Address], mail: &[u8]) {
        let server = format!("127.0.0.1:{}", self.config.mail.smtp_port);
        let mut smtp = SmtpClient::login(&server, &self.address.to_string(), &self.password).unwrap();
        smtp.submit(&self.address, to, mail).unwrap();
    }

    /// Waits until everything that was submitted here is sealed, announced and safe(1).
    pub(crate) fn is_safe(&self) {
        wait_for("all of the outbox is announced and safe", || {
            let lines: Vec<OutboxLine> = self.ask(&Request::Outbox);
            let ready = |line: &OutboxLine| {
                let announced = line.receivers.values().all(|state| state == "announced");
                announced && !line.sealed.is_empty() && line.sealed.iter().all(|mail| mail.safe >= 1)
            };
            (!lines.is_empty() && lines.iter().all(ready)).then_some(())
        });
    }

    /// Waits until the outbox is empty.
    pub(crate) fn is_done(&self) {
        wait_for("the mails end", || self.ask::<Vec<OutboxLine>>(&Request::Outbox).is_empty().then_some(()));
    }

    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _: Value = self.ask(&Request::Stop);
            thread.join().unwrap();
        }
    }
}

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

/// alice, bob, carol and dave in acme, any 2 of 3 fragments, and rita in a group of her own. Some tell each other by the DHT
/// alone, some directly: everybody's words go both ways.
pub(crate) fn founded(dir: &Path) -> Vec<Peer> {
    let (dht, direct) = (Notify::Dht, Notify::DirectFirst);
    let members = [("alice@acme", dht), ("bob@acme", direct), ("carol@acme", direct), ("dave@acme", dht)];
    let mut peers: Vec<Peer> = members.map(|(address, notify)| Peer::made(dir, address, notify)).into();
    peers.iter_mut().for_each(Peer::start);
    let fragments = KOfN { k: 2, n: 3 };
    let policy = Policy { fragments, copies: 2, whole_below: ByteSize::kib(16), ..Policy::default() };
    let _: Value = peers[0].ask(&Request::GroupCreate { group: "acme".parse().unwrap(), policy });
    for member in &peers[1..] {
        let name: LocalName = member.address.name().clone();
        let invite: Line = peers[0].ask(&Request::GroupInvite { name, valid: None });
        let _: GroupStatus = member.ask(&Request::GroupJoin { code: invite.line });
    }
    let mut rita = Peer::made(dir, "rita@readers", dht);
    rita.start();
    let _: Value = rita.ask(&Request::GroupCreate { group: "readers".parse().unwrap(), policy: Policy::default() });
    for (one, other) in [(&peers[0], &rita), (&rita, &peers[0])] {
        let card: Line = other.ask(&Request::Card);
        let _: Contact = one.ask(&Request::ContactAdd { card: card.line });
    }
    peers.push(rita);
    peers
}
