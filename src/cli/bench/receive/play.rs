//! One run of a bench of receiving: new peers, mails prepared, submitted and read at the same time, everything counted from outside
//! until the sender knows that all were received. Nothing is counted twice, and no run without every mail read gives a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use super::args::{GroupArg, OpenArg};
use super::clients::{self, outcome};
use super::mails::{Mails, Source};
use super::place::Counter;
use super::rows::{PeerCost, Row, Wanted};
use super::scene::{Scene, Setting};
use crate::cli::bench::cpu;
use crate::cli::demo::imap_client::ImapClient;
use crate::cli::demo::smtp_client::SmtpClient;
use crate::cli::progress::Progress;

/// How often sockets are looked at, where those are what counts the traffic.
const LOOK: Duration = Duration::from_millis(50);
/// How often while a bar is shown only.
const LOOK_SELDOM: Duration = Duration::from_millis(200);

/// What the mail programs saw.
struct Played {
    start: Instant,
    submitted: Instant,
    last: Instant,
    identical: u32,
}

/// Measures one row.
///
/// # Errors
/// When something does not work, or a mail that was read is not what was submitted.
pub(super) fn run(wanted: &Wanted, source: &Source<'_>, namespaces: bool) -> anyhow::Result<Row> {
    let eager = wanted.open == OpenArg::AtOnce;
    let scene = Scene::make(Setting { group: wanted.group, notify: wanted.notify, eager, namespaces })?;
    let people = (&scene.sender.address, &scene.reader.address);
    let mails = Mails::prepare(source, wanted.n, people, &scene.stage.cluster.home().join("mails"))?;
    nix::unistd::sync();
    let submitters = clients::submitters(scene.namespace(&scene.sender).as_deref(), &scene.sender, wanted.connections)?;
    let imap = clients::reader(scene.namespace(&scene.reader).as_deref(), &scene.reader)?;
    let fsync_ms = scene.fsync_ms()?;
    let (reader_pid, others) = scene.pids()?;
    scene.forget_peaks();
    let before = scene.taken();
    let own = || cpu::seconds(std::process::id()).unwrap_or(0.0);
    let own_before = own();
    let mut counter = Counter::start(scene.wire.as_ref(), reader_pid, &others)?;
    let played = play(&scene, wanted, &mails, submitters, imap, &mut counter)?;
    let clients_cpu_s = own() - own_before;
    scene.all_ended()?;
    let carried = counter.counted()?;
    let peers: Vec<PeerCost> =
        scene.taken().iter().zip(&before).map(|(now, before)| PeerCost::from(now.since(before))).collect();
    Ok(Row {
        kind: wanted.kind,
        size: wanted.size,
        n: u32::try_from(mails.files.len())?,
        connections: wanted.connections,
        group: wanted.group,
        notify: wanted.notify,
        open: wanted.open,
        seconds_submit: played.submitted.duration_since(played.start).as_secs_f64(),
        seconds_total: played.last.duration_since(played.start).as_secs_f64(),
        cpu_s: peers.iter().map(|peer| peer.cpu_s).sum(),
        traffic_bytes: carried.rx_bytes + carried.tx_bytes,
        traffic_counted_by: counter.how(),
        rx_bytes: carried.rx_bytes,
        tx_bytes: carried.tx_bytes,
        packets: carried.rx_packets + carried.tx_packets,
        peak_rss_bytes: peers.iter().map(|peer| peer.peak_rss_bytes).sum(),
        stored_bytes: peers.iter().map(|peer| peer.stored_bytes).sum(),
        fsync_ms,
        mail_bytes: mails.bytes,
        identical: played.identical,
        safe_when_received: (wanted.group == GroupArg::ThreeOfFive).then(|| scene.ended_safe()).transpose()?,
        clients_cpu_s,
        peers,
    })
}

/// Submits and reads, at the same time or one after the other.
fn play(
    scene: &Scene,
    wanted: &Wanted,
    mails: &Mails,
    submitters: Vec<SmtpClient>,
    imap: ImapClient,
    counter: &mut Counter,
) -> anyhow::Result<Played> {
    let n = u32::try_from(mails.files.len())?;
    let (seen, bar) = (Arc::new(AtomicUsize::new(0)), Progress::start("submitting and reading"));
    let mut look_until = |over: &dyn Fn() -> bool| -> anyhow::Result<()> {
        while !over() {
            std::thread::sleep(if matches!(counter, Counter::Sockets(..)) { LOOK } else { LOOK_SELDOM });
            counter.look()?;
            let done = seen.load(Ordering::SeqCst);
            bar.at(&format!("{done} of {n} mails read"), u8::try_from(done * 100 / mails.files.len().max(1)).ok());
        }
        Ok(())
    };
    let start = Instant::now();
    let submitting = clients::submit(submitters, &mails.files, &scene.sender.address, &scene.reader.address)?;
    let read = |imap| clients::read(imap, n, mails.due.clone(), seen.clone());
    let (reading, waits) = match wanted.open {
        OpenArg::AtOnce => (Some(read(imap)?), None),
        OpenArg::WhenSafe => (None, Some(imap)),
    };
    look_until(&|| submitting.iter().all(clients::Client::is_finished))?;
    let mut submitted = start;
    for one in submitting {
        submitted = submitted.max(outcome(one).context("submission broke off")?);
    }
    let reading = match (reading, waits) {
        (Some(reading), _) => reading,
        (None, Some(imap)) => {
            scene.all_safe()?;
            read(imap)?
        }
        (None, None) => bail!("nobody reads"),
    };
    look_until(&|| reading.is_finished())?;
    let read = outcome(reading).context("reading broke off")?;
    let with_members = wanted.group == GroupArg::ThreeOfFive;
    let safe = if with_members { scene.all_safe()? } else { read.last };
    Ok(Played { start, submitted, last: read.last.max(safe), identical: read.identical })
}
