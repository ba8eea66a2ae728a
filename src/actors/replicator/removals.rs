//! Removal of parts: many at a time on one thread of the blocking pool, and what came of them is told together. It never decides what
//! goes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::actors::shell::Handle;
use crate::core::replicator::{Input, PartsDropped, Replicator};

type Work = Box<dyn FnOnce() -> PartsDropped + Send>;

#[derive(Default)]
struct Queue {
    waiting: Vec<Work>,
    /// Whether somebody works on it.
    is_running: bool,
}

/// Where removals are handed in. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Removals(Arc<Mutex<Queue>>);

impl Removals {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic aborts the process, or is that of a test.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` soon, along with what else waits, and tells what came of it. Returns at once.
    pub(super) fn remove(&self, back: &Handle<Replicator>, work: impl FnOnce() -> PartsDropped + Send + 'static) {
        let mut queue = self.queue();
        queue.waiting.push(Box::new(work));
        if !std::mem::replace(&mut queue.is_running, true) {
            tokio::spawn(self.clone().run(back.clone()));
        }
    }

    async fn run(self, back: Handle<Replicator>) {
        while let Some(some) = self.next() {
            let work = move || some.into_iter().map(|work| work()).collect::<Vec<_>>();
            // A panic aborts, so a lost task means that this peer stops; and a stopped brain needs no answer.
            let Ok(dropped) = tokio::task::spawn_blocking(work).await else { return };
            let _ = back.tell(Input::PartsDropped(dropped)).await;
        }
    }

    /// All that waits; nothing, if there is none, and then the next one handed in starts anew.
    fn next(&self) -> Option<Vec<Work>> {
        let mut queue = self.queue();
        let some = std::mem::take(&mut queue.waiting);
        queue.is_running = !some.is_empty();
        queue.is_running.then_some(some)
    }
}
