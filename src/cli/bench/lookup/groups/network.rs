//! The brains of one group's members under virtual time: it does what their shells do, without disks and sockets. OpenPGP signatures
//! are only claimed; views are signed. It decides nothing, and never reads a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use crate::core::group::{
    Action, Beat, BeatAnswer, CallFailed, Entry, Errand, Event, GdFound, Group, Input, Me, NewGroup, PeerFound,
    RecoveryCode, Reply, SignedDescriptor, SignedGd, Status,
};
use crate::core::{Brain as _, Effect, Token};
use crate::model::dht::DhtKey;
use crate::model::group::{GroupDescriptor, Heartbeat, HeartbeatAnswer, Member, PeerAddr, PeerDescriptor};
use crate::model::{Address, Digest, Fingerprint, MonoTime, Now, PeerId, WallTime};
use crate::wire::{PeerKey, Signed, decode, encode};

/// On the way between two peers.
const DELAY: Duration = Duration::from_millis(20);
/// Until a call to a peer that is not there fails.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events of a journal before it is compacted.
const LOG_MAX: usize = 256;

/// One member.
pub(super) struct Node {
    pub(super) brain: Group,
    me: Me,
    pub(super) up: bool,
    /// When it was started or killed.
    pub(super) since: MonoTime,
    /// Counts its starts: what comes for an earlier one is dropped.
    life: u32,
    armed: Option<MonoTime>,
    log: Vec<Event>,
    keys: BTreeSet<Fingerprint>,
    pub(super) counts: Counts,
}

/// What a member has done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Requests sent, and requests answered.
    pub(super) messages: u64,
    /// Of those, the regular heartbeats.
    pub(super) beats: u64,
    /// Reads and puts in the DHT.
    pub(super) dht: u64,
    /// Events made durable.
    pub(super) events: u64,
}

enum Call {
    Beat(Box<Heartbeat>, Errand),
    Join(Vec<u8>, ByteBuf),
}

enum Happening {
    Tell(usize, u32, Box<Input>),
    Wake(usize),
    Ask { from: usize, life: u32, to: usize, call: Call },
}

/// Who waits for what a brain was asked.
enum Waiting {
    Outside,
    Beat(usize, u32, Errand),
    Join(usize, u32),
}

/// One group.
pub(super) struct Network {
    pub(super) now: Now,
    pub(super) nodes: Vec<Node>,
    number: BTreeMap<PeerId, usize>,
    line: BTreeMap<(MonoTime, u64), Happening>,
    waiting: BTreeMap<(usize, Token), Waiting>,
    replies: BTreeMap<Token, Reply>,
    /// Values and when they expire.
    dht: BTreeMap<DhtKey, Vec<(ByteBuf, WallTime)>>,
    /// gds that were signed, by the digest of their bytes: read once, they are not read again.
    gds: BTreeMap<Digest, SignedGd>,
    next: u64,
    /// What does not fit, where a shell would not go on.
    pub(super) faults: Vec<String>,
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::new(*blake3::hash(bytes).as_bytes())
}

fn claimed_key(text: &str) -> Fingerprint {
    let hash = blake3::hash(text.as_bytes());
    let mut key = [0; 20];
    key.copy_from_slice(&hash.as_bytes()[..20]);
    Fingerprint::new(key)
}

fn sign_descriptor(descriptor: PeerDescriptor, fingerprint: Fingerprint) -> SignedDescriptor {
    let signed = ByteBuf::from(encode(&(&descriptor, fingerprint)));
    SignedDescriptor { descriptor, fingerprint, signed }
}

fn read_descriptor(bytes: &[u8]) -> Option<SignedDescriptor> {
    let (descriptor, fingerprint): (PeerDescriptor, Fingerprint) = decode(bytes).ok()?;
    Some(SignedDescriptor { descriptor, fingerprint, signed: ByteBuf::from(bytes) })
}

impl Network {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        Self {
            now: Now { mono: MonoTime(0), wall: WallTime(1_700_000_000_000) },
            nodes: Vec::new(),
            number: BTreeMap::new(),
            line: BTreeMap::new(),
            waiting: BTreeMap::new(),
            replies: BTreeMap::new(),
            dht: BTreeMap::new(),
            gds: BTreeMap::new(),
            next: 0,
            faults: Vec::new(),
        }
    }

    /// A peer with this address starts for the first time; its number.
    pub(super) fn start(&mut self, address: Address) -> usize {
        let at = self.nodes.len();
        let key = Arc::new(PeerKey::from_seed(blake3::hash(address.to_string().as_bytes()).as_bytes()));
        let peer_id = key.peer_id();
        let fingerprint = claimed_key(&address.to_string());
        let addrs = vec![PeerAddr { host: "10.0.0.1".to_owned(), https: u16::try_from(at).unwrap_or(0), libp2p: 1 }];
        let certificate = Arc::new(address.to_string().into_bytes());
        let me = Me { member: Member { address, peer_id, fingerprint }, certificate, addrs, key };
        self.nodes.push(Node {
            brain: Group::new(me.clone()),
            me,
            up: true,
            since: self.now.mono,
            life: 0,
            armed: None,
            log: Vec::new(),
            keys: BTreeSet::new(),
            counts: Counts::default(),
        });
        self.number.insert(peer_id, at);
        self.tell(at, Input::Started);
        at
    }

    /// Kills a member.
    pub(super) fn kill(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        (node.up, node.since, node.armed) = (false, self.now.mono, None);
        node.life += 1;
        self.waiting.retain(|(of, _), _| *of != at);
    }

    /// Starts it again from what it made durable.
    pub(super) fn restart(&mut self, at: usize) {
        let now = self.now.mono;
        let node = &mut self.nodes[at];
        node.brain = Group::new(node.me.clone());
        for event in std::mem::take(&mut node.log) {
            node.brain.replay(event);
        }
        node.log = node.brain.snapshot();
        (node.up, node.since) = (true, now);
        self.tell(at, Input::Started);
    }

    /// What a member shows of itself.
    pub(super) fn status(&self, at: usize) -> Status {
        self.nodes[at].brain.observe(self.now)
    }

    /// The newest gd in the DHT that has not expired.
    pub(super) fn gd_version_in_dht(&self, key: &DhtKey) -> Option<u64> {
        let live = self.dht.get(key)?.iter().filter(|(_, expiry)| *expiry > self.now.wall);
        live.filter_map(|(bytes, _)| self.gds.get(&digest(bytes))).map(|signed| signed.gd.version).max()
    }

    /// Asks a member something and waits for the answer, at most two minutes.
    pub(super) fn ask(&mut self, at: usize, input: impl FnOnce(Token) -> Input) -> Option<Reply> {
        let token = self.token(at, Waiting::Outside);
        self.tell(at, input(token));
        let end = self.now.mono + Duration::from_secs(120);
        while !self.replies.contains_key(&token) && self.step(end) {}
        self.replies.remove(&token)
    }

    fn token(&mut self, at: usize, waiting: Waiting) -> Token {
        self.next += 1;
        self.waiting.insert((at, Token(self.next)), waiting);
        Token(self.next)
    }

    fn happens(&mut self, delay: Duration, what: Happening) {
        self.next += 1;
        self.line.insert((self.now.mono + delay, self.next), what);
    }

    fn later(&mut self, delay: Duration, to: usize, life: u32, input: Input) {
        self.happens(delay, Happening::Tell(to, life, Box::new(input)));
    }

    /// To a member of itself, as its shell does when IO has ended.
    fn back(&mut self, at: usize, input: Input) {
        self.later(DELAY, at, self.nodes[at].life, input);
    }

    fn tell(&mut self, at: usize, input: Input) {
        self.nodes[at].brain.handle(self.now, input);
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        while let Some(effect) = self.nodes[at].brain.poll_effect() {
            self.perform(at, effect);
        }
        let wanted = self.nodes[at].brain.poll_timeout();
        let node = &mut self.nodes[at];
        // A later wish is found out at the earlier waking.
        if let Some(wanted) = wanted.filter(|wanted| node.armed.is_none_or(|armed| *wanted < armed)) {
            node.armed = Some(wanted);
            self.happens(wanted.since(self.now.mono), Happening::Wake(at));
        }
    }

    fn perform(&mut self, at: usize, effect: Effect<Group>) {
        match effect {
            Effect::Act(action) => self.act(at, action),
            Effect::Feed(input) => self.tell(at, input),
            Effect::Commit { events, then } => {
                let node = &mut self.nodes[at];
                node.counts.events += u64::try_from(events.len()).unwrap_or(u64::MAX);
                node.log.extend(events);
                if node.log.len() > LOG_MAX {
                    node.log = node.brain.snapshot();
                }
                then.into_iter().for_each(|effect| self.perform(at, effect));
            }
            Effect::Reply(token, reply) => self.reply(at, token, reply),
        }
    }

    fn reply(&mut self, at: usize, token: Token, reply: Reply) {
        let refused = |reply: &Reply| CallFailed::Refused { why: format!("{reply:?}"), gd_version: None };
        match self.waiting.remove(&(at, token)) {
            Some(Waiting::Outside) => {
                self.replies.insert(token, reply);
            }
            Some(Waiting::Beat(caller, life, errand)) => {
                self.nodes[at].counts.messages += 1;
                let result = match reply {
                    Reply::Heartbeat(answer) => {
                        self.answer_of(answer).map(Box::new).ok_or(CallFailed::Bad { why: String::new() })
                    }
                    other => Err(refused(&other)),
                };
                let peer = self.nodes[at].me.member.peer_id;
                self.later(DELAY, caller, life, Input::HeartbeatAnswered { peer, errand, result });
            }
            Some(Waiting::Join(caller, life)) => {
                let result = match reply {
                    Reply::Admitted(signed) => self.read_gd(&signed).ok_or(CallFailed::Bad { why: String::new() }),
                    other => Err(refused(&other)),
                };
                let peer = self.nodes[at].me.member.peer_id;
                self.later(DELAY, caller, life, Input::JoinAnswered { peer, result });
            }
            None => {}
        }
    }

    fn sign_gd(&mut self, gd: GroupDescriptor, key: Fingerprint) -> SignedGd {
        let signed = SignedGd { signed: ByteBuf::from(encode(&(&gd, key))), gd, key, lineage: Vec::new() };
        self.gds.insert(digest(&signed.signed), signed.clone());
        signed
    }

    fn read_gd(&self, bytes: &[u8]) -> Option<SignedGd> {
        self.gds.get(&digest(bytes)).cloned()
    }

    fn beat_of(&self, mut plain: Heartbeat) -> Beat {
        let gd = plain.gd.take().and_then(|bytes| self.read_gd(&bytes));
        let descriptors = std::mem::take(&mut plain.descriptors);
        Beat { plain, gd, descriptors: descriptors.iter().filter_map(|bytes| read_descriptor(bytes)).collect() }
    }

    fn answer_of(&self, mut plain: HeartbeatAnswer) -> Option<BeatAnswer> {
        let gd = plain.gd.take().and_then(|bytes| self.read_gd(&bytes));
        let view = plain.view.take().map(|bytes| Signed::verify(&bytes)).transpose().ok()?;
        let descriptors = std::mem::take(&mut plain.descriptors);
        let descriptors = descriptors.iter().filter_map(|bytes| read_descriptor(bytes)).collect();
        Some(BeatAnswer { plain, view, gd, descriptors })
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::SignDescriptor(descriptor) => {
                let signed = sign_descriptor(descriptor, self.nodes[at].me.member.fingerprint);
                self.back(at, Input::DescriptorSigned(Ok(signed)));
            }
            Action::CreateGroup(mut gd) => {
                let key = claimed_key(&format!("key of {}", gd.group));
                self.nodes[at].keys.insert(key);
                gd.group_certificate = key.as_bytes().to_vec();
                let recovery = RecoveryCode(Zeroizing::new(String::new()));
                let gd = self.sign_gd(gd, key);
                self.back(at, Input::GroupCreated(Ok(NewGroup { gd, recovery })));
            }
            Action::SignGd { gd, key } if self.nodes[at].keys.contains(&key) => {
                let signed = self.sign_gd(gd, key);
                self.back(at, Input::GdSigned(Ok(signed)));
            }
            Action::SendHeartbeat { peer, heartbeat, errand } => {
                self.nodes[at].counts.messages += 1;
                self.nodes[at].counts.beats += u64::from(errand.regular);
                self.call(at, &peer, Call::Beat(Box::new(heartbeat), errand));
            }
            Action::AskJoin { peer, descriptor, proof, .. } => self.call(at, &peer, Call::Join(proof, descriptor)),
            Action::FetchGd { group, ask } => {
                self.nodes[at].counts.dht += 1;
                let live = self.dht.get(&DhtKey::Group(group.clone())).into_iter().flatten();
                let live = live.filter(|(_, expiry)| *expiry > self.now.wall);
                let candidates = live.filter_map(|(bytes, _)| self.read_gd(bytes)).collect();
                let _ = ask;
                self.back(at, Input::GdFetched { group, found: GdFound { candidates, why: None } });
            }
            Action::FetchPeer { member, .. } => self.fetch_peer(at, &member),
            Action::PublishGd { group, signed, expiry } => {
                self.put(at, DhtKey::Group(group), signed, expiry);
                self.back(at, Input::Published { entry: Entry::Gd, ok: true });
            }
            Action::PublishDescriptor { address, signed, expiry } => {
                self.put(at, DhtKey::Peer(address), signed, expiry);
                self.back(at, Input::Published { entry: Entry::Descriptor, ok: true });
            }
            Action::SayHello { .. } | Action::Publish(_) | Action::ForgetKeys { .. } => {}
            Action::SignGd { .. } | Action::RotateKey { .. } | Action::FetchKey { .. } | Action::AskLeave { .. } => {
                self.faults.push(format!("member {at} asks for what nobody wanted: {action:?}"));
            }
        }
    }

    fn call(&mut self, from: usize, peer: &PeerId, call: Call) {
        let life = self.nodes[from].life;
        match self.number.get(peer) {
            Some(to) => self.happens(DELAY, Happening::Ask { from, life, to: *to, call }),
            None => self.faults.push(format!("member {from} calls {peer}, who is none")),
        }
    }

    fn asked(&mut self, from: usize, life: u32, to: usize, call: Call) {
        let (caller, peer) = (self.nodes[from].me.member.peer_id, self.nodes[to].me.member.peer_id);
        let nowhere = || CallFailed::Unreachable { why: "no answer".to_owned() };
        match call {
            Call::Beat(_, errand) if !self.nodes[to].up => {
                self.later(PATIENCE, from, life, Input::HeartbeatAnswered { peer, errand, result: Err(nowhere()) });
            }
            Call::Join(..) if !self.nodes[to].up => {
                self.later(PATIENCE, from, life, Input::JoinAnswered { peer, result: Err(nowhere()) });
            }
            Call::Beat(heartbeat, errand) => {
                let token = self.token(to, Waiting::Beat(from, life, errand));
                let beat = Box::new(self.beat_of(*heartbeat));
                self.tell(to, Input::Heartbeat { token, caller, beat });
            }
            Call::Join(proof, descriptor) => {
                let token = self.token(to, Waiting::Join(from, life));
                match read_descriptor(&descriptor).map(Box::new) {
                    Some(descriptor) => self.tell(to, Input::AdmitJoin { token, caller, descriptor, proof }),
                    None => self.faults.push(format!("member {from} joins without a descriptor")),
                }
            }
        }
    }

    fn fetch_peer(&mut self, at: usize, member: &Member) {
        self.nodes[at].counts.dht += 1;
        let described = self.dht.get(&DhtKey::Peer(member.address.clone())).into_iter().flatten();
        let live = described.filter(|(_, expiry)| *expiry > self.now.wall);
        let newest = live.filter_map(|(bytes, _)| read_descriptor(bytes)).max_by_key(|d| d.descriptor.sequence);
        let found = newest.map_or(PeerFound::Nothing, |signed| PeerFound::Descriptor(Box::new(signed)));
        self.back(at, Input::PeerFetched { peer: member.peer_id, found });
    }

    fn put(&mut self, at: usize, key: DhtKey, value: ByteBuf, expiry: WallTime) {
        self.nodes[at].counts.dht += 1;
        let now = self.now.wall;
        let entries = self.dht.entry(key).or_default();
        entries.retain(|(held, until)| *until > now && *held != value);
        entries.push((value, expiry));
    }

    /// Does the next thing that is due up to `end`; false when there is none.
    fn step(&mut self, end: MonoTime) -> bool {
        let Some(((at, _), what)) =
            self.line.first_key_value().is_some_and(|((at, _), _)| *at <= end).then(|| self.line.pop_first()).flatten()
        else {
            return false;
        };
        self.now = self.now.after(at.since(self.now.mono));
        match what {
            Happening::Tell(to, life, input) if self.nodes[to].up && self.nodes[to].life == life => {
                self.tell(to, *input)
            }
            Happening::Wake(to) if self.nodes[to].up && self.nodes[to].armed == Some(at) => {
                self.nodes[to].armed = None;
                self.nodes[to].brain.wake(self.now);
                self.drain(to);
            }
            Happening::Ask { from, life, to, call } => self.asked(from, life, to, call),
            Happening::Tell(..) | Happening::Wake(_) => {}
        }
        true
    }

    /// Lets virtual time pass.
    pub(super) fn pass(&mut self, until: MonoTime) {
        while self.step(until) {}
        self.now = self.now.after(until.since(self.now.mono));
    }
}
