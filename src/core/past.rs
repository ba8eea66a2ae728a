//! What a brain's durable state was after each of its commits, for tests: replaying any beginning of its journal must give a state
//! that was once true. It is in no build but the tests'.

use std::collections::BTreeMap;
use std::fmt;

use super::Brain;
use crate::wire::laws::is_failing;
use crate::wire::{decode, encode};

/// Commits up to which states are kept, and bytes up to which one is: beyond, a test is about something else.
const COMMITS_MAX: usize = 150;
const STATE_BYTES_MAX: usize = 16 * 1024;
/// Without a commit a state is taken again only every so many rests: what changed unseen shows at the next commit at the latest.
const RESTS: u32 = 100;

/// An event as the journal keeps it.
type Written = Vec<u8>;

/// One life of a brain: what it was given to replay, what it asked to be made durable since, and which states it had meanwhile.
/// They are compared when the next life starts, and when a test ends.
///
/// States are taken when a brain has been told something and its effects were taken, which may be several commits later. That the
/// state between those commits was once true, too, is what [`super::Outgoing::commit`] looks after.
///
/// Two things are not promised, and a brain's test world says where it makes use of that: what time alone ends is forgotten
/// without an event, so a replay knows it again until it looks; and a detail that is not worth a record may be the older one.
pub(crate) struct Past<B: Brain> {
    fresh: Box<dyn Fn() -> B>,
    /// Whether this of a snapshot is forgotten when its time is over.
    forgotten: fn(&B::Event) -> bool,
    /// Of a snapshot without the details that may be older.
    plain: fn(B::Event) -> B::Event,
    /// What it replayed, as one, and each commit with events.
    commits: Vec<Vec<Written>>,
    /// After so many commits.
    states: BTreeMap<usize, Vec<Written>>,
    rests: u32,
    /// Its state has become too large.
    large: bool,
}

impl<B: Brain> fmt::Debug for Past<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Past({} states in {} commits)", self.states.len(), self.commits.len())
    }
}

impl<B: Brain> Drop for Past<B> {
    fn drop(&mut self) {
        if !is_failing() {
            self.compare();
        }
    }
}

fn written<B: Brain>(events: &[B::Event]) -> Vec<Written> {
    events.iter().map(encode).collect()
}

fn replay<B: Brain>(brain: &mut B, events: &[Written]) {
    events.iter().for_each(|event| brain.replay(decode(event).unwrap()));
}

impl<B: Brain> Past<B> {
    /// Of a brain that has replayed nothing; `fresh` makes another.
    pub(crate) fn new(fresh: impl Fn() -> B + 'static) -> Self {
        Self {
            fresh: Box::new(fresh),
            forgotten: |_| false,
            plain: |event| event,
            commits: vec![Vec::new()],
            states: BTreeMap::new(),
            rests: 0,
            large: false,
        }
    }
    /// Some of it is forgotten when its time is over.
    pub(crate) fn forgetting(mut self, forgotten: fn(&B::Event) -> bool) -> Self {
        self.forgotten = forgotten;
        self
    }
    /// Some details may be older.
    pub(crate) fn but_for(mut self, plain: fn(B::Event) -> B::Event) -> Self {
        self.plain = plain;
        self
    }
    /// The next life starts with this journal.
    pub(crate) fn start(&mut self, journal: &[B::Event]) {
        self.compare();
        (self.states, self.large) = (BTreeMap::new(), false);
        self.commits = vec![written::<B>(journal)];
    }
    /// The brain asks for these events to be made durable, after all others.
    pub(crate) fn asks(&mut self, events: &[B::Event]) {
        if !events.is_empty() {
            self.commits.push(written::<B>(events));
        }
    }
    /// The brain wants nothing done at the moment.
    pub(crate) fn rests(&mut self, brain: &B) {
        let at = self.commits.len();
        self.rests += 1;
        let again = self.states.contains_key(&at);
        if self.large || at > COMMITS_MAX || again && !self.rests.is_multiple_of(RESTS) {
            return;
        }
        let state = self.state(brain);
        self.large = state.iter().map(Vec::len).sum::<usize>() > STATE_BYTES_MAX;
        self.states.insert(at, state);
    }
    fn state(&self, brain: &B) -> Vec<Written> {
        written::<B>(&brain.snapshot().into_iter().map(self.plain).collect::<Vec<B::Event>>())
    }
    /// Replays commit by commit; gives how many states were compared.
    pub(crate) fn compare(&self) -> usize {
        let (mut brain, mut compared) = ((self.fresh)(), 0);
        let last = self.states.keys().next_back().copied().unwrap_or(0);
        for (at, events) in (1..).zip(self.commits.iter().take(last)) {
            replay(&mut brain, events);
            if let Some(was) = self.states.get(&at) {
                let mut now = self.state(&brain);
                now.retain(|event| was.contains(event) || !(self.forgotten)(&decode(event).unwrap()));
                Self::same(&format!("its state after {at} commits, replayed"), was, &now);
                compared += 1;
            }
            // A journal that is compacted there is the same beginning.
            let (now, mut compacted) = (written::<B>(&brain.snapshot()), (self.fresh)());
            replay(&mut compacted, &now);
            Self::same(&format!("its state after {at} commits, compacted"), &now, &written::<B>(&compacted.snapshot()));
        }
        compared
    }

    fn same(what: &str, was: &[Written], is: &[Written]) {
        let shown = |events: &[Written], others: &[Written]| -> Vec<B::Event> {
            events.iter().filter(|event| !others.contains(event)).map(|event| decode(event).unwrap()).collect()
        };
        assert!(
            was == is,
            "{}: {what}, is another: it had\n{:?}\nand now has\n{:?}",
            B::NAME,
            shown(was, is),
            shown(is, was)
        );
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::core::{Effect, Outgoing};
    use crate::model::{MonoTime, Now};

    /// Counts what it is told, and writes the sums down.
    #[derive(Default)]
    struct Counter {
        sum: u64,
        out: Outgoing<Self>,
    }

    impl Brain for Counter {
        const NAME: &'static str = "counter";
        type Input = u64;
        type Action = ();
        type Event = u64;
        type Reply = ();
        type Status = ();
        fn replay(&mut self, event: u64) {
            self.sum = event;
        }
        fn snapshot(&self) -> Vec<u64> {
            vec![self.sum]
        }
        fn handle(&mut self, _: Now, input: u64) {
            self.sum += input;
        }
        fn wake(&mut self, _: Now) {}
        fn poll_effect(&mut self) -> Option<Effect<Self>> {
            self.out.pop()
        }
        fn poll_timeout(&self) -> Option<MonoTime> {
            None
        }
        fn observe(&self, _: Now) {}
    }

    fn life(written: [u64; 3]) -> (usize, usize) {
        let (mut brain, mut past) = (Counter::default(), Past::new(Counter::default));
        past.rests(&brain);
        for event in written {
            brain.handle(Now::default(), 1);
            past.asks(&[event]);
            past.rests(&brain);
        }
        let compared = past.compare();
        past.start(&[3]);
        (compared, past.compare())
    }

    #[test]
    fn a_brain_that_does_not_write_down_what_it_did_is_caught() {
        assert_eq!(life([1, 2, 3]), (4, 0));
        assert!(catch_unwind(|| life([1, 5, 3])).is_err());
    }

    #[test]
    fn a_brain_that_changes_without_a_commit_is_caught() {
        let quiet = || {
            let (mut brain, mut past) = (Counter::default(), Past::new(Counter::default));
            past.rests(&brain);
            brain.handle(Now::default(), 1);
            (1..RESTS).for_each(|_| past.rests(&brain));
        };
        assert!(catch_unwind(quiet).is_err());
    }

    #[test]
    fn what_is_forgotten_in_time_may_come_back_and_nothing_else() {
        let life = |more: u64| {
            let mut past = Past::new(Counter::default).forgetting(|sum| *sum == 7);
            past.asks(&[more]);
            // As if it had forgotten all.
            past.states.insert(2, Vec::new());
            past.compare()
        };
        assert_eq!(life(7), 1);
        assert!(catch_unwind(|| life(8)).is_err());
    }

    #[test]
    fn a_detail_that_is_not_promised_may_differ() {
        let (mut brain, mut past) = (Counter::default(), Past::new(Counter::default).but_for(|sum| sum % 10));
        brain.handle(Now::default(), 12);
        past.asks(&[2]);
        past.rests(&brain);
        assert_eq!(past.compare(), 1);
    }

    #[test]
    fn a_commit_that_is_not_of_what_was_applied_last_is_caught() {
        let mut brain = Counter::default();
        brain.out.applied(1);
        brain.out.commit(vec![1], Vec::new());
        brain.out.applied(2);
        // Neither another's events first, nor a yes that does not wait for them.
        for events in [vec![3], vec![]] {
            assert!(catch_unwind(AssertUnwindSafe(|| brain.out.commit(events, Vec::new()))).is_err());
        }
    }
}
