//! A peer that does not keep to the rules, run by the test itself: it speaks real HTTPS with an identity of its own or with the
//! stolen one of a member, posts what it likes, and serves what it was told to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use roost::actors::identity::Identity;
use roost::clock::system_wall;
use roost::config::Config;
use roost::fragment::{Codec, ManifestBuilder};
use roost::mime;
use roost::model::group::{Heartbeat, HeartbeatAnswer, PeerAddr, PeerDescriptor};
use roost::model::msglist::Cursor;
use roost::model::notification::{Nr, Ns};
use roost::model::{Address, Encoding, Fingerprint, MailId, PeerId, Secret, SubmissionId};
use roost::net::body_source::BodySource;
use roost::net::https_client::{ClientBounds, PeerClient};
use roost::net::https_server::{HttpsServer, ServerBounds};
use roost::net::locate::{Locate, Located};
use roost::net::peer_answer::NetError;
use roost::net::peer_api::{ApiError, PeerApi};
use roost::net::tls::TlsIdentity;
use roost::net::upload_limit::UploadLimit;
use roost::seal::record::sign_descriptor;
use roost::seal::{SecretIdentity, decrypt_nr, seal_mail, seal_ns};
use roost::wire::PeerKey;
use roost::wire::http::{FragmentList, ReachPost};
use roost::wire::msglist::Page;
use roost::wire::notify::Notice;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Team;

/// How long an empty answer to a long poll is held back, so that nobody spins.
const HELD_BACK: Duration = Duration::from_millis(200);

/// Where the real peers are.
struct Places(BTreeMap<PeerId, PeerAddr>);

impl Locate for Places {
    fn locate(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        let addrs = self.0.get(&peer).cloned().into_iter().collect();
        Box::pin(async { Located { addrs, private: true } })
    }
    fn locate_again(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        self.locate(peer)
    }
}

/// What a hostile peer answers, and what it was told.
#[derive(Default)]
pub(crate) struct Told {
    /// The answer to everybody who asks for its msglist.
    pub(crate) page: Page,
    /// How often each peer asked for that.
    pub(crate) asked: BTreeMap<PeerId, usize>,
    /// Sealed mails and manifests.
    pub(crate) mails: BTreeMap<MailId, (Bytes, Bytes)>,
    /// Fragments of those, as it serves them.
    pub(crate) fragments: BTreeMap<(MailId, u8, u8), Bytes>,
    /// Mails whose manifest was asked for.
    pub(crate) manifests_given: BTreeSet<MailId>,
    /// Sealed nr that came.
    pub(crate) nr: Vec<Vec<u8>>,
    /// Certificates that it gives.
    pub(crate) certificates: BTreeMap<Address, Bytes>,
    /// The gd that it gives.
    pub(crate) gd: Option<Bytes>,
    /// Who asked for that.
    pub(crate) gd_given: Vec<PeerId>,
    /// What it answers to heartbeats, but for its clock and the gd's version.
    pub(crate) heartbeat: HeartbeatAnswer,
    /// Whose heartbeats came.
    pub(crate) beaten: Vec<PeerId>,
    /// How far its clock is ahead.
    pub(crate) ahead: Duration,
}

/// The hostile peer behind its routes.
#[derive(Clone, Default)]
pub(crate) struct Lies(Arc<Mutex<Told>>);

impl Lies {
    /// What it answers and was told.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap()
    }
}

fn nothing<T>() -> Result<T, ApiError> {
    Err(ApiError::NotFound { what: "It".to_owned() })
}

impl PeerApi for Lies {
    fn is_known(&self, _: &PeerId) -> bool {
        true
    }
    fn reserve(&self, _: &PeerId, _: &MailId, _: u64) -> Result<(), ApiError> {
        Ok(())
    }
    fn give_back(&self, _: &PeerId, _: &MailId, _: u64) {}
    fn served(&self, _: &PeerId, _: &MailId, _: u64) {}
    async fn pubkey(&self, _: PeerId, address: Address) -> Result<Bytes, ApiError> {
        self.told().certificates.get(&address).cloned().map_or_else(nothing, Ok)
    }
    async fn sealed(&self, _: PeerId, h: MailId) -> Result<BodySource, ApiError> {
        self.told().mails.get(&h).map_or_else(nothing, |(sealed, _)| Ok(BodySource::Bytes(sealed.clone())))
    }
    async fn manifest(&self, _: PeerId, h: MailId, _: Option<u8>) -> Result<BodySource, ApiError> {
        let mut told = self.told();
        told.manifests_given.insert(h);
        told.mails.get(&h).map_or_else(nothing, |(_, manifest)| Ok(BodySource::Bytes(manifest.clone())))
    }
    async fn fragments(&self, _: PeerId, h: MailId) -> Result<FragmentList, ApiError> {
        let told = self.told();
        let fragments: Vec<_> = told.fragments.keys().filter(|(of, ..)| *of == h).map(|(_, k, i)| (*k, *i)).collect();
        if !fragments.is_empty() {
            return Ok(FragmentList { fragments });
        }
        if told.mails.contains_key(&h) { Ok(FragmentList { fragments: vec![(1, 0)] }) } else { nothing() }
    }
    async fn fragment(&self, caller: PeerId, h: MailId, k: u8, i: u8) -> Result<BodySource, ApiError> {
        if let Some(bytes) = self.told().fragments.get(&(h, k, i)) {
            return Ok(BodySource::Bytes(bytes.clone()));
        }
        if (k, i) == (1, 0) { self.sealed(caller, h).await } else { nothing() }
    }
    async fn msglist(&self, caller: PeerId, _: Cursor, _: Duration) -> Result<Page, ApiError> {
        tokio::time::sleep(HELD_BACK).await;
        let mut told = self.told();
        *told.asked.entry(caller).or_default() += 1;
        Ok(told.page.clone())
    }
    async fn notify(&self, _: PeerId, notices: Vec<Notice>) -> Result<(), ApiError> {
        let nr = notices.into_iter().filter_map(|notice| match notice {
            Notice::Nr { sealed, .. } => Some(sealed.into_vec()),
            _ => None,
        });
        self.told().nr.extend(nr);
        Ok(())
    }
    async fn group(&self, caller: PeerId) -> Result<Bytes, ApiError> {
        let mut told = self.told();
        told.gd_given.push(caller);
        told.gd.clone().map_or_else(nothing, Ok)
    }
    async fn heartbeat(&self, caller: PeerId, heartbeat: Heartbeat) -> Result<HeartbeatAnswer, ApiError> {
        let mut told = self.told();
        told.beaten.push(caller);
        let at = system_wall() + told.ahead;
        Ok(HeartbeatAnswer { gd_version: heartbeat.gd_version, at, ..told.heartbeat.clone() })
    }
}

/// A refusal: its status and its sentence.
pub(crate) type Refused = (u16, String);

/// A peer that the test plays.
pub(crate) struct Hostile {
    /// Its PeerId's key.
    pub(crate) key: PeerKey,
    /// Its OpenPGP key.
    pub(crate) openpgp: Arc<SecretIdentity>,
    /// What it says its address is.
    pub(crate) address: Address,
    /// What it serves.
    pub(crate) lies: Lies,
    client: PeerClient,
    server: Option<HttpsServer>,
    runtime: tokio::runtime::Runtime,
}

impl Hostile {
    fn with(team: &Team, key: PeerKey, openpgp: Arc<SecretIdentity>, address: Address) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let place = |peer: roost::cli::cluster::ClusterPeer| {
            let home = team.home(peer.address.name().as_str());
            let https = Config::load(&home.config_file()).unwrap().net.https_port;
            let addr = PeerAddr { host: "127.0.0.1".to_owned(), https, libp2p: 0 };
            (Identity::load(&home).unwrap().peer_id(), addr)
        };
        let places = Places(team.peers().into_iter().map(place).collect());
        let tls = TlsIdentity::new(&key).unwrap();
        let client = runtime.block_on(async { PeerClient::new(tls, Arc::new(places), ClientBounds::default()) });
        let lies = Lies::default();
        let certificate = Bytes::copy_from_slice(openpgp.certificate().as_bytes());
        lies.told().certificates.insert(address.clone(), certificate);
        Self { key, openpgp, address, lies, client, server: None, runtime }
    }

    /// Somebody whom no gd names, who says that `address` is his.
    pub(crate) fn stranger(team: &Team, address: &str) -> Self {
        let address: Address = address.parse().unwrap();
        let openpgp = Arc::new(SecretIdentity::generate(&address, system_wall()).unwrap());
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        Self::with(team, PeerKey::from_seed(&seed), openpgp, address)
    }

    /// Somebody who has stolen the keys of `name`.
    pub(crate) fn with_the_keys_of(team: &Team, name: &str) -> Self {
        let identity = Identity::load(&team.home(name)).unwrap();
        Self::with(team, identity.key.clone(), identity.openpgp.clone(), team.address(name))
    }

    /// Answers where the peer of `name`, which does not run, answered.
    pub(crate) fn serve_in_place_of(&mut self, team: &Team, name: &str) {
        self.serve_at(team.https_port(name));
    }

    /// Answers somewhere; gives the port.
    pub(crate) fn serve(&mut self) -> u16 {
        self.serve_at(0);
        self.server.as_ref().unwrap().local_addr().port()
    }

    fn serve_at(&mut self, port: u16) {
        let at = ("127.0.0.1", port);
        let tls = TlsIdentity::new(&self.key).unwrap();
        let lies = self.lies.clone();
        self.server = Some(self.runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(at).await.unwrap();
            HttpsServer::start(listener, &tls, lies, Arc::new(UploadLimit::new(None)), ServerBounds::default()).unwrap()
        }));
    }

    /// Answers no more.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop(Duration::ZERO));
        }
    }

    /// Waits for what it asks of others.
    pub(crate) fn asks<T>(&self, ask: impl AsyncFnOnce(&PeerClient) -> Result<T, NetError>) -> Result<T, Refused> {
        self.runtime.block_on(ask(&self.client)).map_err(|error| match error {
            NetError::Status { code, text, .. } => (code, text),
            other => panic!("no answer: {other}"),
        })
    }

    /// A port of its own, and what asks to be dialled there.
    pub(crate) fn wants_to_be_dialled(&self) -> (TcpListener, ReachPost) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let descriptor = PeerDescriptor {
            address: self.address.clone(),
            peer_id: self.key.peer_id(),
            addrs: vec![PeerAddr { host: "127.0.0.1".to_owned(), https: port, libp2p: port }],
            certificate: self.openpgp.certificate().as_bytes().to_vec(),
            sequence: 1,
        };
        let signed = sign_descriptor(descriptor, &self.openpgp, system_wall()).unwrap();
        (listener, ReachPost { descriptor: signed.as_bytes().to_vec().into() })
    }

    /// Posts one notice to the peer of `name`.
    pub(crate) fn posts(&self, team: &Team, name: &str, notice: Notice) -> Result<(), Refused> {
        let peer = peer_id(team, name);
        self.asks(async move |client| client.post_notify(peer, &[notice]).await)
    }

    /// Sends the lines of a request, as they are, to the peer of `name`; gives the status.
    pub(crate) fn writes(&self, team: &Team, name: &str, head: &str) -> u16 {
        let (tls, peer, at) = (TlsIdentity::new(&self.key).unwrap(), peer_id(team, name), team.https_port(name));
        let answer = self.runtime.block_on(async move {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", at)).await.unwrap();
            let mut stream = tls.connect(peer, tcp).await.unwrap();
            stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // A reset after the answer is as good as an orderly end.
            stream.read_to_end(&mut answer).await.ok();
            String::from_utf8_lossy(&answer).into_owned()
        });
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}: {answer}"))
    }

    /// Seals `clear` to the user of `to`, ready to be served; gives the honest ns of it.
    pub(crate) fn seals(&self, team: &Team, to: &str, group_key: Fingerprint, clear: &[u8]) -> Ns {
        let reader = Identity::load(&team.home(to)).unwrap().openpgp.certificate().clone();
        let mut sealed = Vec::new();
        seal_mail(clear, &self.openpgp, &[reader], &mut sealed, system_wall()).unwrap();
        let owner = self.key.peer_id();
        let manifest = ManifestBuilder::from_reader(&sealed[..], owner, Encoding::Whole, &Codec::default()).unwrap();
        let (h, length, digest) = (manifest.h, manifest.length, manifest.digest);
        let signed = Bytes::copy_from_slice(self.key.sign(manifest).as_bytes());
        self.lies.told().mails.insert(h, (Bytes::from(sealed), signed));
        let (mut submission, mut secret) = ([0; 16], [0; 32]);
        getrandom::fill(&mut submission).unwrap();
        getrandom::fill(&mut secret).unwrap();
        let split = mime::split::split(clear);
        Ns {
            submission: SubmissionId::new(submission),
            h,
            length,
            digest,
            to: team.address(to),
            from: self.address.clone(),
            from_fingerprint: self.openpgp.fingerprint(),
            owner,
            group: self.address.group().clone(),
            group_key,
            expiry: system_wall() + Duration::from_secs(86_400),
            header_block: split.header_block,
            structure: split.structure,
            secret: Secret::new(secret),
        }
    }

    /// An ns as it travels to the user of `to`.
    pub(crate) fn notice(&self, team: &Team, to: &str, ns: &Ns) -> Notice {
        let reader = Identity::load(&team.home(to)).unwrap().openpgp.certificate().clone();
        let sealed = seal_ns(ns, &self.openpgp, &reader, system_wall()).unwrap();
        Notice::Ns { to: team.address(to), sealed: sealed.into() }
    }

    /// The nr that came, opened and checked against the certificate of `reader`.
    pub(crate) fn answers_of(&self, team: &Team, reader: &str) -> Vec<Nr> {
        let certificate = Identity::load(&team.home(reader)).unwrap().openpgp.certificate().clone();
        let sealed = self.lies.told().nr.clone();
        let open = |sealed: &Vec<u8>| decrypt_nr(sealed, &self.openpgp).unwrap().verify(&certificate).unwrap();
        sealed.iter().map(open).collect()
    }
}

/// Who the peer of `name` is.
pub(crate) fn peer_id(team: &Team, name: &str) -> PeerId {
    Identity::load(&team.home(name)).unwrap().peer_id()
}
