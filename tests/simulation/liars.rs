//! Members that lie: about what they hold, about msglists, about what is gone and who has what. A lying member counts as one
//! that may be lost; its lies must cost nothing more (R2, R3, R4, R6, R8).

use std::collections::BTreeSet;

use roost::core::replicator;
use roost::model::holding::{Holding, HoldingState, Holdings};
use roost::model::msglist::{Cursor, Ending, Entry, EntryBody, Head, Seq, SignedTombstone, Tombstone};
use roost::model::notification::{Nr, Outcome, Refusal};
use roost::model::{Encoding, MailId, Part, PeerId, WallTime};
use roost::wire::msglist::{Page, Run, chain_next, chain_start, decode_entry, encode_entry};
use roost::wire::{self, Signed};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::disk::{DiskOp, Record, SealedNr};
use super::failed_seeds::is_from_before;
use super::network::{Answer, CallRef, Notice, Pending, Request};
use super::peer::After;
use super::rng::Rng;
use super::world::{START, World};

/// Old pages that a liar keeps to show them again.
const OLD_PAGES: usize = 4;
/// How often a liar says of others' mails that they are gone, of a thousand questions.
const SAYS_GONE: u64 = 250;

/// Seeds below that failed before anybody denied at an audit what it is to hold are played without.
const FIRST_DENIAL: u64 = 300_000_000;

/// What a member lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lie {
    /// It serves wrong blocks, and manifests that it signed itself.
    BadBlocks,
    /// It keeps what it is to hold, and gives nothing of it.
    Withholds,
    /// It says that it holds what it is to hold, and keeps nothing.
    HoldsNothing,
    /// Asked what it holds of a mail, it names every part that there could be; it reports holdings that nobody gave it.
    ClaimsAll,
    /// The msglists that it shows are empty, old, or another's.
    OldLists,
    /// Its own msglist has entries for some that it has not for others, and names others' mails as gone.
    Forks,
    /// It says of others' mails that they are gone.
    ForgesTombstones,
    /// It signs nr that are not its own to sign.
    ForgesNr,
    /// Asked by a mail's owner to show a part of it, it says that the mail is gone: by a word that the owner never signed, or by the one
    /// that it signed of another mail.
    DeniesParts,
}

impl Lie {
    /// All but the last, which is drawn by itself.
    const ALL: [Lie; 8] = [
        Lie::BadBlocks,
        Lie::Withholds,
        Lie::HoldsNothing,
        Lie::ClaimsAll,
        Lie::OldLists,
        Lie::Forks,
        Lie::ForgesTombstones,
        Lie::ForgesNr,
    ];

    /// What the liars of a run lie about: often only about blocks, else about some of all.
    pub(crate) fn draw(seed: u64) -> BTreeSet<Lie> {
        let mut rng = Rng::new(seed ^ 0x11e5);
        let mut lies = BTreeSet::from([Lie::BadBlocks]);
        if !rng.chance(250) {
            lies = Lie::ALL.into_iter().filter(|_| rng.chance(300)).collect();
            lies.insert(*rng.pick(&Lie::ALL));
        }
        // Its chance is its own, so that all else is as without it.
        if !is_from_before(seed, FIRST_DENIAL) && Rng::new(seed ^ 0x11e6).chance(200) {
            lies.insert(Lie::DeniesParts);
        }
        lies
    }
}

/// Every part that a mail can have in these encodings.
pub(crate) fn all_parts<'a>(encodings: impl Iterator<Item = &'a Encoding>) -> BTreeSet<Part> {
    let parts = |encoding: &Encoding| match *encoding {
        Encoding::Whole => vec![Part::Whole],
        Encoding::Fragments { k, n } => (0..n).map(|i| Part::Fragment { k, i }).collect(),
    };
    encodings.flat_map(parts).collect()
}

/// A signed record as it travels.
#[derive(Serialize, Deserialize)]
struct Container {
    #[serde(rename = "p", with = "serde_bytes")]
    payload: Vec<u8>,
    #[serde(rename = "s", with = "serde_bytes")]
    signature: Vec<u8>,
}

impl World {
    /// Whether a peer lies about this.
    pub(crate) fn lies(&self, p: usize, about: Lie) -> bool {
        self.peers[p].liar && self.params.lies.contains(&about)
    }
    /// Whether nobody can rely on the msglists that a peer shows.
    pub(crate) fn lies_in_lists(&self, p: usize) -> bool {
        self.lies(p, Lie::OldLists) || self.lies(p, Lie::Forks)
    }
    /// Whether a member hides from an owner that came back with an old disk what that had listed before: it then takes what is
    /// listed in its place for what it has read.
    pub(crate) fn hides_list_of(&self, owner: usize, p: usize) -> bool {
        self.lies(p, Lie::OldLists) && self.truth.restored.contains_key(&owner)
    }
    /// Whether a peer may say that it holds what it does not.
    pub(crate) fn lies_of_parts(&self, p: usize) -> bool {
        self.lies(p, Lie::HoldsNothing) || self.lies(p, Lie::ClaimsAll)
    }
    /// Whether a reader may get nothing of what a peer holds for others.
    pub(crate) fn is_false_holder(&self, p: usize) -> bool {
        self.lies_of_parts(p) || self.lies(p, Lie::BadBlocks) || self.lies(p, Lie::Withholds)
    }
    fn is_of_other(&self, p: usize, h: &MailId) -> bool {
        self.truth.mails.get(h).is_some_and(|mail| mail.owner != p)
    }

    /// Answers a question about a mail of somebody else as a liar does; false when it answers truly.
    pub(crate) fn answers_falsely(&mut self, p: usize, from: CallRef, request: &Request) -> bool {
        let (Request::Offer(h) | Request::Manifest(h, _) | Request::Part(h, ..)) = request else { return false };
        if from.caller == p || !self.peers[p].liar || !self.is_of_other(p, h) {
            return false;
        }
        let h = *h;
        if self.lies(p, Lie::ForgesTombstones) && self.rng.chance(SAYS_GONE) {
            self.truth.lied.insert((h, self.peers[p].id));
            let forged = self.forged_tombstone(p, h);
            self.answer(p, from, Answer::Gone(forged));
            return true;
        }
        let is_owner = self.truth.mails[&h].owner == from.caller;
        if is_owner && matches!(request, Request::Part(..)) && self.lies(p, Lie::DeniesParts) {
            self.truth.lied.insert((h, self.peers[p].id));
            let word = self.word_about_another(p, h).unwrap_or_else(|| self.forged_tombstone(p, h));
            self.answer(p, from, Answer::Gone(word));
            return true;
        }
        let answer = match request {
            Request::Offer(_) if self.lies(p, Lie::ClaimsAll) => {
                Answer::Offer(all_parts(self.truth.mails[&h].manifests.keys()))
            }
            Request::Manifest(..) if self.lies(p, Lie::BadBlocks) && self.rng.chance(300) => {
                self.truth.lied.insert((h, self.peers[p].id));
                let mail = &self.truth.mails[&h];
                let encoding = *mail.manifests.keys().next().unwrap();
                Answer::Manifest(Box::new(self.manifest_of(p, h, mail.length, encoding)))
            }
            Request::Part(..) if self.lies(p, Lie::Withholds) => match self.rng.index(4) {
                0 => Answer::NotFound,
                1 => Answer::Later("not now".to_owned()),
                // No answer at all.
                2 => return true,
                // Its owner is shown what it audits; a reader is not so lucky.
                _ if is_owner => return false,
                _ => Answer::Unreachable,
            },
            _ => return false,
        };
        self.answer(p, from, answer);
        true
    }

    /// What becomes of an answer on its way out of a liar.
    pub(crate) fn twisted(&mut self, p: usize, to: usize, answer: Answer) -> Answer {
        let Answer::Page(mut page) = answer else { return answer };
        if p == to || !self.peers[p].liar {
            return Answer::Page(page);
        }
        if self.lies(p, Lie::OldLists) {
            page = self.another_page(p, page);
        }
        if self.lies(p, Lie::Forks) {
            page.runs = page.runs.into_iter().map(|run| self.forked(p, run)).collect();
        }
        if self.lies(p, Lie::ForgesTombstones)
            && let Some(h) = self.mail_of_another(p)
        {
            let forged = self.forged_tombstone(p, h);
            page.tombstones.push(ByteBuf::from(forged));
        }
        Answer::Page(page)
    }

    /// Nothing, or one that was shown before, of whomever that was.
    fn another_page(&mut self, p: usize, page: Page) -> Page {
        if self.peers[p].old_pages.len() < OLD_PAGES {
            self.peers[p].old_pages.push(page.clone());
        }
        let old = self.rng.index(OLD_PAGES);
        match self.peers[p].old_pages.get(old).filter(|_| self.rng.chance(600)) {
            Some(old) => old.clone(),
            None => Page::default(),
        }
    }

    fn mail_of_another(&mut self, p: usize) -> Option<MailId> {
        let all: Vec<MailId> = self.truth.mails.iter().filter(|(_, mail)| mail.owner != p).map(|(h, _)| *h).collect();
        (!all.is_empty()).then(|| *self.rng.pick(&all))
    }

    /// A tombstone that its owner did not sign: the liar names itself as the owner, or puts its signature under the owner's name.
    fn forged_tombstone(&mut self, p: usize, h: MailId) -> Vec<u8> {
        let mail = &self.truth.mails[&h];
        let at = WallTime(START + self.t);
        let ending = if self.rng.chance(500) { Ending::Received } else { Ending::Cancelled };
        let tombstone = Tombstone { owner: self.peers[p].id, h, ending, at, expiry: mail.expiry };
        let (key, owner) = (self.peers[p].key.clone(), self.peers[mail.owner].id);
        if self.rng.chance(500) {
            return key.sign(tombstone).as_bytes().to_vec();
        }
        let payload = wire::encode(&Tombstone { owner, ..tombstone });
        let signature = key.sign_bytes("tombstone", &payload).to_vec();
        wire::encode(&Container { payload, signature })
    }

    /// What the owner of a mail did sign, of another one, as a member has read it; in half of the cases.
    fn word_about_another(&mut self, p: usize, h: MailId) -> Option<Vec<u8>> {
        if self.rng.chance(500) {
            return None;
        }
        let mail = &self.truth.mails[&h];
        let owner = self.peers[mail.owner].id;
        let read = self.peers[p].disk.journal.iter().filter_map(|record| match record {
            Record::Replicator(bytes) => match wire::decode(bytes).ok()? {
                replicator::Event::Read { owner: of, run } if of == owner => Some(run.entries),
                _ => None,
            },
            _ => None,
        });
        let mut words = read.flatten().filter_map(|bytes| match decode_entry(&bytes).ok()?.body {
            EntryBody::Tombstone(signed) => Signed::<Tombstone>::verify(&signed.0).ok(),
            _ => None,
        });
        let word = words.find(|word| word.owner == owner && word.h != h)?;
        Some(word.as_bytes().to_vec())
    }

    /// A run of the own msglist with another end: without its last entry, or with the word that another's mail is gone.
    fn forked(&mut self, p: usize, run: Run) -> Run {
        let Ok(head) = Signed::<Head>::verify(&run.head) else { return run };
        let (me, key, epoch) = (self.peers[p].id, self.peers[p].key.clone(), head.at.epoch);
        if head.owner != me || run.after != Seq(0) || run.base.is_some() || self.rng.chance(300) {
            return run;
        }
        let mut entries: Vec<Entry> = run.entries.iter().map(|bytes| decode_entry(bytes).unwrap()).collect();
        if self.rng.chance(500) {
            entries.pop();
        }
        if let Some(h) = self.mail_of_another(p) {
            let gone = EntryBody::Tombstone(SignedTombstone(self.forged_tombstone(p, h)));
            entries.push(Entry { at: head.at, body: gone });
        }
        let start = chain_start(&me, epoch);
        let (mut encoded, mut chain, mut at) = (Vec::new(), start, Cursor { epoch, seq: Seq(0) });
        for entry in entries {
            at.seq = at.seq.next();
            let bytes = encode_entry(&Entry { at, ..entry });
            chain = chain_next(&chain, &bytes);
            encoded.push(ByteBuf::from(bytes));
        }
        let head = key.sign(Head { owner: me, at, chain, base_seq: Seq(0), base_chain: start });
        Run { entries: encoded, head: ByteBuf::from(head.as_bytes().to_vec()), ..run }
    }

    /// A liar says something that nobody asked for.
    pub(crate) fn forge(&mut self, p: usize) {
        let Some(h) = self.mail_of_another(p).filter(|_| self.peers[p].liar && self.peers[p].is_up()) else { return };
        let mail = self.truth.mails[&h].clone();
        if self.lies(p, Lie::ForgesTombstones) {
            let readers: Vec<usize> = mail.receivers.iter().filter_map(|r| self.at(r)).collect();
            for reader in readers.into_iter().filter(|reader| *reader != p) {
                let forged = self.forged_tombstone(p, h);
                self.call(p, reader, Request::Notify(Notice::Tombstone(forged)), Pending::Ignored);
            }
        }
        if self.lies(p, Lie::ForgesNr) {
            let me = self.peers[p].address.clone();
            let others: Vec<_> = mail.receivers.iter().filter(|reader| **reader != me).cloned().collect();
            if let Some(reader) = others.first().cloned() {
                let to = self.peers[mail.owner].address.clone();
                let refused = Outcome::Refused(Refusal::Sender);
                let outcome = if self.rng.chance(500) { Outcome::Received } else { refused };
                let at = WallTime(START + self.t);
                let nr = Nr { submission: mail.submission, h, reader, to, outcome, at };
                let forged = SealedNr { nr, signer: self.peers[p].fingerprint };
                self.call(p, mail.owner, Request::Notify(Notice::Nr(Box::new(forged))), Pending::Ignored);
            }
        }
        if self.lies(p, Lie::ClaimsAll) && self.peers[mail.owner].in_group {
            self.claim(p, h);
        }
    }

    /// A broken member: it drops what any tombstone of a page names, whoever signed it.
    pub(crate) fn believe_tombstones(&mut self, p: usize, owner: PeerId, page: Option<&Page>) {
        for bytes in page.iter().flat_map(|page| &page.tombstones) {
            let Ok(Container { payload, .. }) = wire::decode::<Container>(bytes) else { continue };
            let Ok(said) = wire::decode::<Tombstone>(&payload) else { continue };
            let held: Vec<_> = self.peers[p].disk.parts.iter().filter(|part| part.1 == said.h).copied().collect();
            for part in held {
                self.check_drop(p, owner, part.1, &[part.2]);
                self.disk(p, DiskOp::DropParts(vec![part]), After::Nothing);
            }
        }
    }

    /// A liar reports every part of a mail as held.
    fn claim(&mut self, p: usize, h: MailId) {
        let mail = &self.truth.mails[&h];
        let (member, to, owner) = (self.peers[p].id, mail.owner, self.peers[mail.owner].id);
        let parts = all_parts(mail.manifests.keys());
        let items = parts.iter().map(|part| Holding { h, part: *part, state: HoldingState::Held }).collect();
        let word = Holdings { member, owner, at: self.now(p).wall, items, heard: None };
        let reported = self.truth.reported.entry(h).or_default().entry(member).or_default();
        reported.extend(parts.into_iter().map(|part| (part, self.t)));
        let signed = self.peers[p].key.sign(word);
        self.call(p, to, Request::Holdings(signed), Pending::Ignored);
    }
}
