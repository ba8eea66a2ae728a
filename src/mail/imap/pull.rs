//! Opening bodies that are not here: waits for pulls, tells how far they are, delivers each as it arrives. Never waits for a
//! mail program that is gone.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::connection::Connection;
use super::fetch::{Missing, shown_now};
use super::fetch_item::Item;
use super::{End, MailStore};
use crate::core::postbox::access::{
    BodyState, MailboxFailure, MailboxName, MailboxReply, MailboxRequest, Message, MessageKey, Uid, View,
};

/// How long the postbox may take to say how far a pull is.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens a body: pulls it when it is not here.
pub(super) async fn open_body<S: MailStore>(
    store: &S,
    view: View,
    mailbox: MailboxName,
    uid: Uid,
) -> Result<PathBuf, MailboxFailure> {
    match store.request(view, MailboxRequest::Body { mailbox, uid }).await {
        MailboxReply::Body(path) => Ok(path),
        MailboxReply::Failed(failure) => Err(failure),
        _ => Err(MailboxFailure::Unavailable("the postbox gave an answer that does not fit".to_owned())),
    }
}

/// How far several pulls are together.
async fn progress<S: MailStore>(store: &S, view: View, keys: &[MessageKey]) -> Option<u32> {
    let mut percents = Vec::new();
    for key in keys {
        let asked = store.request(view, MailboxRequest::Progress { key: *key });
        if let Ok(MailboxReply::Pulled(Some(percent))) = timeout(PROGRESS_TIMEOUT, asked).await {
            percents.push(u32::from(percent.min(100)));
        }
    }
    let count = u32::try_from(percents.len()).ok()?;
    percents.iter().sum::<u32>().checked_div(count)
}

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// Opens the bodies of `stubs`, a few at a time, and delivers each message as soon as its body is here.
    ///
    /// # Errors
    /// [`End`] when the connection ends, or the mail program is gone.
    pub(super) async fn pull(&mut self, stubs: Vec<Message>, items: &[Item], missing: &mut Missing) -> Result<(), End> {
        let (Some(view), Some(selected)) = (self.state.view(), self.state.selected()) else { return Ok(()) };
        let mailbox = selected.name.clone();
        let store = self.shared.store.clone();
        let start = |message: Message| {
            let (store, mailbox) = (store.clone(), mailbox.clone());
            async move {
                let result = open_body(&store, view, mailbox, message.uid).await;
                (message.key, message.uid, result)
            }
        };
        let every = self.shared.config.progress_every;
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = VecDeque::from(stubs);
        let mut pulled: Vec<MessageKey> = Vec::new();
        let mut pulls = FuturesUnordered::new();
        loop {
            while pulls.len() < self.shared.config.pulls.max(1)
                && let Some(message) = waiting.pop_front()
            {
                pulled.push(message.key);
                pulls.push(start(message));
            }
            // What was delivered is seen before the next body is waited for.
            self.output.flush().await?;
            tokio::select! {
                next = pulls.next() => {
                    let Some((key, uid, result)) = next else { return Ok(()) };
                    pulled.retain(|known| *known != key);
                    match result {
                        Ok(path) => self.deliver_pulled(uid, path, items, missing).await?,
                        Err(failure) => missing.add(failure),
                    }
                }
                _ = ticks.tick() => {
                    match progress(&store, view, &pulled).await {
                        Some(percent) => self.output.line(&format!("* OK still pulling, {percent}%")),
                        None => self.output.line("* OK still pulling"),
                    }
                }
                () = self.input.closed() => return Err(End::Closed),
            }
        }
    }

    async fn deliver_pulled(
        &mut self,
        uid: Uid,
        path: PathBuf,
        items: &[Item],
        missing: &mut Missing,
    ) -> Result<(), End> {
        let Some((sequence, mut shown)) = shown_now(self.state.selected(), uid) else { return Ok(()) };
        shown.message.body = BodyState::Here;
        match self.prepare(sequence, shown, items).await {
            Ok(asked) => self.deliver(&asked, items, Some(&path), missing).await,
            Err(failure) => {
                missing.add(failure);
                Ok(())
            }
        }
    }
}
