//! Single mails on idle peers: how long from submission to the stub in the reader's IDLE, and to the body over IMAP. One after the
//! other, each only once nothing of the last one is under way.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use tokio::time::Instant;

use super::args::{GroupArg, Kind, NotifyArg};
use super::clients;
use super::mails::{Mails, Source};
use super::rows::Wanted;
use super::scene::{Scene, Setting};
use crate::cli::bench::report::median;
use crate::cli::network::{joined, thread_in};
use crate::cli::progress::Progress;

/// What is still done after the sender knows that a mail was received ends in this time, and the next IDLE stands.
const REST: Duration = Duration::from_millis(300);
/// How long the reader's client idles before the mail is submitted.
const IDLES: Duration = Duration::from_millis(100);

/// What single mails took: medians, and what nine of ten stayed below.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Latency {
    /// `latency`: this row is of single mails.
    pub(super) measured: &'static str,
    /// Where the sender is.
    pub(super) group: GroupArg,
    /// How the reader is told.
    pub(super) notify: NotifyArg,
    /// What the attachments are made of.
    pub(super) kind: Kind,
    /// Their length, bytes.
    pub(super) size: Option<u64>,
    /// Mails.
    pub(super) n: u32,
    /// From the first byte submitted to the 250.
    pub(super) accepted_ms: f64,
    /// To the stub in the reader's IDLE.
    pub(super) stub_ms: f64,
    /// To the body over IMAP.
    pub(super) body_ms: f64,
    /// What nine of ten stubs stayed below.
    pub(super) stub_ms_p90: f64,
    /// What nine of ten bodies stayed below.
    pub(super) body_ms_p90: f64,
    /// Of this disk, before.
    pub(super) fsync_ms: f64,
    /// Mails that are what was submitted, to the byte: all of them.
    pub(super) identical: u32,
}

/// Measures one row.
///
/// # Errors
/// When something does not work, or a mail that was read is not what was submitted.
pub(super) fn run(wanted: &Wanted, source: &Source<'_>, namespaces: bool) -> anyhow::Result<Latency> {
    let scene = Scene::make(Setting { group: wanted.group, notify: wanted.notify, eager: true, namespaces })?;
    let people = (scene.sender.address.clone(), scene.reader.address.clone());
    let folder = scene.stage.cluster.home().join("mails");
    let mut mails = Mails::prepare(source, wanted.n, (&people.0, &people.1), &folder)?;
    let fsync_ms = scene.fsync_ms()?;
    let mut smtp = clients::submitters(scene.namespace(&scene.sender).as_deref(), &scene.sender, 1)?;
    let mut imap = clients::reader(scene.namespace(&scene.reader).as_deref(), &scene.reader)?;
    let (mut accepted, mut stubs, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    let (mut next_uid, bar) = (1, Progress::start("single mails"));
    for (path, done) in mails.files.iter().zip(0..) {
        bar.at(&format!("mail {done} of {}", mails.files.len()), None);
        scene.all_ended()?;
        std::thread::sleep(REST);
        let mail = std::fs::read(path)?;
        let Some(mut submission) = smtp.pop() else { bail!("the connection to SMTP is gone") };
        let (from, to) = people.clone();
        let submitting = thread_in(None, move || {
            std::thread::sleep(IDLES);
            let start = Instant::now();
            let taken = submission.submit(&from, &[to], &mail).map(|_| Instant::now());
            (start, taken, submission)
        })?;
        let known = imap.exists();
        let stub = imap.idle_beyond(known)?;
        let uids = imap.uids_from(next_uid)?;
        let [uid] = uids.as_slice() else { bail!("one mail became {} messages", uids.len()) };
        let body = clients::body(&mut imap, *uid)?;
        let read = Instant::now();
        let (start, taken, submission) = joined(submitting)?;
        smtp.push(submission);
        if !mails.due.take(&body) {
            bail!("what was read is not what was submitted: UID {uid}");
        }
        next_uid = uid + 1;
        let ms = |at: Instant| at.duration_since(start).as_secs_f64() * 1000.0;
        accepted.push(ms(taken?));
        stubs.push(ms(stub));
        bodies.push(ms(read));
    }
    Ok(Latency {
        measured: "latency",
        group: wanted.group,
        notify: wanted.notify,
        kind: wanted.kind,
        size: wanted.size,
        n: u32::try_from(bodies.len())?,
        accepted_ms: median(accepted),
        stub_ms_p90: nine_of_ten(stubs.clone()),
        body_ms_p90: nine_of_ten(bodies.clone()),
        stub_ms: median(stubs),
        identical: u32::try_from(bodies.len())?,
        body_ms: median(bodies),
        fsync_ms,
    })
}

/// What nine of ten stay at or below; 0 of none.
fn nine_of_ten(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() * 9).div_ceil(10).saturating_sub(1);
    values.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn nine_of_ten_are_nine_of_ten() {
        assert_eq!(super::nine_of_ten((1..=10).rev().map(f64::from).collect()), 9.0);
        assert_eq!(super::nine_of_ten(vec![3.0]), 3.0);
        assert_eq!(super::nine_of_ten(Vec::new()), 0.0);
    }
}
