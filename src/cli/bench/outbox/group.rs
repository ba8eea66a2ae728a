//! The group of a bench of outboxes: an owner, members that hold every mail, a reader who opens none; how the outbox is filled,
//! and what is waited for. It looks at peers from outside.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::args::OutboxBenchArgs;
use crate::cli::cluster::ClusterPeer;
use crate::cli::compose::Letter;
use crate::cli::demo::smtp_client::SmtpClient;
use crate::cli::demo::stage::Stage;
use crate::cli::progress::Progress;
use crate::clock::system_wall;
use crate::config::cluster::Cluster;
use crate::console::protocol::{OutboxPage, PeerStatus, Request};
use crate::model::{Address, SubmissionId};

/// How often peers are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often while very much is done.
const LOOK_LONG: Duration = Duration::from_secs(2);
/// Longest wait without any progress.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who takes part.
pub(super) struct Group {
    /// Where it happens; ends every peer when it goes.
    pub(super) stage: Stage,
    /// Whose outbox it is.
    pub(super) owner: Address,
    /// Who holds its mails.
    pub(super) members: Vec<Address>,
    /// Who they are for.
    pub(super) reader: Address,
}

/// The cluster file. Small mails are kept whole by any policy; here at every member.
fn cluster(members: u8) -> anyhow::Result<Cluster> {
    let names: Vec<String> = (0..=members).map(|i| format!("\"m{i}\"")).collect();
    let with: Vec<String> = (0..=members).map(|i| format!("\"m{i}@acme\"")).collect();
    let text = format!(
        "[[group]]\nname = \"acme\"\nmembers = [{}]\n[group.replication]\nmode = \"full\"\ncopies = {members}\n\
         [[group]]\nname = \"readers\"\nmembers = [\"rita\"]\n[[contacts]]\npeer = \"rita@readers\"\nwith = [{}]\n",
        names.join(", "),
        with.join(", ")
    );
    Ok(Cluster::parse("bench", &text)?)
}

impl Group {
    /// Makes and starts all of it.
    pub(super) fn make(args: &OutboxBenchArgs) -> anyhow::Result<Self> {
        let stage = Stage::new("bench", None, cluster(args.members)?)?;
        stage.cluster.up(&stage.file)?;
        let mut all: Vec<Address> = stage.file.peers().map(|(address, _)| address).collect();
        let reader = all.pop().context("the bench has no reader")?;
        let owner = all.remove(0);
        Ok(Self { stage, owner, members: all, reader })
    }

    /// A peer as it is now.
    pub(super) fn peer(&self, address: &Address) -> anyhow::Result<ClusterPeer> {
        self.stage.peer(&address.to_string())
    }

    /// The process of a peer.
    pub(super) fn pid(&self, address: &Address) -> anyhow::Result<u32> {
        self.peer(address)?.pid.with_context(|| format!("{address} does not run"))
    }

    /// Asks a peer.
    pub(super) fn ask<T: DeserializeOwned>(&self, of: &Address, request: &Request) -> anyhow::Result<T> {
        self.stage.cluster.control_of(of).ask_telling(request, &mut |_, _| {}).with_context(|| of.to_string())
    }

    /// The last that wait, and how many wait.
    pub(super) fn last(&self, count: u32) -> anyhow::Result<OutboxPage> {
        self.ask(&self.owner, &Request::OutboxAfter { after: None, last: Some(count) })
    }

    /// Submits `count` mails over several connections; `look` is called meanwhile.
    pub(super) fn submit(
        &self,
        count: u32,
        connections: u32,
        look: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (from, to) = (self.peer(&self.owner)?, self.reader.clone());
        let (left, bar) = (AtomicU32::new(count), Progress::start("submitting"));
        let one = || -> anyhow::Result<()> {
            let mut smtp = SmtpClient::login(&from.smtp, &from.address.to_string(), &from.password)?;
            loop {
                let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                let Ok(before) = taken else { return Ok(()) };
                smtp.submit(&from.address, std::slice::from_ref(&to), &letter(&from.address, &to, before)?)?;
                bar.at(&format!("{} of {count} mails submitted", count - before + 1), percent(count - before, count));
            }
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..connections.min(count)).map(|_| scope.spawn(one)).collect();
            while !all.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                std::thread::sleep(LOOK * 4);
                look()?;
            }
            all.into_iter().try_for_each(|one| match one.join() {
                Ok(done) => done,
                Err(_) => bail!("a connection that submits broke off"),
            })
        })
    }

    /// Waits until `mails` are sealed, every member holds each of them, and the reader's peer has been told of all; `look` is
    /// called meanwhile.
    pub(super) fn settle(&self, mails: u32, look: &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let bar = Progress::start("the members pull the mails");
        let safe = (self.members.len().saturating_sub(1)).to_string();
        self.patiently("every member holds every mail", || {
            look()?;
            let owner: PeerStatus = self.ask(&self.owner, &Request::Status)?;
            let reader: PeerStatus = self.ask(&self.reader, &Request::Status)?;
            let count = |status: &PeerStatus, path: &str| number(status, path);
            let held = count(&owner, &format!("/outbox/by_safe/{safe}"));
            let sealed = count(&owner, "/outbox/mails");
            let told = count(&reader, "/postbox/mails");
            let shown = count(&owner, "/postbox/mailboxes/Outbox");
            bar.at(&format!("{held} of {mails} mails are safe"), percent(clamped(held), mails));
            let mails = u64::from(mails);
            let done = held == mails && sealed == mails && told >= mails && shown == mails;
            Ok(if done { Ok(()) } else { Err((held, sealed, told, shown)) })
        })
    }

    /// Looks until it is so, as long as anything goes on.
    fn patiently<P: PartialEq>(
        &self,
        what: &str,
        mut see: impl FnMut() -> anyhow::Result<Result<(), P>>,
    ) -> anyhow::Result<()> {
        let (mut since, mut last) = (Instant::now(), None);
        loop {
            let Err(progress) = see()? else { return Ok(()) };
            if last.as_ref() != Some(&progress) {
                (since, last) = (Instant::now(), Some(progress));
            } else if since.elapsed() > PATIENCE {
                bail!("{what}: nothing went on for {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(if since.elapsed() < LOOK_LONG { LOOK * 4 } else { LOOK_LONG });
        }
    }

    /// Submits one mail more and waits until every member holds it and its reader's peer was told; `look` is called meanwhile.
    pub(super) fn one_more(
        &self,
        smtp: &mut SmtpClient,
        look: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<SubmissionId> {
        let mail = letter(&self.owner, &self.reader, 0)?;
        let reply = smtp.submit(&self.owner, std::slice::from_ref(&self.reader), &mail)?;
        let (_, id) = reply.text.rsplit_once(' ').context("the 250 names no submission")?;
        let id: SubmissionId =
            id.parse().map_err(|_| anyhow::anyhow!("the 250 names no submission: {}", reply.text))?;
        let start = Instant::now();
        loop {
            look()?;
            let lines = self.last(4)?.lines;
            let done = lines.iter().find(|line| line.submission == id).is_some_and(|line| {
                let announced = line.receivers.values().all(|state| state == "announced");
                announced && line.sealed.iter().any(|sealed| sealed.holders.len() >= self.members.len())
            });
            if done {
                return Ok(id);
            }
            if start.elapsed() > PATIENCE {
                bail!("one mail more was not safe within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// A small mail, as a mail program writes it.
fn letter(from: &Address, to: &Address, number: u32) -> anyhow::Result<Vec<u8>> {
    let letter = Letter {
        from,
        to: std::slice::from_ref(to),
        cc: &[],
        subject: &format!("Minutes of meeting {number}"),
        date: system_wall(),
        text: b"Hi Rita,\n\nwe met, we talked, and we agreed to meet again. The list of what is to be done is the old one.\n\nAlice\n",
        attach: &[],
    };
    let mut mail = Vec::new();
    letter.write(&mut mail)?;
    Ok(mail)
}

/// A number in what the brains show.
pub(in crate::cli::bench) fn number(status: &PeerStatus, path: &str) -> u64 {
    let mut parts = path.split('/').skip(1);
    let brain = parts.next().and_then(|brain| status.brains.get(brain));
    parts.fold(brain, |value, part| value.and_then(|v| v.get(part))).and_then(serde_json::Value::as_u64).unwrap_or(0)
}

fn clamped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn percent(done: u32, all: u32) -> Option<u8> {
    u8::try_from(u64::from(done) * 100 / u64::from(all.max(1))).ok()
}
