//! Passes to the Outbox mailbox what it shall show: the newest of each submission, in order, some at a time. It never decides
//! what that is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Notify;

use super::Neighbours;
use crate::actors::shell::Handle;
use crate::core::outbox::{Input, Outbox, ShownMail};
use crate::model::SubmissionId;

/// A mail that was just submitted looks different several times within a moment: sealed, announced, safe. It is told of after it.
const MOMENT: Duration = Duration::from_millis(50);
/// So many are told of at once.
const MANY: usize = 32;

/// What the mailbox was not told yet. One entry a submission: an older one is overtaken by a newer, never the other way.
#[derive(Default)]
struct Untold {
    only: Option<BTreeSet<SubmissionId>>,
    shown: BTreeMap<SubmissionId, ShownMail>,
}

/// The way to the Outbox mailbox.
#[derive(Clone, Default)]
pub(super) struct Display {
    untold: Arc<Mutex<Untold>>,
    news: Arc<Notify>,
}

impl Display {
    pub(super) fn show(&self, shown: ShownMail) {
        self.untold().shown.insert(shown.submission, shown);
        self.news.notify_one();
    }
    pub(super) fn show_only(&self, submissions: BTreeSet<SubmissionId>) {
        self.untold().only = Some(submissions);
        self.news.notify_one();
    }

    fn untold(&self) -> MutexGuard<'_, Untold> {
        // An insertion or a removal leaves good maps, whoever panicked after it.
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on until the brain has stopped.
    pub(super) async fn run(self, neighbours: Arc<dyn Neighbours>, back: Handle<Outbox>) {
        loop {
            self.news.notified().await;
            if self.untold().shown.len() < MANY {
                tokio::time::sleep(MOMENT).await;
            }
            let only = self.untold().only.take();
            if let Some(only) = only {
                neighbours.show_only(only).await;
            }
            loop {
                let some: Vec<ShownMail> = {
                    let shown = &mut self.untold().shown;
                    std::iter::from_fn(|| shown.pop_first()).map(|(_, shown)| shown).take(MANY).collect()
                };
                let submissions: Vec<SubmissionId> = some.iter().map(|shown| shown.submission).collect();
                if submissions.is_empty() {
                    break;
                }
                // The mailbox has heard of all of them before the brain hears that: then it may drop what they are shown from.
                join_all(some.into_iter().map(|shown| neighbours.show(shown))).await;
                for submission in submissions {
                    if back.hand_in(Input::Shown { submission }).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
