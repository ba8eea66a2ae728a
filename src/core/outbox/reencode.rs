//! Re-encoding: after a change of the policy, or of who is in the group, an own mail gets a new manifest and a new msglist entry for
//! the same h. It never takes anything away: members give up what they held only once every holder now placed has confirmed
//! its own (R3), so that at no moment fewer losses are survived than before.
//!
//! ```text
//!   as the policy says --policy or group changed--> due --> manifest made, durable --> listed anew (moving)
//!           ^                                        ^              | not now: again after a pause    |
//!           |                                        '--------------'                                 |
//!           '---------------- every member that is placed has confirmed its part of it ---------------'
//! ```
//! A restored owner that is told by its members how a mail is kept since may have lost the manifest of that encoding with its disk. It
//! makes it anew, after every start, as nobody else may have it; one that is there is left as it is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::events::{Event, Mail, State};
use super::holdings::is_held;
use super::io::Action;
use super::{Batch, Outbox, Timer};
use crate::core::placement::{Place, live_others, whole_copies};
use crate::core::replicator::scheme::scheme;
use crate::model::msglist::{EntryBody, MailEntry};
use crate::model::{Address, Encoding, MailId, Now, PeerId};
use crate::wire::msglist::decode_entry;

/// Manifests made at a time: each reads its mail once.
const AT_ONCE: usize = 2;
/// Pause before a manifest that could not be made is tried again: the disk was full or failed.
const AGAIN: Duration = Duration::from_secs(60);
/// Most mails that are looked at to say for whom is waited.
const SHOWN_MAX: usize = 1000;

/// What is on its way to another encoding. Found again after a restart.
#[derive(Debug, Default)]
pub(super) struct Reencoding {
    /// Mails that are kept in another way than the policy says.
    due: BTreeSet<MailId>,
    /// Those whose manifest is being made.
    under_way: BTreeSet<MailId>,
    /// Listed anew, and not yet held so by all.
    moving: BTreeSet<MailId>,
    /// Mails whose encoding the members told of, until it is known that its manifest is here.
    told: BTreeSet<MailId>,
}

impl Outbox {
    /// How a mail is to be kept. Members that are lost for now are no reason to move what is there: it is moved when the group
    /// itself has become too small, or is about to as members leave it, and back as soon as enough live members are there.
    fn encoding_due(&self, mail: &Mail) -> Encoding {
        let (roster, me, now) = (&self.roster, self.key.peer_id(), mail.facts.encoding);
        let with = |others| roster.policy.encoding_for(mail.facts.length, others);
        let live = with(live_others(roster, &me));
        // Alone, or no member any more: there is nobody to hold it in another way.
        let is_alone = roster.others().next().is_none();
        let is_lost_for_now = with(roster.staying().count()) == now;
        if live == now || is_lost_for_now || is_alone { now } else { live }
    }

    fn is_due(&self, h: &MailId) -> bool {
        let mail = self.state.mails.get(h).filter(|mail| mail.tombstone.is_none() && !self.missing.contains(h));
        mail.is_some_and(|mail| self.encoding_due(mail) != mail.facts.encoding)
    }

    /// Whether a manifest is to be made: for another encoding, or anew for the one that the members told of.
    fn is_to_be_made(&self, h: &MailId) -> bool {
        let is_told = self.reencoding.told.contains(h) && !self.missing.contains(h);
        self.is_due(h) || (is_told && self.state.open.contains(h))
    }

    /// The members told how a mail is kept. While they are still being heard, [`Outbox::begin_reencoding`] comes after this.
    pub(super) fn make_told_manifest(&mut self, h: MailId) {
        self.reencoding.told.insert(h);
        if !self.adoption.holding {
            self.reencoding.due.insert(h);
            self.reencode_next();
        }
    }

    /// After the start, once the own msglist is whole.
    pub(super) fn begin_reencoding(&mut self) {
        let open = || self.state.open.iter().filter_map(|h| self.state.mails.get(h));
        self.reencoding.moving = open().filter(|mail| is_mixed(mail, |_| true)).map(|mail| mail.facts.h).collect();
        self.reencoding.told = open().filter(|mail| mail.encoding_told).map(|mail| mail.facts.h).collect();
        self.plan_reencoding();
    }

    /// The policy or the group changed: looks which mails are to be kept in another way.
    pub(super) fn plan_reencoding(&mut self) {
        if self.adoption.holding {
            return;
        }
        self.reencoding.due = self.state.open.iter().filter(|h| self.is_to_be_made(h)).copied().collect();
        self.reencode_next();
    }

    /// The same for one mail.
    pub(super) fn plan_reencoding_of(&mut self, h: MailId) {
        if !self.adoption.holding && self.is_to_be_made(&h) {
            self.reencoding.due.insert(h);
            self.reencode_next();
        }
    }

    /// Has the next manifests made.
    pub(super) fn reencode_next(&mut self) {
        if self.timers.is_set(&Timer::Reencode) {
            return;
        }
        while self.reencoding.under_way.len() < AT_ONCE {
            let Some(h) = self.reencoding.due.pop_first() else { return };
            let Some(mail) = self.state.mails.get(&h).filter(|_| self.is_to_be_made(&h)) else { continue };
            let (facts, encoding) = (mail.facts.clone(), self.encoding_due(mail));
            if self.reencoding.under_way.insert(h) {
                self.out.act(Action::Reencode { facts, encoding });
            }
        }
    }

    /// A manifest is there: the mail is listed anew. Unless the policy was changed again meanwhile, or the mail is gone.
    pub(super) fn reencoded(&mut self, now: Now, h: MailId, encoding: Encoding, result: Result<(), String>) {
        self.reencoding.under_way.remove(&h);
        let is_wanted = self.is_to_be_made(&h);
        let due = self.state.mails.get(&h).filter(|_| is_wanted).map(|mail| self.encoding_due(mail));
        match (result, due) {
            (_, None) => {}
            (Ok(()), Some(due)) if due == encoding && !self.is_due(&h) => {
                self.reencoding.told.remove(&h);
            }
            (Ok(()), Some(due)) if due == encoding => self.list_anew(h, encoding),
            (Ok(()), Some(_)) => {
                self.reencoding.due.insert(h);
            }
            (Err(_), Some(_)) => {
                self.reencoding.due.insert(h);
                self.timers.set(Timer::Reencode, now.mono + AGAIN);
            }
        }
        self.reencode_next();
    }

    fn list_anew(&mut self, h: MailId, encoding: Encoding) {
        let Some(mail) = self.state.mails.get(&h) else { return };
        let Some(entry) = self.state.list.entry(mail.entry_at).and_then(|bytes| decode_entry(bytes).ok()) else {
            return;
        };
        let EntryBody::Mail(entry) = entry.body else { return };
        let (_, entry) = self.state.list.next_entry(EntryBody::Mail(MailEntry { encoding, ..entry }));
        let mut batch = Batch::default();
        self.record(&mut batch, Event::Reencoded { h, encoding, entry, adopted: false });
        self.reencoding.told.remove(&h);
        self.commit(batch);
        self.reencoding.moving.insert(h);
    }

    /// A mail is about to be listed anew.
    pub(super) fn note_relisting(&mut self, h: MailId) {
        let durable = self.state.list.durable();
        if let Some(mail) = self.state.mails.get(&h).filter(|mail| mail.entry_at <= durable) {
            self.relisted.insert(h, mail.facts.encoding);
        }
    }

    /// More of the list is durable: what was listed anew in it is kept as it says there.
    pub(super) fn relisting_is_durable(&mut self) {
        let (durable, mails) = (self.state.list.durable(), &self.state.mails);
        self.relisted.retain(|h, _| mails.get(h).is_some_and(|mail| mail.entry_at > durable));
    }

    /// A mail of which the durable part of the msglist tells, and how it is kept as that says: whoever asks for it while it is listed
    /// anew is answered as before.
    pub(super) fn as_listed(&self, h: &MailId) -> Option<(&Mail, Encoding)> {
        let (durable, before) = (self.state.list.durable(), self.relisted.get(h).copied());
        let mail = self.state.mails.get(h).filter(|mail| mail.entry_at <= durable || before.is_some())?;
        Some((mail, before.unwrap_or(mail.facts.encoding)))
    }

    /// Members said something about these mails: those that are held as they should be have arrived.
    pub(super) fn moved_on(&mut self, of: &BTreeSet<MailId>) {
        let arrived: Vec<MailId> =
            self.reencoding.moving.intersection(of).filter(|h| self.has_arrived(h)).copied().collect();
        for h in arrived {
            self.reencoding.moving.remove(&h);
        }
    }

    fn has_arrived(&self, h: &MailId) -> bool {
        let mail = self.state.mails.get(h).filter(|mail| mail.tombstone.is_none());
        // Whoever is no member any more will never say what became of its part.
        let is_mixed = |mail| is_mixed(mail, |who| self.roster.has(who));
        mail.is_none_or(|mail| self.waits_for(mail).is_empty() && !is_mixed(mail))
    }

    /// Members that placement names for a mail and that have not confirmed a part of it as it is kept now.
    fn waits_for(&self, mail: &Mail) -> BTreeSet<PeerId> {
        let me = self.key.peer_id();
        let members: Vec<PeerId> = self.roster.others().map(|m| m.peer_id).collect();
        let (h, encoding, whole_copies) = (&mail.facts.h, mail.facts.encoding, whole_copies(&self.roster, &me));
        let place = Place { h, encoding, whole_copies, members: &members, lost: &self.roster.lost };
        let kind = scheme(encoding, whole_copies);
        let has = |member: &PeerId| {
            mail.holdings.iter().any(|((who, part), word)| who == member && is_held(word) && kind.fits(*part))
        };
        place.placed().into_iter().filter(|member| !has(member)).collect()
    }

    /// Whether a mail is on its way to its encoding.
    pub(super) fn is_moving(&self, h: &MailId) -> bool {
        self.reencoding.moving.contains(h) && !self.has_arrived(h)
    }

    /// How many mails are on their way, and for whom is waited.
    pub(super) fn shown_moves(&self) -> (usize, Vec<Address>) {
        let looked: Vec<&MailId> = self.reencoding.moving.iter().take(SHOWN_MAX).collect();
        let moving: Vec<&MailId> = looked.iter().filter(|h| !self.has_arrived(h)).copied().collect();
        let mails = moving.iter().filter_map(|h| self.state.mails.get(*h));
        let waits: BTreeSet<PeerId> = mails.flat_map(|mail| self.waits_for(mail)).collect();
        let members = self.roster.members.iter().filter(|m| waits.contains(&m.peer_id));
        let arrived = looked.len() - moving.len();
        (self.reencoding.moving.len() - arrived, members.map(|m| m.address.clone()).collect())
    }
}

/// Whether some of those who `may_tell` hold what is left from an earlier encoding.
fn is_mixed(mail: &Mail, may_tell: impl Fn(&PeerId) -> bool) -> bool {
    let kind = scheme(mail.facts.encoding, 1);
    mail.holdings.iter().any(|((who, part), word)| is_held(word) && !kind.fits(*part) && may_tell(who))
}

impl State {
    /// A mail is listed anew, in another encoding.
    pub(super) fn apply_reencoded(&mut self, h: &MailId, encoding: Encoding, entry: &[u8], adopted: bool) {
        let at = self.list.append(entry);
        if let Some(mail) = self.mails.get_mut(h) {
            (mail.facts.encoding, mail.entry_at, mail.encoding_told) = (encoding, at, adopted);
        }
    }
}
