//! The listener and what connections share. Never serves more connections than its bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::Connection;
use super::{ImapConfig, MailStore};
use crate::core::postbox::access::{MailboxInfo, MailboxName, Uid, View};

/// Pause after `accept` failed, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Mailboxes whose recent messages are remembered; beyond, all is forgotten, and messages are recent once more.
const RECENT_MAX: usize = 10_000;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) store: S,
    pub(super) config: ImapConfig,
    /// Says true, or is closed, when the server goes down.
    pub(super) stop: watch::Receiver<bool>,
    /// The largest UID that a session has seen, by view, mailbox and UIDVALIDITY.
    seen: Mutex<BTreeMap<(View, MailboxName, u32), Uid>>,
}

impl<S: MailStore> Shared<S> {
    pub(super) fn new(store: S, config: ImapConfig, stop: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { store, config, stop, seen: Mutex::default() })
    }
    /// The UID above which messages are recent; with `claim` they are no longer for sessions to come.
    pub(super) fn recent_from(&self, view: View, info: &MailboxInfo, claim: bool) -> Uid {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (view, info.name.clone(), info.uid_validity);
        let before = seen.get(&key).copied().unwrap_or(Uid(0));
        let last = Uid(info.uid_next.0.saturating_sub(1));
        if claim && last > before {
            if seen.len() >= RECENT_MAX {
                seen.clear();
            }
            seen.insert(key, last);
        }
        before
    }
}

/// Returns once the server goes down.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone says the same.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// Serves IMAP on `listener` until `stop` says true or its sender is gone; then connections have `config.grace` to end.
pub async fn serve<S: MailStore>(listener: TcpListener, store: S, config: ImapConfig, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(config.connections));
    let shared = Shared::new(store, config, stop.clone());
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((mut tcp, _)) => {
                    let _ = tcp.set_nodelay(true);
                    match Arc::clone(&places).try_acquire_owned() {
                        Ok(place) => {
                            let (reader, writer) = tcp.into_split();
                            let connection = Connection::new(Arc::clone(&shared), reader, writer);
                            tasks.spawn(async move {
                                connection.run().await;
                                drop(place);
                            });
                        }
                        Err(_) => {
                            let bye = b"* BYE too many connections; close one and try again\r\n";
                            let _ = timeout(ACCEPT_PAUSE, tcp.write_all(bye)).await;
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an IMAP connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(shared.config.grace, ended).await.is_err() {
        tracing::debug!("IMAP connections were still open when the grace was over");
    }
    tasks.shutdown().await;
}

/// Serves one connection that is not from a listener: a test's, or one that came another way.
pub async fn serve_connection<S, R, W>(store: S, config: ImapConfig, reader: R, writer: W)
where
    S: MailStore,
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (_running, stop) = watch::channel(false);
    Connection::new(Shared::new(store, config, stop), reader, writer).run().await;
}
