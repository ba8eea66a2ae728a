//! The order of a bench of outboxes: fill, watch, add, take back, start again, and the same with more mails; what each took is
//! counted from outside of the peers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;

use super::args::OutboxBenchArgs;
use super::group::{Group, number};
use super::process::Taken;
use super::sockets::{Meter, Moved};
use super::{Cost, Row, What};
use crate::cli::demo::smtp_client::SmtpClient;
use crate::cli::progress::Progress;
use crate::console::protocol::{Cancelled, PeerStatus, Request};
use crate::model::{Address, SubmissionId};
use crate::store::home::Home;
use crate::store::manifests;

/// What a change still causes after its answer is counted for this long: acknowledgements, tombstones, files that go.
const AFTER: Duration = Duration::from_secs(2);
/// How often connections are looked at: they come and go seldom.
const LOOK: Duration = Duration::from_millis(200);
/// The peers come to rest before they are watched: what was written at once goes to storage, what was planned a second later is
/// done, and threads that did nothing for 10 s have ended.
const REST: Duration = Duration::from_secs(12);
/// Longest wait until members have dropped what was taken back.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the peers had taken at one moment, and a meter of what travels since.
struct Watch<'a> {
    group: &'a Group,
    owner: (u32, Taken),
    members: Vec<(Address, u32, Taken)>,
    meter: Meter,
    start: Instant,
}

/// What a watch saw.
struct Seen {
    seconds: f64,
    owner: Taken,
    members: Vec<(Address, Taken, Moved)>,
}

impl<'a> Watch<'a> {
    fn start(group: &'a Group) -> anyhow::Result<Self> {
        // Whoever asks for a process asks its peer: all of them first, so that no question falls into the time that is watched.
        let owner = group.pid(&group.owner)?;
        let pids: Vec<u32> = group.members.iter().map(|member| group.pid(member)).collect::<Result<_, _>>()?;
        let of_one = |(member, pid): (&Address, &u32)| Ok((member.clone(), *pid, Taken::by(*pid)?));
        let members = group.members.iter().zip(&pids).map(of_one).collect::<anyhow::Result<Vec<_>>>()?;
        let (meter, owner) = (Meter::start(owner, &pids)?, (owner, Taken::by(owner)?));
        Ok(Self { group, owner, members, meter, start: Instant::now() })
    }

    fn look(&mut self) -> anyhow::Result<()> {
        self.meter.look()
    }

    /// Goes on watching for a while.
    fn on_for(&mut self, span: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            std::thread::sleep(LOOK.min(end.duration_since(Instant::now())));
            self.look()?;
        }
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<Seen> {
        self.look()?;
        let owner = Taken::by(self.owner.0)?.since(self.owner.1);
        let mut members = Vec::new();
        for (address, pid, before) in &self.members {
            members.push((address.clone(), Taken::by(*pid)?.since(*before), self.meter.moved(*pid)));
        }
        let seconds = self.start.elapsed().as_secs_f64();
        ensure!(self.group.pid(&self.group.owner)? == self.owner.0, "the owner ended while it was watched");
        Ok(Seen { seconds, owner, members })
    }
}

fn float(count: u64) -> f64 {
    // Exact below 2^53, which no peer moves in a bench.
    u32::try_from(count)
        .map_or_else(|_| f64::from(u32::try_from(count >> 16).unwrap_or(u32::MAX)) * 65_536.0, f64::from)
}

impl Seen {
    /// As a row, `share` of what was seen. What `idle` costs in the same time is taken off; the least is zero.
    fn row(&self, mails: u32, what: What, count: u32, share: f64, idle: Option<&Seen>) -> Row {
        let cost = |address: &Address, taken: &Taken, moved: Moved, rest: Option<(&Taken, Moved)>| {
            let time = idle.map_or(0.0, |idle| self.seconds / idle.seconds);
            let (rest, rest_moved) = rest.map_or((Taken::default(), Moved::default()), |(t, m)| (*t, m));
            let net = |all: f64, rest: f64| (all - rest * time).max(0.0) * share;
            Cost {
                address: address.to_string(),
                from_owner_bytes: net(float(moved.sent), float(rest_moved.sent)),
                to_owner_bytes: net(float(moved.received), float(rest_moved.received)),
                written_bytes: net(float(taken.written_bytes), float(rest.written_bytes)),
                cpu_ms: net(taken.cpu_s, rest.cpu_s) * 1000.0,
                rss_anon_bytes: taken.rss_anon_bytes,
            }
        };
        let of_idle = |address: &Address| {
            idle.and_then(|idle| idle.members.iter().find(|m| m.0 == *address)).map(|(_, taken, moved)| (taken, *moved))
        };
        let members = self.members.iter().map(|(who, taken, moved)| cost(who, taken, *moved, of_idle(who))).collect();
        let rest = idle.map(|idle| (&idle.owner, Moved::default()));
        let mut owner = cost(&Address::clone(&self.members[0].0), &self.owner, Moved::default(), rest);
        owner.address.clear();
        Row {
            mails,
            what,
            count,
            seconds: self.seconds * share,
            part_and_manifest_bytes: 0,
            besides_bytes: 0.0,
            owner,
            members,
        }
    }
}

/// Measures one outbox after the other, each the one before and more.
pub(super) fn measure(args: &OutboxBenchArgs) -> anyhow::Result<Vec<Row>> {
    let group = Group::make(args)?;
    let (mut rows, mut there) = (Vec::new(), 0);
    for size in args.sizes() {
        rows.push(named(fill(&group, args, there, size)?, &group));
        there = size;
        rows.extend(at(&group, args, size)?.into_iter().map(|row| named(row, &group)));
    }
    Ok(rows)
}

fn named(mut row: Row, group: &Group) -> Row {
    row.owner.address = group.owner.to_string();
    row
}

fn fill(group: &Group, args: &OutboxBenchArgs, there: u32, size: u32) -> anyhow::Result<Row> {
    let count = size - there;
    let mut watch = Watch::start(group)?;
    group.submit(count, args.connections, &mut || watch.look())?;
    group.settle(size, &mut || watch.look())?;
    Ok(watch.end()?.row(size, What::Fill, count, 1.0 / f64::from(count), None))
}

/// All that is measured at one size.
fn at(group: &Group, args: &OutboxBenchArgs, size: u32) -> anyhow::Result<Vec<Row>> {
    let (each, share) = (args.each, 1.0 / f64::from(args.each));
    let bar = Progress::start(&format!("{size} mails: nothing happens"));
    std::thread::sleep(REST);
    let mut watch = Watch::start(group)?;
    watch.on_for(args.idle.duration())?;
    let idle = watch.end()?;
    let hour = idle.row(size, What::Idle, 1, 3600.0 / idle.seconds, None);

    bar.at(&format!("{size} mails: {each} more"), None);
    let (more, ids) = more(group, each)?;
    let due = part_and_manifest(group, &ids)?;
    let mut one_more = more.row(size, What::More, each, share, Some(&idle));
    let sent = one_more.members.iter().map(|member| member.from_owner_bytes).fold(0.0, f64::max);
    (one_more.part_and_manifest_bytes, one_more.besides_bytes) = (due, (sent - float(due)).max(0.0));

    bar.at(&format!("{size} mails: {each} less"), None);
    let less = less(group, &ids, size)?;
    let mut one_less = less.row(size, What::Less, each, share, Some(&idle));
    one_less.besides_bytes = one_less.members.iter().map(|member| member.from_owner_bytes).fold(0.0, f64::max);

    bar.at(&format!("{size} mails: the owner starts"), None);
    let start = start(group, size)?;
    Ok(vec![hour, one_more, one_less, start])
}

fn more(group: &Group, each: u32) -> anyhow::Result<(Seen, Vec<SubmissionId>)> {
    let owner = group.peer(&group.owner)?;
    let mut smtp = SmtpClient::login(&owner.smtp, &owner.address.to_string(), &owner.password)?;
    let mut watch = Watch::start(group)?;
    let mut ids = Vec::new();
    for _ in 0..each {
        ids.push(group.one_more(&mut smtp, &mut || watch.look())?);
    }
    watch.on_for(AFTER)?;
    Ok((watch.end()?, ids))
}

/// Bytes of part and manifest of these mails, as a member has them; the mean.
fn part_and_manifest(group: &Group, ids: &[SubmissionId]) -> anyhow::Result<u64> {
    let lines = group.last(u32::try_from(ids.len())?)?.lines;
    let home = Home::at(&group.peer(&group.owner)?.home);
    let (mut bytes, mut mails) = (0, 0);
    for sealed in lines.iter().filter(|line| ids.contains(&line.submission)).flat_map(|line| &line.sealed) {
        bytes += sealed.length + manifests::open(&home.outbox_manifest(&sealed.h))?.1;
        mails += 1;
    }
    ensure!(mails > 0, "the mails that were added are not in the outbox");
    Ok(bytes / mails)
}

fn less(group: &Group, ids: &[SubmissionId], size: u32) -> anyhow::Result<Seen> {
    let mut watch = Watch::start(group)?;
    for id in ids {
        let request = Request::Cancel { which: id.to_string(), wait_s: 0 };
        let _: Cancelled = group.ask(&group.owner, &request)?;
        watch.look()?;
    }
    watch.on_for(AFTER)?;
    let seen = watch.end()?;
    // Looked at when it is over: a status of so many mails costs something, too.
    let start = Instant::now();
    loop {
        let mut left = BTreeMap::new();
        for member in &group.members {
            left.insert(member.clone(), held(group, member)?);
        }
        if left.values().all(|held| *held == u64::from(size)) {
            return Ok(seen);
        }
        ensure!(start.elapsed() < PATIENCE, "members still hold what was taken back, of {size} mails: {left:?}");
        std::thread::sleep(LOOK);
    }
}

/// Mails of the owner that a member holds.
fn held(group: &Group, member: &Address) -> anyhow::Result<u64> {
    let status: PeerStatus = group.ask(member, &Request::Status)?;
    let owners = status.brains.get("replicator").and_then(|r| r.get("owners")).and_then(|o| o.as_array());
    let name = group.owner.to_string();
    let owner = owners.into_iter().flatten().find(|o| o.get("address").and_then(|a| a.as_str()) == Some(&name));
    Ok(owner.and_then(|o| o.get("parts")).and_then(serde_json::Value::as_u64).unwrap_or(0))
}

/// Stops the owner, and starts it until it answers and is told that every mail is where it was.
fn start(group: &Group, size: u32) -> anyhow::Result<Row> {
    let owner = std::slice::from_ref(&group.owner);
    group.stage.cluster.stop(owner)?;
    let begun = Instant::now();
    group.stage.cluster.start(owner)?;
    let seconds = begun.elapsed().as_secs_f64();
    let started = Taken::by(group.pid(&group.owner)?)?;
    let status: PeerStatus = group.ask(&group.owner, &Request::Status)?;
    let mails = number(&status, "/outbox/mails");
    ensure!(mails == u64::from(size), "{mails} of {size} mails are in the outbox after a start");
    let watch = Watch::start(group)?;
    let members = watch.members.iter().map(|(address, _, taken)| (address.clone(), *taken, Moved::default()));
    let members: Vec<_> = members.map(|(who, taken, moved)| (who, taken.since(taken), moved)).collect();
    ensure!(!members.is_empty(), "the group has no members");
    let row = Seen { seconds, owner: started, members }.row(size, What::Start, 1, 1.0, None);
    // What the start set going ends before anything else is measured.
    group.settle(size, &mut || Ok(())).context("after a start")?;
    Ok(row)
}
