//! A running peer: opens the home, gives the brains their past, starts their shells and wires them. The only module of the
//! actors that knows all of them; it decides nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::allowance::Allowance;
use super::backup;
use super::dht_client::{self, DhtPort};
use super::dial_back::DialBack;
use super::directory::{Directory, Locator};
use super::event_log::JournalLog;
use super::fetcher::{self, Origins};
use super::group_master::{self, GroupPort, Setup};
use super::hellos::Hellos;
use super::identity::{Identity, IdentityError};
use super::listening::on_one_machine;
pub use super::listening::{Listening, announced};
use super::neighbours::{DhtForGroup, DhtForPostbox, Late, Neighbours, RebuildByFetch};
use super::outbox::{self, OutboxPort};
use super::peer_api::{Api, SharedApi};
use super::postbox::{self, PostboxPort};
use super::presealer::{Presealer, Room};
use super::replay::{ReplayError, replay};
use super::replicator;
use super::shell::{EventLog, Handle};
use super::spool::{Spool, SpoolError};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Notify, Pull, place_of};
use crate::core::dht::Dht;
use crate::core::fetch::Fetch;
use crate::core::group::Group;
use crate::core::outbox::{Input, Outbox};
use crate::core::postbox::Postbox;
use crate::core::postbox::io::Settings;
use crate::core::replicator::Replicator;
use crate::fragment::Codec;
use crate::model::group::Roster;
use crate::model::{ByteSize, PeerId, WallTime};
use crate::net::https_client::{ClientBounds, PeerClient};
use crate::net::https_server::{HttpsServer, ServerBounds};
use crate::net::swarm::{self, SwarmConfig, SwarmError};
use crate::net::tls::{TlsError, TlsIdentity};
use crate::net::upload_limit::UploadLimit;
use crate::store::dht_share::DhtShare;
use crate::store::home::{Home, HomeError, HomeLock};
use crate::store::index::Index;
use crate::store::journal::{Journal, JournalError, Replay};

/// Peers whose descriptors are to be read again; more are dropped, as each is limited to one a minute anyway.
const LOOK_AGAIN_MAX: usize = 64;
/// How often the DHT is asked with `notify = "dht"`.
const DHT_POLL: Duration = Duration::from_secs(5);
/// How often a home that is in use is tried again, and the pause between.
const LOCK_TRIES: u32 = 30;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How long answers under way may take when the peer stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why a peer does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each is the error of the part that is named")]
pub enum StartError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The machine has no randomness.
    #[error("the operating system gives no randomness: {why}")]
    Random { why: String },
    /// A port is taken.
    #[error("{what} cannot listen on {addr}: {why}; stop what has the port, or change {place} and tell the members")]
    Listen {
        /// Which service.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What the operating system says.
        why: String,
        /// Where the config says so.
        place: String,
    },
}

/// A running peer: what the mail programs, the console and the commands talk to.
pub struct Peer {
    /// Its files.
    pub home: Home,
    /// Its config.
    pub config: Config,
    /// Its keys.
    pub identity: Identity,
    /// Its clock.
    pub clock: Clock,
    /// When it started.
    pub started: WallTime,
    /// Where its user and others reach it.
    pub ports: Listening,
    /// The journal.
    pub journal: Journal,
    /// Whether the index was rebuilt at this start.
    pub index_rebuilt: bool,
    /// Who is who.
    pub directory: Directory,
    /// Asks other peers.
    pub client: PeerClient,
    /// The DHT.
    pub dht: DhtPort,
    /// Membership.
    pub group: Handle<Group>,
    /// The same, with what needs the group key.
    pub group_port: GroupPort,
    /// Own mails.
    pub outbox: Handle<Outbox>,
    /// Members' mails.
    pub replicator: Handle<Replicator>,
    /// Pulls.
    pub fetch: Handle<Fetch>,
    /// Mailboxes.
    pub postbox: PostboxPort,
    /// Takes mail programs' mail.
    pub spool: Spool,
    /// What it serves to others passes here.
    pub upload: Arc<UploadLimit>,
    https: tokio::sync::Mutex<Option<HttpsServer>>,
    _lock: HomeLock,
}

/// The brains with their past.
struct Brains {
    dht: Dht,
    group: Group,
    outbox: Outbox,
    replicator: Replicator,
    postbox: Postbox,
    roster: Arc<Roster>,
    directory: Directory,
}

fn seed() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| StartError::Random { why: e.to_string() })?;
    Ok(u64::from_le_bytes(bytes))
}

impl Brains {
    /// Makes every brain and replays its events. Blocking.
    fn wake(
        home: &Home,
        config: &Config,
        identity: &Identity,
        log: &JournalLog,
        records: Replay,
    ) -> Result<Self, StartError> {
        let me = group_master::me(identity, &config.address, announced(config));
        let mut group = Group::new(me);
        let again = records.again()?;
        // First, and by itself: the others are made for the group as it is.
        replay(records, &mut [&mut group])?;
        let snapshot = group_master::snapshot_of(&group.current());
        let roster = snapshot.roster.clone();
        let directory = Directory::new(snapshot);
        let notify = match config.mail.notify {
            Notify::DirectFirst => crate::core::outbox::Notify::DirectFirst,
            Notify::Dht => crate::core::outbox::Notify::Dht,
        };
        let mut outbox = Outbox::new(Arc::new(identity.key.clone()), roster.clone(), notify);
        outbox.audit_every(config.mail.audit_every.duration(), seed()?);
        if home.restored_mark().exists() {
            outbox.mark_restored();
        }
        let quota = config.quota.per_member;
        let mut replicator = Replicator::new(crate::core::replicator::Config { quota, seed: seed()? });
        replicator.scrub_every(config.quota.scrub_every.duration());
        let poll = match config.mail.notify {
            Notify::Dht => DHT_POLL.min(config.mail.poll.duration()),
            Notify::DirectFirst => config.mail.poll.duration(),
        };
        let eager = config.mail.pull == Pull::Eager;
        let mut postbox = Postbox::new(Settings { eager, poll, ..Settings::new(config.address.clone()) });
        replay(again, &mut [&mut outbox, &mut replicator, &mut postbox])?;
        log.look_at(&group)?;
        log.look_at(&outbox)?;
        log.look_at(&replicator)?;
        log.look_at(&postbox)?;
        let dht = Dht::new(identity.key.clone(), seed()?);
        Ok(Self { dht, group, outbox, replicator, postbox, roster, directory })
    }
}

/// What is opened before anything runs.
struct Opened {
    lock: HomeLock,
    identity: Identity,
    journal: Journal,
    log: JournalLog,
    brains: Brains,
    index: Option<Index>,
}

/// Takes the home's lock. A peer that was killed holds its own until the kernel has closed its files, which takes a moment
/// while a write to the disk is under way; so it is tried again for a little while. Blocking.
fn lock_soon(home: &Home) -> Result<HomeLock, HomeError> {
    for _ in 0..LOCK_TRIES {
        match home.lock() {
            Err(HomeError::InUse { .. }) => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    home.lock()
}

/// Opens the index. All that is in it can be had again, so a peer starts without one too. Blocking.
fn open_index(dir: &Path) -> Option<Index> {
    match Index::open(dir) {
        Ok(index) => Some(index),
        Err(error) => {
            tracing::warn!(%error, "this peer starts without its index");
            None
        }
    }
}

/// Opens the home: lock, keys, journal, index, and the brains' past. Blocking.
fn open(home: &Home, config: &Config) -> Result<Opened, StartError> {
    let lock = lock_soon(home)?;
    home.sweep(&lock)?;
    backup::prune(home);
    let identity = Identity::load(home)?;
    let (journal, records) = Journal::open(&home.journal_dir())?;
    let index = open_index(&home.index_dir());
    let log = JournalLog::new(journal.clone());
    let brains = Brains::wake(home, config, &identity, &log, records)?;
    if let Err(error) = home.sweep_fetched(&brains.postbox.mails_to_fetch()) {
        tracing::warn!(%error, "half-fetched mails that nobody needs stay until the next start");
    }
    Ok(Opened { lock, identity, journal, log, brains, index })
}

/// What every actor of the peer is made of.
struct Common {
    home: Home,
    config: Config,
    identity: Identity,
    clock: Clock,
    log: Arc<dyn EventLog>,
    codec: Arc<Codec>,
    directory: Directory,
    client: PeerClient,
    dht: DhtPort,
    tls: TlsIdentity,
}

impl Common {
    fn start_group(&self, brain: Group, failed: mpsc::Receiver<PeerId>) -> GroupPort {
        let setup = Setup {
            identity: self.identity.clone(),
            home: self.home.clone(),
            client: self.client.clone(),
            directory: self.directory.clone(),
            dht: Arc::new(DhtForGroup(self.dht.clone())),
            failed,
            clock: self.clock.clone(),
        };
        group_master::start(brain, setup, self.log.clone())
    }

    fn start_fetcher(&self, neighbours: &Arc<Neighbours>) -> Handle<Fetch> {
        let own = neighbours.clone();
        let (client, directory) = (self.client.clone(), self.directory.clone());
        let origins = Origins { me: self.identity.peer_id(), own, client, directory };
        fetcher::start(origins, self.home.clone(), self.codec.clone(), self.clock.clone(), self.log.clone())
    }

    fn start_postbox(&self, brain: Postbox, fetch: &Handle<Fetch>, neighbours: &Arc<Neighbours>) -> PostboxPort {
        let parts = postbox::Parts {
            home: self.home.clone(),
            address: self.config.address.clone(),
            peer_id: self.identity.peer_id(),
            identity: self.identity.openpgp.clone(),
            directory: self.directory.clone(),
            client: self.client.clone(),
            fetcher: fetch.clone(),
            dht: Arc::new(DhtForPostbox { dht: self.dht.clone(), me: self.identity.peer_id() }),
            neighbours: neighbours.clone(),
            clock: self.clock.clone(),
        };
        postbox::start(brain, parts, self.log.clone())
    }

    fn start_replicator(&self, brain: Replicator, roster: &Roster, fetch: &Handle<Fetch>) -> Handle<Replicator> {
        let tools = replicator::Tools {
            client: self.client.clone(),
            home: self.home.clone(),
            codec: (*self.codec).clone(),
            key: self.identity.key.clone(),
            rebuild: Arc::new(RebuildByFetch(fetch.clone(), self.home.clone())),
        };
        replicator::start(tools, brain, roster.clone(), self.log.clone(), self.clock.clone())
    }

    fn spool(&self) -> Spool {
        let (home, identity, directory) = (self.home.clone(), self.identity.clone(), self.directory.clone());
        let (codec, clock, room) = (self.codec.clone(), self.clock.clone(), Room::default());
        Spool::sealing(Presealer { home, identity, directory, codec, clock, room })
    }

    async fn start_outbox(
        &self,
        brain: Outbox,
        spool: &Spool,
        neighbours: &Arc<Neighbours>,
    ) -> Result<OutboxPort, StartError> {
        let tools = outbox::Tools {
            home: self.home.clone(),
            address: self.config.address.clone(),
            identity: self.identity.clone(),
            spool: spool.clone(),
            directory: self.directory.clone(),
            client: self.client.clone(),
            dht: self.dht.clone(),
            codec: self.codec.clone(),
            clock: self.clock.clone(),
            neighbours: neighbours.clone(),
        };
        Ok(outbox::start(brain, tools, self.log.clone()).await?)
    }

    fn api(
        &self,
        group: &GroupPort,
        outbox: &OutboxPort,
        replicator: &Handle<Replicator>,
        postbox: &PostboxPort,
    ) -> SharedApi {
        SharedApi(Arc::new(Api {
            identity: self.identity.clone(),
            address: self.config.address.clone(),
            home: self.home.clone(),
            directory: self.directory.clone(),
            group: group.clone(),
            outbox: outbox.handle().clone(),
            nr: outbox.clone(),
            replicator: replicator.clone(),
            postbox: postbox.clone(),
            codec: self.codec.clone(),
            clock: self.clock.clone(),
            allowance: Allowance::default(),
            hellos: Hellos::default(),
            dial_back: DialBack::new(self.tls.clone(), on_one_machine(&self.config)),
        }))
    }
}

impl Peer {
    /// Starts the peer of an initialised home, on the current actix system. Its mail servers are started by the caller.
    ///
    /// # Errors
    /// [`StartError`] says what stands in the way and what to do.
    pub async fn start(home: Home, config: Config, clock: Clock) -> Result<Self, StartError> {
        let started = clock.now().wall;
        let ports = Listening::of(&config);
        let Opened { lock, identity, journal, log, brains, index } = open(&home, &config)?;
        let index_rebuilt = index.as_ref().is_some_and(Index::is_rebuilt);
        let share = index.map(|index| Arc::new(DhtShare::new(index)));
        let config_file = home.config_file();
        let https_taken = |e: std::io::Error| taken(&config_file, "HTTPS", "https_port", ports.https, e.to_string());
        let listener = TcpListener::bind(ports.https).await.map_err(https_taken)?;
        let tls = TlsIdentity::new(&identity.key)?;
        let log: Arc<dyn EventLog> = Arc::new(log);
        let (failed, failed_dials) = mpsc::channel(LOOK_AGAIN_MAX);
        let directory = brains.directory.clone();
        let locator = Locator::new(directory.clone(), config.net.dial_private, failed);
        let client = PeerClient::new(tls.clone(), Arc::new(locator), ClientBounds::default());
        let running = start_swarm(&config, &identity, ports.libp2p, &config_file).await?;
        let dht = dht_client::start(brains.dht, running, log.clone(), clock.clone(), share);
        let codec = Arc::new(Codec::default());
        let common = Common { home, config, identity, clock, log, codec, directory, client, dht, tls: tls.clone() };

        let group = common.start_group(brains.group, failed_dials);
        let late = Arc::new(Late::default());
        let neighbours = Arc::new(Neighbours {
            late: late.clone(),
            directory: common.directory.clone(),
            group: group.handle.clone(),
            me: common.identity.peer_id(),
            home: common.home.clone(),
        });
        let fetch = common.start_fetcher(&neighbours);
        let _ = late.fetch.set(fetch.clone());
        let postbox = common.start_postbox(brains.postbox, &fetch, &neighbours);
        // Filled before the outbox starts, which shows what waits at once. Each is set once, here.
        let _ = late.postbox.set(postbox.clone());
        let replicator = common.start_replicator(brains.replicator, &brains.roster, &fetch);
        let spool = common.spool();
        let outbox = common.start_outbox(brains.outbox, &spool, &neighbours).await?;
        let _ = late.outbox.set(outbox.handle().clone());
        let api = common.api(&group, &outbox, &replicator, &postbox);
        let _ = late.api.set(api.clone());
        let upload = Arc::new(UploadLimit::new(common.config.net.upload_limit.0));
        let bounds = ServerBounds::default();
        let https = HttpsServer::start(listener, &tls, api, Arc::clone(&upload), bounds).map_err(https_taken)?;
        spread_rosters(&group, outbox.handle().clone(), replicator.clone(), postbox.clone(), common.dht.clone());
        let Common { home, config, identity, clock, directory, client, dht, .. } = common;
        let (group_port, group, outbox) = (group.clone(), group.handle.clone(), outbox.handle().clone());
        let https = tokio::sync::Mutex::new(Some(https));
        Ok(Self {
            home,
            config,
            identity,
            clock,
            started,
            ports,
            journal,
            index_rebuilt,
            directory,
            client,
            dht,
            group,
            group_port,
            outbox,
            replicator,
            fetch,
            postbox,
            spool,
            upload,
            https,
            _lock: lock,
        })
    }

    /// Largest clear mail that the group's policy takes now.
    pub fn max_mail(&self) -> ByteSize {
        self.directory.snapshot().roster.policy.max_mail
    }

    /// Stops in order: no more requests, then the outbox's clean-stop record, then the swarm.
    pub async fn stop(&self) {
        if let Some(https) = self.https.lock().await.take() {
            https.stop(STOP_GRACE).await;
        }
        if let Err(error) = self.outbox.ask(|token| Input::Stopping { token }).await {
            tracing::warn!(%error, "the outbox had stopped already");
        }
        self.dht.stop().await;
    }
}

async fn start_swarm(
    config: &Config,
    identity: &Identity,
    addr: SocketAddr,
    config_file: &Path,
) -> Result<swarm::Running, StartError> {
    let listen = SwarmConfig::tcp(config.net.listen, config.net.libp2p_port, config.net.dial_private);
    swarm::start(listen, &identity.key).await.map_err(|error| match error {
        SwarmError::Listen { why, .. } => taken(config_file, "libp2p", "libp2p_port", addr, why),
        other => other.into(),
    })
}

fn taken(config_file: &Path, what: &'static str, key: &str, addr: SocketAddr, why: String) -> StartError {
    StartError::Listen { what, addr, why, place: place_of(config_file, "net", key) }
}

/// Tells every brain of each new picture of the group, of the clock's doubts, and the DHT of who is known.
fn spread_rosters(
    group: &GroupPort,
    outbox: Handle<Outbox>,
    replicator: Handle<Replicator>,
    postbox: PostboxPort,
    dht: DhtPort,
) {
    let mut rosters = group.rosters();
    let mut clock_doubtful = group.clock_doubtful();
    let (outbox2, replicator2, postbox2) = (outbox.clone(), replicator.clone(), postbox.clone());
    let postbox3 = postbox.clone();
    tokio::spawn(async move {
        // The first value is told too: it may have changed since the brains were made. All end when the group's actor does.
        loop {
            let roster = rosters.borrow_and_update().clone();
            let _ = outbox.tell(Input::Roster(roster.clone())).await;
            let _ = replicator.tell(crate::core::replicator::Input::Roster((*roster).clone())).await;
            let _ = postbox.handle().tell(crate::core::postbox::Input::Roster(roster)).await;
            if rosters.changed().await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let doubtful = *clock_doubtful.borrow_and_update();
            let _ = outbox2.tell(Input::ClockDoubtful(doubtful)).await;
            let _ = replicator2.tell(crate::core::replicator::Input::ClockDoubtful(doubtful)).await;
            let _ = postbox2.handle().tell(crate::core::postbox::Input::ClockDoubtful(doubtful)).await;
            if clock_doubtful.changed().await.is_err() {
                return;
            }
        }
    });
    let mut candidates = group.candidates();
    tokio::spawn(async move {
        loop {
            let candidates_now = candidates.borrow_and_update().clone();
            let _ = postbox3.handle().tell(crate::core::postbox::Input::Candidates(candidates_now)).await;
            if candidates.changed().await.is_err() {
                return;
            }
        }
    });
    let mut snapshots = group.snapshots();
    tokio::spawn(async move {
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            if dht.follow(&snapshot).await.is_err() || snapshots.changed().await.is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_starts_without_an_index_that_cannot_be_had() {
        let home = tempfile::tempdir().unwrap();
        let index = home.path().join("index");
        // A folder where the index's state file goes.
        std::fs::create_dir_all(home.path().join("index.state").join("in the way")).unwrap();
        assert!(Index::open(&index).is_err());
        assert!(open_index(&index).is_none());
    }
}
