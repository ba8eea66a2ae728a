//! The journal as the shells see it: appends, and compactions when they are worth it. It never looks into an event.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::actors::shell::{Append, EventLog, LogBroken};
use crate::core::Brain;
use crate::store::journal::{Durable, Journal, JournalError, Record};
use crate::wire::encode;

/// Appends the brains' events to the one journal of a home.
#[derive(Debug, Clone)]
pub struct JournalLog {
    journal: Journal,
    /// How large each brain's live state was when it was last seen.
    live: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl JournalLog {
    /// The log of an open journal.
    pub fn new(journal: Journal) -> Self {
        Self { journal, live: Arc::default() }
    }

    /// After a start: compacts what most of is dead of a brain's part, and waits for it. Blocking.
    ///
    /// # Errors
    /// [`JournalError`] when the journal cannot be written.
    pub fn look_at<B: Brain>(&self, brain: &B) -> Result<(), JournalError> {
        if !self.is_grown(B::NAME, &|| brain.live_bytes()) {
            return Ok(());
        }
        let live: Vec<Record> = brain.snapshot().iter().map(|event| Record::new(B::NAME, encode(event))).collect();
        self.journal.compact(B::NAME, live)?.wait()
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        // A number is replaced in one step, so a panic elsewhere leaves a good one.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn records(brain: &'static str, events: Vec<Vec<u8>>) -> Vec<Record> {
    events.into_iter().map(|event| Record { brain: brain.to_owned(), event }).collect()
}

/// Once it is durable.
fn ended(appended: Result<Durable, JournalError>) -> Append {
    Box::pin(async move {
        let broken = |why: String| LogBroken { why };
        appended.map_err(|e| broken(e.to_string()))?.await.map_err(|e| broken(e.to_string()))
    })
}

impl EventLog for JournalLog {
    fn append(&self, brain: &'static str, events: Vec<Vec<u8>>) -> Append {
        // A full disk makes `append_waiting` wait, and everything behind it: events of a brain have no gaps.
        ended(self.journal.append_waiting(records(brain, events)))
    }

    fn append_at_leisure(&self, brain: &'static str, events: Vec<Vec<u8>>) -> Append {
        ended(self.journal.append_at_leisure(records(brain, events)))
    }

    fn is_grown(&self, brain: &'static str, live_bytes: &dyn Fn() -> u64) -> bool {
        let known = self.live().get(brain).copied().unwrap_or(0);
        if !self.journal.is_worth_compacting(brain, known) {
            return false;
        }
        // It may be that what is alive has grown.
        let live = live_bytes();
        self.live().insert(brain, live);
        self.journal.is_worth_compacting(brain, live)
    }

    fn compact(&self, brain: &'static str, live: Vec<Vec<u8>>) {
        let bytes: u64 = live.iter().map(|event| u64::try_from(event.len()).unwrap_or(u64::MAX)).sum();
        self.live().insert(brain, bytes);
        let records = live.into_iter().map(|event| Record::new(brain, event)).collect();
        // Queued here and now: the order to later appends is that of the calls.
        let queued = self.journal.compact(brain, records);
        tokio::spawn(async move {
            let done = match queued {
                Ok(durable) => durable.await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => tracing::debug!(brain, bytes, "the journal is compacted"),
                // The old file goes on being the journal.
                Err(error) => tracing::warn!(brain, %error, "the journal stays larger than it must be"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::actors::shell::{Handle, Perform, Shell};
    use crate::clock::Clock;
    use crate::core::{Effect, Outgoing, Token};
    use crate::model::{MonoTime, Now};

    /// Remembers how often it was told something, with large events that replace each other.
    #[derive(Default)]
    struct Counter {
        told: u64,
        /// How often it looked, and whether it goes on to.
        looks: u64,
        looking: bool,
        out: Outgoing<Self>,
    }

    #[derive(Debug)]
    enum Input {
        Count(Token),
        Flood(u64),
        /// Looks again and again, until what it counted before is durable.
        LookUntilDurable,
        Look,
        Durable,
    }

    impl Brain for Counter {
        const NAME: &'static str = "counter";
        type Input = Input;
        type Action = ();
        type Event = (u64, serde_bytes::ByteBuf);
        type Reply = u64;
        type Status = u64;

        fn replay(&mut self, (told, _): Self::Event) {
            assert!(self.told == 0 || told == self.told + 1, "{told} after {}", self.told);
            self.told = told;
        }
        fn snapshot(&self) -> Vec<Self::Event> {
            vec![(self.told, serde_bytes::ByteBuf::new())]
        }
        fn handle(&mut self, _: Now, input: Input) {
            let mut count = |then| {
                self.told += 1;
                self.out.applied(1);
                self.out.commit(vec![(self.told, serde_bytes::ByteBuf::from(vec![0; 100_000]))], then);
            };
            match input {
                Input::Count(token) => {
                    count(Vec::new());
                    let told = self.told;
                    self.out.commit(Vec::new(), vec![Effect::Reply(token, told)]);
                }
                Input::Flood(times) => (0..times).for_each(|_| count(Vec::new())),
                Input::LookUntilDurable => {
                    count(vec![Effect::Feed(Input::Durable)]);
                    self.looking = true;
                    self.out.act(());
                }
                Input::Look => {
                    self.looks += 1;
                    if self.looking && self.looks < 100_000 {
                        self.out.act(());
                    }
                }
                Input::Durable => self.looking = false,
            }
        }
        fn wake(&mut self, _: Now) {}
        fn poll_effect(&mut self) -> Option<Effect<Self>> {
            self.out.pop()
        }
        fn poll_timeout(&self) -> Option<MonoTime> {
            None
        }
        fn observe(&self, _: Now) -> u64 {
            self.looks
        }
    }

    struct Idle;
    impl Perform<Counter> for Idle {
        fn perform(&mut self, (): (), back: &Handle<Counter>) {
            // It is in the mailbox before this returns.
            drop(back.hand_in(Input::Look));
        }
    }

    async fn count(handle: &Handle<Counter>) -> u64 {
        handle.ask(Input::Count).await.unwrap()
    }

    /// A log on a full disk: nothing is durable until there is room.
    struct Full {
        appends: Arc<std::sync::atomic::AtomicUsize>,
        room: tokio::sync::watch::Receiver<bool>,
    }
    impl EventLog for Full {
        fn append(&self, _: &'static str, _: Vec<Vec<u8>>) -> Append {
            self.appends.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut room = self.room.clone();
            Box::pin(async move {
                room.wait_for(|room| *room).await.map(drop).map_err(|e| LogBroken { why: e.to_string() })
            })
        }
    }

    #[actix::test]
    async fn on_a_full_disk_a_brain_stops_taking_more_and_goes_on_when_there_is_room() {
        let appends = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (room, waits) = tokio::sync::watch::channel(false);
        let log = Arc::new(Full { appends: appends.clone(), room: waits });
        let handle = Shell::start(Counter::default(), Idle, log, Clock::system(), None);
        let telling = handle.clone();
        let told = tokio::spawn(async move {
            for _ in 0..6_000 {
                telling.tell(Input::Flood(1)).await.unwrap();
            }
        });
        let taken = || appends.load(std::sync::atomic::Ordering::SeqCst);
        let full = async {
            while taken() < 4_096 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), full).await.unwrap();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(taken() < 4_200 && !told.is_finished());
        }
        room.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(60), told).await.unwrap().unwrap();
        assert_eq!(count(&handle).await, 6_001);
        handle.stop().await;
    }

    #[actix::test]
    async fn what_is_durable_is_told_also_while_there_is_always_one_more_message() {
        let (room, waits) = tokio::sync::watch::channel(true);
        let log = Arc::new(Full { appends: Arc::default(), room: waits });
        let handle = Shell::start(Counter::default(), Idle, log, Clock::system(), None);
        handle.tell(Input::LookUntilDurable).await.unwrap();
        assert_eq!(count(&handle).await, 2);
        let looks = handle.observe().await.unwrap();
        assert!(looks < 1000, "{looks}");
        handle.stop().await;
        drop(room);
    }

    #[actix::test]
    async fn a_journal_that_is_mostly_dead_is_compacted_while_the_peer_runs() {
        let home = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(home.path()).unwrap();
        let log = Arc::new(JournalLog::new(journal.clone()));
        let handle = Shell::start(Counter::default(), Idle, log, Clock::system(), None);
        assert_eq!(count(&handle).await, 1);
        let small = journal.bytes();
        // Far more than is worth a compaction, and commits go on behind it.
        handle.tell(Input::Flood(30)).await.unwrap();
        let told = count(&handle).await;
        let compacted = async {
            while journal.bytes() > 3 * small {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), compacted).await.unwrap();
        let last = count(&handle).await;
        assert_eq!(last, told + 1);
        // Not again at once, however much is dead.
        handle.tell(Input::Flood(30)).await.unwrap();
        let last = count(&handle).await;
        assert!(journal.bytes() > 20 * small);
        handle.stop().await;
        drop((handle, journal));

        let mut again = Counter::default();
        let (_, replay) = Journal::open(home.path()).unwrap();
        for record in replay {
            again.replay(crate::wire::decode(&record.unwrap().event).unwrap());
        }
        assert_eq!(again.told, last, "nothing is lost, and nothing comes twice");
    }
}
