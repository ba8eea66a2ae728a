//! The brains: sans-IO state machines. They never name actors, runtimes, files, sockets, clocks, random sources or hash maps.
//!
//! A brain is told things ([`Brain::handle`]), and answers with effects ([`Brain::poll_effect`]) and with the moment at which
//! it wants to be woken ([`Brain::poll_timeout`]). Time comes with every input; randomness is handed over at construction or
//! with an input. So the same code runs under an actor, in a unit test with ten lines of set-up, and in a simulator with many
//! peers and virtual weeks.
//!
//! ```text
//!            Input                    Effect::Act(action)  -> the shell does IO, the result comes back as an Input
//!   shell ----------> Brain::handle   Effect::Commit       -> the shell makes events durable, then does what hangs on them
//!         <----------  poll_effect    Effect::Reply        -> the shell answers a request
//!         <----------  poll_timeout   Effect::Feed         -> the brain's own input, after what came before is durable
//! ```

pub mod availability;
mod clock_doubt;
pub mod dht;
pub mod fetch;
pub mod few;
pub mod group;
pub mod jitter;
pub mod outbox;
#[cfg(test)]
pub(crate) mod past;
pub mod peer_score;
pub mod placement;
pub mod postbox;
pub mod replicator;

use std::collections::VecDeque;

use std::fmt::Debug;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{MonoTime, Now};
use crate::wire;

/// A wall clock that was set by more than this while a brain looked away is doubted at once, until the group's brain has compared
/// it anew: DESIGN.md section 4 calls a clock off from here on.
pub const CLOCK_SET: Duration = Duration::from_secs(300);

/// Nothing is forgotten for good by a clock that has not gone on for this long since it was last set or doubted, or since the start:
/// one that is ahead is noticed by then, and what was forgotten by it cannot be known again (R5, R7).
pub const CLOCK_STOOD: Duration = Duration::from_secs(6 * 3600);

/// Names a request that awaits its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A sans-IO state machine. What survives a crash are its events: state is what replaying them gives.
pub trait Brain: Sized + Unpin + 'static {
    /// Its name in the journal. Never changes.
    const NAME: &'static str;
    /// What it is told.
    type Input: Debug + Send + 'static;
    /// What it asks its shell to do.
    type Action: Debug + Send + 'static;
    /// What it makes durable.
    type Event: Serialize + DeserializeOwned + Debug + Send + 'static;
    /// What requests are answered with.
    type Reply: Debug + Send + 'static;
    /// What it shows of itself: the console, the command line and the tests read the same.
    type Status: Serialize + Send + 'static;

    /// Applies an event of an earlier run. Called for each, in order, before anything else; asks for nothing.
    fn replay(&mut self, event: Self::Event);
    /// Events that bring an empty brain to this one's durable state: what a compacted journal holds.
    fn snapshot(&self) -> Vec<Self::Event>;
    /// About how many bytes those events take. A brain that keeps much says it without making all of them.
    fn live_bytes(&self) -> u64 {
        about_bytes(self.snapshot().iter(), |event| event)
    }
    /// Tells it something.
    fn handle(&mut self, now: Now, input: Self::Input);
    /// Tells it that the moment of [`Brain::poll_timeout`] has come. Harmless when it has not.
    fn wake(&mut self, now: Now);
    /// The next thing it wants done.
    fn poll_effect(&mut self) -> Option<Effect<Self>>;
    /// Whether a commit may wait some milliseconds for others, and share their sync: when what hangs on it is seen by nobody outside, or
    /// by nobody who waits.
    fn may_wait(then: &[Effect<Self>]) -> bool {
        then.is_empty()
    }
    /// When it wants to be woken.
    fn poll_timeout(&self) -> Option<MonoTime>;
    /// What it shows of itself.
    fn observe(&self, now: Now) -> Self::Status;
}

/// Something a brain wants done.
#[derive(Debug)]
pub enum Effect<B: Brain> {
    /// Do this; what comes of it comes back as an input.
    Act(B::Action),
    /// Answer the request that carried this token. Each token is answered once.
    Reply(Token, B::Reply),
    /// Give the brain this input. In [`Effect::Commit::then`]: once the events are durable.
    Feed(B::Input),
    /// Make the events durable, then perform `then` in order (R1: no yes before it is on disk).
    /// Commits become durable in the order in which they were asked for.
    Commit {
        /// Already applied to the brain's state.
        events: Vec<B::Event>,
        /// What may be seen outside only after that.
        then: Vec<Effect<B>>,
    },
}

/// Events of commits that are made one. A commit of more stays as it is.
const EVENTS_TOGETHER: usize = 256;

/// The effects a brain has not handed over yet, in order.
#[derive(Debug)]
pub struct Outgoing<B: Brain> {
    effects: VecDeque<Effect<B>>,
    /// How many events were applied and not committed yet.
    applied: usize,
}

impl<B: Brain> Default for Outgoing<B> {
    fn default() -> Self {
        Self { effects: VecDeque::new(), applied: 0 }
    }
}

impl<B: Brain> Outgoing<B> {
    /// Asks for an action.
    pub fn act(&mut self, action: B::Action) {
        self.effects.push_back(Effect::Act(action));
    }
    /// Answers a request.
    pub fn reply(&mut self, token: Token, reply: B::Reply) {
        self.effects.push_back(Effect::Reply(token, reply));
    }
    /// So many events were applied to the brain's state: the next commit is theirs. A journal that ends between two commits is
    /// then a state that the brain was in.
    pub fn applied(&mut self, events: usize) {
        self.applied += events;
    }
    /// Makes events durable, then does the rest. Without events it is a barrier: the rest waits until all that was
    /// committed before is durable, which a "yes, I had that already" must do too.
    ///
    /// Commits that follow each other at once are one: what hangs on the first of them waits for both, which are on their way to the
    /// disk together anyway.
    pub fn commit(&mut self, events: Vec<B::Event>, then: Vec<Effect<B>>) {
        debug_assert_eq!(self.applied, events.len(), "{}: events are committed as they were applied", B::NAME);
        self.applied = 0;
        if let Some(Effect::Commit { events: before, then: first }) = self.effects.back_mut()
            && before.len() + events.len() <= EVENTS_TOGETHER
        {
            before.extend(events);
            first.extend(then);
            return;
        }
        self.effects.push_back(Effect::Commit { events, then });
    }
    /// The next effect.
    pub fn pop(&mut self) -> Option<Effect<B>> {
        self.effects.pop_front()
    }
}

/// Of how many the bytes are counted, to know about how many all have.
const COUNTED: usize = 128;

/// About how many bytes a snapshot's events take when each of `all` makes one: a few are encoded, evenly chosen.
pub fn about_bytes<T, E: Serialize>(all: impl ExactSizeIterator<Item = T>, event: impl Fn(T) -> E) -> u64 {
    let count = all.len();
    let (mut counted, mut bytes) = (0_u64, 0_u64);
    for one in all.step_by(count.div_ceil(COUNTED).max(1)) {
        counted += 1;
        bytes = bytes.saturating_add(u64::try_from(wire::encode(&event(one)).len()).unwrap_or(u64::MAX));
    }
    let all = u128::from(bytes) * u128::try_from(count).unwrap_or(u128::MAX) / u128::from(counted.max(1));
    u64::try_from(all).unwrap_or(u64::MAX)
}

/// The earliest of some moments.
pub fn earliest(moments: impl IntoIterator<Item = Option<MonoTime>>) -> Option<MonoTime> {
    moments.into_iter().flatten().min()
}
