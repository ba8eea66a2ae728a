//! The world: one virtual clock, the peers, and what happens next. It does what shells do, and crashes peers at any effect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use roost::core::group::{self, SignedGd};
use roost::core::outbox::{self, Notify, Outbox};
use roost::core::postbox::{self, Postbox, Settings};
use roost::core::replicator::{self, Replicator};
use roost::core::{Brain, Effect, Token, earliest, fetch};
use roost::model::group::{Member, Roster};
use roost::model::{Address, ByteSize, Fingerprint, MonoTime, Now, PeerId};
use roost::wire::{self, PeerKey};

use super::checker::{Rule, Truth, Violation};
use super::dht::Dht;
use super::disk::{DiskOp, Record};
pub(crate) use super::happening::Happening;
use super::members::{Gd, alone, joiners};
use super::network::Request;
use super::params::Params;
use super::peer::{After, Brains, Commit, Peer, Tell, Waiter, Wish};
use super::rng::Rng;
use super::rot::SCRUB_EVERY_MS;
use super::sabotage::Saboteur;
use super::views::FalseView;

/// The wall clock's beginning.
pub(crate) const START: u64 = 1_700_000_000_000;
/// Lines of the trace that are kept.
const TRACE_MAX: usize = 150;
/// More steps than this in one millisecond are no rest.
const STEPS_MAX: u64 = 20_000;

/// All there is.
pub(crate) struct World {
    pub(crate) params: Params,
    pub(crate) rng: Rng,
    /// Milliseconds since the beginning.
    pub(crate) t: u64,
    queue: BTreeMap<(u64, u64), Box<Happening>>,
    next: u64,
    pub(crate) peers: Vec<Peer>,
    by_id: BTreeMap<PeerId, usize>,
    /// Who does not reach whom, and by how many cuts.
    pub(crate) cuts: BTreeMap<(usize, usize), usize>,
    pub(crate) faulty: bool,
    /// Whether all is over, and everybody should rest.
    pub(crate) idle: bool,
    pub(crate) dht: Dht,
    pub(crate) truth: Truth,
    /// The group, as its newest descriptor names it.
    pub(crate) gd: Gd,
    /// All of its descriptors, each with the time since when it holds.
    pub(crate) gds: Vec<(u64, Gd)>,
    /// What an acting master that lies says.
    pub(crate) false_view: Option<FalseView>,
    /// What holders of old keys signed.
    pub(crate) forged_gds: Vec<SignedGd>,
    pub(crate) crashes_left: u64,
    pub(crate) messages: Vec<u64>,
    pub(crate) commits: Vec<u64>,
    steps_now: u64,
    pub(crate) violation: Option<Violation>,
    pub(crate) tracing: bool,
    pub(crate) trace: VecDeque<String>,
    trace_max: usize,
}

/// The certificate of an address: sealing is a model.
pub(crate) fn fingerprint(address: &Address) -> Fingerprint {
    Fingerprint::from_slice(&blake3::hash(address.to_string().as_bytes()).as_bytes()[..20]).unwrap()
}

fn member_of(n: usize, address: &str) -> (Member, PeerKey) {
    let mut seed = [7; 32];
    seed[0] = u8::try_from(n + 1).unwrap();
    let key = PeerKey::from_seed(&seed);
    let address: Address = address.parse().unwrap();
    (Member { fingerprint: fingerprint(&address), address, peer_id: key.peer_id() }, key)
}

impl World {
    /// A world in which nothing has started.
    pub(crate) fn new(params: Params, tracing: bool) -> Self {
        let mut rng = Rng::new(params.seed);
        let group: Vec<(Member, PeerKey)> = (0..params.members).map(|n| member_of(n, &format!("m{n}@acme"))).collect();
        let members: Vec<Member> = group.iter().map(|(m, _)| m.clone()).collect();
        let roster = |me: &Member, group: &str, members: Vec<Member>| Roster {
            me: me.clone(),
            group: group.parse().unwrap(),
            gd_version: 1,
            policy: params.policy.clone(),
            members,
            lost: BTreeSet::new(),
            leaving: BTreeSet::new(),
            silent: BTreeSet::new(),
        };
        let mut peers: Vec<Peer> =
            group.into_iter().map(|(m, key)| Peer::new(&m, key, roster(&m, "acme", members.clone()), true)).collect();
        let (reader, key) = member_of(params.members, "rita@readers");
        let of_reader = roster(&reader, "readers", vec![reader.clone()]);
        peers.push(Peer::new(&reader, key, of_reader, false));
        for peer in &mut peers {
            peer.skew = i64::try_from(rng.below(params.skew_ms + 1)).unwrap();
        }
        for _ in 0..params.liars {
            let liar = rng.index(params.members);
            peers[liar].liar = true;
        }
        for n in (params.members + 1..).take(joiners(&params.changes)) {
            let (joiner, key) = member_of(n, &format!("m{n}@acme"));
            let mut peer = Peer::new(&joiner, key, alone(joiner.clone(), 0), false);
            peer.made = false;
            peers.push(peer);
        }
        let by_id = peers.iter().enumerate().map(|(n, p)| (p.id, n)).collect();
        let count = peers.len();
        let crashes_left = params.crashes;
        let members = (0..params.members).collect();
        let gd = Gd { version: 1, policy: params.policy.clone(), members, leaving: BTreeSet::new(), key: 0 };
        Self {
            params,
            gds: vec![(0, gd.clone())],
            gd,
            rng,
            t: 0,
            queue: BTreeMap::new(),
            next: 0,
            peers,
            by_id,
            cuts: BTreeMap::new(),
            faulty: false,
            idle: false,
            dht: Dht::default(),
            truth: Truth::default(),
            false_view: None,
            forged_gds: Vec::new(),
            crashes_left,
            messages: vec![0; count],
            commits: vec![0; count],
            steps_now: 0,
            violation: None,
            tracing,
            trace: VecDeque::new(),
            trace_max: std::env::var("ROOST_SIM_TRACE").ok().and_then(|n| n.parse().ok()).unwrap_or(TRACE_MAX),
        }
    }

    pub(crate) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
    /// Puts something after `delay` milliseconds.
    pub(crate) fn later(&mut self, delay: u64, what: Happening) {
        let at = (self.t + delay, self.fresh());
        self.queue.insert(at, Box::new(what));
    }
    pub(crate) fn index(&self, id: &PeerId) -> usize {
        self.by_id[id]
    }
    pub(crate) fn at(&self, address: &Address) -> Option<usize> {
        self.peers.iter().position(|p| p.address == *address)
    }
    pub(crate) fn name(&self, p: usize) -> String {
        self.peers[p].address.to_string()
    }
    pub(crate) fn now(&self, p: usize) -> Now {
        let peer = &self.peers[p];
        Now { mono: MonoTime(self.t - peer.started), wall: self.wall(p) }
    }
    pub(crate) fn is(&self, saboteur: Saboteur) -> bool {
        self.params.saboteur == Some(saboteur)
    }
    pub(crate) fn count_message(&mut self, p: usize) {
        self.messages[p] += 1;
    }
    /// Notes a violation; the first one counts.
    pub(crate) fn violate(&mut self, rule: Rule, why: String) {
        if self.violation.is_none() {
            self.say(|_| format!("VIOLATION of {rule:?}: {why}"));
            self.violation = Some(Violation { rule, why, at_ms: self.t });
        }
    }
    pub(crate) fn say(&mut self, line: impl FnOnce(&World) -> String) {
        if self.tracing {
            let line = line(self);
            let mut line = format!("{:>9} {line}", self.t);
            line.truncate(400);
            self.trace.push_back(line);
            if self.trace.len() > self.trace_max {
                self.trace.pop_front();
            }
        }
    }

    /// Lets virtual time pass; ends at once at a violation.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.t + ms;
        while self.violation.is_none()
            && let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end)
        {
            let at = next.key().0;
            let what = *next.remove();
            self.steps_now = if at == self.t { self.steps_now + 1 } else { 0 };
            self.t = at;
            if self.steps_now > STEPS_MAX {
                self.violate(Rule::R12, format!("it never comes to rest: {what:?}"));
            }
            self.happen(what);
        }
        if self.violation.is_none() {
            self.t = end;
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrives { to, from, request } => {
                self.arrives(to, from, request);
                self.pump(to);
            }
            Happening::Answered { to, answer } => self.answered(to, answer),
            Happening::Told { p, life, tell } if self.peers[p].life == life => self.tell(p, tell),
            Happening::DiskDone { p, life, op } if self.peers[p].life == life => self.disk_done(p, op),
            Happening::Durable { p, life } if self.peers[p].life == life => self.durable(p),
            Happening::Wake { p, life } if self.peers[p].life == life => self.wake(p),
            Happening::DhtDo { p, life, op } => self.dht_do(p, life, op),
            Happening::Starts(p) => self.start(p),
            Happening::Side(p, side) => self.set_side(p, side),
            Happening::Cut(ways) => self.cut(ways),
            Happening::Mend(ways) => self.mend(&ways),
            Happening::DisksDie(owner, beyond) => self.disks_die(owner, beyond),
            Happening::LooksAtSafety { p, life } if self.peers[p].life == life => self.check_shown_safety(p),
            Happening::Jumps(p, by) => self.jumps(p, by),
            Happening::Stops(p) => self.stops(p),
            Happening::ComparesClock { p, life } if self.peers[p].life == life => self.compare_clock(p),
            Happening::Rots(p) => self.rots(p),
            Happening::Image(p) => self.take_image(p),
            Happening::Restore(p) => self.restore(p),
            Happening::View => self.spread_view(),
            Happening::Policy(policy) => self.change_policy(*policy),
            Happening::Group(step) => self.take_step(step),
            Happening::User(act) => self.user(act),
            _ => {}
        }
    }

    /// Starts a peer from its disk.
    pub(crate) fn start(&mut self, p: usize) {
        if self.peers[p].is_up() || self.peers[p].dead || self.peers[p].left || !self.peers[p].made {
            return;
        }
        self.say(|w| format!("{} starts", w.name(p)));
        self.note_back(p);
        let (seed, audit_seed) = (self.rng.next(), self.rng.next());
        let peer = &mut self.peers[p];
        peer.started = self.t;
        peer.durable_at = self.t;
        let notify = if self.params.by_dht { Notify::Dht } else { Notify::DirectFirst };
        let settings = Settings { eager: self.params.eager, ..Settings::new(peer.address.clone()) };
        peer.view.clear();
        (peer.roster.lost, peer.roster.silent) = (peer.roster.leaving.clone(), BTreeSet::new());
        let group = self.new_group(p);
        let peer = &mut self.peers[p];
        let mut brains = Brains {
            group,
            outbox: Outbox::new(peer.key.clone(), Arc::new(peer.roster.clone()), notify),
            replicator: Replicator::new(replicator::Config { quota: ByteSize::gib(1), seed }),
            postbox: Postbox::new(settings),
            fetch: fetch::Fetch::default(),
        };
        for record in &peer.disk.journal {
            match record {
                Record::Outbox(bytes) => brains.outbox.replay(wire::decode(bytes).unwrap()),
                Record::Replicator(bytes) => brains.replicator.replay(wire::decode(bytes).unwrap()),
                Record::Postbox(bytes) => brains.postbox.replay(wire::decode(bytes).unwrap()),
                Record::Group(bytes) => {
                    brains.group.iter_mut().for_each(|group| group.replay(wire::decode(bytes).unwrap()));
                }
            }
        }
        brains.outbox.audit_every(Duration::from_millis(self.params.audit_every_ms), audit_seed);
        if self.params.rots > 0 {
            brains.replicator.scrub_every(Duration::from_millis(SCRUB_EVERY_MS));
        }
        if peer.disk.restored {
            brains.outbox.mark_restored();
        }
        if self.rng.chance(250) {
            self.compact(p, &brains);
        }
        let peer = &mut self.peers[p];
        peer.brains = Some(brains);
        let blobs = peer.disk.blobs.keys().copied().collect();
        let waiting: Vec<_> = peer.disk.spool.values().cloned().collect();
        let roster = peer.roster.clone();
        if self.has_keys() {
            self.tell(p, Tell::Group(group::Input::Started));
        }
        self.tell(p, Tell::Postbox(postbox::Input::Start));
        self.tell(p, Tell::Replicator(replicator::Input::Start(roster.clone())));
        self.tell(p, Tell::Outbox(outbox::Input::Start { blobs }));
        self.start_clock(p);
        self.tell_spooled(p, waiting);
        self.tell(p, Tell::Postbox(postbox::Input::Roster(Arc::new(roster))));
        if self.peers[p].is_up() && self.peers[p].in_group {
            // A peer that starts tells all members.
            for other in self.others_known(p) {
                let hello = Request::Notify(super::network::Notice::Hello);
                self.call(p, other, hello, super::network::Pending::Ignored);
            }
        }
        self.arm_fuse(p);
        self.note_silences_by(p);
    }

    /// Draws at which of its next effects a peer crashes.
    pub(crate) fn arm_fuse(&mut self, p: usize) {
        if self.faulty && self.crashes_left > 0 && self.rng.chance(400) {
            self.crashes_left -= 1;
            let most = *self.rng.pick(&[10, 80, 500]);
            self.peers[p].fuse = Some((self.rng.below(most), self.rng.chance(500)));
        }
    }

    /// The power fails at one peer: what is not durable is lost, or by chance was written.
    pub(crate) fn crash(&mut self, p: usize) {
        if !self.peers[p].is_up() {
            return;
        }
        self.say(|w| format!("{} crashes", w.name(p)));
        self.note_shown(p);
        let pending: Vec<Record> = self.peers[p].commits.drain(..).flat_map(|c| c.records).collect();
        let written = self.rng.index(pending.len() + 1);
        for record in pending.into_iter().take(written) {
            self.append(p, record);
        }
        for (op, _) in std::mem::take(&mut self.peers[p].ops).into_values() {
            if self.rng.chance(500) {
                self.peers[p].disk.apply(op);
            }
        }
        self.peers[p].forget();
        self.distrust_clock(p);
        self.forget_misses(p);
        self.note_silences_by(p);
        self.break_connections(p);
        let down = if self.faulty { *self.rng.pick(&[500, 20_000, 600_000, 3_000_000]) } else { 1000 };
        let down = self.rng.between(1, down);
        self.later(down, Happening::Starts(p));
    }

    pub(crate) fn lost_after_ms(&self) -> u64 {
        u64::try_from(self.params.policy.lost_after.duration().as_millis()).unwrap()
    }

    /// Tells a brain something and does what it wants.
    pub(crate) fn tell(&mut self, p: usize, tell: Tell) {
        self.hand(p, tell);
        self.pump(p);
    }
    /// Tells a brain something; whoever calls this pumps afterwards.
    pub(crate) fn hand(&mut self, p: usize, tell: Tell) {
        self.say(|w| format!("{} <- {tell:?}", w.name(p)));
        let now = self.now(p);
        let Some(brains) = self.peers[p].brains.as_mut() else { return };
        match tell {
            Tell::Outbox(input) => brains.outbox.handle(now, input),
            Tell::Replicator(input) => brains.replicator.handle(now, input),
            Tell::Postbox(input) => brains.postbox.handle(now, input),
            Tell::Fetch(input) => brains.fetch.handle(now, input),
            Tell::Group(input) => {
                if let Some(group) = &mut brains.group {
                    group.handle(now, input);
                }
            }
        }
    }
    /// Tells it after `delay` milliseconds.
    pub(crate) fn tell_later(&mut self, p: usize, delay: u64, tell: Tell) {
        let life = self.peers[p].life;
        self.later(delay, Happening::Told { p, life, tell });
    }

    /// Does everything that the brains of a peer want now.
    pub(crate) fn pump(&mut self, p: usize) {
        let life = self.peers[p].life;
        let first = self.rng.index(4);
        while self.peers[p].life == life && self.violation.is_none() {
            let Some(brains) = self.peers[p].brains.as_mut() else { return };
            let wish = (0..4).find_map(|n| match (first + n) % 4 {
                0 => brains.outbox.poll_effect().map(Wish::Outbox),
                1 => brains.replicator.poll_effect().map(Wish::Replicator),
                2 => brains.postbox.poll_effect().map(Wish::Postbox),
                _ => brains.fetch.poll_effect().map(Wish::Fetch),
            });
            let wish = wish.or_else(|| brains.group.as_mut()?.poll_effect().map(Wish::Group));
            match wish {
                Some(wish) => self.perform(p, wish),
                None => break,
            }
        }
        self.arm(p);
    }

    fn arm(&mut self, p: usize) {
        let peer = &self.peers[p];
        let Some(brains) = &peer.brains else { return };
        let wants = [
            brains.outbox.poll_timeout(),
            brains.replicator.poll_timeout(),
            brains.postbox.poll_timeout(),
            brains.fetch.poll_timeout(),
        ];
        let group = brains.group.as_ref().filter(|_| self.wakes_group(p)).and_then(Brain::poll_timeout);
        let Some(MonoTime(at)) = earliest(wants.into_iter().chain([group])) else { return };
        let at = (peer.started + at).max(self.t);
        if peer.wake_at.is_none_or(|armed| armed > at) {
            let life = peer.life;
            self.peers[p].wake_at = Some(at);
            self.later(at - self.t, Happening::Wake { p, life });
        }
    }

    fn wake(&mut self, p: usize) {
        let now = self.now(p);
        if self.peers[p].wake_at.is_some_and(|at| at <= self.t) {
            self.peers[p].wake_at = None;
        }
        let wakes_group = self.has_keys() && self.wakes_group(p);
        let Some(brains) = self.peers[p].brains.as_mut() else { return };
        let due = |at: Option<MonoTime>| at.is_some_and(|at| at <= now.mono);
        if due(brains.outbox.poll_timeout()) {
            brains.outbox.wake(now);
        }
        if due(brains.replicator.poll_timeout()) {
            brains.replicator.wake(now);
        }
        if due(brains.postbox.poll_timeout()) {
            brains.postbox.wake(now);
        }
        if due(brains.fetch.poll_timeout()) {
            brains.fetch.wake(now);
        }
        if let Some(group) = brains.group.as_mut().filter(|group| wakes_group && due(group.poll_timeout())) {
            group.wake(now);
        }
        self.pump(p);
    }

    /// Whether the peer crashes here: before the effect, or after it.
    fn burns(&mut self, p: usize, after: bool) -> bool {
        match &mut self.peers[p].fuse {
            Some((0, at_end)) => *at_end == after,
            Some((left, _)) if after => {
                *left -= 1;
                false
            }
            _ => false,
        }
    }

    /// Does one thing that a brain wants.
    fn perform(&mut self, p: usize, wish: Wish) {
        if self.burns(p, false) {
            return self.crash(p);
        }
        let life = self.peers[p].life;
        self.say(|w| format!("{} -> {wish:?}", w.name(p)));
        match wish {
            Wish::Outbox(Effect::Act(action)) => self.act_outbox(p, action),
            Wish::Outbox(Effect::Reply(token, reply)) => self.reply_outbox(p, token, reply),
            Wish::Outbox(Effect::Feed(input)) => self.hand(p, Tell::Outbox(input)),
            Wish::Outbox(Effect::Commit { events, then }) => {
                self.note_misses(&events);
                let records = events.iter().map(|e| Record::Outbox(wire::encode(e))).collect();
                self.commit(p, records, then.into_iter().map(Wish::Outbox).collect());
            }
            Wish::Replicator(Effect::Act(action)) => self.act_replicator(p, action),
            Wish::Replicator(Effect::Reply(token, reply)) => self.reply_replicator(p, token, reply),
            Wish::Replicator(Effect::Feed(input)) => {
                if self.is(Saboteur::DropsUntold) {
                    self.drop_untold(p, &input);
                }
                self.hand(p, Tell::Replicator(input));
            }
            Wish::Replicator(Effect::Commit { events, then }) => {
                let records = events.iter().map(|e| Record::Replicator(wire::encode(e))).collect();
                self.commit(p, records, then.into_iter().map(Wish::Replicator).collect());
            }
            Wish::Postbox(Effect::Act(action)) => self.act_postbox(p, action),
            Wish::Postbox(Effect::Reply(token, reply)) => self.reply_postbox(p, token, reply),
            Wish::Postbox(Effect::Feed(input)) => self.hand(p, Tell::Postbox(input)),
            Wish::Postbox(Effect::Commit { events, then }) => {
                let records = events.iter().map(|e| Record::Postbox(wire::encode(e))).collect();
                self.commit(p, records, then.into_iter().map(Wish::Postbox).collect());
            }
            Wish::Fetch(Effect::Act(action)) => self.act_fetch(p, action),
            Wish::Fetch(Effect::Reply(token, reply)) => self.reply_fetch(p, token, reply),
            Wish::Fetch(Effect::Feed(input)) => self.hand(p, Tell::Fetch(input)),
            Wish::Fetch(Effect::Commit { .. }) => unreachable!("a fetch commits nothing"),
            Wish::Group(effect) => self.act_group(p, effect),
        }
        if self.peers[p].life == life && self.burns(p, true) {
            self.crash(p);
        }
    }

    pub(crate) fn commit(&mut self, p: usize, records: Vec<Record>, mut then: Vec<Wish>) {
        let life = self.peers[p].life;
        if !records.is_empty() {
            self.commits[p] += 1;
        }
        let early = if self.is(Saboteur::YesBeforeDurable) { std::mem::take(&mut then) } else { Vec::new() };
        self.peers[p].commits.push_back(Commit { records, then });
        let takes = self.rng.between(1, self.params.fsync_ms);
        // A journal without room waits.
        let from = self.full_until(p).unwrap_or(self.t);
        let at = (from + takes).max(self.peers[p].durable_at);
        self.peers[p].durable_at = at;
        self.later(at - self.t, Happening::Durable { p, life });
        for wish in early {
            if self.peers[p].life == life {
                self.perform(p, wish);
            }
        }
    }

    fn durable(&mut self, p: usize) {
        let life = self.peers[p].life;
        let Some(Commit { records, then }) = self.peers[p].commits.pop_front() else { return };
        for record in records {
            self.append(p, record);
        }
        for wish in then {
            if self.peers[p].life == life && self.violation.is_none() {
                self.perform(p, wish);
            }
        }
        self.pump(p);
    }

    /// Changes files, durably after a while; then `after`.
    pub(crate) fn disk(&mut self, p: usize, op: DiskOp, after: After) {
        let Some((op, after)) = self.refuse_write(p, op, after) else { return };
        let id = self.fresh();
        let life = self.peers[p].life;
        self.peers[p].ops.insert(id, (op, after));
        let takes = self.rng.between(1, self.params.fsync_ms);
        self.later(takes, Happening::DiskDone { p, life, op: id });
    }

    fn disk_done(&mut self, p: usize, op: u64) {
        let Some((op, after)) = self.peers[p].ops.remove(&op) else { return };
        self.peers[p].disk.apply(op);
        match after {
            After::Nothing => {}
            After::Tell(tell) => self.tell(p, *tell),
            After::Submit(submission) => {
                let token = self.wait(p, Waiter::Submit(submission));
                let spooled = self.peers[p].disk.spool[&submission].clone();
                self.tell(p, Tell::Outbox(outbox::Input::Submitted { token: Some(token), spooled }));
            }
        }
    }

    /// A token whose reply goes to `waiter`.
    pub(crate) fn wait(&mut self, p: usize, waiter: Waiter) -> Token {
        let token = self.fresh();
        self.peers[p].waiters.insert(token, waiter);
        Token(token)
    }
    /// Who waits for the reply with this token.
    pub(crate) fn waiter(&mut self, p: usize, token: Token) -> Waiter {
        self.peers[p].waiters.remove(&token.0).unwrap_or(Waiter::Nobody)
    }
}

/// Milliseconds of a length of time.
pub(crate) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}
