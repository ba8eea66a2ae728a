//! The one shell that every brain runs in: an actix actor that translates messages into inputs, performs effects and arms one
//! timer. It never decides anything.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, SpawnHandle, StreamHandler,
};
use futures::stream::FuturesOrdered;
use futures::{Stream, StreamExt as _};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::core::{Brain, Effect, Token};
use crate::model::MonoTime;
use crate::wire;

/// How many messages wait for an actor before its senders do.
const MAILBOX_CAPACITY: usize = 256;

/// Commits that may be under way. At a full disk they wait: beyond this the actor takes nothing more until one is durable, and
/// whoever tells or asks it waits. That costs a busy peer nothing: a commit takes milliseconds.
const COMMITS_MAX: usize = 4096;
/// Messages after which it is looked whether appends have ended, if there is no moment without a message before.
const LOOK_AT_ENDS_EVERY: usize = 64;

/// A brain's part of the log is compacted at most this often.
const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// Ends once an append is durable.
pub type Append = Pin<Box<dyn Future<Output = Result<(), LogBroken>> + Send>>;

/// Makes events durable, in the order of the calls.
pub trait EventLog: Send + Sync + 'static {
    /// Appends the encoded events of one brain. The order is that of the calls; the future ends once they are durable.
    /// A full disk makes it wait, not fail: what was accepted is not dropped.
    fn append(&self, brain: &'static str, events: Vec<Vec<u8>>) -> Append;
    /// The same, for events that may wait some milliseconds for others, and share their sync.
    fn append_at_leisure(&self, brain: &'static str, events: Vec<Vec<u8>>) -> Append {
        self.append(brain, events)
    }
    /// Whether most of what is kept of this brain is dead, and enough to be worth a compaction. Must be quick: `live_bytes`,
    /// about how much is alive, is asked for only where it may be. A log that never is has nothing to compact.
    fn is_grown(&self, _brain: &'static str, _live_bytes: &dyn Fn() -> u64) -> bool {
        false
    }
    /// Puts `live`, the encoded snapshot of a brain, in the place of all that was appended of it before this call. What is
    /// appended after this call comes behind it. Returns at once.
    fn compact(&self, _brain: &'static str, _live: Vec<Vec<u8>>) {}
}

/// The log cannot be written any more; the process must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written: {why}")]
pub struct LogBroken {
    /// What the disk said.
    pub why: String,
}

/// Does what a brain asks for. Must return at once: IO runs in tasks of its own, CPU work and fsync on the blocking pool.
pub trait Perform<B: Brain>: Unpin + 'static {
    /// Starts one action; what comes of it is told to `back`.
    fn perform(&mut self, action: B::Action, back: &Handle<B>);
}

/// The brain's actor stopped, so nothing can be asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this peer is stopping")]
pub struct Stopped;

struct Tell<B: Brain>(B::Input);
impl<B: Brain> actix::Message for Tell<B> {
    type Result = ();
}
struct Ask<B: Brain>(Box<dyn FnOnce(Token) -> B::Input + Send>, oneshot::Sender<B::Reply>);
impl<B: Brain> actix::Message for Ask<B> {
    type Result = ();
}
struct Observe<B: Brain>(oneshot::Sender<B::Status>);
impl<B: Brain> actix::Message for Observe<B> {
    type Result = ();
}
struct Stop;
impl actix::Message for Stop {
    type Result = ();
}
struct Wake;
impl actix::Message for Wake {
    type Result = ();
}

/// How others reach a brain: cloneable, from any thread, without knowing its shell.
pub struct Handle<B: Brain> {
    tell: actix::Recipient<Tell<B>>,
    ask: actix::Recipient<Ask<B>>,
    observe: actix::Recipient<Observe<B>>,
    stop: actix::Recipient<Stop>,
}

impl<B: Brain> Clone for Handle<B> {
    fn clone(&self) -> Self {
        Self { tell: self.tell.clone(), ask: self.ask.clone(), observe: self.observe.clone(), stop: self.stop.clone() }
    }
}

impl<B: Brain> fmt::Debug for Handle<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", B::NAME)
    }
}

impl<B: Brain> Handle<B> {
    fn to<P: Perform<B>>(addr: &actix::Addr<Shell<B, P>>) -> Self {
        Self {
            tell: addr.clone().recipient(),
            ask: addr.clone().recipient(),
            observe: addr.clone().recipient(),
            stop: addr.clone().recipient(),
        }
    }
    /// Tells the brain something; waits while its mailbox is full.
    ///
    /// # Errors
    /// [`Stopped`] when its actor has stopped.
    pub fn tell(&self, input: B::Input) -> impl Future<Output = Result<(), Stopped>> + Send + use<B> {
        let told = self.tell.send(Tell(input));
        async move { told.await.map_err(|_| Stopped) }
    }
    /// Hands the brain something and does not wait until it was heard, which costs the teller a wake-up. Who hands in through one handle
    /// waits while the brain's mailbox is full; the first of each clone is taken beyond that.
    ///
    /// # Errors
    /// [`Stopped`] when its actor has stopped.
    pub fn hand_in(&self, input: B::Input) -> impl Future<Output = Result<(), Stopped>> + Send + use<B> {
        // What is refused, for want of room or because the actor stopped, is sent as ever.
        let refused = self.tell.try_send(Tell(input)).err().map(|refused| self.tell.send(refused.into_inner()));
        async move {
            match refused {
                Some(waiting) => waiting.await.map_err(|_| Stopped),
                None => Ok(()),
            }
        }
    }
    /// Tells the brain something from where nobody can wait: what finds no room in its mailbox goes in a task. Not for what others may
    /// make as much of as they like.
    pub fn post(&self, input: B::Input) {
        if let Err(refused) = self.tell.try_send(Tell(input)) {
            let waiting = self.tell.send(refused.into_inner());
            tokio::spawn(async move {
                // A stopped brain needs to hear nothing.
                let _ = waiting.await;
            });
        }
    }
    /// Asks the brain something; `input` makes the input from the token that its reply will carry.
    ///
    /// # Errors
    /// [`Stopped`] when its actor has stopped.
    pub fn ask<F>(&self, input: F) -> impl Future<Output = Result<B::Reply, Stopped>> + Send + use<B, F>
    where
        F: FnOnce(Token) -> B::Input + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        // As in `hand_in`: the answer is all that is waited for.
        let asked = self.ask.try_send(Ask(Box::new(input), reply));
        let refused = asked.err().map(|refused| self.ask.send(refused.into_inner()));
        async move {
            if let Some(waiting) = refused {
                waiting.await.map_err(|_| Stopped)?;
            }
            answer.await.map_err(|_| Stopped)
        }
    }
    /// What the brain shows of itself.
    ///
    /// # Errors
    /// [`Stopped`] when its actor has stopped.
    pub fn observe(&self) -> impl Future<Output = Result<B::Status, Stopped>> + Send + use<B> {
        let (reply, answer) = oneshot::channel();
        let asked = self.observe.send(Observe(reply));
        async move {
            asked.await.map_err(|_| Stopped)?;
            answer.await.map_err(|_| Stopped)
        }
    }
    /// Stops the actor once what it was told before has been handled.
    pub async fn stop(&self) {
        // An actor that has stopped already is what was wanted.
        let _ = self.stop.send(Stop).await;
    }
}

/// The actor around a brain.
pub struct Shell<B: Brain, P: Perform<B>> {
    brain: B,
    performer: P,
    log: Arc<dyn EventLog>,
    clock: Clock,
    waiting: BTreeMap<Token, oneshot::Sender<B::Reply>>,
    next_token: u64,
    /// What hangs on each commit under way, oldest first.
    commits: VecDeque<Vec<Effect<B>>>,
    /// The appends of those commits.
    appends: Appends,
    /// Messages since the ends of appends were last looked at between two of them.
    handled: usize,
    timer: Option<(MonoTime, SpawnHandle)>,
    first: Option<B::Input>,
    /// When the log was last given the whole state.
    compacted: Option<MonoTime>,
}

impl<B: Brain, P: Perform<B>> Unpin for Shell<B, P> {}

impl<B: Brain, P: Perform<B>> Shell<B, P> {
    /// Starts the actor on the current actix system and tells the brain its first input, if it needs one.
    pub fn start(brain: B, performer: P, log: Arc<dyn EventLog>, clock: Clock, first: Option<B::Input>) -> Handle<B> {
        let shell = Self {
            brain,
            performer,
            log,
            clock,
            waiting: BTreeMap::new(),
            next_token: 0,
            commits: VecDeque::new(),
            appends: Appends::default(),
            handled: 0,
            timer: None,
            first,
            compacted: None,
        };
        Handle::to(&shell.start())
    }

    /// Encodes events, hands them to the log in the order of the commits, and remembers what hangs on them.
    fn commit(&mut self, events: &[B::Event], then: Vec<Effect<B>>, ctx: &mut Context<Self>) {
        // A barrier behind nothing: all that was committed is durable.
        if events.is_empty() && self.commits.is_empty() {
            then.into_iter().for_each(|effect| self.perform(effect, ctx));
            return;
        }
        let encoded = events.iter().map(wire::encode).collect();
        let append = if B::may_wait(&then) {
            self.log.append_at_leisure(B::NAME, encoded)
        } else {
            self.log.append(B::NAME, encoded)
        };
        self.commits.push_back(then);
        self.appends.push(append);
    }

    /// Gives the log the brain's whole state when most of what it keeps may be dead. Only while no commit is under way and
    /// no effect waits: then the state is what the log's events make, no more and no less. Called after commits alone, so
    /// that an idle peer writes nothing.
    fn compact_if_grown(&mut self) {
        let now = self.clock.now().mono;
        let early = self.compacted.is_some_and(|at| now.since(at) < COMPACT_EVERY);
        if early || !self.commits.is_empty() || !self.log.is_grown(B::NAME, &|| self.brain.live_bytes()) {
            return;
        }
        self.compacted = Some(now);
        self.log.compact(B::NAME, self.brain.snapshot().iter().map(wire::encode).collect());
    }

    /// Performs effects until the brain has no more, then arms the timer.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(effect) = self.brain.poll_effect() {
            self.perform(effect, ctx);
        }
        self.wait_for_room(ctx);
        let wanted = self.brain.poll_timeout();
        if wanted == self.timer.as_ref().map(|(at, _)| *at) {
            return;
        }
        if let Some((_, armed)) = self.timer.take() {
            ctx.cancel_future(armed);
        }
        if let Some(at) = wanted {
            let pause = at.since(self.clock.now().mono);
            self.timer = Some((at, ctx.notify_later(Wake, pause)));
        }
    }

    /// Takes nothing more while too many commits are under way, until one of them has ended.
    fn wait_for_room(&self, ctx: &mut Context<Self>) {
        if self.commits.len() >= COMMITS_MAX {
            let mut appends = self.appends.clone();
            let ended = std::future::poll_fn(move |cx| appends.poll_next_unpin(cx));
            ctx.wait(actix::fut::wrap_future::<_, Self>(ended).map(|ended, shell, ctx| {
                if let Some(ended) = ended {
                    shell.append_ended(ended, ctx);
                }
            }));
        }
    }

    /// An actor takes messages until there are none before it looks at anything else. So that what is durable does not wait for that, it
    /// is looked at after every few messages, too.
    fn look_at_ends(&mut self, ctx: &mut Context<Self>) {
        self.handled += 1;
        if self.handled < LOOK_AT_ENDS_EVERY || self.commits.is_empty() {
            return;
        }
        self.handled = 0;
        // The stream is polled after the messages, and has itself woken then.
        let mut nobody = task::Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(ended)) = self.appends.poll_next_unpin(&mut nobody) {
            self.append_ended(ended, ctx);
        }
    }

    /// An append has ended. A broken log aborts the process: it restarts from its disk.
    fn append_ended(&mut self, ended: Result<(), LogBroken>, ctx: &mut Context<Self>) {
        if let Err(LogBroken { why }) = ended {
            tracing::error!(brain = B::NAME, %why, "the journal cannot be written; stopping at once");
            std::process::abort();
        }
        for effect in self.commits.pop_front().unwrap_or_default() {
            self.perform(effect, ctx);
        }
        self.drive(ctx);
        self.compact_if_grown();
    }

    fn perform(&mut self, effect: Effect<B>, ctx: &mut Context<Self>) {
        match effect {
            Effect::Act(action) => self.performer.perform(action, &Handle::to(&ctx.address())),
            Effect::Reply(token, reply) => {
                if let Some(asked) = self.waiting.remove(&token) {
                    // Whoever asked may have gone away; then nobody wants the answer.
                    let _ = asked.send(reply);
                }
            }
            Effect::Feed(input) => self.brain.handle(self.clock.now(), input),
            Effect::Commit { events, then } => self.commit(&events, then, ctx),
        }
    }
}

/// The appends under way: a stream of how each ended, in their order, that never ends itself. It is polled by the actor, so the
/// journal's thread wakes that and nobody else.
#[derive(Clone, Default)]
struct Appends(Rc<RefCell<UnderWay>>);

#[derive(Default)]
struct UnderWay {
    appends: FuturesOrdered<Append>,
    /// Whom to wake when there is one more.
    idle: Option<Waker>,
}

impl Appends {
    fn push(&self, append: Append) {
        let mut under_way = self.0.borrow_mut();
        under_way.appends.push_back(append);
        under_way.idle.take().into_iter().for_each(Waker::wake);
    }
}

impl Stream for Appends {
    type Item = Result<(), LogBroken>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut under_way = self.0.borrow_mut();
        let Poll::Ready(Some(ended)) = under_way.appends.poll_next_unpin(cx) else {
            under_way.idle = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(Some(ended))
    }
}

impl<B: Brain, P: Perform<B>> Actor for Shell<B, P> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // A runtime that goes down while it drops an actor still "starts" it first: a peer whose start failed ends so.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        ctx.add_stream(self.appends.clone());
        if let Some(first) = self.first.take() {
            self.brain.handle(self.clock.now(), first);
        }
        self.drive(ctx);
    }
}

impl<B: Brain, P: Perform<B>> Handler<Tell<B>> for Shell<B, P> {
    type Result = ();
    fn handle(&mut self, Tell(input): Tell<B>, ctx: &mut Self::Context) {
        self.brain.handle(self.clock.now(), input);
        self.drive(ctx);
        self.look_at_ends(ctx);
    }
}

impl<B: Brain, P: Perform<B>> Handler<Ask<B>> for Shell<B, P> {
    type Result = ();
    fn handle(&mut self, Ask(input, reply): Ask<B>, ctx: &mut Self::Context) {
        let token = Token(self.next_token);
        self.next_token += 1;
        if reply.is_closed() {
            // Whoever asked has given up.
            return;
        }
        self.waiting.retain(|_, asked| !asked.is_closed());
        self.waiting.insert(token, reply);
        self.brain.handle(self.clock.now(), input(token));
        self.drive(ctx);
        self.look_at_ends(ctx);
    }
}

impl<B: Brain, P: Perform<B>> Handler<Observe<B>> for Shell<B, P> {
    type Result = ();
    fn handle(&mut self, Observe(reply): Observe<B>, _: &mut Self::Context) {
        // Whoever asked may have gone away; then nobody wants the answer.
        let _ = reply.send(self.brain.observe(self.clock.now()));
    }
}

impl<B: Brain, P: Perform<B>> StreamHandler<Result<(), LogBroken>> for Shell<B, P> {
    fn handle(&mut self, ended: Result<(), LogBroken>, ctx: &mut Self::Context) {
        self.append_ended(ended, ctx);
    }
}

impl<B: Brain, P: Perform<B>> Handler<Wake> for Shell<B, P> {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        self.timer = None;
        self.brain.wake(self.clock.now());
        self.drive(ctx);
    }
}

impl<B: Brain, P: Perform<B>> Handler<Stop> for Shell<B, P> {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
