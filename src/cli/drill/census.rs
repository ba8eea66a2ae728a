//! The end of a drill: waits until all that is due is done, and then counts what is where, in mailboxes and on disks. It changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::crew::Crew;
use super::events::{Event, MailNo};
use super::{load, verdict, watch};
use crate::cli::cluster::ClusterPeer;
use crate::cli::demo::imap_client::{ImapClient, ImapError};
use crate::cli::network::Network;
use crate::cli::output;
use crate::console::protocol::{Contact, GroupStatus, Request};
use crate::model::{Address, MailId, WallTime};
use crate::store::home::Home;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(500);
/// A group that writes nothing for so long rests.
const REST: Duration = Duration::from_secs(6);
/// Longest wait for that.
pub(super) const REST_MAX: Duration = Duration::from_secs(60);
/// How long it is counted what a group sends that rests: several rounds of everything that a peer does now and then.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Longest silence of a mail program's peer.
const SILENCE: Duration = Duration::from_secs(40);
/// Larger files are not searched for clear mail: no letter of a drill is as large.
const SEARCHED_MAX: u64 = 64 << 20;
/// How often a peer is asked for its keys that gives no answer.
const PIN_TRIES: u32 = 3;
/// So many messages are named in one command.
const REMOVED_AT_ONCE: usize = 100;
/// Where a mail may be that came; a card in Requests is none.
const MAILBOXES: [&str; 3] = ["INBOX", "Junk", "Trash"];

/// Waits, at most `limit`, until every mail came to an end and nothing of those that did is on any disk.
pub(super) fn settle(crew: &Crew, limit: Duration, told: &mut dyn FnMut(&str)) {
    let start = Instant::now();
    let open = loop {
        if !crew.log.look(verdict::not_ended).is_empty() {
            failures(crew);
            load::ask_again(crew);
        }
        let open = still_open(crew);
        if open.is_empty() || start.elapsed() > limit {
            break open;
        }
        told(&format!("waiting for what is due: {}", open.first().map_or("", String::as_str)));
        std::thread::sleep(LOOK);
    };
    let done = open.is_empty();
    crew.log.add(Event::Settled { took: start.elapsed(), open });
    if !done {
        for (mail, peer) in remains(crew) {
            crew.log.add(Event::Remains { mail, peer });
        }
    }
}

/// What is not done yet, a few words each.
fn still_open(crew: &Crew) -> Vec<String> {
    let not_ended = crew.log.look(verdict::not_ended);
    let to = |mail: MailNo| crew.way(mail).map_or(String::new(), |way| crew.people[way.to].address.to_string());
    let uncertain = crew.log.look(verdict::uncertain);
    let why = |mail: MailNo| match uncertain.contains(&mail) {
        true => format!("mail {mail} to {} was asked back, and it is not known what became of it", to(mail)),
        false => format!("mail {mail} is not read by {}", to(mail)),
    };
    let mut open: Vec<String> = not_ended.into_iter().map(why).collect();
    if !open.is_empty() {
        return open;
    }
    for person in &crew.people {
        let waiting = watch::lines(crew, &person.address);
        open.extend(waiting.iter().map(|(mail, _)| format!("mail {mail} waits in the outbox of {}", person.address)));
    }
    let kept = remains(crew).into_iter().map(|(mail, peer)| format!("{peer} keeps parts of mail {mail}"));
    open.into_iter().chain(kept).collect()
}

/// Mails that are over and of which something is on a disk, with whose disk that is.
fn remains(crew: &Crew) -> Vec<(MailNo, String)> {
    let names = crew.names();
    let over = crew.log.look(verdict::over);
    let number = |h: &MailId| over.iter().copied().find(|mail| names.get(mail).is_some_and(|all| all.contains(h)));
    let mut found = Vec::new();
    for person in &crew.people {
        let home = crew.home(&person.address);
        for folder in [home.outbox_dir(), home.mirror_dir()] {
            let here: BTreeSet<MailId> = files(&folder).iter().filter_map(|path| name_of(path)).collect();
            found.extend(here.iter().filter_map(number).map(|mail| (mail, person.address.to_string())));
        }
    }
    found
}

/// The sealed mail that a file in an outbox or mirror has bytes of. A manifest has none: nothing can be read from one that is left
/// until the next start.
fn name_of(path: &Path) -> Option<MailId> {
    if path.extension().is_some_and(|ending| ending == "manifest") {
        return None;
    }
    path.file_name()?.to_str()?.split('.').next()?.parse().ok()
}

/// Every file below a folder. What goes while it is looked at is not there.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Notes the notices of failure that senders have.
fn failures(crew: &Crew) {
    for (at, person) in crew.people.iter().enumerate() {
        let Ok(told) = told(crew, person) else { continue };
        for (mail, times) in told {
            if crew.way(mail).is_some_and(|way| way.from == at) {
                crew.log.add(Event::Told { mail, times });
            }
        }
    }
}

/// The notices in the mailbox of one peer, by the mail that they are about.
fn told(crew: &Crew, person: &ClusterPeer) -> Result<BTreeMap<MailNo, u32>, ImapError> {
    let mut imap = login(person)?;
    imap.select("INBOX")?;
    let mut found: BTreeMap<MailNo, u32> = BTreeMap::new();
    for (_, mail) in notices(&mut imap, crew)? {
        *found.entry(mail).or_default() += 1;
    }
    Ok(found)
}

/// The notices in the mailbox that is selected, each with the mail that it is about.
fn notices(imap: &mut ImapClient, crew: &Crew) -> Result<Vec<(u32, MailNo)>, ImapError> {
    let mut found = Vec::new();
    for uid in imap.uid_search("SUBJECT \"Not delivered to\"")? {
        let text = String::from_utf8_lossy(&imap.fetch(uid, "", &mut |_, _| {})?).into_owned();
        found.extend(crew.letters.named_in(&text).map(|mail| (uid, mail)));
    }
    Ok(found)
}

fn login(person: &ClusterPeer) -> Result<ImapClient, ImapError> {
    ImapClient::login_within(&person.imap, &person.address.to_string(), &person.password, SILENCE)
}

/// Counts everything that the verdicts need besides.
pub(super) fn count(crew: &Crew, before: &BTreeMap<Address, Result<String, String>>, since: WallTime) {
    failures(crew);
    let cancelled = crew.log.look(verdict::cancelled);
    let mut copies: BTreeMap<MailNo, u32> = BTreeMap::new();
    for person in &crew.people {
        // What could not be counted has not been seen to be well: the reader's mails are then not in a mailbox.
        if let Err(error) = copies_of(crew, person, &cancelled, &mut copies) {
            let why = format!("the mailboxes of {} cannot be read: {error}", person.address);
            crew.log.add(Event::Checked { rule: 5, ok: false, why });
        }
    }
    for (mail, copies) in copies {
        crew.log.add(Event::Copies { mail, copies });
    }
    search(crew, since);
    for person in &crew.people {
        let peer = person.address.to_string();
        let now = pins(crew, &person.address);
        let before = before.get(&person.address);
        crew.log.add(Event::Pins { peer, differ: differ(before, &now) });
    }
    memory(crew, &mut BTreeMap::new());
}

/// How the keys and members that a peer goes by differ from those before. What is not known is not the same.
fn differ(before: Option<&Result<String, String>>, now: &Result<String, String>) -> Option<String> {
    match (before, now) {
        (Some(Ok(before)), Ok(now)) => (before != now).then(|| format!("now {now}")),
        (Some(Err(error)), _) => Some(format!("not known before: {error}")),
        (_, Err(error)) => Some(format!("not known at the end: {error}")),
        (None, Ok(_)) => Some("not known before".to_owned()),
    }
}

/// Notes the most memory that each process which runs now has had so far, when that is more than what is known of the peer.
pub(super) fn memory(crew: &Crew, known: &mut BTreeMap<Address, u64>) {
    for peer in crew.cluster.status().map(|status| status.peers).unwrap_or_default() {
        let taking_part = crew.people.iter().any(|person| person.address == peer.address);
        let Some(bytes) = peer.pid.filter(|_| taking_part).and_then(most_memory) else { continue };
        let most = known.entry(peer.address.clone()).or_default();
        if bytes > *most {
            *most = bytes;
            crew.log.add(Event::Memory { peer: peer.address.to_string(), bytes });
        }
    }
}

/// Counts the mails in one peer's mailboxes, and tries to open those that were taken back.
fn copies_of(
    crew: &Crew,
    person: &ClusterPeer,
    cancelled: &[MailNo],
    copies: &mut BTreeMap<MailNo, u32>,
) -> Result<(), ImapError> {
    let mut imap = login(person)?;
    for mailbox in MAILBOXES {
        if matches!(imap.select(mailbox), Err(ImapError::Refused { .. })) {
            continue;
        }
        let uids = imap.uid_search(&format!("SUBJECT \"{}\"", crew.letters.subject_start()))?;
        for (uid, mail) in load::subjects(&mut imap, crew, &uids)? {
            if cancelled.contains(&mail) {
                load::open(&mut imap, crew, uid, mail)?;
            }
            *copies.entry(mail).or_default() += 1;
        }
    }
    Ok(())
}

/// Removes the letters of the drill from the mailboxes of a team, and the notices about them; what cannot be removed stays, and is
/// seen by its subject.
pub(super) fn tidy(crew: &Crew) {
    let remove = |person: &ClusterPeer| -> Result<(), ImapError> {
        let mut imap = login(person)?;
        for mailbox in MAILBOXES.into_iter().chain(["Sent"]) {
            if matches!(imap.select(mailbox), Err(ImapError::Refused { .. })) {
                continue;
            }
            let mut uids = imap.uid_search(&format!("SUBJECT \"{}\"", crew.letters.subject_start()))?;
            uids.extend(notices(&mut imap, crew)?.into_iter().map(|(uid, _)| uid));
            for line in removing(&uids) {
                imap.command(&line)?;
            }
        }
        Ok(())
    };
    for person in &crew.people {
        if let Err(error) = remove(person) {
            output::note(&format!("letters of the drill stay in mailboxes of {}: {error}", person.address));
        }
    }
}

/// What removes these messages and no other: their user may have marked some as deleted and not expunged them.
fn removing(uids: &[u32]) -> Vec<String> {
    let mut lines = Vec::new();
    for some in uids.chunks(REMOVED_AT_ONCE) {
        let set = some.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        lines.push(format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)"));
        lines.push(format!("UID EXPUNGE {set}"));
    }
    lines
}

/// Looks for clear mail on the disks of those who neither sent nor read it.
fn search(crew: &Crew, since: WallTime) {
    let any = crew.letters.any_clear_mark();
    let mut searched = 0;
    for person in &crew.people {
        for path in files(crew.home(&person.address).root()) {
            let Ok(data) = fs::metadata(&path) else { continue };
            let old = data
                .modified()
                .is_ok_and(|at| at.duration_since(UNIX_EPOCH).is_ok_and(|at| at.as_secs() < since.as_secs()));
            if old || data.len() > SEARCHED_MAX {
                continue;
            }
            let bytes = fs::read(&path).unwrap_or_default();
            searched += 1;
            if others_mail(crew, &person.address, &any, &bytes) {
                let file = path.strip_prefix(&person.home).unwrap_or(&path).display().to_string();
                crew.log.add(Event::Clear { peer: person.address.to_string(), file });
            }
        }
    }
    crew.log.add(Event::Searched { files: searched });
}

/// Whether there is a letter in clear here that the peer neither sent nor received.
fn others_mail(crew: &Crew, peer: &Address, any: &str, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = find(rest, any.as_bytes()) {
        rest = &rest[at..];
        let own = |way: &&super::crew::Way| {
            let (from, to) = (&crew.people[way.from].address, &crew.people[way.to].address);
            [from, to].contains(&peer) && rest.starts_with(crew.letters.clear_mark(from, to).as_bytes())
        };
        if !crew.ways.iter().any(|way| own(&way)) {
            return true;
        }
        rest = &rest[any.len()..];
    }
    false
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = wanted.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| byte == first) {
        if text[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The keys and members that a peer goes by, as one text; what hinders it when it gives no answer, also not when it is asked again.
///
/// # Errors
/// What hinders it.
pub(super) fn pins(crew: &Crew, peer: &Address) -> Result<String, String> {
    let mut tries = 1;
    loop {
        match pins_now(crew, peer) {
            Err(_) if tries < PIN_TRIES => std::thread::sleep(LOOK * 2),
            known => return known,
        }
        tries += 1;
    }
}

fn pins_now(crew: &Crew, peer: &Address) -> Result<String, String> {
    let control = crew.cluster.control_of(peer).giving_up_after(SILENCE);
    let group = control.ask_telling::<GroupStatus>(&Request::GroupStatus, &mut |_, _| {});
    let contacts = control.ask_telling::<Vec<Contact>>(&Request::Contacts, &mut |_, _| {});
    let (group, contacts) = (group.map_err(|e| e.to_string())?, contacts.map_err(|e| e.to_string())?);
    let mut members: Vec<String> =
        group.members.iter().map(|member| format!("{} {}", member.address, member.peer_id)).collect();
    members.sort();
    let mut pinned: Vec<String> =
        contacts.iter().map(|contact| format!("{} {}", contact.address, contact.group_key)).collect();
    pinned.sort();
    Ok(format!("{:?} {members:?} {pinned:?} {:?}", group.key, group.conflicts))
}

/// The most memory that a process has had.
fn most_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// How long a file is, and when it was written last.
type Written = (u64, Option<SystemTime>);

/// Every file in these homes as it was written last, but for the logs: what a resting peer says there is no work of its.
fn written(homes: &[Home]) -> BTreeMap<PathBuf, Written> {
    let mut all = BTreeMap::new();
    for home in homes {
        let log = home.log_file();
        let files = files(home.root()).into_iter().filter(|path| *path != log);
        // What went since it was found is not there.
        all.extend(files.filter_map(|path| {
            let data = fs::metadata(&path).ok()?;
            Some((path, (data.len(), data.modified().ok())))
        }));
    }
    all
}

/// A file that is not as it was, that is new or that is gone, if there is one.
fn changed(before: &BTreeMap<PathBuf, Written>, now: &BTreeMap<PathBuf, Written>) -> Option<PathBuf> {
    let other = now.iter().find(|(path, written)| before.get(*path) != Some(*written));
    let gone = || before.keys().find(|path| !now.contains_key(*path));
    other.map(|(path, _)| path).or_else(gone).cloned()
}

/// Waits until nobody writes to any file of a home but its log any more, or says which of them go on.
pub(super) fn rest(crew: &Crew, told: &mut dyn FnMut(&str)) {
    told("waiting until the group rests");
    let homes: Vec<Home> = crew.people.iter().map(|person| crew.home(&person.address)).collect();
    let start = Instant::now();
    let (mut before, mut since) = (written(&homes), Instant::now());
    let mut last = None;
    while since.elapsed() < REST && start.elapsed() < REST_MAX {
        std::thread::sleep(LOOK);
        let now = written(&homes);
        if let Some(path) = changed(&before, &now) {
            last = Some(path.strip_prefix(crew.cluster.home()).unwrap_or(&path).display().to_string());
            (before, since) = (now, Instant::now());
        }
    }
    let written = last.filter(|_| since.elapsed() < REST);
    crew.log.add(Event::Rests { written });
}

/// Counts what a group sends that rests, where it has a network of its own in which nobody else sends anything.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn idle(crew: &Crew, network: &Network, beat: Duration, told: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    told("counting what the resting group sends");
    let (before, start) = (network.sent_packets()?, Instant::now());
    std::thread::sleep(IDLE);
    let sent = network.sent_packets()?.saturating_sub(before);
    crew.log.add(Event::Idle { sent, peers: crew.people.len(), took: start.elapsed(), beat });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_nobody_told_are_not_the_same_keys() {
        let (known, no_answer) = (Ok("key 1".to_owned()), Err("no answer".to_owned()));
        assert_eq!(differ(Some(&known), &known), None);
        assert_eq!(differ(Some(&known), &Ok("key 2".to_owned())).as_deref(), Some("now key 2"));
        assert!(differ(Some(&no_answer), &no_answer).is_some(), "two silences are no sameness");
        assert!(differ(Some(&known), &no_answer).is_some() && differ(None, &known).is_some());
    }

    #[test]
    fn whatever_a_peer_writes_or_removes_is_no_rest_but_for_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let (journal, index, log) = (home.journal_dir().join("1"), home.index_dir().join("db"), home.log_file());
        [&journal, &index, &log].into_iter().for_each(|path| write(path.clone(), "one"));
        let look = || written(&[Home::at(dir.path())]);
        let before = look();
        write(log, "one and more");
        assert_eq!(changed(&before, &look()), None);
        write(journal.clone(), "one and more");
        assert_eq!(changed(&before, &look()), Some(journal));
        let before = look();
        // As long as before, as a database's page is.
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        fs::File::options().write(true).open(&index).unwrap().set_modified(later).unwrap();
        assert_eq!(changed(&before, &look()), Some(index.clone()));
        let before = look();
        fs::remove_file(&index).unwrap();
        assert_eq!(changed(&before, &look()), Some(index));
    }

    #[test]
    fn only_the_drills_own_messages_are_removed_from_a_teams_mailbox() {
        let uids: Vec<u32> = (1..=101).collect();
        let lines = removing(&uids);
        let expunged: Vec<&String> = lines.iter().filter(|line| line.contains("EXPUNGE")).collect();
        assert!(expunged.iter().all(|line| line.starts_with("UID EXPUNGE ")), "{expunged:?}");
        assert_eq!(lines[2..], ["UID STORE 101 +FLAGS.SILENT (\\Deleted)", "UID EXPUNGE 101"]);
        assert!(lines[1].ends_with(",99,100") && removing(&[]).is_empty());
    }
}
