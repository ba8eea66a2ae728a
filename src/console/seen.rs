//! All brains' own status at one time: what the report, the web page and the metrics are made of. It changes nothing.

use super::protocol::FullStore;
use super::{full, report};
use crate::actors::peer::Peer;
use crate::actors::shell::Stopped;
use crate::core::outbox::OutboxStatus;
use crate::core::postbox::PostboxStatus;
use crate::core::{dht, fetch, group, replicator};
use crate::model::{PeerId, WallTime};

/// What the brains show.
pub(super) struct Seen {
    pub(super) started: WallTime,
    pub(super) group: group::Status,
    pub(super) outbox: OutboxStatus,
    pub(super) replicator: replicator::Status,
    pub(super) fetch: fetch::Status,
    pub(super) postbox: PostboxStatus,
    pub(super) dht: dht::Status,
    /// What needs attention, a sentence each.
    pub(super) attention: Vec<String>,
    /// Whether the group is too small for its policy.
    pub(super) degraded: bool,
    /// Bytes on disk: own sealed mails, and parts of other members' mails.
    pub(super) own_bytes: u64,
    pub(super) mirror_bytes: u64,
    /// Bytes served to others since the start.
    pub(super) served_bytes: u64,
    pub(super) journal_bytes: u64,
    pub(super) journal_failed: bool,
    /// Stores without room on the disk.
    pub(super) disk_full: Vec<FullStore>,
    pub(super) index_rebuilt: bool,
    /// The addresses of peers, where they are known.
    names: std::collections::BTreeMap<PeerId, String>,
}

fn stopped(stopped: Stopped) -> String {
    stopped.to_string()
}

impl Seen {
    /// Asks every brain.
    ///
    /// # Errors
    /// A sentence when the peer stops.
    pub(super) async fn of(peer: &Peer) -> Result<Self, String> {
        let group = peer.group.observe().await.map_err(stopped)?;
        let mut outbox = peer.outbox.observe().await.map_err(stopped)?;
        let replicator = peer.replicator.observe().await.map_err(stopped)?;
        let fetch = peer.fetch.observe().await.map_err(stopped)?;
        let postbox = peer.postbox.handle().observe().await.map_err(stopped)?;
        let dht = peer.dht.observe().await.map_err(stopped)?;
        outbox.submissions = report::last_of_outbox(peer).await?;
        let snapshot = peer.directory.snapshot();
        let name = |(id, known): (&PeerId, &crate::actors::directory::KnownPeer)| {
            Some((*id, known.address.as_ref()?.to_string()))
        };
        let disk_full = full::stores(peer).await;
        let mut attention = report::attention(peer, &group, &outbox, &replicator, &fetch, postbox.damaged);
        attention.extend(disk_full.iter().map(|store| store.what.clone()));
        Ok(Self {
            started: peer.started,
            attention,
            degraded: report::group_status(&group, peer).degraded.is_some(),
            own_bytes: outbox.bytes,
            mirror_bytes: replicator.owners.iter().map(|owner| owner.bytes).sum(),
            served_bytes: peer.upload.passed(),
            journal_bytes: peer.journal.bytes(),
            journal_failed: peer.journal.health().is_err(),
            index_rebuilt: peer.index_rebuilt,
            disk_full,
            names: snapshot.peers.iter().filter_map(name).collect(),
            group,
            outbox,
            replicator,
            fetch,
            postbox,
            dht,
        })
    }

    /// Of a peer in which everything that is counted by name happened once.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        use crate::core::{Brain, outbox::Outbox, postbox::Postbox};
        use crate::model::group::{Member, Roster};
        use crate::model::{Fingerprint, MonoTime, Now};
        let now = Now { mono: MonoTime::default(), wall: WallTime(1) };
        let key = crate::wire::PeerKey::from_seed(&[1; 32]);
        let me = Member {
            address: "alice@acme".parse().unwrap(),
            peer_id: key.peer_id(),
            fingerprint: Fingerprint::new([1; 20]),
        };
        let bob = Member {
            address: "bob@acme".parse().unwrap(),
            peer_id: PeerId::new([2; 32]),
            fingerprint: Fingerprint::new([2; 20]),
        };
        let roster = Roster {
            me: me.clone(),
            group: me.address.group().clone(),
            gd_version: 1,
            policy: crate::model::Policy::default(),
            members: vec![me.clone(), bob.clone()],
            lost: std::collections::BTreeSet::new(),
            leaving: std::collections::BTreeSet::new(),
            silent: std::collections::BTreeSet::new(),
        };
        let key = std::sync::Arc::new(key);
        let certificate = std::sync::Arc::new(Vec::new());
        let mut group =
            group::Group::new(group::Me { member: me.clone(), certificate, addrs: Vec::new(), key: key.clone() })
                .observe(now);
        group.members.push(group::MemberStatus {
            address: bob.address.clone(),
            peer_id: bob.peer_id,
            up: None,
            silent_for: None,
            lost: false,
            key_holder: false,
            leaving: false,
        });
        let settings = crate::core::postbox::Settings::new(me.address.clone());
        let config = replicator::Config { quota: crate::model::ByteSize::gib(1), seed: 1 };
        let notify = crate::core::outbox::Notify::DirectFirst;
        let mut seen = Self {
            started: WallTime(1),
            outbox: Outbox::new(key.clone(), std::sync::Arc::new(roster), notify).observe(now),
            replicator: replicator::Replicator::new(config).observe(now),
            fetch: fetch::Fetch::default().observe(now),
            postbox: Postbox::new(settings).observe(now),
            dht: dht::Dht::new((*key).clone(), 1).observe(now),
            attention: Vec::new(),
            degraded: false,
            own_bytes: 0,
            mirror_bytes: 0,
            served_bytes: 0,
            journal_bytes: 0,
            journal_failed: false,
            disk_full: Vec::new(),
            index_rebuilt: false,
            names: std::collections::BTreeMap::new(),
            group,
        };
        seen.happen_once(bob);
        seen
    }

    #[cfg(test)]
    fn happen_once(&mut self, bob: crate::model::group::Member) {
        self.disk_full.push(FullStore { store: "spool".to_owned(), what: "x".to_owned() });
        self.outbox.by_safe.insert(-1, 1);
        self.outbox.ended.insert(crate::model::msglist::Ending::Received, 1);
        self.fetch.liars.insert(bob.peer_id, 1);
        self.dht.refused.insert("full".to_owned(), 1);
        self.replicator.owners.push(replicator::OwnerStatus {
            address: bob.address,
            peer: bob.peer_id,
            cursor: String::new(),
            follow: replicator::FollowShown::Ok,
            unreachable_s: None,
            mails: 1,
            parts: 1,
            going: 0,
            untaken: 0,
            bytes: 1,
            wanted: 0,
            refused: std::collections::BTreeMap::new(),
            reports: 0,
            conflicts: Vec::new(),
            forked_at: Vec::new(),
        });
    }

    /// The address of a peer, or its PeerId when that is all that is known.
    pub(super) fn name(&self, peer: &PeerId) -> String {
        self.names.get(peer).cloned().unwrap_or_else(|| peer.to_string())
    }
}
