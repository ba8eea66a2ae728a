//! How runs go through their stages. It never decides what an answer means: that is the jobs' business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::carrier::Carrier;
use super::courier::{Arrival, Courier, Unreachable};
use super::get::{GetJob, LastRead};
use super::job::{Ask, CarryJob, DelJob, Job, Next, PutJob, Round as Closing};
use super::keep::Keeping;
use super::reunion::Reunion;
use super::ring::Ring;
use super::room::Limits;
use super::store::{Budget, Store};
use super::{Action, Counts, Dht, DhtError, Event, Input, Reply, Run, Stage, Status};
use crate::core::{Brain, Effect, Outgoing, Token, earliest};
use crate::model::dht::{DhtKey, VALUE_MAX};
use crate::model::{Digest, MonoTime, Now, PeerId, Secret, WallTime};
use crate::wire::PeerKey;
use crate::wire::dht::{Entry, Request, Response};

/// Most requests of this peer under way.
const RUNS_MAX: usize = 1024;
/// Most comparisons under way.
const CARRYING_MAX: usize = 64;
/// maxOps of Kangasharju et al.: how often an operation looks up the closest peers.
const TRIES_MAX: u32 = 3;
/// Before another look-up; the routing table needs a moment to notice what failed.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the last few are waited for when most have answered.
const GRACE: Duration = Duration::from_secs(2);
/// How long a look-up may take.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(20);
/// Keys whose last read is kept.
const LAST_READS_MAX: usize = 1024;
/// After a re-put that did not hand over everything.
const CARRY_ON_AFTER: Duration = Duration::from_secs(5);

impl Dht {
    /// The brain of the peer with this key. `seed` is random; it spreads timers.
    pub fn new(key: PeerKey, seed: u64) -> Self {
        Self::with_limits(key, seed, Limits::ENTRIES, Limits::TOMBSTONES)
    }

    /// As [`Dht::new`], with other bounds.
    pub fn with_limits(key: PeerKey, seed: u64, entries: Limits, tombstones: Limits) -> Self {
        let me = key.peer_id();
        Self {
            key,
            now: Now::default(),
            store: Store::new(entries, tombstones),
            ring: Ring::new(me),
            courier: Courier::default(),
            carrier: Carrier::new(seed),
            runs: BTreeMap::new(),
            last_run: 0,
            look_ups: BTreeMap::new(),
            parked: Vec::new(),
            own: VecDeque::new(),
            last_reads: BTreeMap::new(),
            counts: Counts::default(),
            keeping: Keeping::default(),
            reunion: Reunion::default(),
            out: Outgoing::default(),
        }
    }

    fn put(&mut self, token: Token, key: &DhtKey, value: bytes::Bytes, password: &Secret, expiry: WallTime) {
        let bytes = value.len();
        if bytes > VALUE_MAX {
            return self.out.reply(token, Reply::Put(Err(DhtError::TooLarge { bytes, limit: VALUE_MAX })));
        }
        if self.counts.under_way >= RUNS_MAX {
            return self.out.reply(token, Reply::Put(Err(DhtError::Busy { limit: RUNS_MAX })));
        }
        let key = key.hash();
        let entry = Entry::publish(&self.key, key, value, password, expiry);
        self.run(Some(token), key, Job::Put(PutJob::new(entry)));
    }

    fn get(&mut self, token: Token, key: &DhtKey, have: BTreeSet<Digest>, watch: bool) {
        if self.counts.under_way >= RUNS_MAX {
            return self.out.reply(token, Reply::Get(Err(DhtError::Busy { limit: RUNS_MAX })));
        }
        let key = key.hash();
        let turn = self.last_reads.get_mut(&key).filter(|_| watch).and_then(LastRead::watch);
        let job = GetJob::new(key, have, self.last_reads.get(&key), turn);
        self.run(Some(token), key, Job::Get(job));
    }

    fn del(&mut self, token: Token, key: &DhtKey, value: Digest, password: Secret) {
        if self.counts.under_way >= RUNS_MAX {
            return self.out.reply(token, Reply::Del(Err(DhtError::Busy { limit: RUNS_MAX })));
        }
        let key = key.hash();
        self.run(Some(token), key, Job::Del(DelJob::new(key, value, password)));
    }

    fn run(&mut self, token: Option<Token>, key: Digest, job: Job) {
        self.last_run += 1;
        match &job {
            Job::Carry(_) => self.counts.carrying += 1,
            Job::Put(_) | Job::Get(_) | Job::Del(_) => self.counts.under_way += 1,
        }
        let run = Run {
            token,
            key,
            job,
            stage: Stage::Looking,
            tries: 0,
            round: 0,
            waiting: BTreeMap::new(),
            targets: 0,
            asked: 0,
            grace: None,
        };
        self.runs.insert(self.last_run, run);
        self.begin(self.last_run);
    }

    /// Starts a run, or a new try of it.
    fn begin(&mut self, id: u64) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if let Job::Carry(job) = &run.job
            && let Some(with) = job.with()
        {
            return self.open(id, vec![with]);
        }
        run.stage = Stage::Looking;
        let key = run.key;
        if let Some(targets) = self.ring.targets(self.now.mono, &key) {
            return self.open(id, targets);
        }
        if let Some((_, waiting)) = self.look_ups.get_mut(&key) {
            return waiting.push(id);
        }
        if self.ring.is_small() && !self.look_ups.is_empty() {
            return self.parked.push(id);
        }
        self.counts.look_ups += 1;
        self.look_ups.insert(key, (self.now.mono + LOOK_UP_WITHIN, vec![id]));
        self.out.act(Action::FindClosest { key });
    }

    /// A look-up ended.
    fn closest(&mut self, key: Digest, mut peers: Vec<PeerId>) {
        let Some((_, waiting)) = self.look_ups.remove(&key) else { return };
        peers.retain(|peer| *peer != self.ring.me());
        let targets = self.ring.closest(&key, &peers);
        self.ring.found(self.now.mono, key, peers);
        for id in waiting {
            self.open(id, targets.clone());
        }
        for id in std::mem::take(&mut self.parked) {
            self.begin(id);
        }
    }

    /// Begins the first round of a try.
    fn open(&mut self, id: u64, targets: Vec<PeerId>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.tries += 1;
        run.targets = targets.len();
        let asks = run.job.open(&mut self.store, self.ring.me(), &targets);
        self.round(id, asks);
    }

    fn round(&mut self, id: u64, asks: Vec<Ask>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.stage = Stage::Asking;
        run.round += 1;
        run.grace = None;
        run.waiting = BTreeMap::new();
        let nothing = asks.is_empty();
        self.ask(id, asks);
        if nothing {
            return self.close(id);
        }
        if let Some(run) = self.runs.get_mut(&id) {
            run.asked = run.waiting.len();
        }
    }

    fn ask(&mut self, id: u64, asks: Vec<Ask>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        for (peer, op) in asks {
            *run.waiting.entry(peer).or_default() += 1;
            let round = (id, run.round);
            if peer == self.ring.me() {
                self.own.push_back((round, op));
            } else {
                self.courier.ask(self.now.mono, peer, round, op);
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let Arrival { run: (id, round), peer, answer } = arrival;
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.round == round) else { return };
        let Some(open) = run.waiting.get_mut(&peer) else { return };
        *open -= 1;
        if *open == 0 {
            run.waiting.remove(&peer);
        }
        let asks = run.job.take(&mut self.store, self.now.wall, peer, answer);
        self.ask(id, asks);
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.waiting.is_empty() {
            return self.close(id);
        }
        if run.grace.is_none() && run.waiting.len() * 2 < run.asked {
            run.grace = Some(self.now.mono + GRACE);
        }
    }

    /// Ends a round.
    fn close(&mut self, id: u64) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let may_retry = run.tries < TRIES_MAX;
        let (reply, next) = run.job.close(Closing { now: self.now.wall, targets: run.targets, may_retry });
        if let Some((token, reply)) = reply.and_then(|reply| Some((run.token.take()?, reply))) {
            self.out.reply(token, reply);
        }
        match next {
            Next::More(asks) => self.round(id, asks),
            Next::Again => {
                let key = run.key;
                run.stage = Stage::Pausing(self.now.mono + PAUSE * run.tries);
                // Answers of the round that ended count no more.
                run.round += 1;
                self.ring.forget(&key);
            }
            Next::Done => self.end(id),
        }
    }

    fn end(&mut self, id: u64) {
        let Some(run) = self.runs.remove(&id) else { return };
        match run.job {
            Job::Carry(job) => {
                self.counts.carrying -= 1;
                self.counts.carried += job.pushed();
                if job.wants_more() {
                    self.carrier.soon(run.key, self.now.mono + CARRY_ON_AFTER);
                }
                let targets = self.ring.targets(self.now.mono, &run.key);
                let mine = targets.is_none_or(|targets| targets.contains(&self.ring.me()));
                if job.is_complete() && !mine {
                    self.store.hand_over(&run.key);
                }
                return;
            }
            Job::Get(job) => {
                if let Some((key, read)) = job.last_read() {
                    if self.last_reads.len() >= LAST_READS_MAX && !self.last_reads.contains_key(&key) {
                        self.last_reads.pop_first();
                    }
                    self.last_reads.insert(key, read);
                }
            }
            Job::Put(_) | Job::Del(_) => {}
        }
        self.counts.under_way -= 1;
    }

    fn serve(&mut self, channel: u64, request: &Request) {
        let mut budget = Budget::response();
        let answers = request.ops.iter().map(|op| self.store.serve(self.now.wall, op, &mut budget)).collect();
        self.counts.served += u64::try_from(request.ops.len()).unwrap_or(u64::MAX);
        self.out.act(Action::Respond { channel, response: Response { answers } });
    }

    fn answered(&mut self, request: super::RequestId, result: Result<Response, Unreachable>) {
        match (&result, self.courier.peer_of(request)) {
            (Err(Unreachable), Some(peer)) => self.failed(peer),
            (Ok(_), Some(peer)) => self.heard_of(peer),
            (_, None) => {}
        }
        for arrival in self.courier.landed(request, result) {
            self.arrived(arrival);
        }
    }

    /// A peer could not be reached: others take its place.
    fn failed(&mut self, peer: PeerId) {
        let keys = self.ring.range_of(&peer, self.store.keys());
        self.ring.failed(&peer);
        if self.is_missed(peer) && self.carrier.is_news(self.now.mono, peer) {
            self.carrier.after_failure(self.now.mono, keys);
        }
    }

    /// Starts comparisons that are due, as far as there is room.
    fn carry(&mut self) {
        let now = self.now.mono;
        for peer in self.carrier.due_newcomers(now) {
            if !self.ring.is_connected(&peer) {
                continue;
            }
            let keys = self.ring.range_of(&peer, self.store.keys());
            self.carrier.with_newcomer(peer, keys);
        }
        if self.carrier.is_sweep_due(now) {
            for key in self.store.keys() {
                self.carrier.soon(*key, now);
            }
            self.carrier.schedule_sweep(now);
        }
        while self.counts.carrying < CARRYING_MAX
            && let Some((peer, key)) = self.carrier.next_pair()
        {
            self.run(None, key, Job::Carry(CarryJob::new(key, Some(peer))));
        }
        while self.counts.carrying < CARRYING_MAX
            && let Some(key) = self.carrier.due_key(now)
        {
            self.run(None, key, Job::Carry(CarryJob::new(key, None)));
        }
    }

    /// Does for itself what it asked of itself, and sends what is due.
    fn settle(&mut self) {
        self.carry();
        self.reunite();
        while let Some((run, op)) = self.own.pop_front() {
            let answer = Ok(self.store.serve(self.now.wall, &op, &mut Budget::own()));
            self.arrived(Arrival { run, peer: self.ring.me(), answer });
        }
        while let Some((request, peer, body)) = self.courier.due(self.now.mono) {
            self.counts.requests += 1;
            self.out.act(Action::Send { request, peer, body });
        }
        self.keep();
    }

    /// What time brought.
    fn tick(&mut self) {
        let now = self.now.mono;
        self.store.expire(self.now.wall);
        while let Some(request) = self.courier.overdue(now) {
            self.answered(request, Err(Unreachable));
        }
        let late = |(key, (until, _)): (&Digest, &(MonoTime, Vec<u64>))| (*until <= now).then_some(*key);
        for key in self.look_ups.iter().filter_map(late).collect::<Vec<_>>() {
            self.closest(key, Vec::new());
        }
        let due = |run: &Run| match run.stage {
            Stage::Looking => false,
            Stage::Asking => run.grace.is_some_and(|at| at <= now),
            Stage::Pausing(until) => until <= now,
        };
        for id in self.runs.iter().filter(|(_, run)| due(run)).map(|(id, _)| *id).collect::<Vec<_>>() {
            match self.runs.get(&id).map(|run| &run.stage) {
                Some(Stage::Asking) => self.close(id),
                Some(Stage::Pausing(_)) => self.begin(id),
                Some(Stage::Looking) | None => {}
            }
        }
    }
}

impl Brain for Dht {
    const NAME: &'static str = "dht";
    type Input = Input;
    type Action = Action;
    type Event = Event;
    type Reply = Reply;
    type Status = Status;

    fn replay(&mut self, event: Event) {
        match event {}
    }

    fn snapshot(&self) -> Vec<Event> {
        Vec::new()
    }

    fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Start => self.carrier.schedule_sweep(now.mono),
            Input::Put { token, key, value, password, expiry } => self.put(token, &key, value, &password, expiry),
            Input::Get { token, key, have, watch } => self.get(token, &key, have, watch),
            Input::Del { token, key, value, password } => self.del(token, &key, value, password),
            Input::Closest { key, peers } => self.closest(key, peers),
            Input::Answer { request, result } => self.answered(request, result),
            Input::Serve { channel, from, request } => {
                self.heard_of(from);
                self.serve(channel, &request);
            }
            Input::PeerUp(peer) => self.is_up(peer),
            Input::PeerDown(peer) => {
                self.ring.down(&peer);
                self.reunion.arm(now.mono);
            }
            Input::Known(known) => {
                self.store.know(known);
                self.reunion.arm(now.mono);
            }
            Input::Restore(records) => self.restore(records),
            Input::Restored => self.restored(),
            Input::Kept(written) => self.kept(written),
            Input::KeepNow => self.keep_now(),
        }
        self.settle();
    }

    fn wake(&mut self, now: Now) {
        self.now = now;
        self.tick();
        self.settle();
    }

    fn poll_effect(&mut self) -> Option<Effect<Self>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<MonoTime> {
        let runs = self.runs.values().map(|run| match run.stage {
            Stage::Looking => None,
            Stage::Asking => run.grace,
            Stage::Pausing(until) => Some(until),
        });
        let look_ups = self.look_ups.values().map(|(until, _)| Some(*until));
        let expiry = self.store.next_expiry().map(|at| self.now.mono + at.since(self.now.wall));
        // A full house wakes when a comparison ends.
        let carrier = if self.counts.carrying < CARRYING_MAX { self.carrier.poll_timeout() } else { None };
        earliest(runs.chain(look_ups).chain([
            expiry,
            carrier,
            self.courier.poll_timeout(),
            self.keeping.poll_timeout(),
            self.reunion.poll_timeout(),
        ]))
    }

    fn observe(&self, _: Now) -> Status {
        let (entries, tombstones) = (self.store.entries(), self.store.tombstones());
        Status {
            peers: self.ring.connected().count(),
            keys: self.store.key_count(),
            entries: entries.entries,
            tombstones: tombstones.entries,
            bytes: entries.bytes + tombstones.bytes,
            refused: self.store.refused().map(|(why, count)| (why.code().to_owned(), count)).collect(),
            served: self.counts.served,
            under_way: self.counts.under_way,
            carrying: self.counts.carrying,
            carried: self.counts.carried,
            look_ups: self.counts.look_ups,
            requests: self.counts.requests,
            unwritten: self.store.changes() + self.keeping.under_way(),
        }
    }
}
