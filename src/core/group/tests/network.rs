//! A tiny network of brains under virtual time: it does what shells do, with signatures that are only claimed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use crate::core::group::{
    Action, Beat, BeatAnswer, CallFailed, Entry, Errand, Event, GdFound, Group, GroupError, INVITE_VALIDITY, Input, Me,
    NewGroup, OldKey, PeerFound, Picture, RecoveryCode, Reply, SignedDescriptor, SignedGd, Status,
};
use crate::core::past::Past;
use crate::core::{Brain, Effect, Token};
use crate::model::card::Invite;
use crate::model::dht::DhtKey;
use crate::model::group::{GroupDescriptor, LeaveStage, Member, PeerAddr, PeerDescriptor};
use crate::model::{Address, Fingerprint, GroupName, MonoTime, Now, PeerId, Policy, Secret, WallTime};
use crate::wire::{PeerKey, Signed, decode, encode};

/// On the wire between two peers.
const DELAY: Duration = Duration::from_millis(5);
/// Until a call to a peer that is not there fails.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Node {
    pub(super) brain: Group,
    me: Me,
    up: bool,
    /// When its brain wants to be woken.
    timer: Option<MonoTime>,
    log: Vec<Event>,
    past: Past<Group>,
    /// Group keys on its disk.
    pub(super) keys: BTreeSet<Fingerprint>,
    pub(super) picture: Option<Picture>,
    pub(super) skew_ms: u64,
    /// How often each action was asked for.
    pub(super) asked: BTreeMap<&'static str, usize>,
}

/// Who waits for the answer to a request under way.
enum Waiting {
    Test,
    Beat(PeerId, Errand),
    Join(PeerId),
    Key(PeerId),
    Leave(PeerId),
}

pub(super) struct Network {
    pub(super) now: Now,
    nodes: BTreeMap<PeerId, Node>,
    names: BTreeMap<String, PeerId>,
    on_the_way: BTreeMap<(MonoTime, u64), (PeerId, Input)>,
    waiting: BTreeMap<(PeerId, Token), Waiting>,
    replies: BTreeMap<Token, Reply>,
    pub(super) dht: BTreeMap<DhtKey, Vec<ByteBuf>>,
    /// When the last gd in the DHT expires.
    pub(super) gd_expiry: WallTime,
    /// Which keys were truly handed on, and to which.
    pub(super) handed: BTreeSet<(Fingerprint, Fingerprint)>,
    /// Peers on the one side of a partition.
    island: BTreeSet<PeerId>,
    /// Two that do not reach each other, whomever else they reach.
    parted: Option<[PeerId; 2]>,
    next: u64,
}

fn digest20(text: &str) -> Fingerprint {
    Fingerprint::from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..20]).unwrap()
}

pub(super) fn sign_gd(gd: GroupDescriptor, key: Fingerprint) -> SignedGd {
    let signed = ByteBuf::from(encode(&(&gd, key)));
    SignedGd { lineage: lineage(&gd, key), gd, key, signed }
}

/// As `seal::handover::lineage`, with handovers that are only claimed.
fn lineage(gd: &GroupDescriptor, key: Fingerprint) -> Vec<Fingerprint> {
    let links: Vec<(Fingerprint, Fingerprint)> = gd.handovers.iter().map(|link| decode(link).unwrap()).collect();
    assert!(links.windows(2).all(|two| two[0].1 == two[1].0), "a chain");
    assert!(links.last().is_none_or(|(_, to)| *to == key), "that ends at its signer");
    links.into_iter().map(|(from, _)| from).collect()
}

/// The recovery code of a group key.
pub(super) fn code_of(key: &Fingerprint) -> RecoveryCode {
    RecoveryCode(Zeroizing::new(format!("roost-recovery:{key}")))
}

fn read_gd(bytes: &[u8]) -> SignedGd {
    let (gd, key): (GroupDescriptor, Fingerprint) = decode(bytes).unwrap();
    SignedGd { lineage: lineage(&gd, key), gd, key, signed: ByteBuf::from(bytes) }
}

pub(super) fn sign_descriptor(descriptor: PeerDescriptor, fingerprint: Fingerprint) -> SignedDescriptor {
    let signed = ByteBuf::from(encode(&(&descriptor, fingerprint)));
    SignedDescriptor { descriptor, fingerprint, signed }
}

fn read_descriptor(bytes: &[u8]) -> SignedDescriptor {
    let (descriptor, fingerprint): (PeerDescriptor, Fingerprint) = decode(bytes).unwrap();
    SignedDescriptor { descriptor, fingerprint, signed: ByteBuf::from(bytes) }
}

fn beat_of(mut plain: crate::model::group::Heartbeat) -> Beat {
    let gd = plain.gd.take().map(|bytes| read_gd(&bytes));
    let descriptors = std::mem::take(&mut plain.descriptors).iter().map(|bytes| read_descriptor(bytes)).collect();
    Beat { plain, gd, descriptors }
}

fn answer_of(mut plain: crate::model::group::HeartbeatAnswer) -> BeatAnswer {
    let gd = plain.gd.take().map(|bytes| read_gd(&bytes));
    let view = plain.view.take().map(|bytes| Signed::verify(&bytes).unwrap());
    let descriptors = std::mem::take(&mut plain.descriptors).iter().map(|bytes| read_descriptor(bytes)).collect();
    BeatAnswer { plain, view, gd, descriptors }
}

fn refused(error: &GroupError) -> CallFailed {
    let gd_version = match error {
        GroupError::NotMember { gd_version, .. } => Some(*gd_version),
        _ => None,
    };
    CallFailed::Refused { why: error.to_string(), gd_version }
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            now: Now { mono: MonoTime(0), wall: WallTime(1_700_000_000_000) },
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            on_the_way: BTreeMap::new(),
            waiting: BTreeMap::new(),
            replies: BTreeMap::new(),
            dht: BTreeMap::new(),
            gd_expiry: WallTime(0),
            handed: BTreeSet::new(),
            island: BTreeSet::new(),
            parted: None,
            next: 0,
        }
    }

    /// A peer with this address starts for the first time.
    pub(super) fn start(&mut self, address: &str) {
        let address: Address = address.parse().unwrap();
        let key = Arc::new(PeerKey::from_seed(blake3::hash(address.to_string().as_bytes()).as_bytes()));
        let fingerprint = digest20(&address.to_string());
        let member = Member { address: address.clone(), peer_id: key.peer_id(), fingerprint };
        let port = 4000 + u16::try_from(self.nodes.len()).unwrap();
        let addrs = vec![PeerAddr { host: "127.0.0.1".to_owned(), https: port, libp2p: port + 1000 }];
        let certificate = Arc::new(address.to_string().into_bytes());
        let me = Me { member, certificate, addrs, key };
        let peer = me.member.peer_id;
        let myself = me.clone();
        let node = Node {
            brain: Group::new(me.clone()),
            past: Past::new(move || Group::new(myself.clone())),
            me,
            up: true,
            timer: None,
            log: Vec::new(),
            keys: BTreeSet::new(),
            picture: None,
            skew_ms: 0,
            asked: BTreeMap::new(),
        };
        self.nodes.insert(peer, node);
        self.names.insert(address.to_string(), peer);
        self.tell(peer, Input::Started);
    }

    pub(super) fn peer(&self, address: &str) -> PeerId {
        self.names[address]
    }
    pub(super) fn node(&mut self, address: &str) -> &mut Node {
        let peer = self.peer(address);
        self.nodes.get_mut(&peer).unwrap()
    }
    pub(super) fn member(&self, address: &str) -> Member {
        self.nodes[&self.peer(address)].me.member.clone()
    }
    pub(super) fn status(&self, address: &str) -> Status {
        let node = &self.nodes[&self.peer(address)];
        node.brain.observe(self.now_at(node))
    }
    fn now_at(&self, node: &Node) -> Now {
        Now { wall: WallTime(self.now.wall.0 + node.skew_ms), ..self.now }
    }

    pub(super) fn kill(&mut self, address: &str) {
        let peer = self.peer(address);
        self.nodes.get_mut(&peer).unwrap().up = false;
        self.on_the_way.retain(|_, (to, _)| *to != peer);
        let asked: Vec<(PeerId, Token)> = self.waiting.keys().filter(|(at, _)| *at == peer).copied().collect();
        for key in asked {
            let failed = CallFailed::Unreachable { why: "connection lost".to_owned() };
            match self.waiting.remove(&key) {
                Some(Waiting::Beat(caller, errand)) => {
                    self.later(PATIENCE, caller, Input::HeartbeatAnswered { peer, errand, result: Err(failed) });
                }
                Some(Waiting::Join(caller)) => {
                    self.later(PATIENCE, caller, Input::JoinAnswered { peer, result: Err(failed) });
                }
                Some(Waiting::Key(caller)) => {
                    self.later(PATIENCE, caller, Input::KeyFetched(Err("connection lost".to_owned())));
                }
                Some(Waiting::Leave(caller)) => self.later(PATIENCE, caller, Input::LeaveAnswered(Err(failed))),
                _ => {}
            }
        }
    }
    /// Starts it again from what it made durable, after compaction.
    pub(super) fn restart(&mut self, address: &str) {
        let node = self.node(address);
        for _ in 0..2 {
            node.brain = Group::new(node.me.clone());
            for event in std::mem::take(&mut node.log) {
                node.brain.replay(event);
            }
            node.log = node.brain.snapshot();
        }
        node.past.start(&node.log);
        node.up = true;
        let peer = self.peer(address);
        self.tell(peer, Input::Started);
    }
    /// Moves it to another port; it notices at its next start.
    pub(super) fn moves(&mut self, address: &str, https: u16) {
        self.node(address).me.addrs[0].https = https;
    }
    pub(super) fn cut_off(&mut self, addresses: &[&str]) {
        self.island = addresses.iter().map(|a| self.peer(a)).collect();
    }
    pub(super) fn part(&mut self, one: &str, other: &str) {
        self.parted = Some([self.peer(one), self.peer(other)]);
    }
    pub(super) fn heal(&mut self) {
        self.island.clear();
        self.parted = None;
    }
    fn reaches(&self, from: &PeerId, to: &PeerId) -> bool {
        let is_parted = self.parted.is_some_and(|two| two == [*from, *to] || two == [*to, *from]);
        let is_up = self.nodes.get(to).is_some_and(|node| node.up);
        is_up && !is_parted && self.island.contains(from) == self.island.contains(to)
    }

    /// Asks a peer something and waits for the answer, at most two minutes.
    pub(super) fn ask(&mut self, address: &str, input: impl FnOnce(Token) -> Input) -> Reply {
        let peer = self.peer(address);
        let token = self.token(peer, Waiting::Test);
        self.tell(peer, input(token));
        let end = self.now.mono + Duration::from_secs(120);
        while !self.replies.contains_key(&token) && self.step(end) {}
        self.replies.remove(&token).expect("an answer")
    }
    pub(super) fn create(&mut self, address: &str, policy: Policy) {
        let group = address.parse::<Address>().unwrap().group().clone();
        let reply = self.ask(address, |token| Input::CreateGroup { token, group, policy });
        assert!(matches!(reply, Reply::Created { .. }), "{reply:?}");
    }
    pub(super) fn invite(&mut self, holder: &str, name: &str) -> Invite {
        self.next += 1;
        let secret = Secret::new(*blake3::hash(&self.next.to_be_bytes()).as_bytes());
        let name = name.parse().unwrap();
        match self.ask(holder, |token| Input::Invite { token, name, secret, valid: INVITE_VALIDITY }) {
            Reply::Invite(invite) => invite,
            other => panic!("{other:?}"),
        }
    }
    pub(super) fn join(&mut self, address: &str, invite: &Invite) -> Reply {
        let invite = invite.clone();
        self.ask(address, |token| Input::Join { token, invite })
    }
    /// Starts these peers, the first of which founds the group and invites the others.
    pub(super) fn group_of(&mut self, addresses: &[&str], policy: Policy) {
        self.start(addresses[0]);
        self.create(addresses[0], policy);
        for address in &addresses[1..] {
            self.start(address);
            let invite = self.invite(addresses[0], address.parse::<Address>().unwrap().name().as_str());
            let reply = self.join(address, &invite);
            assert!(matches!(reply, Reply::Joined { .. }), "{reply:?}");
        }
    }

    fn token(&mut self, at: PeerId, waiting: Waiting) -> Token {
        self.next += 1;
        self.waiting.insert((at, Token(self.next)), waiting);
        Token(self.next)
    }

    fn later(&mut self, delay: Duration, to: PeerId, input: Input) {
        self.next += 1;
        self.on_the_way.insert((self.now.mono + delay, self.next), (to, input));
    }

    pub(super) fn tell(&mut self, peer: PeerId, input: Input) {
        let now = self.now_at(&self.nodes[&peer]);
        self.nodes.get_mut(&peer).unwrap().brain.handle(now, input);
        self.drain(peer);
    }

    fn drain(&mut self, peer: PeerId) {
        while let Some(effect) = self.nodes.get_mut(&peer).unwrap().brain.poll_effect() {
            self.perform(peer, effect);
        }
        let node = self.nodes.get_mut(&peer).unwrap();
        node.timer = node.brain.poll_timeout();
        node.past.rests(&node.brain);
    }

    fn perform(&mut self, at: PeerId, effect: Effect<Group>) {
        match effect {
            Effect::Act(action) => self.act(at, action),
            Effect::Feed(input) => self.tell(at, input),
            Effect::Commit { events, then } => {
                let node = self.nodes.get_mut(&at).unwrap();
                node.past.asks(&events);
                node.log.extend(events);
                for effect in then {
                    self.perform(at, effect);
                }
            }
            Effect::Reply(token, reply) => match self.waiting.remove(&(at, token)) {
                Some(Waiting::Test) => {
                    self.replies.insert(token, reply);
                }
                Some(Waiting::Beat(caller, errand)) => {
                    let result = match reply {
                        Reply::Heartbeat(answer) => Ok(Box::new(answer_of(answer))),
                        Reply::Refused(error) => Err(refused(&error)),
                        other => panic!("{other:?}"),
                    };
                    self.later(DELAY, caller, Input::HeartbeatAnswered { peer: at, errand, result });
                }
                Some(Waiting::Join(caller)) => {
                    let result = match reply {
                        Reply::Admitted(signed) => Ok(read_gd(&signed)),
                        Reply::Refused(error) => Err(refused(&error)),
                        other => panic!("{other:?}"),
                    };
                    self.later(DELAY, caller, Input::JoinAnswered { peer: at, result });
                }
                Some(Waiting::Key(caller)) => {
                    let result = match reply {
                        Reply::HandKey { key, .. } => {
                            self.nodes.get_mut(&caller).unwrap().keys.insert(key);
                            Ok(key)
                        }
                        Reply::Refused(error) => Err(error.to_string()),
                        other => panic!("{other:?}"),
                    };
                    self.later(DELAY, caller, Input::KeyFetched(result));
                }
                Some(Waiting::Leave(caller)) => {
                    let result = match reply {
                        Reply::Admitted(signed) => Ok(Box::new(read_gd(&signed))),
                        Reply::Refused(error) => Err(refused(&error)),
                        other => panic!("{other:?}"),
                    };
                    self.later(DELAY, caller, Input::LeaveAnswered(result));
                }
                None => panic!("answered twice or never asked: {reply:?}"),
            },
        }
    }

    fn count(&mut self, at: PeerId, what: &'static str) {
        *self.nodes.get_mut(&at).unwrap().asked.entry(what).or_default() += 1;
    }

    fn act(&mut self, at: PeerId, action: Action) {
        let nowhere = || CallFailed::Unreachable { why: "no answer".to_owned() };
        match action {
            Action::SignDescriptor(descriptor) => {
                let fingerprint = self.nodes[&at].me.member.fingerprint;
                self.later(DELAY, at, Input::DescriptorSigned(Ok(sign_descriptor(descriptor, fingerprint))));
            }
            Action::CreateGroup(mut gd) => {
                let key = digest20(&format!("key of {} by {at}", gd.group));
                self.nodes.get_mut(&at).unwrap().keys.insert(key);
                gd.group_certificate = key.as_bytes().to_vec();
                let recovery = code_of(&key);
                self.later(DELAY, at, Input::GroupCreated(Ok(NewGroup { gd: sign_gd(gd, key), recovery })));
            }
            Action::SignGd { gd, key } => {
                assert!(self.nodes[&at].keys.contains(&key), "only a key holder signs");
                self.later(DELAY, at, Input::GdSigned(Ok(sign_gd(gd, key))));
            }
            Action::RotateKey { gd, old } => self.rotate(at, gd, &old),
            Action::ForgetKeys { but, .. } => self.nodes.get_mut(&at).unwrap().keys.retain(|key| *key == but),
            Action::FetchKey { ask, .. } => self.fetch_key(at, ask),
            Action::AskLeave { stage, ask } => self.ask_leave(at, stage, ask),
            Action::AskJoin { peer, descriptor, proof, .. } => {
                let known = &self.nodes[&at].picture.as_ref().unwrap().peers;
                assert!(known.contains_key(&peer), "the connector dials only whom the picture names");
                if self.reaches(&at, &peer) {
                    let token = self.token(peer, Waiting::Join(at));
                    let descriptor = Box::new(read_descriptor(&descriptor));
                    self.later(DELAY, peer, Input::AdmitJoin { token, caller: at, descriptor, proof });
                } else {
                    self.later(PATIENCE, at, Input::JoinAnswered { peer, result: Err(nowhere()) });
                }
            }
            Action::SendHeartbeat { peer, heartbeat, errand } => {
                self.count(at, if errand.regular { "beat" } else { "push" });
                let placed = self.nodes[&at].picture.as_ref().unwrap().peers.get(&peer).map(|p| p.addrs.clone());
                let right = placed.is_some_and(|addrs| addrs == self.nodes[&peer].me.addrs);
                if self.reaches(&at, &peer) && right {
                    let token = self.token(peer, Waiting::Beat(at, errand));
                    let beat = Box::new(beat_of(heartbeat));
                    self.later(DELAY, peer, Input::Heartbeat { token, caller: at, beat });
                } else {
                    self.later(PATIENCE, at, Input::HeartbeatAnswered { peer, errand, result: Err(nowhere()) });
                }
            }
            Action::SayHello { .. } => self.count(at, "hello"),
            Action::FetchGd { group, ask } => self.fetch_gd(at, group, &ask),
            Action::FetchPeer { member, ask } => self.fetch_peer(at, &member, &ask),
            Action::PublishGd { group, signed, expiry } => {
                self.count(at, "put gd");
                self.gd_expiry = self.gd_expiry.max(expiry);
                self.dht.entry(DhtKey::Group(group)).or_default().push(signed);
                self.later(DELAY, at, Input::Published { entry: Entry::Gd, ok: true });
            }
            Action::PublishDescriptor { address, signed, .. } => {
                self.count(at, "put descriptor");
                self.dht.entry(DhtKey::Peer(address)).or_default().push(signed);
                self.later(DELAY, at, Input::Published { entry: Entry::Descriptor, ok: true });
            }
            Action::Publish(picture) => self.nodes.get_mut(&at).unwrap().picture = Some(*picture),
        }
    }

    /// Somebody puts a gd into the DHT.
    pub(super) fn publish_gd(&mut self, signed: SignedGd) {
        self.dht.entry(DhtKey::Group(signed.gd.group.clone())).or_default().push(signed.signed);
    }

    fn rotate(&mut self, at: PeerId, mut gd: GroupDescriptor, old: &OldKey) {
        let from = match old {
            OldKey::Held(key) => {
                assert!(self.nodes[&at].keys.contains(key), "only a key holder signs");
                *key
            }
            OldKey::Recovery { code, key } if *code == code_of(key) => *key,
            OldKey::Recovery { .. } => {
                return self.later(DELAY, at, Input::KeyRotated(Err("another key's code".to_owned())));
            }
        };
        self.next += 1;
        let key = digest20(&format!("key {} of {}", self.next, gd.group));
        self.handed.insert((from, key));
        gd.handovers.push(ByteBuf::from(encode(&(from, key))));
        gd.group_certificate = key.as_bytes().to_vec();
        self.nodes.get_mut(&at).unwrap().keys.insert(key);
        let recovery = code_of(&key);
        self.later(DELAY, at, Input::KeyRotated(Ok(NewGroup { gd: sign_gd(gd, key), recovery })));
    }

    fn fetch_key(&mut self, at: PeerId, ask: Vec<PeerId>) {
        match ask.into_iter().find(|peer| self.reaches(&at, peer)) {
            Some(peer) => {
                let token = self.token(peer, Waiting::Key(at));
                self.later(DELAY, peer, Input::AskKey { token, caller: at });
            }
            None => self.later(PATIENCE, at, Input::KeyFetched(Err("no answer".to_owned()))),
        }
    }

    fn ask_leave(&mut self, at: PeerId, stage: LeaveStage, ask: Vec<PeerId>) {
        match ask.into_iter().find(|peer| self.reaches(&at, peer)) {
            Some(peer) => {
                let token = self.token(peer, Waiting::Leave(at));
                self.later(DELAY, peer, Input::AdmitLeave { token, caller: at, stage });
            }
            None => {
                let nowhere = CallFailed::Unreachable { why: "no answer".to_owned() };
                self.later(PATIENCE, at, Input::LeaveAnswered(Err(nowhere)));
            }
        }
    }

    fn fetch_gd(&mut self, at: PeerId, group: GroupName, ask: &[PeerId]) {
        self.count(at, "fetch gd");
        let mut candidates: Vec<SignedGd> =
            self.dht.get(&DhtKey::Group(group.clone())).into_iter().flatten().map(|b| read_gd(b)).collect();
        for peer in ask.iter().filter(|peer| self.reaches(&at, peer)) {
            let known = self.nodes[peer].picture.as_ref().and_then(|p| p.groups.get(&group)).unwrap();
            candidates.push(read_gd(&known.signed_gd));
        }
        self.later(DELAY, at, Input::GdFetched { group, found: GdFound { candidates, why: None } });
    }

    fn fetch_peer(&mut self, at: PeerId, member: &Member, ask: &[PeerId]) {
        self.count(at, "fetch peer");
        let described = self.dht.get(&DhtKey::Peer(member.address.clone())).into_iter().flatten();
        let newest = described.map(|b| read_descriptor(b)).max_by_key(|d| d.descriptor.sequence);
        let found = match newest {
            Some(signed) => PeerFound::Descriptor(Box::new(signed)),
            None if ask.iter().any(|peer| self.reaches(&at, peer)) => {
                PeerFound::Certificate(self.nodes[&member.peer_id].me.certificate.to_vec())
            }
            None => PeerFound::Nothing,
        };
        self.later(DELAY, at, Input::PeerFetched { peer: member.peer_id, found });
    }

    /// Does the next thing that is due up to `end`; false when there is none.
    fn step(&mut self, end: MonoTime) -> bool {
        let arrival = self.on_the_way.keys().next().copied();
        let up = self.nodes.iter().filter(|(_, node)| node.up);
        let timer = up.filter_map(|(peer, node)| Some((node.timer?, *peer))).min();
        let at = arrival.map(|(at, _)| at).into_iter().chain(timer.map(|(at, _)| at)).min();
        let Some(at) = at.filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.after(at.since(self.now.mono));
        match arrival.filter(|(due, _)| *due == at).and_then(|key| self.on_the_way.remove(&key)) {
            Some((peer, input)) if self.nodes[&peer].up => self.tell(peer, input),
            Some(_) => {}
            None => {
                if let Some((_, peer)) = timer {
                    let now = self.now_at(&self.nodes[&peer]);
                    self.nodes.get_mut(&peer).unwrap().brain.wake(now);
                    self.drain(peer);
                }
            }
        }
        true
    }

    /// Lets virtual time pass.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now.mono + span;
        let mut steps = 0;
        while self.step(end) {
            steps += 1;
            assert!(steps < 2_000_000, "something spins");
        }
        self.now = self.now.after(end.since(self.now.mono));
    }
    pub(super) fn events(&mut self) -> usize {
        self.nodes.values().map(|node| node.log.len()).sum()
    }
}
