//! The mail programs of a bench: several that submit at the same time, and one that idles in the reader's INBOX and fetches every
//! body as it comes. They compare what they read with what was submitted, to the byte, and never retry a submission.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use super::mails::Due;
use crate::cli::cluster::ClusterPeer;
use crate::cli::demo::imap_client::ImapClient;
use crate::cli::demo::smtp_client::SmtpClient;
use crate::cli::network::{joined, thread_in};
use crate::model::Address;

/// How long a body that cannot be had is asked for again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon.
const AGAIN: Duration = Duration::from_millis(100);

/// A mail program somewhere.
pub(in crate::cli::bench) type Client<T> = JoinHandle<anyhow::Result<anyhow::Result<T>>>;

/// What came of a mail program.
pub(in crate::cli::bench) fn outcome<T>(client: Client<T>) -> anyhow::Result<T> {
    joined(client)?
}

/// Connections to the sender's submission, logged in.
pub(in crate::cli::bench) fn submitters(
    namespace: Option<&str>,
    from: &ClusterPeer,
    connections: u32,
) -> anyhow::Result<Vec<SmtpClient>> {
    let (smtp, login, password) = (from.smtp.clone(), from.address.to_string(), from.password.clone());
    let all = move || (0..connections).map(|_| Ok(SmtpClient::login(&smtp, &login, &password)?)).collect();
    joined(thread_in(namespace, all)?)?
}

/// A connection to the reader's INBOX.
pub(in crate::cli::bench) fn reader(namespace: Option<&str>, of: &ClusterPeer) -> anyhow::Result<ImapClient> {
    let (imap, login, password) = (of.imap.clone(), of.address.to_string(), of.password.clone());
    let connect = move || -> anyhow::Result<ImapClient> {
        let mut client = ImapClient::login(&imap, &login, &password)?;
        client.select("INBOX")?;
        Ok(client)
    };
    joined(thread_in(namespace, connect)?)?
}

/// Submits the mails in these files, the next one wherever a connection is free; gives when the last was taken.
pub(in crate::cli::bench) fn submit(
    connections: Vec<SmtpClient>,
    files: &[PathBuf],
    from: &Address,
    to: &Address,
) -> anyhow::Result<Vec<Client<Instant>>> {
    let (files, next) = (Arc::new(files.to_vec()), Arc::new(AtomicUsize::new(0)));
    let mut all = Vec::new();
    for mut smtp in connections {
        let (files, next, from, to) = (files.clone(), next.clone(), from.clone(), to.clone());
        // A socket stays in the network in which it was made.
        all.push(thread_in(None, move || {
            while let Some(path) = files.get(next.fetch_add(1, Ordering::SeqCst)) {
                let mail = std::fs::read(path).with_context(|| path.display().to_string())?;
                let submitted = smtp.submit(&from, std::slice::from_ref(&to), &mail);
                submitted.with_context(|| format!("{} cannot be submitted", path.display()))?;
            }
            Ok(Instant::now())
        })?);
    }
    Ok(all)
}

/// What a mail program read.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli::bench) struct Read {
    /// When the last body was there.
    pub(in crate::cli::bench) last: Instant,
    /// Mails that were read, each identical with one that was submitted.
    pub(in crate::cli::bench) identical: u32,
}

/// Reads `n` mails as they come: idles, fetches each body, compares it. `seen` counts them.
///
/// # Errors
/// When a mail differs from all that are due, or cannot be had.
pub(in crate::cli::bench) fn read(
    mut imap: ImapClient,
    n: u32,
    mut due: Due,
    seen: Arc<AtomicUsize>,
) -> anyhow::Result<Client<Read>> {
    thread_in(None, move || {
        let (before, mut next_uid) = (imap.exists(), 1);
        let (mut identical, mut last) = (0, Instant::now());
        while identical < n {
            imap.idle_beyond(before + identical)?;
            for uid in imap.uids_from(next_uid)? {
                let body = body(&mut imap, uid)?;
                last = Instant::now();
                if !due.take(&body) {
                    bail!(
                        "what was read is not what was submitted: UID {uid}, {} bytes, the mail is none that is due",
                        body.len()
                    );
                }
                (identical, next_uid) = (identical + 1, uid + 1);
                seen.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(Read { last, identical })
    })
}

/// The whole of a message; one that cannot be had now is asked for again.
pub(in crate::cli::bench) fn body(imap: &mut ImapClient, uid: u32) -> anyhow::Result<Vec<u8>> {
    let start = Instant::now();
    loop {
        match imap.fetch(uid, "", &mut |_, _| {}) {
            Err(e) if e.is_unavailable() && start.elapsed() < PATIENCE => std::thread::sleep(AGAIN),
            fetched => return Ok(fetched?),
        }
    }
}
