//! Steady mail: every sender submits by SMTP, every reader opens by IMAP and compares to the byte, whatever happens to the peers
//! meanwhile. What it sees goes into the log; it decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::crew::{Crew, Way};
use super::events::{Event, MailNo, Word};
use super::{verdict, watch};
use crate::cli::cluster::ClusterPeer;
use crate::cli::demo::imap_client::{ImapClient, ImapError};
use crate::cli::demo::smtp_client::{SmtpClient, SmtpError};
use crate::console::protocol::{Cancelled, OutboxLine, Request};
use crate::core::jitter::Jitter;
use crate::core::outbox::CancelAnswer;
use crate::model::SubmissionId;

/// A peer that says nothing for so long is given up; it says every 5 s that it still pulls.
const SILENCE: Duration = Duration::from_secs(20);
/// How often a mailbox is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long a mail that could not be had is left alone.
const TRY_AGAIN: Duration = Duration::from_millis(1500);
/// One mail of so many is taken back.
const TAKEN_BACK: u64 = 9;
/// How long after it was taken, at most.
const CANCEL_AFTER: Duration = Duration::from_secs(2);
/// How often its peer is asked for it: it is listed by its subject only once it is sealed.
const CANCEL_TRIES: u32 = 12;
/// How long readers leave mail unopened, at most.
const UNOPENED_MS: u32 = 4000;
/// How long a peer may think about what became of a mail that is taken back, seconds.
const CANCEL_S: u64 = 2;
/// What an outbox says of a receiver to whom nothing has happened that ends a mail.
const OPEN: [&str; 3] = ["waiting", "sealed", "announced"];

/// The threads of a load.
#[derive(Debug)]
pub(super) struct Load {
    crew: Arc<Crew>,
    senders: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Load {
    /// Everybody begins to send and to read.
    pub(super) fn start(crew: &Arc<Crew>, seed: u64) -> Self {
        crew.sending.store(true, Ordering::SeqCst);
        let mut load = Self { crew: crew.clone(), senders: Vec::new(), others: Vec::new() };
        for (at, salt) in (0..crew.people.len()).zip(1..) {
            let ways: Vec<Way> = crew.ways.iter().copied().filter(|way| way.from == at).collect();
            let sender = crew.clone();
            let random = Jitter::new(seed.wrapping_mul(31).wrapping_add(salt));
            if !ways.is_empty() {
                load.senders.push(std::thread::spawn(move || send(&sender, at, &ways, random)));
            }
            let reader = crew.clone();
            load.others.push(std::thread::spawn(move || read(&reader, at)));
        }
        let watched = crew.clone();
        load.others.push(std::thread::spawn(move || watch::watch(&watched)));
        load
    }

    /// Nobody sends any more; reading goes on.
    pub(super) fn stop_sending(&mut self) {
        self.crew.sending.store(false, Ordering::SeqCst);
        join(&mut self.senders);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.crew.working.store(false, Ordering::SeqCst);
        self.stop_sending();
        join(&mut self.others);
    }
}

fn join(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        // One that panicked has told so itself.
        let _ = thread.join();
    }
}

/// Sleeps, but not beyond the end of the load.
fn pause(span: Duration, goes_on: impl Fn() -> bool) {
    let step = Duration::from_millis(50);
    let mut left = span;
    while goes_on() && !left.is_zero() {
        std::thread::sleep(left.min(step));
        left = left.saturating_sub(step);
    }
}

fn send(crew: &Crew, at: usize, ways: &[Way], mut random: Jitter) {
    let mut connection = None;
    while crew.is_sending() {
        let pace = random.between(crew.pace / 2, crew.pace * 3 / 2);
        pause(pace, || crew.is_sending());
        let count = u64::try_from(ways.len()).unwrap_or(1);
        let Some(way) = usize::try_from(random.below(count)).ok().and_then(|at| ways.get(at)) else { return };
        if !crew.is_sending() {
            return;
        }
        if crew.quiet.load(Ordering::SeqCst) {
            continue;
        }
        let peer = &crew.people[at];
        if connection.is_none() {
            connection = login(peer);
        }
        let Some(smtp) = &mut connection else { continue };
        // What is to be taken back is opened by nobody before.
        let back = random.below(TAKEN_BACK) == 0;
        let mail = crew.number(*way, back);
        if !submit(crew, smtp, mail, *way) {
            connection = None;
        } else if back {
            pause(random.between(Duration::ZERO, CANCEL_AFTER), || crew.is_sending());
            take_back(crew, peer, mail);
        }
        if back {
            crew.open_up(mail);
        }
    }
}

/// A connection to the submission of a peer, if that is there.
pub(super) fn login(peer: &ClusterPeer) -> Option<SmtpClient> {
    SmtpClient::login_within(&peer.smtp, &peer.address.to_string(), &peer.password, SILENCE).ok()
}

/// Submits one mail; gives whether it was taken.
pub(super) fn submit(crew: &Crew, smtp: &mut SmtpClient, mail: MailNo, way: Way) -> bool {
    let (from, to) = (&crew.people[way.from].address, &crew.people[way.to].address);
    let event = match smtp.submit(from, std::slice::from_ref(to), &crew.letter(mail, way)) {
        Ok(_) => Event::Taken { mail, from: from.to_string() },
        Err(SmtpError::Refused { reply, .. }) => Event::Refused { mail, said: reply },
        Err(SmtpError::Broken { .. }) => Event::Unclear { mail },
    };
    let taken = matches!(event, Event::Taken { .. });
    crew.log.add(event);
    taken
}

/// Asks a peer to take a mail back. Of one that goes away meanwhile it is not known whether it heard: at the end it is asked what
/// became of the mail.
fn take_back(crew: &Crew, peer: &ClusterPeer, mail: MailNo) {
    let mut line = None;
    for _ in 0..CANCEL_TRIES {
        line = watch::lines(crew, &peer.address).into_iter().find(|(number, _)| *number == mail).map(|(_, line)| line);
        if line.is_some() || !crew.is_working() {
            break;
        }
        pause(LOOK, || crew.is_working());
    }
    let Some(line) = line else { return };
    // Until the answer is known, it may be gone.
    crew.is_asked_back(mail, line.submission);
    crew.log.add(Event::CancelSaid { mail, word: Word::Uncertain });
    what_became(crew, peer, mail, line.submission, CANCEL_S);
}

/// Asks a peer what taking a mail back came to; a peer that has not been asked for that takes it back.
fn what_became(crew: &Crew, peer: &ClusterPeer, mail: MailNo, submission: SubmissionId, wait_s: u64) {
    let control = crew.cluster.control_of(&peer.address).giving_up_after(SILENCE);
    let request = Request::Cancel { which: submission.to_string(), wait_s };
    let Ok(said) = control.ask_telling::<Cancelled>(&request, &mut |_, _| {}) else { return };
    for answer in said.receivers.values() {
        let word = match answer {
            CancelAnswer::Cancelled => Word::Cancelled,
            CancelAnswer::TooLate => Word::TooLate,
            CancelAnswer::Uncertain => Word::Uncertain,
        };
        crew.log.add(Event::CancelSaid { mail, word });
    }
}

/// Asks about every mail that was asked back, and of which it is not known what became of it. One that still waits in its outbox
/// as any other does is left to its reader: its peer never heard that it is not wanted.
pub(super) fn ask_again(crew: &Crew) {
    for mail in crew.log.look(verdict::uncertain) {
        let (Some(way), Some(submission)) = (crew.way(mail), crew.asked_back(mail)) else { continue };
        let peer = &crew.people[way.from];
        let Some(outbox) = watch::outbox(crew, &peer.address) else { continue };
        if !outbox.iter().any(|line| line.submission == submission && is_open(line)) {
            what_became(crew, peer, mail, submission, 0);
        }
    }
}

/// Whether some receiver may still have this mail.
fn is_open(line: &OutboxLine) -> bool {
    line.receivers.values().any(|state| OPEN.contains(&state.as_str()))
}

fn read(crew: &Crew, at: usize) {
    let peer = &crew.people[at];
    let mut reader = Reader { crew, next_uid: 1, todo: BTreeMap::new() };
    while crew.is_working() {
        if let Ok(mut imap) = ImapClient::login_within(&peer.imap, &peer.address.to_string(), &peer.password, SILENCE)
            && imap.select("INBOX").is_ok()
        {
            // Until the connection breaks.
            while crew.is_working() && reader.round(&mut imap).is_ok() {
                pause(LOOK, || crew.is_working());
            }
        }
        pause(LOOK, || crew.is_working());
    }
}

/// A mail program that opens what is new, and again what could not be had.
struct Reader<'a> {
    crew: &'a Crew,
    next_uid: u32,
    /// What is to be opened, and when at the earliest.
    todo: BTreeMap<u32, (MailNo, Duration)>,
}

impl Reader<'_> {
    fn round(&mut self, imap: &mut ImapClient) -> Result<(), ImapError> {
        imap.command("NOOP")?;
        let uids = imap.uids_from(self.next_uid)?;
        for (uid, mail) in subjects(imap, self.crew, &uids)? {
            // Some at once, some later, so that what fails meets mail at every stage.
            let later = Duration::from_millis(u64::from(mail.wrapping_mul(977) % UNOPENED_MS));
            self.todo.insert(uid, (mail, self.crew.log.now() + later));
        }
        self.next_uid = uids.last().map_or(self.next_uid, |last| last + 1);
        let now = self.crew.log.now();
        let due = self.todo.iter().filter(|(_, (mail, at))| *at <= now && !self.crew.is_held(*mail));
        let due: Vec<(u32, MailNo)> = due.map(|(uid, (mail, _))| (*uid, *mail)).collect();
        for (uid, mail) in due {
            if !self.crew.is_working() {
                break;
            }
            if open(imap, self.crew, uid, mail)? {
                self.todo.remove(&uid);
            } else {
                self.todo.insert(uid, (mail, self.crew.log.now() + TRY_AGAIN));
            }
        }
        Ok(())
    }
}

/// Which of these messages are mails of the drill.
pub(super) fn subjects(imap: &mut ImapClient, crew: &Crew, uids: &[u32]) -> Result<Vec<(u32, MailNo)>, ImapError> {
    let (Some(first), Some(last)) = (uids.first(), uids.last()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for response in imap.command(&format!("UID FETCH {first}:{last} BODY.PEEK[HEADER.FIELDS (SUBJECT)]"))? {
        let uid = response.text.split_once("UID ").and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<u32>().ok())
        });
        let subject = response.literals.first().map(|literal| String::from_utf8_lossy(literal).into_owned());
        let mail = subject.and_then(|subject| crew.letters.number(&subject));
        found.extend(uid.filter(|uid| uids.contains(uid)).zip(mail));
    }
    Ok(found)
}

/// Opens one message and compares it; gives whether nothing is left to do with it.
pub(super) fn open(imap: &mut ImapClient, crew: &Crew, uid: u32, mail: MailNo) -> Result<bool, ImapError> {
    crew.log.add(Event::Opening { mail });
    match imap.fetch(uid, "", &mut |_, _| {}) {
        Ok(got) => {
            let identical = crew.way(mail).is_some_and(|way| crew.letter(mail, way) == got);
            crew.log.add(Event::Opened { mail, identical });
            Ok(true)
        }
        Err(ImapError::Broken { server, source }) => {
            crew.log.add(Event::NotHad { mail, answered: false });
            Err(ImapError::Broken { server, source })
        }
        // A mail that was taken back is there as a card alone.
        Err(ImapError::Refused { answer }) if answer.starts_with("NO [NONEXISTENT]") => Ok(true),
        Err(_) => {
            crew.log.add(Event::NotHad { mail, answered: true });
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;

    #[test]
    fn a_mail_that_waits_as_any_other_was_never_heard_to_be_unwanted() {
        let line = |state: &str| OutboxLine {
            submission: SubmissionId::new([1; 16]),
            subject: None,
            sealed: Vec::new(),
            receivers: [("bob@acme".parse().unwrap(), state.to_owned())].into(),
            size: 0,
            at: WallTime(0),
        };
        assert!(["waiting", "sealed", "announced"].iter().all(|state| is_open(&line(state))));
        assert!(["cancelled", "uncertain", "too late", "received"].iter().all(|state| !is_open(&line(state))));
    }
}
