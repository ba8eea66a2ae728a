//! One run of a bench of receiving: new peers, mails prepared, submitted and read at the same time, everything counted from outside
//! until the sender knows that all were received. Nothing is counted twice, and no run without every mail read gives a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::args::GroupArg;
use super::clients::{self, outcome};
use super::mails::{Mails, Source};
use super::place::Counter;
use super::rows::{PeerCost, Row, Wanted};
use super::scene::{Scene, Setting};
use crate::cli::bench::cpu;
use crate::cli::progress::Progress;

/// How often sockets are looked at, where those are what counts the traffic.
const LOOK: Duration = Duration::from_millis(50);
/// How often while a bar is shown only.
const LOOK_SELDOM: Duration = Duration::from_millis(200);

/// Measures one row.
///
/// # Errors
/// When something does not work, or a mail that was read is not what was submitted.
pub(super) fn run(wanted: &Wanted, source: &Source<'_>, namespaces: bool) -> anyhow::Result<Row> {
    let setting = Setting { group: wanted.group, notify: wanted.notify, eager: true, namespaces };
    let scene = Scene::make(setting)?;
    let people = (&scene.sender.address, &scene.reader.address);
    let mails = Mails::prepare(source, wanted.n, people, &scene.stage.cluster.home().join("mails"))?;
    nix::unistd::sync();
    let n = u32::try_from(mails.files.len())?;
    let submitters = clients::submitters(scene.namespace(&scene.sender).as_deref(), &scene.sender, wanted.connections)?;
    let imap = clients::reader(scene.namespace(&scene.reader).as_deref(), &scene.reader)?;
    let fsync_ms = scene.fsync_ms()?;
    let (reader_pid, others) = scene.pids()?;
    scene.forget_peaks();
    let before = scene.taken();
    let own_before = cpu::seconds(std::process::id());
    let mut counter = Counter::start(scene.wire.as_ref(), reader_pid, &others)?;

    let seen = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let reading = clients::read(imap, n, mails.due.clone(), seen.clone())?;
    let submitting = clients::submit(submitters, &mails.files, people.0, people.1)?;
    let bar = Progress::start("submitting and reading");
    let look = if matches!(counter, Counter::Sockets(..)) { LOOK } else { LOOK_SELDOM };
    while !reading.is_finished() && !submitting.iter().any(|one| one.is_finished() && seen.load(Ordering::SeqCst) == 0)
    {
        std::thread::sleep(look);
        counter.look()?;
        let done = seen.load(Ordering::SeqCst);
        bar.at(&format!("{done} of {n} mails read"), u8::try_from(done * 100 / mails.files.len().max(1)).ok());
    }
    drop(bar);
    let mut submitted = start;
    for one in submitting {
        submitted = submitted.max(outcome(one).context("submission broke off")?);
    }
    let read = outcome(reading).context("reading broke off")?;
    let mut last = read.last;
    if wanted.group == GroupArg::ThreeOfFive {
        last = last.max(scene.all_safe()?);
    }
    let own_cpu = cpu::seconds(std::process::id()).zip(own_before).map_or(0.0, |(now, before)| now - before);
    scene.all_ended()?;
    let carried = counter.counted()?;
    let peers: Vec<PeerCost> =
        scene.taken().iter().zip(&before).map(|(now, before)| PeerCost::from(now.since(before))).collect();
    Ok(Row {
        kind: wanted.kind,
        size: wanted.size,
        n,
        connections: wanted.connections,
        group: wanted.group,
        notify: wanted.notify,
        seconds_submit: submitted.duration_since(start).as_secs_f64(),
        seconds_total: last.duration_since(start).as_secs_f64(),
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
        identical: read.identical,
        safe_when_received: (wanted.group == GroupArg::ThreeOfFive).then(|| scene.ended_safe()).transpose()?,
        clients_cpu_s: own_cpu,
        peers,
    })
}
