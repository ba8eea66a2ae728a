//! An outbox to which anything happens in any order: mails, members' words in and out of order, audits, readers' words, cancels, power
//! cuts, days. Whatever it is: what was accepted is listed until it ends for a reason (R1, R4), safe(f) is never shown above what the
//! members said (R8), and when everything works again all comes to its end. What a replay gives is held against by `World` itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::world::{Rules, World, address, fingerprint, key, roster, submission};
use super::*;
use crate::core::outbox::io::WaitingStatus;
use crate::model::holding::{Holding, Holdings};
use crate::wire::Signed;

/// By how they are told of a mail; nobody is unknown, and alice is the sender.
const READERS: [&str; 5] = ["bob@acme", "rita@readers", "carl@far", "nobody@acme", "alice@acme"];

#[derive(Debug, Clone)]
enum Op {
    Submit {
        to: u8,
        bcc: u8,
    },
    Says {
        member: u8,
        mail: usize,
        part: u8,
        state: u8,
        is_delayed: bool,
    },
    /// A word comes that was signed before; it may have come already.
    Comes(usize),
    Missed {
        member: u8,
        mail: usize,
    },
    /// A member compares, and hears what it could not show.
    Compares(u8),
    Lost(u8),
    Answers {
        mail: usize,
        reader: usize,
        outcome: u8,
        is_forged: bool,
    },
    Cancel(usize),
    Served {
        mail: usize,
        caller: u8,
    },
    /// Who is away, whether the DHT and the postbox work, whose certificate is late.
    Outside(u8),
    Doubt(bool),
    Pass(u64),
    Stop,
    Crash,
    /// Power fails after so many steps.
    PowerCut(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (member, mail) = (2..7u8, || any::<usize>());
    let says = (member.clone(), mail(), 0..9u8, 0..8u8, any::<bool>());
    let answers = (mail(), 0..READERS.len(), 0..4u8, 0..4u8);
    prop_oneof![
        4 => (1..32u8, 0..32u8).prop_map(|(to, bcc)| Op::Submit { to, bcc: bcc & (bcc >> 2) }),
        8 => says.prop_map(|(member, mail, part, state, is_delayed)| Op::Says { member, mail, part, state, is_delayed }),
        2 => any::<usize>().prop_map(Op::Comes),
        2 => (member.clone(), mail()).prop_map(|(member, mail)| Op::Missed { member, mail }),
        2 => member.prop_map(Op::Compares),
        1 => (0..32u8).prop_map(Op::Lost),
        3 => answers.prop_map(|(mail, reader, outcome, f)| Op::Answers { mail, reader, outcome, is_forged: f == 0 }),
        1 => any::<usize>().prop_map(Op::Cancel),
        1 => (mail(), 2..9u8).prop_map(|(mail, caller)| Op::Served { mail, caller }),
        2 => any::<u8>().prop_map(Op::Outside),
        1 => any::<bool>().prop_map(Op::Doubt),
        4 => (0..600u64).prop_map(Op::Pass),
        1 => (0..200_000u64).prop_map(Op::Pass),
        1 => Just(Op::Stop),
        1 => Just(Op::Crash),
        2 => (1..40usize).prop_map(Op::PowerCut),
    ]
}

/// What a member signed about one part.
#[derive(Clone)]
struct Letter {
    member: u8,
    h: MailId,
    part: Part,
    state: HoldingState,
    at: WallTime,
    heard: WallTime,
}

/// What the outbox was told of one part, in the order in which it was.
enum Told {
    /// Without an answer (`false`) it may have been taken or not.
    Word(Letter, bool),
    /// An audit missed all that this member holds of this mail.
    Miss(u8, MailId, WallTime),
}

struct Life {
    world: World,
    submitted: u8,
    accepted: BTreeSet<u8>,
    cancelled: BTreeSet<SubmissionId>,
    /// What readers really said.
    answered: Vec<(SubmissionId, Address, EndedAs)>,
    ends: BTreeMap<(SubmissionId, Address), EndedAs>,
    letters: Vec<Letter>,
    told: Vec<Told>,
    /// What each member signed last, and up to when it heard of misses.
    signed: BTreeMap<u8, WallTime>,
    heard: BTreeMap<u8, WallTime>,
    /// Starts so far.
    crashes: usize,
}

impl Life {
    fn new() -> Self {
        let rules = Rules { unknown: [address("nobody@acme")].into(), ..Rules::default() };
        Self {
            world: World::new(5, rules),
            submitted: 0,
            accepted: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            answered: Vec::new(),
            ends: BTreeMap::new(),
            letters: Vec::new(),
            told: Vec::new(),
            signed: BTreeMap::new(),
            heard: BTreeMap::new(),
            crashes: 0,
        }
    }
    fn mail(&self, n: usize) -> Option<MailId> {
        let mails = &self.world.brain.state.mails;
        mails.keys().nth(n.checked_rem(mails.len())?).copied()
    }
    /// Asks; without an answer where power failed meanwhile.
    fn ask(&mut self, question: impl FnOnce(Token) -> Input) -> Option<Reply> {
        let token = Token(self.world.fresh());
        self.world.tell(question(token));
        self.world.settle();
        self.world.replies.get(&token).cloned()
    }

    fn happens(&mut self, op: Op) {
        match op {
            Op::Submit { to, bcc } => self.submit(to, bcc & !to),
            Op::Says { member, mail, part, state, is_delayed } => self.says(member, mail, part, state, is_delayed),
            Op::Comes(n) => {
                if let Some(at) = n.checked_rem(self.letters.len()) {
                    self.comes(self.letters[at].clone());
                }
            }
            Op::Missed { member, mail } => self.missed(member, mail),
            Op::Compares(member) => {
                let (who, digests) = (key(member).peer_id(), crate::model::holding::bucket_digests([]));
                let reply = self.ask(|token| Input::HoldingBuckets { token, member: who, digests });
                if let Some(Reply::Differ { missed, .. }) = reply {
                    self.heard.insert(member, missed.upto);
                }
            }
            Op::Lost(which) => {
                let lost = (0..5).filter(|n| which >> n & 1 == 1).map(|n| key(n + 2).peer_id()).collect();
                self.world.tell(Input::Roster(Arc::new(Roster { lost, ..(*roster(5)).clone() })));
            }
            Op::Answers { mail, reader, outcome, is_forged } => self.answers(mail, reader, outcome, is_forged),
            Op::Cancel(n) => self.cancel(n),
            Op::Served { mail, caller } => {
                if let Some(h) = self.mail(mail) {
                    self.ask(|token| Input::Serving { token, h, caller: key(caller).peer_id() });
                }
            }
            Op::Outside(how) => self.outside(how),
            Op::Doubt(doubtful) => self.world.tell(Input::ClockDoubtful(doubtful)),
            Op::Pass(seconds) => self.world.run(Duration::from_secs(seconds)),
            Op::Stop => {
                self.ask(|token| Input::Stopping { token });
                self.world.crash();
            }
            Op::Crash => self.world.crash(),
            Op::PowerCut(steps) => self.world.fuse = Some(self.world.steps + steps),
        }
        self.world.settle();
        if self.world.crashes > self.crashes {
            // No request outlives a restart of the peer that it is for.
            self.letters.clear();
            self.crashes = self.world.crashes;
        }
    }
    fn submit(&mut self, to: u8, bcc: u8) {
        let of = |mask: u8| (0..READERS.len()).filter(|n| mask >> n & 1 == 1).map(|n| READERS[n]).collect::<Vec<_>>();
        self.submitted += 1;
        let n = self.submitted;
        self.world.submit(n, &of(to), &of(bcc));
        self.world.settle();
        if self.world.replies.get(&Token(n.into())) == Some(&Reply::Accepted) {
            self.accepted.insert(n);
        }
    }
    fn says(&mut self, member: u8, mail: usize, part: u8, state: u8, is_delayed: bool) {
        let Some(h) = self.mail(mail) else { return };
        let part = part.checked_sub(1).map_or(Part::Whole, |i| Part::Fragment { k: 3 - i / 5, i: i % 5 });
        let state = match state {
            0 => HoldingState::Lost,
            1 => HoldingState::Dropped { served: vec![(key(9).peer_id(), 5)] },
            2 => HoldingState::Refused(crate::model::holding::HoldingRefusal::Quota),
            _ => HoldingState::Held,
        };
        let before = self.signed.get(&member).copied().unwrap_or_default();
        let at = self.world.now.wall.max(before + Duration::from_millis(1));
        self.signed.insert(member, at);
        let heard = self.heard.get(&member).copied().unwrap_or_default();
        let letter = Letter { member, h, part, state, at, heard };
        self.letters.push(letter.clone());
        if !is_delayed {
            self.comes(letter);
        }
    }
    fn comes(&mut self, letter: Letter) {
        let Letter { member, h, part, state, at, heard } = letter.clone();
        let (owner, items) = (key(1).peer_id(), vec![Holding { h, part, state }]);
        let who = key(member);
        let batch = who.sign(Holdings { member: who.peer_id(), owner, at, items, heard: Some(heard) });
        let batch = Signed::verify(batch.as_bytes()).unwrap();
        let reply = self.ask(|token| Input::Holdings { token, batch });
        if matches!(reply, None | Some(Reply::HoldingsTaken)) {
            self.told.push(Told::Word(letter, reply.is_some()));
        }
    }
    fn missed(&mut self, member: u8, mail: usize) {
        let Some(h) = self.mail(mail) else { return };
        let which = (key(member).peer_id(), h);
        let before = self.world.brain.state.misses.get(&which).copied();
        self.world.tell(Input::AuditMissed { member: which.0, h });
        self.world.settle();
        let now = self.world.brain.state.misses.get(&which).copied();
        self.told.extend(now.filter(|_| now != before).map(|at| Told::Miss(member, h, at)));
    }
    fn answers(&mut self, mail: usize, reader: usize, outcome: u8, is_forged: bool) {
        let Some(h) = self.mail(mail) else { return };
        let mail = &self.world.brain.state.mails[&h];
        let (of, reader) = (mail.submission, address(READERS[reader]));
        let (outcome, why) = match outcome {
            0 => (Outcome::Refused(Refusal::Unread), EndedAs::Refused(Refusal::Unread)),
            1 => (Outcome::Refused(Refusal::Mismatch), EndedAs::Refused(Refusal::Mismatch)),
            _ => (Outcome::Received, EndedAs::Received),
        };
        let is_to_it = mail.receivers.contains(&reader);
        let nr = self.world.nr(h, of, &reader, outcome);
        let signer = fingerprint(&if is_forged { address("eve@acme") } else { reader.clone() });
        let reply = self.ask(|token| Input::Nr { from: NrFrom::Direct(token), nr, signer });
        let is_right = is_to_it && !is_forged;
        assert!(is_right || reply != Some(Reply::NrTaken), "a forged nr, or a stranger's, is taken");
        if is_right {
            self.answered.push((of, reader.clone(), why));
        }
        if reply == Some(Reply::NrTaken) {
            let receiver = self.world.brain.state.receiver(&of, &reader);
            assert!(receiver.is_none_or(|r| r.end.is_some()), "an nr that was taken ends it");
        }
    }
    fn cancel(&mut self, n: usize) {
        let all: Vec<SubmissionId> = self.world.brain.state.submissions.keys().copied().collect();
        let Some(at) = n.checked_rem(all.len()) else { return };
        self.cancelled.insert(all[at]);
        self.ask(|token| Input::Cancel { token, target: CancelTarget::Submission(all[at]) });
    }
    fn outside(&mut self, how: u8) {
        let is = |bit: u8| how >> bit & 1 == 1;
        let rules = &mut self.world.rules;
        rules.away = READERS.iter().zip(0..3).filter(|(_, bit)| is(*bit)).map(|(who, _)| address(who)).collect();
        (rules.dht_down, rules.postbox_down, rules.slow_disk) = (is(3), is(4), is(5));
        rules.silent = if is(6) { [key(3).peer_id()].into() } else { BTreeSet::new() };
        let until = self.world.now.wall + 10 * MINUTE;
        rules.late = if is(7) { [(address("carl@far"), until)].into() } else { BTreeMap::new() };
    }

    /// Whether it may be, by all that was said, that a member holds a part: that its latest word says so, and that it had looked again
    /// when it said that after a missed audit.
    fn may_hold(&self, member: u8, h: MailId, part: Part) -> bool {
        // One that was not answered may be taken later, and there may be nothing left of what was missed.
        let is_open = |told: &Told| matches!(told, Told::Word(l, false) if (l.member, l.h) == (member, h) && l.state != HoldingState::Held);
        let has_open = self.told.iter().any(is_open);
        let (mut missed, mut latest, mut held) = (None, WallTime::default(), None);
        for told in &self.told {
            match told {
                Told::Miss(who, of, at) if (*who, *of) == (member, h) => (missed, held) = (Some(*at), None),
                Told::Word(letter, is_sure) if (letter.member, letter.h) == (member, h) => {
                    let is_held = letter.state == HoldingState::Held;
                    missed = missed.filter(|_| is_held && !has_open);
                    if letter.part == part && is_held && missed.is_none_or(|at| letter.heard >= at) {
                        held = held.max(Some(letter.at));
                    }
                    if letter.part == part && (*is_sure || is_held) {
                        latest = latest.max(letter.at);
                    }
                }
                _ => {}
            }
        }
        held.is_some_and(|at| at >= latest)
    }
    /// The most members that may go, whichever, so that the others still make the mail; -1 when they do not as it is. By trying all.
    fn true_safe(&self, h: MailId) -> i32 {
        let roster = &self.world.brain.roster;
        let counts = (2..7u8).filter(|n| !roster.lost.contains(&key(*n).peer_id()));
        let all =
            || std::iter::once(Part::Whole).chain((2..=3).flat_map(|k| (0..5).map(move |i| Part::Fragment { k, i })));
        let held: Vec<BTreeSet<Part>> =
            counts.map(|n| all().filter(|part| self.may_hold(n, h, *part)).collect()).collect();
        let is_readable = |left: u32| {
            let there = || held.iter().zip(0..).filter(|(_, n)| left >> n & 1 == 1).flat_map(|(parts, _)| parts);
            let of = |k: u8| {
                there().filter(|p| matches!(p, Part::Fragment { k: of, .. } if *of == k)).collect::<BTreeSet<_>>()
            };
            there().any(|part| *part == Part::Whole) || of(2).len() >= 2 || of(3).len() >= 3
        };
        let members = u32::try_from(held.len()).unwrap();
        let gone =
            (0..1_u32 << members).filter(|left| !is_readable(*left)).map(|left| members - left.count_ones()).min();
        i32::try_from(gone.unwrap_or(members)).unwrap() - 1
    }

    fn listed(&mut self) -> Vec<WaitingStatus> {
        match self.ask(|token| Input::List { token, after: None, last: 1000 }) {
            Some(Reply::Waiting { some, total }) => {
                assert_eq!(some.len(), total);
                some
            }
            other => panic!("{other:?}"),
        }
    }
    fn check(&mut self) {
        // No power fails while it is looked.
        let fuse = self.world.fuse.take().and_then(|fuse| fuse.checked_sub(self.world.steps));
        self.check_all();
        self.world.fuse = fuse.filter(|left| *left > 0).map(|left| self.world.steps + left);
    }
    fn check_all(&mut self) {
        let listed = self.listed();
        let waiting: BTreeSet<SubmissionId> = listed.iter().map(|status| status.submission).collect();
        for n in self.accepted.clone().into_iter().map(submission) {
            let all = self.world.brain.state.submissions.get(&n).map(|s| s.receivers.clone());
            let is_over = all.as_ref().is_none_or(|all| all.values().all(|r| r.end.is_some()));
            assert!(all.is_some() || self.ends.keys().any(|(of, _)| *of == n), "{n} was accepted and is forgotten");
            assert_eq!(is_over, !waiting.contains(&n), "{n} is listed until it ends");
            for (who, receiver) in all.iter().flatten() {
                self.check_end(n, who, receiver.end.as_ref().map(|end| end.why));
            }
            let needs_spool = self.world.brain.state.submissions.get(&n).is_some_and(|s| s.needs_spool());
            assert!(!needs_spool || self.world.outside.spool.contains_key(&n), "{n} has no spool file any more");
        }
        for mail in listed.iter().flat_map(|status| &status.mails) {
            let most = self.true_safe(mail.h);
            assert!(
                mail.safe <= most,
                "{} is shown as safe({}), by its members' words it is safe({most})",
                mail.h,
                mail.safe
            );
            assert!(self.world.outside.blobs.contains(&mail.h), "{} waits and is not on the disk", mail.h);
        }
        self.world.brain.check_counts();
    }
    /// R4: nothing ends without its reason, and what ended stays so.
    fn check_end(&mut self, n: SubmissionId, who: &Address, end: Option<EndedAs>) {
        let before = self.ends.get(&(n, who.clone())).copied();
        let Some(why) = end else { return assert_eq!(before, None, "{n} had ended for {who}") };
        let is_same =
            before.is_none_or(|before| before == why || before == EndedAs::Cancelled && why == EndedAs::Received);
        assert!(is_same, "{n} ended for {who} as {before:?} and now as {why:?}");
        self.ends.insert((n, who.clone()), why);
        let expiry = self.world.brain.state.submissions[&n].facts.expiry;
        let has_reason = match why {
            EndedAs::Received | EndedAs::Refused(_) => self.answered.contains(&(n, who.clone(), why)),
            EndedAs::Filed => *who == address("alice@acme"),
            EndedAs::UnknownAddress => *who == address("nobody@acme"),
            EndedAs::Cancelled => self.cancelled.contains(&n),
            EndedAs::Expired => expiry <= self.world.now.wall,
            EndedAs::Lost | EndedAs::Forgotten => false,
        };
        assert!(has_reason, "{n} ended for {who} as {why:?}, for no reason");
    }
    /// Everything works again, and time passes.
    fn heals(&mut self) {
        self.world.fuse = None;
        let unknown = std::mem::take(&mut self.world.rules.unknown);
        self.world.rules = Rules { unknown, ..Rules::default() };
        self.world.tell(Input::ClockDoubtful(false));
        self.world.run(9 * DAY);
        self.check();
        assert!(self.listed().is_empty(), "all comes to its end");
        let outside = &self.world.outside;
        // An ns of which a power cut kept back that it was put stays in the DHT until it expires; the shelf here forgets nothing.
        assert!(outside.blobs.is_empty(), "a sealed mail stays: {:?}", outside.blobs);
        assert!(outside.spool.is_empty(), "a spool file stays: {:?}", outside.spool);
        let due = self.ends.values().filter(|why| why.sends_dsn()).count();
        assert!(outside.dsns.len() >= due, "its sender hears of what was not received");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES asks for more.
        cases: ProptestConfig::default().cases / 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn r1_r4_r8_whatever_happens_to_an_outbox(ops in proptest::collection::vec(op(), 1..40)) {
        let mut life = Life::new();
        for op in ops {
            life.happens(op);
            life.check();
        }
        life.heals();
    }
}
