//! From what was seen to a verdict for each rule. It is pure: the same events always give the same verdicts, and what no event
//! bears out is not said to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::events::{Event, Gone, MailNo, Rule, Seen, Short, Word};
use crate::core::group::BEAT;

/// A kill within this time of a 250 is one that R1 is tried by.
const JUST_TAKEN: Duration = Duration::from_secs(3);
/// More memory than this a peer needs not, whatever comes (a debug build included): strangers may fill 128 MiB of it with DHT entries,
/// all others as much, fetches have 64 MiB.
const MEMORY_MAX: u64 = 512 << 20;
/// A member of a group that rests sends fewer packets a minute (DESIGN: "under about 60", of which this is a sixth more), with the
/// heartbeats of a policy that asks for no faster ones.
const IDLE_PACKETS_MAX: f64 = 70.0;
/// So many mails or peers are named in a verdict.
const NAMED: usize = 4;

/// Whether one rule held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RuleVerdict {
    /// `R1` to `R12`.
    pub(super) rule: String,
    /// Whether it held.
    pub(super) ok: bool,
    /// What was counted.
    pub(super) why: String,
}

/// What is known of one mail.
#[derive(Debug, Clone, Default)]
struct Facts {
    taken_at: Option<Duration>,
    from: String,
    refused: bool,
    opened: u32,
    wrong: u32,
    first_try: Option<Duration>,
    word: Option<Word>,
    told: u32,
    copies: u32,
    freed_at: Option<Duration>,
}

impl Facts {
    /// Whether it came to one of the ends that R2 allows. One that was asked back and of which nobody knows what became of it has
    /// not: in the end it is cancelled, or its reader has it.
    fn has_ended(&self) -> bool {
        self.opened > 0 || self.told > 0 || self.word == Some(Word::Cancelled)
    }
    fn is_lost(&self) -> bool {
        self.taken_at.is_some() && !self.has_ended()
    }
}

/// A safe(f) that no disks bear out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Untrue {
    /// As it was first seen.
    what: String,
    first: Duration,
    last: Duration,
    times: u32,
}

impl Untrue {
    fn text(&self) -> String {
        let (first, last) = (self.first.as_secs_f64(), self.last.as_secs_f64());
        let when = match self.times {
            1 => format!("once, at {first:.1} s"),
            times => format!("{times} times, from {first:.1} to {last:.1} s"),
        };
        format!("{}; seen {when}", self.what)
    }
}

/// What was seen, sorted by what it is about.
#[derive(Debug, Default)]
struct Sorted<'a> {
    mails: BTreeMap<MailNo, Facts>,
    killed: Vec<(Duration, &'a str)>,
    claims: usize,
    untrue: BTreeMap<MailNo, Untrue>,
    went: BTreeMap<&'a str, (Option<Duration>, Option<Duration>)>,
    remains: Vec<String>,
    clear: Vec<String>,
    searched: Option<usize>,
    pins: usize,
    other_pins: Vec<String>,
    settled: Option<(Duration, &'a [String])>,
    /// What is still written, if that was looked at.
    rests: Option<Option<&'a str>>,
    /// Packets a minute and member while idle, and how many are allowed.
    idle: Option<(f64, f64)>,
    memory: Vec<(&'a str, u64)>,
    refusals: Vec<&'a str>,
    checked: Vec<(Rule, bool, &'a str)>,
}

/// How many mails were taken with 250.
pub(super) fn taken(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| matches!(seen.event, Event::Taken { .. })).count()
}

/// How many mails were read, to the byte.
pub(super) fn read(seen: &[Seen]) -> usize {
    let mails = seen.iter().filter_map(|seen| match seen.event {
        Event::Opened { mail, identical: true } => Some(mail),
        _ => None,
    });
    mails.collect::<BTreeSet<_>>().len()
}

/// The mails that were taken and have come to none of the ends that R2 allows.
pub(super) fn not_ended(seen: &[Seen]) -> Vec<MailNo> {
    sort(seen).mails.into_iter().filter(|(_, facts)| facts.is_lost()).map(|(mail, _)| mail).collect()
}

/// The mails of which nothing may be left on any disk: opened, or surely taken back.
pub(super) fn over(seen: &[Seen]) -> Vec<MailNo> {
    let mails = sort(seen).mails.into_iter();
    let is_over = |facts: &Facts| match facts.word {
        None | Some(Word::TooLate) => facts.opened > 0,
        Some(word) => word == Word::Cancelled,
    };
    mails.filter(|(_, facts)| is_over(facts)).map(|(mail, _)| mail).collect()
}

/// The mails that were asked back, and of which nobody knows yet what became of them.
pub(super) fn uncertain(seen: &[Seen]) -> Vec<MailNo> {
    let mails = sort(seen).mails.into_iter();
    mails.filter(|(_, facts)| facts.word == Some(Word::Uncertain)).map(|(mail, _)| mail).collect()
}

/// The mails that their senders' peers called cancelled.
pub(super) fn cancelled(seen: &[Seen]) -> Vec<MailNo> {
    let mails = sort(seen).mails.into_iter();
    mails.filter(|(_, facts)| facts.word == Some(Word::Cancelled)).map(|(mail, _)| mail).collect()
}

/// The peers that went and are not back.
pub(super) fn away(seen: &[Seen]) -> BTreeSet<String> {
    let mut away = BTreeSet::new();
    for Seen { event, .. } in seen {
        match event {
            Event::Down { peer, .. } => away.insert(peer.clone()),
            Event::Up { peer } => away.remove(peer),
            _ => false,
        };
    }
    away
}

/// The verdicts, in the order of the rules.
pub(super) fn judge(seen: &[Seen]) -> Vec<RuleVerdict> {
    let sorted = sort(seen);
    let mut verdicts: BTreeMap<Rule, (bool, Vec<String>)> = BTreeMap::new();
    let mut put = |rule: Rule, verdict: Option<(bool, String)>| {
        if let Some((ok, why)) = verdict {
            let entry = verdicts.entry(rule).or_insert((true, Vec::new()));
            entry.0 &= ok;
            entry.1.push(why);
        }
    };
    put(1, durable(&sorted));
    put(2, Some(nothing_lost(&sorted)));
    put(4, freed(&sorted));
    put(5, Some(once(&sorted)));
    put(6, Some(every_byte(&sorted)));
    put(7, Some(no_resurrection(&sorted)));
    put(8, measured(&sorted));
    put(9, bounded(&sorted));
    put(10, sorted.searched.map(|files| secrets(&sorted, files)));
    put(11, (sorted.pins > 0).then(|| pins(&sorted)));
    put(12, converges(&sorted));
    for (rule, ok, why) in &sorted.checked {
        put(*rule, Some((*ok, (*why).to_owned())));
    }
    verdicts
        .into_iter()
        .map(|(rule, (ok, why))| RuleVerdict { rule: format!("R{rule}"), ok, why: why.join("; ") })
        .collect()
}

fn sort(seen: &[Seen]) -> Sorted<'_> {
    let mut sorted = Sorted::default();
    for Seen { at, event } in seen {
        if !of_mail(&mut sorted, *at, event) {
            of_peer(&mut sorted, *at, event);
        }
    }
    sorted
}

/// Whether it is about the life of one mail, which is noted then.
fn of_mail<'a>(sorted: &mut Sorted<'a>, at: Duration, event: &'a Event) -> bool {
    let mut facts = |mail: &MailNo, note: &dyn Fn(&mut Facts)| note(sorted.mails.entry(*mail).or_default());
    match event {
        Event::Taken { mail, from } => facts(mail, &|f| {
            f.taken_at = Some(at);
            f.from.clone_from(from);
        }),
        Event::Refused { mail, said } => {
            facts(mail, &|f| f.refused = true);
            sorted.refusals.push(said);
        }
        Event::Unclear { mail } => facts(mail, &|_| ()),
        Event::Opening { mail } => facts(mail, &|f| f.first_try = f.first_try.or(Some(at))),
        Event::Opened { mail, identical } => facts(mail, &|f| {
            f.opened += 1;
            f.wrong += u32::from(!identical);
        }),
        Event::CancelSaid { mail, word } => facts(mail, &|f| f.word = Some(*word)),
        Event::Told { mail, times } => facts(mail, &|f| f.told = *times),
        Event::Copies { mail, copies } => facts(mail, &|f| f.copies = *copies),
        Event::Freed { mail } => facts(mail, &|f| f.freed_at = Some(at)),
        _ => return false,
    }
    true
}

fn of_peer<'a>(sorted: &mut Sorted<'a>, at: Duration, event: &'a Event) {
    match event {
        Event::Down { peer, how } => {
            sorted.went.entry(peer).or_default().0 = Some(at);
            if *how == Gone::Killed {
                sorted.killed.push((at, peer));
            }
        }
        Event::Up { peer } => sorted.went.entry(peer).or_default().1 = Some(at),
        Event::Claimed { mail, shown, counted, holders, short } => {
            sorted.claims += 1;
            // Of a mail that is being taken back members give up their parts before its owner has heard of all of them.
            let back = sorted.mails.get(mail).is_some_and(|facts| facts.word.is_some());
            if shown > counted && !back {
                let what = || {
                    let why = short.as_ref().map_or_else(String::new, |short| why_short(sorted, short));
                    format!("mail {mail} showed safe({shown}) with {holders}, the disks bear out {counted}{why}")
                };
                let seen = sorted.untrue.get(mail).cloned();
                let seen = seen.unwrap_or_else(|| Untrue { what: what(), first: at, last: at, times: 0 });
                sorted.untrue.insert(*mail, Untrue { last: at, times: seen.times + 1, ..seen });
            }
        }
        Event::Remains { mail, peer } => sorted.remains.push(format!("mail {mail} at {peer}")),
        Event::Searched { files } => sorted.searched = Some(*files),
        Event::Clear { peer, file } => sorted.clear.push(format!("{file} of {peer}")),
        Event::Settled { took, open } => sorted.settled = Some((*took, open)),
        Event::Rests { written } => sorted.rests = Some(written.as_deref()),
        Event::Idle { sent, peers, took, beat } => {
            sorted.idle = Some((a_minute_and_member(*sent, *peers, *took), packets_allowed(*beat)));
        }
        Event::Pins { peer, differ } => {
            sorted.pins += 1;
            sorted.other_pins.extend(differ.as_ref().map(|differ| format!("{peer}: {differ}")));
        }
        Event::Memory { peer, bytes } => sorted.memory.push((peer, *bytes)),
        Event::Checked { rule, ok, why } => sorted.checked.push((*rule, *ok, why)),
        _ => {}
    }
}

/// Who shows too much, and who lacks what it is said to have; when each went and came last.
fn why_short(sorted: &Sorted<'_>, short: &Short) -> String {
    let of = |peer: &String| {
        let (down, up) = sorted.went.get(peer.as_str()).copied().unwrap_or_default();
        let at = |word: &str, at: Option<Duration>| at.map(|at| format!("{word} at {:.1} s", at.as_secs_f64()));
        let times: Vec<String> = [at("went", down), at("started", up)].into_iter().flatten().collect();
        if times.is_empty() { peer.clone() } else { format!("{peer} ({})", times.join(", ")) }
    };
    let lacks = match short.lacks.is_empty() {
        true => "nobody of them".to_owned(),
        false => short.lacks.iter().map(of).collect::<Vec<_>>().join(" and "),
    };
    format!(" (shown by {}, lacked by {lacks}; looked at for {} ms)", of(&short.owner), short.look.as_millis())
}

/// A few of them, and how many more there are.
fn some(all: &[String]) -> String {
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn numbers<'a>(mails: impl Iterator<Item = (&'a MailNo, &'a Facts)>) -> Vec<String> {
    let name = |(mail, facts): (&MailNo, &Facts)| match facts.word {
        Some(Word::Uncertain) => format!("mail {mail} (asked back, and uncertain to the end)"),
        Some(Word::TooLate) => format!("mail {mail} (too late to take back)"),
        Some(Word::Cancelled) | None => format!("mail {mail}"),
    };
    mails.map(name).collect()
}

fn durable(sorted: &Sorted<'_>) -> Option<(bool, String)> {
    if sorted.killed.is_empty() {
        return None;
    }
    let just_taken = |facts: &Facts| {
        let killed_after = |at: Duration| {
            let mut kills = sorted.killed.iter();
            kills.any(|(kill, peer)| *peer == facts.from && *kill >= at && *kill - at <= JUST_TAKEN)
        };
        facts.taken_at.is_some_and(killed_after)
    };
    let tried: Vec<_> = sorted.mails.iter().filter(|(_, facts)| just_taken(facts)).collect();
    let lost = numbers(tried.iter().copied().filter(|(_, facts)| facts.is_lost()));
    let (kills, tried) = (sorted.killed.len(), tried.len());
    Some(match lost.is_empty() {
        true => (true, format!("{kills} kills; {tried} mails taken in the 3 s before their sender's were all kept")),
        false if sorted.settled.is_none() => (false, not_known(lost.len(), tried, &lost)),
        false => (false, format!("{} said to be taken just before a kill and lost: {}", lost.len(), some(&lost))),
    })
}

/// A drill that broke off has not waited for what was still on its way.
fn not_known(open: usize, of: usize, mails: &[String]) -> String {
    format!("not known: it broke off before {open} of {of} taken mails could come to an end: {}", some(mails))
}

fn nothing_lost(sorted: &Sorted<'_>) -> (bool, String) {
    let taken = sorted.mails.values().filter(|facts| facts.taken_at.is_some()).count();
    let lost = numbers(sorted.mails.iter().filter(|(_, facts)| facts.is_lost()));
    let count = |is: &dyn Fn(&Facts) -> bool| {
        sorted.mails.values().filter(|facts| facts.taken_at.is_some() && is(facts)).count()
    };
    // Whether these were taken nobody can know but by their coming.
    let unsaid = sorted.mails.values().filter(|f| f.taken_at.is_none() && !f.refused && f.opened > 0).count();
    let unsaid = match unsaid {
        0 => String::new(),
        some => format!("; {some} more were read, whose senders got no answer"),
    };
    let (opened, told) = (count(&|f| f.opened > 0), count(&|f| f.told > 0));
    let back = count(&|f| f.opened == 0 && f.word == Some(Word::Cancelled));
    let wrongly = numbers(sorted.mails.iter().filter(|(_, facts)| facts.told > 0 && facts.opened > 0));
    match (lost.is_empty(), wrongly.is_empty()) {
        (true, true) => (
            true,
            format!(
                "of {taken} taken, {opened} were read, {back} taken back, {told} told to have failed, 0 lost{unsaid}"
            ),
        ),
        (false, _) if sorted.settled.is_none() => (false, not_known(lost.len(), taken, &lost)),
        (false, _) => (false, format!("{} of {taken} taken mails are lost: {}", lost.len(), some(&lost))),
        (_, false) => (false, format!("read, and their senders are told that they failed: {}", some(&wrongly))),
    }
}

fn freed(sorted: &Sorted<'_>) -> Option<(bool, String)> {
    let freed: Vec<_> = sorted.mails.iter().filter(|(_, facts)| facts.freed_at.is_some()).collect();
    let too_early = |facts: &Facts| {
        let unread = facts.freed_at.is_some_and(|freed| facts.first_try.is_none_or(|tried| tried > freed));
        unread && facts.word.is_none() && facts.told == 0
    };
    let wrong = numbers(freed.iter().copied().filter(|(_, facts)| too_early(facts)));
    (!freed.is_empty()).then(|| match wrong.is_empty() {
        true => (true, format!("{} mails seen to be freed, none before its reader had asked for it", freed.len())),
        false => (false, format!("{} freed before their readers had them: {}", wrong.len(), some(&wrong))),
    })
}

fn once(sorted: &Sorted<'_>) -> (bool, String) {
    let twice = numbers(sorted.mails.iter().filter(|(_, facts)| facts.copies > 1));
    let told = numbers(sorted.mails.iter().filter(|(_, facts)| facts.told > 1));
    let refused = numbers(sorted.mails.iter().filter(|(_, facts)| facts.refused && facts.copies > 0));
    let there = sorted.mails.values().filter(|facts| facts.copies == 1).count();
    match (twice.is_empty(), told.is_empty(), refused.is_empty()) {
        (true, true, true) => {
            (true, format!("{there} mails are in a mailbox, each once; none is there that was refused"))
        }
        (false, ..) => (false, format!("{} duplicated: {}", twice.len(), some(&twice))),
        (_, false, _) => (false, format!("failure told more than once: {}", some(&told))),
        (.., false) => (false, format!("arrived although refused: {}", some(&refused))),
    }
}

fn every_byte(sorted: &Sorted<'_>) -> (bool, String) {
    let opened: u32 = sorted.mails.values().map(|facts| facts.opened).sum();
    let wrong = numbers(sorted.mails.iter().filter(|(_, facts)| facts.wrong > 0));
    match wrong.is_empty() {
        true => (true, format!("{opened} mails read over IMAP, each as it was submitted, to the byte")),
        false => (false, format!("{} with wrong bytes: {}", wrong.len(), some(&wrong))),
    }
}

fn no_resurrection(sorted: &Sorted<'_>) -> (bool, String) {
    let back =
        numbers(sorted.mails.iter().filter(|(_, facts)| facts.word == Some(Word::Cancelled) && facts.opened > 0));
    let cancelled = sorted.mails.values().filter(|facts| facts.word == Some(Word::Cancelled)).count();
    match (back.is_empty(), sorted.remains.is_empty()) {
        (true, true) => {
            (true, format!("{cancelled} cancelled mails stayed away; no disk holds anything of a mail that ended"))
        }
        (false, _) => (false, format!("{} resurrected after they were cancelled: {}", back.len(), some(&back))),
        (_, false) => (false, format!("kept or come back after the end: {}", some(&sorted.remains))),
    }
}

fn measured(sorted: &Sorted<'_>) -> Option<(bool, String)> {
    (sorted.claims > 0).then(|| match sorted.untrue.is_empty() {
        true => (true, format!("{} times a safe(f) was shown, and the members' disks bore out each", sorted.claims)),
        false => {
            let untrue: Vec<String> = sorted.untrue.values().map(Untrue::text).collect();
            (false, format!("untrue safe(f): {}", some(&untrue)))
        }
    })
}

fn bounded(sorted: &Sorted<'_>) -> Option<(bool, String)> {
    let clear = |said: &str| said.starts_with(['4', '5']) && said.len() > "452 4.3.1 ".len();
    let unclear: Vec<String> =
        sorted.refusals.iter().filter(|said| !clear(said)).map(|said| format!("{said:?}")).collect();
    let (peer, most) = sorted.memory.iter().max_by_key(|(_, bytes)| *bytes)?;
    let mib = most >> 20;
    Some(match (unclear.is_empty(), *most <= MEMORY_MAX) {
        (true, true) => (
            true,
            format!(
                "no peer had more than {mib} MiB of memory; {} mails were refused, each with a reason",
                sorted.refusals.len()
            ),
        ),
        (_, false) => (false, format!("{peer} had {mib} MiB of memory")),
        (false, _) => (false, format!("refused without a reason: {}", some(&unclear))),
    })
}

fn secrets(sorted: &Sorted<'_>, files: usize) -> (bool, String) {
    match sorted.clear.is_empty() {
        true => (true, format!("{files} files searched, no clear mail on a disk but its sender's and its reader's")),
        false => (false, format!("clear mail on a disk of others: {}", some(&sorted.clear))),
    }
}

fn pins(sorted: &Sorted<'_>) -> (bool, String) {
    match sorted.other_pins.is_empty() {
        true => (true, format!("{} peers go by the keys and members that they went by before", sorted.pins)),
        false => (false, some(&sorted.other_pins)),
    }
}

/// Packets that each of `peers` sent a minute, of `sent` in `took`.
fn a_minute_and_member(sent: u64, peers: usize, took: Duration) -> f64 {
    let sent = u32::try_from(sent).map_or(f64::INFINITY, f64::from);
    let peers = u32::try_from(peers).map_or(f64::INFINITY, f64::from);
    sent * 60.0 / took.as_secs_f64() / peers
}

/// Packets a minute and member that a policy allows which wants a heartbeat so often.
fn packets_allowed(beat: Duration) -> f64 {
    IDLE_PACKETS_MAX * BEAT.max(beat).as_secs_f64() / beat.as_secs_f64()
}

fn converges(sorted: &Sorted<'_>) -> Option<(bool, String)> {
    let (took, open) = sorted.settled?;
    let took = took.as_secs();
    if !open.is_empty() {
        return Some((false, format!("not done after {took} s: {}", some(open))));
    }
    let done = format!("all that was due was done {took} s after the load stopped");
    Some(match (sorted.rests, sorted.idle) {
        (Some(Some(file)), _) => (false, format!("all is done, and disks are still written: {file}")),
        (_, Some((idle, allowed))) if idle >= allowed => (
            false,
            format!("{done}, and then each peer still sent {idle:.0} packets a minute, {allowed:.0} are allowed"),
        ),
        (_, Some((idle, allowed))) => {
            let idle = format!("each peer sent {idle:.0} packets a minute, {allowed:.0} are allowed at its heartbeats");
            (true, format!("{done}; then no file was written but logs, and {idle}"))
        }
        (Some(None), None) => (true, format!("{done}, and then no file was written but logs")),
        (None, None) => (true, done),
    })
}

#[cfg(test)]
mod tests;
