//! Removal of files that nobody needs any more: many at a time on one thread of the blocking pool, so that a burst of ended mails
//! wakes it once. It never tells anybody when it is done: the next start finds what a crash left.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    waiting: Vec<Work>,
    /// Whether a thread works on it.
    is_running: bool,
}

/// Where removals are handed in. Cheap to clone.
#[derive(Clone, Default)]
pub struct Remover(Arc<Mutex<Queue>>);

impl fmt::Debug for Remover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remover({})", self.queue().waiting.len())
    }
}

impl Remover {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic aborts the process, or is that of a test.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` soon, behind what was handed in before. It says itself what it could not remove. Returns at once; needs the
    /// runtime's context. What waits is bounded by the mails that there are.
    pub fn remove(&self, work: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue();
        queue.waiting.push(Box::new(work));
        if !std::mem::replace(&mut queue.is_running, true) {
            let remover = self.clone();
            tokio::task::spawn_blocking(move || remover.run());
        }
    }

    fn run(&self) {
        loop {
            let mut queue = self.queue();
            let some = std::mem::take(&mut queue.waiting);
            if some.is_empty() {
                queue.is_running = false;
                return;
            }
            drop(queue);
            some.into_iter().for_each(|work| work());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn all_that_is_handed_in_is_done_in_order() {
        let (remover, (done, all)) = (Remover::default(), mpsc::channel());
        for n in 0..1000 {
            let done = done.clone();
            remover.remove(move || done.send(n).unwrap());
            if n % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        drop(done);
        let seen = tokio::task::spawn_blocking(move || all.into_iter().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }
}
