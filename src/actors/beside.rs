//! Where work of the processor is done that an actor or a request needs: beside the actors, never on their threads.

use tokio::task::JoinError;

use super::shell::Handle;
use crate::core::Brain;

/// What is made of at most so many bytes takes less time than a thread of the blocking pool takes to wake up for it: a notification is
/// opened, checked or sealed in about 100 µs.
const SHORT: usize = 16 * 1024;

/// Does `work` on `bytes` bytes: at once on the runtime's thread that asks where it is short, else on the blocking pool. Not for what
/// waits for a disk, and not to be called on an actor's thread.
///
/// # Errors
/// [`JoinError`] when the runtime is stopping.
pub async fn beside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if bytes <= SHORT {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

/// Does `work` on the blocking pool and tells `back` what came of it from there: no thread is woken up on the way but that one and the
/// actor's. While the brain's mailbox is full that thread waits. `held` is let go when the brain has it: a permit, where such work is bounded.
pub fn then_tell<B: Brain>(
    back: Handle<B>,
    held: impl Send + 'static,
    work: impl FnOnce() -> B::Input + Send + 'static,
) {
    tokio::task::spawn_blocking(move || {
        // A stopped brain needs no answer.
        let _ = tokio::runtime::Handle::current().block_on(back.hand_in(work()));
        drop(held);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn short_work_stays_on_the_thread_that_asks_and_long_work_leaves_it() {
        let here = || std::thread::current().id();
        assert_eq!(beside(SHORT, here).await.unwrap(), here());
        assert_ne!(beside(SHORT + 1, here).await.unwrap(), here());
    }
}
