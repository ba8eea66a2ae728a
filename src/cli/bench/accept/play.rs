//! One run of a bench of accepting: stubs come, some are opened and compared, the others deleted unread, until the sender knows of
//! each. What travelled is counted from outside.

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use super::args::AcceptArgs;
use super::{Row, accepted};
use crate::cli::bench::receive::clients::{self, outcome};
use crate::cli::bench::receive::mails::{Due, Mails, Source};
use crate::cli::bench::receive::place::Counter;
use crate::cli::bench::receive::scene::{Scene, Setting};
use crate::cli::demo::imap_client::ImapClient;
use crate::cli::network::thread_in;
use crate::cli::progress::Progress;

/// Measures one row: `percent` of the mails are accepted.
///
/// # Errors
/// When something does not work, or a mail that was read is not what was submitted.
pub(super) fn run(args: &AcceptArgs, percent: u32) -> anyhow::Result<Row> {
    let namespaces = !args.no_namespace;
    let scene = Scene::make(Setting { group: args.group, notify: args.notify, eager: false, namespaces })?;
    let people = (&scene.sender.address, &scene.reader.address);
    let source = Source::Made { kind: args.kind, size: args.size };
    let mails = Mails::prepare(&source, args.n, people, &scene.stage.cluster.home().join("mails"))?;
    let fsync_ms = scene.fsync_ms()?;
    let submitters = clients::submitters(scene.namespace(&scene.sender).as_deref(), &scene.sender, args.connections)?;
    let imap = clients::reader(scene.namespace(&scene.reader).as_deref(), &scene.reader)?;
    let (reader_pid, others) = scene.pids()?;
    let before = scene.taken();
    let mut counter = Counter::start(scene.wire.as_ref(), reader_pid, &others)?;
    let bar = Progress::start("submitting, opening and deleting");
    bar.at(&format!("{percent} % of {} mails are accepted", args.n), None);

    let start = Instant::now();
    let (n, due) = (args.n, mails.due.clone());
    let reading = thread_in(None, move || choose(imap, n, percent, due))?;
    let submitting = clients::submit(submitters, &mails.files, people.0, people.1)?;
    while !reading.is_finished() {
        std::thread::sleep(std::time::Duration::from_millis(50));
        counter.look()?;
    }
    for one in submitting {
        outcome(one).context("submission broke off")?;
    }
    let chosen = outcome(reading).context("reading broke off")?;
    scene.all_ended()?;
    let carried = counter.counted()?;
    let cpu_s = scene.taken().iter().zip(&before).map(|(now, before)| now.since(before).cpu_s).sum();
    Ok(Row {
        accept_percent: percent,
        n: args.n,
        accepted: chosen.identical,
        refused: chosen.refused,
        kind: args.kind,
        size: args.size,
        connections: args.connections,
        group: args.group,
        notify: args.notify,
        seconds_total: chosen.last.duration_since(start).as_secs_f64(),
        cpu_s,
        traffic_bytes: carried.rx_bytes + carried.tx_bytes,
        traffic_counted_by: counter.how(),
        rx_bytes: carried.rx_bytes,
        tx_bytes: carried.tx_bytes,
        packets: carried.rx_packets + carried.tx_packets,
        fsync_ms,
        mail_bytes: mails.bytes,
    })
}

/// What a reader did.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    last: Instant,
    identical: u32,
    refused: u32,
}

/// Opens, or deletes unread, each mail as its stub comes.
fn choose(mut imap: ImapClient, n: u32, percent: u32, mut due: Due) -> anyhow::Result<Chosen> {
    let (mut next_uid, mut chosen) = (1, Chosen { last: Instant::now(), identical: 0, refused: 0 });
    while chosen.identical + chosen.refused < n {
        imap.idle_beyond(chosen.identical)?;
        for uid in imap.uids_from(next_uid)? {
            if accepted(chosen.identical + chosen.refused, percent) {
                let body = clients::body(&mut imap, uid)?;
                if !due.take(&body) {
                    bail!("what was read is not what was submitted: UID {uid}");
                }
                chosen.identical += 1;
            } else {
                imap.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"))?;
                imap.command("EXPUNGE")?;
                chosen.refused += 1;
            }
            (next_uid, chosen.last) = (uid + 1, Instant::now());
        }
    }
    Ok(chosen)
}
