//! Incoming mails: ns, tombstones, expiry. Files one message for a sender's submission, whatever is replayed (R5), and says yes
//! only once that is on disk (R1).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::access::BodyState;
use super::events::Consequences;
use super::io::{NsFrom, NsRefusal, TombstoneRefusal};
use super::state::{Mail, MailKey, NrState, Offer, Stage, State, Verdict, head_digest};
use super::{Action, DOUBT, Event, Input, Postbox, Reply, Writing, requests};
use crate::core::{Effect, Token};
use crate::mime;
use crate::model::msglist::{Ending, Tombstone};
use crate::model::notification::{Ns, Outcome, Refusal};
use crate::model::{Digest, MailId, MonoTime, Now, Secret, WallTime};
use crate::wire::Signed;

/// A mail is remembered this long after its expiry: its nr may be waited for that long, and a replayed ns is expired.
pub(super) const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);
/// Mails that are remembered; unknown senders can fill half of that.
const MAILS_MAX: usize = 200_000;
/// Sealed forms of one mail that are remembered.
const OFFERS_MAX: usize = 4;
/// Requests about one ns that wait for the same write.
const WAITERS_MAX: usize = 16;
/// ns of one sealed mail in the DHT that are answered by an nr once more.
const ASKED_MAX: usize = 4;
/// Mails taken back before their ns came that are remembered.
const BURIED_MAX: usize = 10_000;
/// And at least so long, where their owner asked: as long as mirrors keep what has expired.
const BURIED_LEAST: Duration = Duration::from_secs(86_400);
/// A sender that took an nr may ask for it again after this.
const NR_AGAIN: Duration = Duration::from_secs(60);

/// What the rate of requests is counted over, milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// What of the arriving is not durable.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    /// ns whose head is being written, and who waits for that.
    writing: BTreeMap<MailKey, Vec<NsFrom>>,
    /// ns that this run saw in the DHT: value hash and password.
    pub(super) in_dht: BTreeMap<(MailKey, MailId), (Digest, Secret)>,
    /// ns in the DHT because of which this run owed an nr once more.
    asked_again: BTreeMap<(MailKey, MailId), BTreeSet<Digest>>,
    /// When the requests of the last hour were taken. A restart begins a new hour.
    requests_taken: VecDeque<MonoTime>,
}

impl Arriving {
    /// Whether an ns of a mail whose nr was taken asks for it again. One that lies in the DHT, put there by somebody whose password
    /// nobody knows, is read again and again, and asks once: a sender that misses its nr asks daily itself.
    fn asks_again(&mut self, from: NsFrom, id: MailKey, h: MailId) -> bool {
        let NsFrom::Dht(value) = from else { return true };
        let asked = self.asked_again.entry((id, h)).or_default();
        asked.len() < ASKED_MAX && asked.insert(value)
    }
    /// The mail is not remembered any more.
    fn forget(&mut self, id: MailKey, h: MailId) {
        self.in_dht.remove(&(id, h));
        self.asked_again.remove(&(id, h));
    }
}

/// At 75 % of its life a mail is pulled, opened or not (DESIGN.md section 5).
pub(super) fn pull_at(mail: &Mail) -> WallTime {
    let life = mail.expiry().since(mail.arrived);
    mail.arrived + life / 4 * 3
}

impl Postbox {
    fn answer_ns(&mut self, from: NsFrom, result: Result<(), NsRefusal>) {
        if let NsFrom::Direct(token) = from {
            self.out.reply(token, ns_reply(result));
        }
    }

    pub(super) fn ns(&mut self, now: Now, from: NsFrom, ns: Ns, known: bool) {
        let id = MailKey { sender: ns.from_fingerprint, submission: ns.submission };
        // An owner asks once more about a mail that has just expired, before it says so.
        let is_known = self.state.mails.get(&id).is_some_and(|mail| mail.offer(&ns.h).is_some());
        if ns.expiry <= now.wall && !self.clock.is_doubtful() && !is_known {
            return self.answer_ns(from, Err(NsRefusal::Expired));
        }
        let verdict = self.state.verdict(&id.sender);
        let known = match verdict {
            Some(Verdict::Granted) => true,
            Some(Verdict::Refused | Verdict::Withdrawn) => false,
            None => known || self.state.wrote_to.contains(&id.sender),
        };
        let room = if known { MAILS_MAX } else { MAILS_MAX / 2 };
        if let NsFrom::Dht(value) = from
            && self.arriving.in_dht.len() < MAILS_MAX
        {
            self.arriving.in_dht.insert((id, ns.h), (value, ns.ns_password()));
        }
        if self.state.mails.contains_key(&id) {
            return self.known_mail(now, from, id, &ns);
        }
        if let Some(waiting) = self.arriving.writing.get_mut(&id) {
            if waiting.len() < WAITERS_MAX {
                return waiting.push(from);
            }
            return self.answer_ns(from, Err(NsRefusal::Full { limit: WAITERS_MAX }));
        }
        if self.state.buried.contains_key(&(ns.owner, ns.h)) {
            // Taken back before it came: ignored (R7).
            return self.answer_ns(from, Ok(()));
        }
        if self.state.mails.len() + self.arriving.writing.len() >= room {
            return self.answer_ns(from, Err(NsRefusal::Full { limit: room }));
        }
        match self.refusal(&ns, verdict) {
            Some(why) => self.refuse_at_once(now, from, id, &ns, why),
            None if known => self.write_stub(now, from, id, ns),
            None => self.write_request(now, from, id, ns),
        }
    }

    /// Why this mail is not taken, whoever its sender is.
    fn refusal(&self, ns: &Ns, verdict: Option<Verdict>) -> Option<Refusal> {
        if ns.to != self.settings.address {
            return Some(Refusal::UnknownAddress);
        }
        if mime::address::sender(&ns.header_block).ok().as_ref() != Some(&ns.from) {
            return Some(Refusal::Mismatch);
        }
        if verdict == Some(Verdict::Refused) {
            return Some(Refusal::Sender);
        }
        self.too_large(ns).map(|_| Refusal::TooLarge)
    }

    /// The bound that this mail exceeds, sealed or clear: what it says is what is kept in RAM and on disk to pull and open it.
    fn too_large(&self, ns: &Ns) -> Option<u64> {
        // Before the first roster nothing is refused for good by a bound that may be another one.
        let limit = self.roster.as_ref()?.policy.max_sealed();
        (ns.length.max(ns.structure.size) > limit).then_some(limit)
    }

    fn refuse_at_once(&mut self, now: Now, from: NsFrom, id: MailKey, ns: &Ns, why: Refusal) {
        let outcome = crate::model::notification::Outcome::Refused(why);
        let mut mail = Mail::of(ns, now.wall, Stage::Concluded(outcome, now.wall));
        mail.offers.iter_mut().for_each(|offer| offer.nr = NrState::Owed);
        if why == Refusal::Mismatch {
            self.name_mismatch(id, &mail, ns.h, "its From is not the address that signed it");
        }
        self.commit(vec![Event::Announced { id, mail: Box::new(mail), card: None }], taken(&[from]));
        self.schedule(now, id);
    }

    pub(super) fn name_mismatch(&mut self, id: MailKey, mail: &Mail, h: MailId, why: &str) {
        self.mismatches += 1;
        self.out.act(Action::NameMismatch { id, from: mail.from.clone(), h, why: why.to_owned() });
    }

    fn write_stub(&mut self, now: Now, from: NsFrom, id: MailKey, ns: Ns) {
        let key = self.allot();
        let mut mail = Mail::of(&ns, now.wall, Stage::Stub);
        mail.message = Some(key);
        self.writing.insert(key, Writing::Stub(id, Box::new(mail)));
        self.write_head(from, id, key, ns);
    }

    fn write_head(&mut self, from: NsFrom, id: MailKey, key: super::MessageKey, ns: Ns) {
        self.arriving.writing.insert(id, vec![from]);
        let (header_block, structure) = (ns.header_block, Box::new(ns.structure));
        self.out.act(Action::WriteHead { key, header_block, structure });
    }

    fn write_request(&mut self, now: Now, from: NsFrom, id: MailKey, ns: Ns) {
        let on_the_way = self.arriving.writing.keys().filter(|other| other.sender == id.sender).count();
        let of_sender = self.state.requests(Some(id.sender)).count() + on_the_way;
        let in_all = self.state.requests(None).count() + self.arriving.writing.len();
        let (per_sender, max) = (self.settings.requests_per_sender, self.settings.requests_max);
        for (waiting, limit) in [(of_sender, per_sender), (in_all, max)] {
            if waiting >= limit {
                return self.answer_ns(from, Err(NsRefusal::Requests { waiting }));
            }
        }
        let hour_ago = now.mono.0.saturating_sub(HOUR_MS);
        self.arriving.requests_taken.retain(|at| at.0 > hour_ago);
        let taken = self.arriving.requests_taken.len();
        if taken >= self.settings.requests_per_hour {
            return self.answer_ns(from, Err(NsRefusal::RequestsTooFast { taken }));
        }
        self.arriving.requests_taken.push_back(now.mono);
        let key = self.allot();
        let mut mail = Mail::of(&ns, now.wall, Stage::Requested);
        mail.message = Some(key);
        let card = requests::card(id, &ns, now.wall);
        self.writing.insert(key, Writing::Request(id, Box::new(mail), card));
        self.write_head(from, id, key, ns);
    }

    pub(super) fn stub_written(&mut self, now: Now, id: MailKey, mail: Box<Mail>) {
        let waiting = self.arriving.writing.remove(&id).unwrap_or_default();
        let mut then = taken(&waiting);
        then.push(Effect::Feed(Input::Filed(vec![id])));
        self.commit(vec![Event::Announced { id, mail, card: None }], then);
        self.schedule(now, id);
    }

    pub(super) fn request_written(&mut self, id: MailKey, mail: Box<Mail>, card: Vec<u8>) {
        let key = self.allot();
        self.writing.insert(key, Writing::Card(id, mail));
        self.out.act(Action::WriteMessage { key, message: card });
    }

    pub(super) fn card_written(
        &mut self,
        now: Now,
        id: MailKey,
        mut mail: Box<Mail>,
        key: super::MessageKey,
        size: u64,
    ) {
        let waiting = self.arriving.writing.remove(&id).unwrap_or_default();
        let mut garbage = None;
        let card = match self.state.verdict(&id.sender) {
            None | Some(Verdict::Withdrawn) => {
                mail.card = Some(key);
                Some((key, size))
            }
            // Judged while it was written: no card is needed any more.
            Some(Verdict::Granted) => {
                mail.stage = Stage::Stub;
                garbage = Some(vec![key]);
                None
            }
            Some(Verdict::Refused) => {
                garbage = Some([key].into_iter().chain(mail.message.take()).collect());
                let outcome = Outcome::Refused(Refusal::Sender);
                mail.stage = Stage::Concluded(outcome, now.wall);
                mail.offers.iter_mut().for_each(|offer| offer.nr = NrState::Owed);
                None
            }
        };
        let mut then = taken(&waiting);
        then.push(Effect::Feed(Input::Filed(vec![id])));
        then.extend(garbage.map(|keys| Effect::Act(Action::Remove { keys })));
        self.commit(vec![Event::Announced { id, mail, card }], then);
        self.schedule(now, id);
    }

    pub(super) fn ns_not_written(&mut self, id: MailKey, why: &str) {
        for from in self.arriving.writing.remove(&id).unwrap_or_default() {
            self.answer_ns(from, Err(NsRefusal::Disk { why: why.to_owned() }));
        }
    }

    /// An ns of a known submission files nothing; once its mail is done, an nr for the h of this ns answers it.
    fn known_mail(&mut self, now: Now, from: NsFrom, id: MailKey, ns: &Ns) {
        let Some(mail) = self.state.mails.get(&id) else { return };
        let concluded = matches!(mail.stage, Stage::Concluded(..));
        let event = match mail.offer(&ns.h) {
            Some(offer) => match offer.nr {
                NrState::Taken(at)
                    if concluded && was_long_ago(at, now) && self.arriving.asks_again(from, id, ns.h) =>
                {
                    Some(Event::Nr { id, h: ns.h, state: NrState::Owed })
                }
                _ => None,
            },
            None if !concluded && self.too_large(ns).is_some() => {
                let limit = self.too_large(ns).unwrap_or_default();
                return self.answer_ns(from, Err(NsRefusal::TooLarge { limit }));
            }
            // Taken back in this form before it came: it is not to be had (R7).
            None if !concluded && self.state.buried.contains_key(&(ns.owner, ns.h)) => None,
            None if mail.head != head_digest(ns) => return self.answer_ns(from, Err(NsRefusal::OtherMail)),
            None if mail.offers.len() >= OFFERS_MAX => {
                return self.answer_ns(from, Err(NsRefusal::Full { limit: OFFERS_MAX }));
            }
            None => (concluded || mail.is_open()).then(|| Event::Offered { id, offer: Offer::of(ns) }),
        };
        let mut then = taken(&[from]);
        if concluded {
            then.push(Effect::Feed(Input::Concluded(vec![id])));
        }
        self.commit(event.into_iter().collect(), then);
        self.schedule(now, id);
    }

    /// Mails were concluded and that is on disk: their nr are sent, their ns in the DHT are deleted.
    pub(super) fn concluded(&mut self, now: Now, ids: &[MailKey]) {
        for id in ids {
            let Some(mail) = self.state.mails.get(id) else { continue };
            if !matches!(mail.stage, Stage::Concluded(..)) {
                continue;
            }
            for offer in &mail.offers {
                if offer.nr.is_open() {
                    self.answers.owe(now, offer.owner, *id, offer.h);
                }
                if let Some((value, password)) = self.arriving.in_dht.remove(&(*id, offer.h)) {
                    self.out.act(Action::DeleteNs { value, password });
                }
            }
            self.schedule(now, *id);
        }
    }

    /// Stubs are on disk: those that are to be pulled at once are.
    pub(super) fn stubs_filed(&mut self, now: Now, ids: &[MailKey]) {
        for id in ids {
            let Some(mail) = self.state.mails.get(id).filter(|m| m.stage == Stage::Stub) else { continue };
            if self.settings.eager || pull_at(mail) <= now.wall {
                let message = mail.message;
                message.into_iter().for_each(|key| self.bodies.want(now, key));
            }
        }
    }

    /// The moment noted for this mail has come.
    pub(super) fn due(&mut self, now: Now, id: MailKey) {
        let Some(mail) = self.state.mails.get(&id) else { return };
        let expired = mail.expiry() <= now.wall;
        match mail.stage {
            // Also not forgotten: what is filed once must not be filed again (R5).
            _ if expired && self.clock.is_doubtful() => {
                self.deadlines.insert((now.wall + DOUBT, id));
                return;
            }
            Stage::Stub | Stage::Requested if expired => {
                self.commit(vec![Event::Ended { id, body: BodyState::Expired }], Vec::new());
            }
            Stage::Stub => self.stubs_filed(now, &[id]),
            Stage::Requested => {}
            Stage::Gone(BodyState::Expired) if self.lives_after_all(mail, now) => return self.revive(now, id),
            Stage::Concluded(..) | Stage::Gone(_) if mail.expiry() + REMEMBERED <= now.wall => {
                if !self.clock.has_stood(now) {
                    // What is filed once must not be filed again (R5), also by a clock that nobody has found to be ahead yet.
                    self.deadlines.insert((now.wall + DOUBT, id));
                    return;
                }
                return self.forget(id);
            }
            Stage::Concluded(..) | Stage::Gone(_) => {}
        }
        self.schedule(now, id);
    }

    /// A mail, and all that was noted of it, is not remembered any more.
    fn forget(&mut self, id: MailKey) {
        let offers = self.state.mails.get(&id).map(|mail| &mail.offers);
        for offer in offers.into_iter().flatten() {
            self.answers.done(offer.owner, id, offer.h);
            self.arriving.forget(id, offer.h);
        }
        self.commit(vec![Event::Forgotten { id }], Vec::new());
    }

    /// Whether a clock that was ahead ended this mail, and nobody else did.
    pub(super) fn lives_after_all(&self, mail: &Mail, now: Now) -> bool {
        mail.expiry() > now.wall && !self.clock.is_doubtful() && !mail.offers.iter().any(|offer| self.is_buried(offer))
    }

    /// The stub of such a mail can be opened again. What is in no mailbox any more is forgotten: its next ns begins anew.
    fn revive(&mut self, now: Now, id: MailKey) {
        let message = self.state.mails.get(&id).and_then(|mail| mail.message);
        if message.is_none_or(|key| !self.state.messages.contains_key(&key)) {
            return self.forget(id);
        }
        self.commit(vec![Event::Revived { id }], Vec::new());
        self.schedule(now, id);
        self.stubs_filed(now, &[id]);
    }

    /// The owner says that a mail is gone. Taking that is the promise that the mail cannot be opened here any more, and that
    /// no nr about it is under way; so the owner knows what its cancel came to.
    pub(super) fn tombstone(&mut self, now: Now, token: Option<Token>, word: &Signed<Tombstone>, known: bool) {
        let body = match word.ending {
            Ending::Expired => BodyState::Expired,
            Ending::Received | Ending::Refused | Ending::Cancelled => BodyState::Cancelled,
        };
        let of_owner = |mail: &Mail| mail.offer(&word.h).is_some_and(|offer| offer.owner == word.owner);
        let ids: Vec<MailKey> =
            self.state.offered_as(word.h).filter(|(_, mail)| of_owner(mail)).map(|(id, _)| id).collect();
        let until = word.expiry.min(now.wall + REMEMBERED + REMEMBERED);
        if !self.clock.is_doubtful() {
            self.state.buried.retain(|_, until| *until > now.wall);
        }
        // Its owner tells this peer only as long as it knows of no nr: with an old disk it forgot the one that it took.
        let is_told = token.is_some();
        let forgotten = if is_told { self.received_and_taken(&ids, &word.h) } else { Vec::new() };
        let again: Vec<Event> = forgotten
            .iter()
            .filter(|(_, at)| was_long_ago(*at, now))
            .map(|(id, _)| Event::Nr { id: *id, h: word.h, state: NrState::Owed })
            .collect();
        let is_buried = self.state.buried.contains_key(&(word.owner, word.h));
        let events = if !forgotten.is_empty() {
            Err(TombstoneRefusal::NotYet)
        } else if !ids.is_empty() {
            self.ended_by(now, &ids, word, body)
        } else if self.is_being_written(&word.h) {
            Err(TombstoneRefusal::NotYet)
        } else if is_buried {
            Ok(Vec::new())
        } else if known && (is_told || until > now.wall) && self.state.buried.len() < BURIED_MAX {
            // Its owner asks until it is answered, also about a mail that is over by this clock and was sent by one that was behind.
            let until = if is_told { until.max(now.wall + BURIED_LEAST) } else { until };
            Ok(vec![Event::Buried { owner: word.owner, h: word.h, until }])
        } else {
            Err(TombstoneRefusal::Unknown)
        };
        let reply = events.as_ref().err().map_or(Reply::TombstoneTaken, |why| Reply::TombstoneRefused(*why));
        let is_late = events == Err(TombstoneRefusal::NotYet);
        let mut then: Vec<Effect<Self>> = token.map(|token| Effect::Reply(token, reply)).into_iter().collect();
        if !again.is_empty() {
            then.push(Effect::Feed(Input::Concluded(ids.clone())));
        }
        self.commit(events.unwrap_or(again), then);
        if is_late && !ids.is_empty() {
            // The owner answers: what it is owed goes at once.
            self.peer_is_back(now, word.owner);
        }
        for id in ids {
            self.schedule(now, id);
        }
    }

    /// The ends of these mails by their owner's word; none while one of them may be here. One that may still be had in another sealed form
    /// goes on, and is not pulled any more in this one.
    fn ended_by(
        &self,
        now: Now,
        ids: &[MailKey],
        word: &Tombstone,
        body: BodyState,
    ) -> Result<Vec<Event>, TombstoneRefusal> {
        let (h, expiry) = (word.h, word.expiry.min(now.wall + REMEMBERED + REMEMBERED));
        let (mut events, mut goes_on) = (Vec::new(), false);
        for (id, mail) in ids.iter().filter_map(|id| self.state.mails.get(id).map(|mail| (*id, mail))) {
            if self.is_here_untold(mail, &h) {
                return Err(TombstoneRefusal::NotYet);
            }
            let is_last = mail.offers.iter().all(|offer| offer.h == h || self.is_buried(offer));
            goes_on |= mail.is_open() && !is_last;
            if mail.is_open() && is_last {
                events.push(Event::Ended { id, body });
            }
        }
        let has_room = self.state.buried.len() < BURIED_MAX;
        if goes_on && !self.state.buried.contains_key(&(word.owner, h)) {
            if !has_room {
                return Err(TombstoneRefusal::NotYet);
            }
            let until = expiry.max(now.wall + BURIED_LEAST);
            events.push(Event::Buried { owner: word.owner, h, until });
        } else if body == BodyState::Expired && expiry > now.wall && has_room {
            // By its owner's clock: this one, which may be behind, does not revive it.
            events.push(Event::Buried { owner: word.owner, h, until: expiry });
        }
        Ok(events)
    }

    /// Whether its owner said that this sealed form is gone.
    pub(super) fn is_buried(&self, offer: &Offer) -> bool {
        self.state.buried.contains_key(&(offer.owner, offer.h))
    }

    /// Those of these mails that were received, when the nr that says so of `h` was taken.
    fn received_and_taken(&self, ids: &[MailKey], h: &MailId) -> Vec<(MailKey, WallTime)> {
        let taken = |id: &MailKey| {
            let mail = self.state.mails.get(id)?;
            match (&mail.stage, mail.offer(h)?.nr) {
                (Stage::Concluded(Outcome::Received, _), NrState::Taken(at)) => Some((*id, at)),
                _ => None,
            }
        };
        ids.iter().filter_map(taken).collect()
    }

    /// Whether the mail is here, or all of its bytes are, and its owner has not taken the nr that says so.
    fn is_here_untold(&self, mail: &Mail, h: &MailId) -> bool {
        let owed = matches!(mail.stage, Stage::Concluded(..)) && mail.offer(h).is_some_and(|o| o.nr.is_open());
        owed || (mail.is_open() && mail.message.is_some_and(|key| self.bodies.is_opening(&key)))
    }

    /// Whether the head of this mail is being written: it is known in a moment.
    fn is_being_written(&self, h: &MailId) -> bool {
        self.writing.values().any(|writing| match writing {
            Writing::Stub(_, mail) | Writing::Request(_, mail, _) | Writing::Card(_, mail) => mail.offer(h).is_some(),
            Writing::Append(..) | Writing::Local(..) | Writing::Candidate(..) | Writing::Own(_) => false,
        })
    }
}

fn ns_reply(result: Result<(), NsRefusal>) -> Reply {
    match result {
        Ok(()) => Reply::NsTaken,
        Err(why) => Reply::NsRefused(why),
    }
}

/// Whether an nr that was taken then may be sent again. A clock that was ahead then says nothing.
fn was_long_ago(at: WallTime, now: Now) -> bool {
    at > now.wall || now.wall.since(at) >= NR_AGAIN
}

/// The yes to those that sent an ns, for after its commit.
fn taken(from: &[NsFrom]) -> Vec<Effect<Postbox>> {
    let reply = |from: &NsFrom| match from {
        NsFrom::Direct(token) => Some(Effect::Reply(*token, Reply::NsTaken)),
        NsFrom::Dht(_) => None,
    };
    from.iter().filter_map(reply).collect()
}

impl State {
    /// A stub whose time was not over waits again.
    pub(super) fn revived(&mut self, id: MailKey, out: &mut Consequences) {
        let Some(mail) = self.mails.get_mut(&id).filter(|m| m.stage == Stage::Gone(BodyState::Expired)) else { return };
        let Some(message) = mail.message.and_then(|key| self.messages.get_mut(&key)) else { return };
        mail.stage = Stage::Stub;
        message.body = BodyState::Absent;
        for (mailbox, _) in message.places.clone() {
            self.touch(mailbox, out);
        }
    }
}
