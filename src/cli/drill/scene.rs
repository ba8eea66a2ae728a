//! One scenario's stage: a group under steady mail, and the words in which a scenario is told: kill, start, hold mail back, release
//! it, wait. It never judges, and looks at the peers from outside only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::around::Around;
use super::availability::Expected;
use super::census;
use super::crew::{Crew, Way};
use super::deadline::Deadline;
use super::events::{Event, Gone, Log, MailNo, Rule};
use super::letters::Letters;
use super::load::{self, Load};
use super::verdict;
use super::watch;
use crate::cli::cluster::{ClusterDir, ClusterPeer};
use crate::cli::compose::random_name;
use crate::cli::demo::stage::Stage;
use crate::cli::progress::Progress;
use crate::clock::system_wall;
use crate::config::cluster::Cluster;
use crate::console::protocol::{GroupStatus, Request, SealedLine};
use crate::core::group::beat_under;
use crate::core::jitter::Jitter;
use crate::model::{Address, Mode, Policy, WallTime};

/// How often the peers are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for anything that a healthy group does.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);

/// A mail whose fate is followed: it is safe, and nobody opens it before [`Scene::release`].
#[derive(Debug, Clone)]
pub(super) struct Probe {
    /// Its number.
    pub(super) mail: MailNo,
    /// How it is kept.
    pub(super) sealed: SealedLine,
}

/// A scenario cannot run on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Skipped {
    /// What it lacks.
    pub(super) why: String,
}

/// The stage while a scenario plays.
pub(super) struct Scene {
    /// Where it happens.
    pub(super) stage: Stage,
    /// Who takes part.
    pub(super) crew: Arc<Crew>,
    /// The members of the first group, its founder first.
    pub(super) members: Vec<Address>,
    /// The policy of that group.
    pub(super) policy: Policy,
    /// Random choices.
    pub(super) random: Jitter,
    /// What availability should be.
    pub(super) expected: Option<Expected>,
    /// What of the scenario cannot be done here.
    pub(super) left_out: Vec<String>,
    /// What its peers run in, when that is not simply this machine.
    pub(super) around: Option<Arc<Around>>,
    /// Whether the peers are a team's own.
    pub(super) is_own: bool,
    load: Option<Load>,
    began: WallTime,
    pins: BTreeMap<Address, Result<String, String>>,
    bar: Progress,
    deadline: Deadline,
}

/// Who writes to whom: members of a group to each other, and whoever has the other's card.
fn ways(file: &Cluster, people: &[ClusterPeer]) -> Vec<Way> {
    let knows = |one: &Address, other: &Address| {
        let card = |a: &Address, b: &Address| file.contacts.iter().any(|c| c.peer == *a && c.with.contains(b));
        one.group() == other.group() || card(one, other) || card(other, one)
    };
    let all = (0..people.len()).flat_map(|from| (0..people.len()).map(move |to| Way { from, to }));
    all.filter(|way| way.from != way.to && knows(&people[way.from].address, &people[way.to].address)).collect()
}

/// The peers that take part: a cluster knows those, too, that only an earlier file of it named. They are left as they are.
fn people(file: &Cluster, all: Vec<ClusterPeer>) -> Vec<ClusterPeer> {
    let named: Vec<Address> = file.peers().map(|(address, _)| address).collect();
    all.into_iter().filter(|peer| named.contains(&peer.address)).collect()
}

impl Scene {
    /// On this stage, whose peers run: steady mail begins.
    pub(super) fn open(
        stage: Stage,
        is_own: bool,
        seed: u64,
        pace: Duration,
        deadline: Deadline,
    ) -> anyhow::Result<Self> {
        let people = people(&stage.file, stage.cluster.status()?.peers);
        let group = stage.file.groups.first().context("the cluster has no group")?;
        let members: Vec<Address> =
            group.members.iter().map(|name| Address::new(name.clone(), group.name.clone())).collect();
        let founder = members.first().context("the first group of the cluster is empty")?;
        let known: GroupStatus =
            stage.cluster.control_of(founder).ask_telling(&Request::GroupStatus, &mut |_, _| {})?;
        let ways = ways(&stage.file, &people);
        let letters = Letters::new(&random_name()?[..8], system_wall());
        let crew = Crew::new(stage.cluster.clone(), people, ways, letters, pace);
        let pins = crew.people.iter().map(|p| (p.address.clone(), census::pins(&crew, &p.address))).collect();
        let load = Some(Load::start(&crew, seed));
        let bar = Progress::start("steady mail");
        let (policy, random, began) = (known.policy, Jitter::new(seed), system_wall());
        Ok(Self {
            stage,
            crew,
            members,
            policy,
            random,
            expected: None,
            left_out: Vec::new(),
            around: None,
            is_own,
            load,
            began,
            pins,
            bar,
            deadline,
        })
    }

    /// The member at this place, the founder being the first; in a small group somebody else but the founder.
    pub(super) fn member(&self, at: usize) -> anyhow::Result<Address> {
        let last = self.members.len().saturating_sub(1);
        self.members.get(at.min(last)).cloned().context("the group is too small for a drill")
    }

    /// What was seen.
    pub(super) fn log(&self) -> &Log {
        &self.crew.log
    }

    /// Tells people what happens.
    pub(super) fn say(&self, text: &str) {
        self.bar.at(text, None);
        self.stage.report.line(&format!("  {:>4} s  {text}", self.log().now().as_secs()));
    }

    /// Only this scenario looks at this.
    pub(super) fn check(&self, rule: Rule, ok: bool, why: impl Into<String>) {
        let why: String = why.into();
        let why = match self.deadline.check() {
            // It had less time than it needs, so a no is none.
            Err(over) if !ok => format!("not known, for {over}: {why}"),
            _ => why,
        };
        self.log().add(Event::Checked { rule, ok, why });
    }

    /// The mail goes on for a while.
    pub(super) fn pass(&self, span: Duration) {
        std::thread::sleep(span.min(self.deadline.left()));
    }

    /// Looks until there is something; nothing when the time is over.
    pub(super) fn wait<T>(&self, limit: Duration, mut see: impl FnMut() -> Option<T>) -> Option<T> {
        let start = Instant::now();
        loop {
            if let Some(seen) = see() {
                return Some(seen);
            }
            if start.elapsed() > limit || self.deadline.check().is_err() {
                return None;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Asks a running peer.
    pub(super) fn ask<T: serde::de::DeserializeOwned>(&self, of: &Address, request: &Request) -> anyhow::Result<T> {
        self.stage.cluster.control_of(of).ask_telling(request, &mut |_, _| {}).with_context(|| of.to_string())
    }

    /// The place of a peer in the list.
    fn place(&self, peer: &Address) -> anyhow::Result<usize> {
        self.crew
            .people
            .iter()
            .position(|person| person.address == *peer)
            .with_context(|| format!("{peer} is not here"))
    }

    /// Whom mail of this peer is followed to, where that one must be able to read.
    pub(super) fn reader_for(&self, sender: &Address) -> anyhow::Result<Address> {
        self.crew.reader_for(sender).cloned().with_context(|| format!("{sender} can write to nobody"))
    }

    /// Submits `count` mails of `from`, each to another of its readers but `not_to`, and waits until each is announced and as safe
    /// as the policy promises, but for the members that the drill took away. Nobody opens them before [`Scene::release`].
    pub(super) fn probes(&self, from: &Address, not_to: &[Address], count: usize) -> anyhow::Result<Vec<Probe>> {
        let at = self.place(from)?;
        let person = &self.crew.people[at];
        let ways: Vec<Way> = self.crew.ways.iter().copied().filter(|way| way.from == at).collect();
        let wanted = |way: &Way| !not_to.contains(&self.crew.people[way.to].address);
        let ways: Vec<Way> = ways.into_iter().filter(wanted).collect();
        if ways.is_empty() {
            bail!("{from} can write to nobody; a drill needs a group of at least three");
        }
        let away = self.members_away();
        let mut mails = Vec::new();
        for way in ways.iter().cycle().take(count) {
            let taken = self.wait(PATIENCE, || {
                let mut smtp = load::login(person)?;
                let mail = self.crew.number(*way, true);
                load::submit(&self.crew, &mut smtp, mail, *way).then_some(mail)
            });
            mails.push(taken.with_context(|| format!("{from} takes no mail"))?);
        }
        self.say(&format!("{from} submitted {count} mails that nobody opens yet; they become safe"));
        let safe = self.wait(PATIENCE, || {
            let lines = watch::lines(&self.crew, from);
            mails
                .iter()
                .map(|mail| self.is_safe(lines.iter().find(|(number, _)| number == mail)?, away))
                .collect::<Option<_>>()
        });
        safe.with_context(|| format!("mails of {from} are not safe after {} s", PATIENCE.as_secs()))
    }

    /// Members that the drill took away and did not bring back. Until they are replaced, which a team's policy may allow only after
    /// an hour, each may be one that is placed, so that a mail is safe against that many fewer losses.
    fn members_away(&self) -> usize {
        let away = self.log().look(verdict::away);
        self.members.iter().filter(|member| away.contains(&member.to_string())).count()
    }

    fn is_safe(&self, (mail, line): &(MailNo, crate::console::protocol::OutboxLine), away: usize) -> Option<Probe> {
        let announced = line.receivers.values().all(|state| state == "announced");
        let sealed = line.sealed.first().filter(|_| announced)?;
        self.crew.is_called(*mail, sealed.h);
        let promised = self.promised(sealed) - i32::try_from(away).unwrap_or(i32::MAX);
        (sealed.safe >= promised).then(|| Probe { mail: *mail, sealed: sealed.clone() })
    }

    /// safe(f) that the policy promises for a sealed mail in a group of this size.
    fn promised(&self, sealed: &SealedLine) -> i32 {
        let others = self.members.len().saturating_sub(1);
        match crate::cli::demo::play::encoding(sealed) {
            crate::model::Encoding::Fragments { k, n } => i32::from(n) - i32::from(k),
            crate::model::Encoding::Whole => i32::try_from(self.policy.whole_copies(others)).unwrap_or(i32::MAX) - 1,
        }
    }

    /// The smallest f that the policy promises for a mail, small or large.
    pub(super) fn promised_f(&self) -> usize {
        let others = self.members.len().saturating_sub(1);
        let whole = self.policy.whole_copies(others).saturating_sub(1);
        let fragments = self.policy.fragments;
        match self.policy.mode {
            Mode::Full => whole,
            Mode::Fragments => whole.min(usize::from(fragments.n.saturating_sub(fragments.k))),
        }
    }

    /// These are released and must all be read, R2.
    pub(super) fn reads_all(&self, probes: &[Probe], limit: Duration, how: &str) {
        self.release();
        let (read, all) = (self.all_read(probes, limit), probes.len());
        self.say(&format!("{read} of {all} mails were read {how}"));
        self.check(2, read == all, format!("{read} of {all} mails were read {how}"));
    }

    /// How many of these a reader was told that they cannot be had, by its own peer.
    pub(super) fn refused_of(&self, probes: &[Probe]) -> usize {
        self.log().look(|seen| {
            let is_refused =
                |probe: &&Probe| seen.iter().any(|s| s.event == Event::NotHad { mail: probe.mail, answered: true });
            probes.iter().filter(is_refused).count()
        })
    }

    /// Whether this peer's user has opened all that was sent there, and knows of all that was asked back what became of it.
    pub(super) fn is_all_read_by(&self, reader: &Address) -> bool {
        load::ask_again(&self.crew);
        let from =
            |mail: &MailNo| self.crew.way(*mail).is_some_and(|way| self.crew.people[way.from].address == *reader);
        if self.log().look(verdict::uncertain).iter().any(from) {
            return false;
        }
        let open = self.log().look(verdict::not_ended);
        let to = |mail: &MailNo| self.crew.way(*mail).is_some_and(|way| self.crew.people[way.to].address == *reader);
        !open.iter().any(to)
    }

    /// How many mails were taken so far, and how many of them read.
    pub(super) fn went_through(&self) -> (usize, usize) {
        self.log().look(|seen| (verdict::taken(seen), verdict::read(seen)))
    }

    /// How many mails were refused by SMTP so far.
    pub(super) fn refused(&self) -> usize {
        self.log().look(|seen| seen.iter().filter(|s| matches!(s.event, Event::Refused { .. })).count())
    }

    /// Senders wait, or go on.
    pub(super) fn quiet(&self, quiet: bool) {
        self.crew.quiet.store(quiet, Ordering::SeqCst);
    }

    /// Everything may be opened now.
    pub(super) fn release(&self) {
        self.crew.release();
    }

    /// How many of these mails are read now.
    pub(super) fn read_of(&self, probes: &[Probe]) -> usize {
        self.log().look(|seen| {
            let is_read =
                |probe: &&Probe| seen.iter().any(|s| s.event == Event::Opened { mail: probe.mail, identical: true });
            probes.iter().filter(is_read).count()
        })
    }

    /// Waits until all of these are read; gives how many are.
    pub(super) fn all_read(&self, probes: &[Probe], limit: Duration) -> usize {
        self.wait(limit, || (self.read_of(probes) == probes.len()).then_some(()));
        self.read_of(probes)
    }

    /// Does something to the peers or to the machine that must not begin once the drill is interrupted, or its time is over.
    pub(super) fn act<T>(&self, work: impl FnOnce(&ClusterDir) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.deadline.check()?;
        self.stage.act(work)
    }

    /// Destroys or falsifies something on the disk of a peer, which nobody is blamed for.
    pub(super) fn spoil<T>(&self, peer: &Address, destroy: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.act(|_| self.crew.spoil(peer, destroy))
    }

    fn down(&self, peer: &Address, how: Gone) {
        self.log().add(Event::Down { peer: peer.to_string(), how });
    }

    /// SIGKILL.
    pub(super) fn kill(&self, peers: &[Address]) -> anyhow::Result<()> {
        // Noted before, so that what a reader then fails to have is not counted as asked for while all were up.
        peers.iter().for_each(|peer| self.down(peer, Gone::Killed));
        let killed = self.act(|cluster| cluster.kill(peers))?;
        if killed.len() != peers.len() {
            bail!("somebody died before: killed {killed:?}, wanted {peers:?}");
        }
        let names: Vec<String> = peers.iter().map(Address::to_string).collect();
        self.say(&format!("killed with SIGKILL: {}", names.join(", ")));
        Ok(())
    }

    /// A clean stop.
    pub(super) fn stop(&self, peers: &[Address]) -> anyhow::Result<()> {
        peers.iter().for_each(|peer| self.down(peer, Gone::Stopped));
        self.act(|cluster| cluster.stop(peers)).map(drop)
    }

    /// They run and answer when this returns.
    pub(super) fn start(&self, peers: &[Address]) -> anyhow::Result<()> {
        self.act(|cluster| {
            let running = cluster.who_runs()?;
            peers.iter().filter(|peer| !running.contains(peer)).try_for_each(|peer| cluster.launch(peer))
        })?;
        // They run; until they answer the end needs not wait.
        self.stage.cluster.start(peers)?;
        for peer in peers {
            self.log().add(Event::Up { peer: peer.to_string() });
        }
        let names: Vec<String> = peers.iter().map(Address::to_string).collect();
        self.say(&format!("started: {}", names.join(", ")));
        Ok(())
    }

    /// Starts their processes, and does not wait until they answer.
    pub(super) fn launch(&self, peers: &[Address]) -> anyhow::Result<()> {
        for peer in peers {
            self.act(|cluster| cluster.launch(peer))?;
            self.log().add(Event::Up { peer: peer.to_string() });
        }
        Ok(())
    }

    /// A signal that it must not get once everything is being put right.
    pub(super) fn signal(&self, peer: &Address, signal: Signal) -> anyhow::Result<()> {
        self.act(|cluster| cluster.signal(peer, signal))
    }

    /// SIGCONT.
    pub(super) fn thaw(&self, peer: &Address) -> anyhow::Result<()> {
        self.signal(peer, Signal::SIGCONT)?;
        self.log().add(Event::Up { peer: peer.to_string() });
        Ok(())
    }

    /// The load ends, what is due is waited for, and everything is counted.
    pub(super) fn finish(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.release();
        let everybody: Vec<Address> = self.crew.people.iter().map(|person| person.address.clone()).collect();
        let running = self.stage.cluster.who_runs()?;
        let missing: Vec<Address> = everybody.into_iter().filter(|peer| !running.contains(peer)).collect();
        if !missing.is_empty() {
            self.stage.cluster.start(&missing)?;
            missing.iter().for_each(|peer| self.log().add(Event::Up { peer: peer.to_string() }));
        }
        if let Some(load) = &mut self.load {
            load.stop_sending();
        }
        self.say("no more mail is sent; what is due is waited for");
        let bar = &self.bar;
        census::settle(&self.crew, patience.min(self.deadline.to_settle()), &mut |text| bar.at(text, None));
        // The readers would otherwise log out and in while the disks are watched.
        self.load = None;
        self.left_out.extend(self.rest()?);
        self.bar.at("counting", None);
        census::count(&self.crew, &self.pins, self.began);
        if self.is_own {
            census::tidy(&self.crew);
        }
        Ok(())
    }

    /// Looks whether the group rests; what of it cannot be looked at, and why.
    fn rest(&self) -> anyhow::Result<Option<String>> {
        if self.is_own {
            return Ok(Some("whether it rests: a team's own peers may have mail of their own".to_owned()));
        }
        let (bar, late) = (&self.bar, |what: &str| Some(format!("{what}: the drill's time is over")));
        if self.deadline.to_rest() < census::REST_MAX {
            return Ok(late("whether it rests"));
        }
        census::rest(&self.crew, &mut |text| bar.at(text, None));
        let Some((network, _)) = self.around.as_ref().and_then(|around| around.network.as_ref()) else {
            return Ok(None);
        };
        if self.deadline.to_rest() < census::IDLE {
            return Ok(late("what it sends while it rests"));
        }
        census::idle(&self.crew, network, beat_under(&self.policy), &mut |text| bar.at(text, None))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cluster::{Role, RunState};
    use crate::cli::progress::Report;

    fn peer(address: &str) -> ClusterPeer {
        let address: Address = address.parse().unwrap();
        ClusterPeer {
            group: address.group().clone(),
            role: Role::Member,
            pid: None,
            smtp: String::new(),
            imap: String::new(),
            console: None,
            password: String::new(),
            state: RunState::Stopped,
            home: std::path::PathBuf::new(),
            address,
        }
    }

    /// Whom mail of bob is followed to, in a team of three with what the file says besides.
    fn reader_of_bob(besides: &str) -> String {
        let group = |name: &str, members: &str| format!("[[group]]\nname = \"{name}\"\nmembers = [{members}]\n");
        let text = group("acme", "\"alice\", \"bob\", \"carol\"") + &group("readers", "\"rita\"") + besides;
        let file = Cluster::parse("t", &(text + &group("others", "\"olaf\""))).unwrap();
        let people: Vec<ClusterPeer> = file.peers().map(|(address, _)| peer(&address.to_string())).collect();
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::at(dir.path(), std::path::Path::new("false"), Report::silent()).unwrap();
        let ways = ways(&file, &people);
        let crew = Crew::new(cluster, people, ways, Letters::new("t", WallTime(0)), Duration::ZERO);
        crew.reader_for(&"bob@acme".parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_mail_is_followed_to_somebody_whom_its_sender_can_write_to_and_rather_outside_its_group() {
        assert_eq!(reader_of_bob(""), "carol@acme", "the last ones of the file have no card of it");
        let rita = "[[contacts]]\npeer = \"rita@readers\"\nwith = [\"bob@acme\"]\n";
        assert_eq!(reader_of_bob(rita), "rita@readers");
        let of_alice = "[[contacts]]\npeer = \"rita@readers\"\nwith = [\"alice@acme\"]\n";
        assert_eq!(reader_of_bob(of_alice), "carol@acme");
    }

    #[test]
    fn peers_that_only_an_earlier_file_named_take_no_part() {
        let file = Cluster::parse("t", "[[group]]\nname = \"acme\"\nmembers = [\"alice\", \"bob\"]\n").unwrap();
        let all = ["alice@acme", "zed@zoo", "bob@acme", "carol@acme"].map(peer).into();
        let names: Vec<String> = people(&file, all).iter().map(|peer| peer.address.to_string()).collect();
        assert_eq!(names, ["alice@acme", "bob@acme"]);
    }
}
