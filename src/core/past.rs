//! What a brain's durable state was after so many of its events, for tests: replaying any beginning of its journal must give a
//! state that was once true. It is in no build but the tests'.

use std::collections::BTreeMap;
use std::fmt;

use super::Brain;
use crate::wire::{decode, encode};

/// Events up to which states are kept, and bytes of a state that is: beyond, a test is about something else.
const EVENTS_MAX: usize = 400;
const STATE_BYTES_MAX: u64 = 64 * 1024;

/// One life of a brain: what it was given to replay, what it asked to be made durable since, and which states it had meanwhile.
/// They are compared when the next life starts, and when a test ends.
pub(crate) struct Past<B: Brain> {
    fresh: Box<dyn Fn() -> B>,
    events: Vec<Vec<u8>>,
    states: BTreeMap<usize, Vec<u8>>,
}

impl<B: Brain> fmt::Debug for Past<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Past({} states in {} events)", self.states.len(), self.events.len())
    }
}

impl<B: Brain> Drop for Past<B> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.compare();
        }
    }
}

impl<B: Brain> Past<B> {
    /// Of a brain that has replayed nothing; `fresh` makes another.
    pub(crate) fn new(fresh: impl Fn() -> B + 'static) -> Self {
        Self { fresh: Box::new(fresh), events: Vec::new(), states: BTreeMap::new() }
    }
    /// The next life starts with this journal.
    pub(crate) fn start(&mut self, journal: &[B::Event]) {
        self.compare();
        self.states.clear();
        self.events = journal.iter().map(encode).collect();
    }
    /// The brain asks for these events to be made durable, after all others.
    pub(crate) fn asks(&mut self, events: &[B::Event]) {
        self.events.extend(events.iter().map(encode));
    }
    /// The brain wants nothing done at the moment.
    pub(crate) fn rests(&mut self, brain: &B) {
        let at = self.events.len();
        if at <= EVENTS_MAX && !self.states.contains_key(&at) && brain.live_bytes() <= STATE_BYTES_MAX {
            self.states.insert(at, encode(&brain.snapshot()));
        }
    }
    /// Replays event by event; gives how many states were compared.
    pub(crate) fn compare(&self) -> usize {
        let (mut brain, mut compared) = ((self.fresh)(), 0);
        let last = self.states.keys().next_back().copied().unwrap_or(0);
        for (at, event) in (1..).zip(self.events.iter().take(last)) {
            brain.replay(decode(event).unwrap());
            let Some(was) = self.states.get(&at) else { continue };
            let (now, was): (_, Vec<B::Event>) = (brain.snapshot(), decode(was).unwrap());
            assert!(
                encode(&now) == encode(&was),
                "after {at} events {} was\n{was:?}\nand replays to\n{now:?}",
                B::NAME
            );
            compared += 1;
        }
        compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Effect;
    use crate::model::{MonoTime, Now};

    /// Counts, and writes every count down but those that it was told to forget.
    #[derive(Default)]
    struct Counter(u64);

    impl Brain for Counter {
        const NAME: &'static str = "counter";
        type Input = ();
        type Action = ();
        type Event = u64;
        type Reply = ();
        type Status = ();
        fn replay(&mut self, event: u64) {
            self.0 = event;
        }
        fn snapshot(&self) -> Vec<u64> {
            vec![self.0]
        }
        fn handle(&mut self, _: Now, (): ()) {
            self.0 += 1;
        }
        fn wake(&mut self, _: Now) {}
        fn poll_effect(&mut self) -> Option<Effect<Self>> {
            None
        }
        fn poll_timeout(&self) -> Option<MonoTime> {
            None
        }
        fn observe(&self, _: Now) {}
    }

    #[test]
    fn a_brain_that_does_not_write_down_what_it_did_is_caught() {
        let life = |written: [u64; 3]| {
            let (mut brain, mut past) = (Counter::default(), Past::new(Counter::default));
            for event in written {
                brain.handle(Now::default(), ());
                past.asks(&[event]);
                past.rests(&brain);
            }
            let compared = past.compare();
            past.start(&[3]);
            (compared, past.compare())
        };
        assert_eq!(life([1, 2, 3]), (3, 0));
        assert!(std::panic::catch_unwind(|| life([1, 5, 3])).is_err());
    }
}
