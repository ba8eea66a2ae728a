//! What a peer answers others: each request becomes inputs of its brains, and their replies become the answer, as the routes do it.

use roost::core::outbox::OutboxRefusal;
use roost::core::outbox::events::MailFacts;
use roost::core::postbox::io::NsFrom;
use roost::core::replicator::KnownMail;
use roost::core::{Token, outbox, postbox, replicator};
use roost::fragment::Layout;
use roost::model::msglist::Tombstone;
use roost::model::{MailId, Part};
use roost::wire::Signed;

use super::clocks::BEAT_MS;
use super::disk::{SealedNr, SealedNs};
use super::liars::Lie;
use super::network::{Answer, CallRef, Notice, Request};
use super::peer::{Tell, Waiter, Wanted};
use super::sabotage::Saboteur;
use super::world::{Happening, World};

impl World {
    /// Takes a request to the brains.
    pub(crate) fn serve(&mut self, p: usize, from: CallRef, request: Request) {
        if self.answers_falsely(p, from, &request) {
            return;
        }
        let caller = self.peers[from.caller].id;
        let answer = Waiter::Answer(from);
        if request.is_for_members() && !self.peers[p].roster.has(&caller) {
            // A refusal for membership makes both compare versions.
            self.later(BEAT_MS, Happening::View);
            return self.answer(p, from, Answer::Refused("only members may ask this".to_owned()));
        }
        match request {
            Request::Notify(notice) => self.take_notice(p, from, notice),
            Request::Msglist(since, wait) => {
                let token = self.wait(p, answer);
                self.hand(p, Tell::Outbox(outbox::Input::ReadMsglist { token, since, wait }));
            }
            Request::MirrorMsglist(address, since) => {
                let token = self.wait(p, answer);
                let ask = replicator::Input::ReadMirrorMsglist { token, address, since, caller };
                self.hand(p, Tell::Replicator(ask));
            }
            Request::Holdings(batch) => self.take_holdings(p, from, batch),
            Request::Buckets(digests) => {
                let token = self.wait(p, answer);
                self.hand(p, Tell::Outbox(outbox::Input::HoldingBuckets { token, member: caller, digests }));
            }
            Request::Offer(h) => self.find(p, from, h, Wanted::Offer),
            Request::Manifest(h, k) => self.find(p, from, h, Wanted::Manifest(k)),
            Request::Part(h, part, blocks) => self.find(p, from, h, Wanted::Part(part, blocks)),
        }
    }

    fn take_holdings(&mut self, p: usize, from: CallRef, batch: Signed<roost::model::holding::Holdings>) {
        if self.is(Saboteur::CountsTwice) {
            // The word of one member is taken for that of another one, too.
            let other = self.peers.iter().find(|o| o.in_group && o.id != batch.member && o.id != batch.owner);
            if let Some(other) = other {
                let mut word = batch.clone().into_value();
                word.member = other.id;
                let forged = other.key.sign(word);
                let token = self.wait(p, Waiter::Nobody);
                self.hand(p, Tell::Outbox(outbox::Input::Holdings { token, batch: forged }));
            }
        }
        let token = self.wait(p, Waiter::Answer(from));
        self.hand(p, Tell::Outbox(outbox::Input::Holdings { token, batch }));
    }

    fn take_notice(&mut self, p: usize, from: CallRef, notice: Notice) {
        let caller = self.peers[from.caller].id;
        match notice {
            Notice::Ns(sealed) => {
                if sealed.ns.to != self.peers[p].address || sealed.signer != sealed.ns.from_fingerprint {
                    return self.answer(p, from, Answer::Refused("it is not believed".to_owned()));
                }
                let token = self.wait(p, Waiter::Answer(from));
                self.take_ns(p, NsFrom::Direct(token), *sealed);
            }
            Notice::Nr(sealed) => {
                if sealed.nr.to != self.peers[p].address {
                    return self.answer(p, from, Answer::Refused("it does not live here".to_owned()));
                }
                let token = self.wait(p, Waiter::Answer(from));
                self.take_nr(p, outbox::NrFrom::Direct(token), *sealed);
            }
            Notice::Tombstone(bytes) => match Signed::<Tombstone>::verify(&bytes) {
                Ok(tombstone) => {
                    let known = self.knows(p, self.index(&tombstone.owner));
                    let token = Some(self.wait(p, Waiter::Answer(from)));
                    self.hand(p, Tell::Postbox(postbox::Input::Tombstone { token, tombstone, known }));
                }
                Err(why) => self.answer(p, from, Answer::Refused(why.to_string())),
            },
            Notice::Hello => {
                self.answer(p, from, Answer::Done);
                self.hand(p, Tell::Outbox(outbox::Input::PeerIsBack(caller)));
                self.hand(p, Tell::Replicator(replicator::Input::PeerIsBack(caller)));
                self.hand(p, Tell::Postbox(postbox::Input::PeerIsBack(caller)));
            }
        }
    }

    /// Opens an ns, as far as that is no model.
    pub(crate) fn take_ns(&mut self, p: usize, from: NsFrom, sealed: SealedNs) {
        if self.has_keys() { self.judge_ns(p, from, sealed, None) } else { self.believe_ns(p, from, sealed) }
    }

    /// Tells the postbox of an ns that nothing is said against.
    pub(crate) fn believe_ns(&mut self, p: usize, from: NsFrom, sealed: SealedNs) {
        self.check_signer(p, &sealed);
        let SealedNs { mut ns, .. } = sealed;
        let owner = self.index(&ns.owner);
        let known = self.knows(p, owner);
        let id = postbox::MailKey { sender: ns.from_fingerprint, submission: ns.submission };
        if self.is(Saboteur::FilesTwice) && self.peers[p].disk.ledger.announced.contains(&id) {
            let mut other = *ns.submission.as_bytes();
            other[0] ^= 1;
            ns.submission = roost::model::SubmissionId::new(other);
        }
        self.hand(p, Tell::Postbox(postbox::Input::Ns { from, ns: Box::new(ns), known }));
    }

    /// Tells the outbox of an nr whose signature was read.
    pub(crate) fn take_nr(&mut self, p: usize, from: outbox::NrFrom, sealed: SealedNr) {
        let SealedNr { nr, mut signer } = sealed;
        if self.is(Saboteur::AnySignerFrees) {
            signer = super::world::fingerprint(&nr.reader);
        }
        self.hand(p, Tell::Outbox(outbox::Input::Nr { from, nr, signer }));
    }

    /// Whether the sender at `other` is a known one.
    pub(crate) fn knows(&self, p: usize, other: usize) -> bool {
        let (a, b) = (&self.peers[p], &self.peers[other]);
        (a.in_group && b.in_group && a.roster.has(&b.id)) || self.truth.contacts.contains(&(p, other))
    }

    fn find(&mut self, p: usize, from: CallRef, h: MailId, what: Wanted) {
        let token = self.wait(p, Waiter::Find(from, h, what));
        self.hand(p, Tell::Outbox(outbox::Input::Lookup { token, h }));
    }

    /// What the outbox replies.
    pub(crate) fn reply_outbox(&mut self, p: usize, token: Token, reply: outbox::Reply) {
        match (self.waiter(p, token), reply) {
            (Waiter::Submit(submission), outbox::Reply::Accepted) => self.accepted(p, submission),
            (Waiter::Answer(from), reply) => {
                let answer = match reply {
                    outbox::Reply::NrTaken => Answer::Done,
                    outbox::Reply::HoldingsTaken => {
                        self.note_told(from);
                        Answer::Done
                    }
                    outbox::Reply::Differ { differ, missed } => {
                        if differ.is_empty() {
                            self.belief_confirmed(p, from.caller);
                        }
                        Answer::Differ(differ, missed)
                    }
                    outbox::Reply::Page(page) => Answer::Page(page),
                    outbox::Reply::Refused(why @ OutboxRefusal::NotYet) => Answer::Later(why.to_string()),
                    outbox::Reply::Refused(why) => {
                        self.note_nr_refused(p, from);
                        Answer::Refused(why.to_string())
                    }
                    other => unreachable!("{other:?}"),
                };
                self.check_outbox_answer(p, from, &answer);
                self.answer(p, from, answer);
            }
            (Waiter::Find(from, h, what), outbox::Reply::Lookup(found)) => match found {
                outbox::Lookup::Owned(_) if matches!(what, Wanted::Part(..)) && from.caller != p => {
                    let caller = self.peers[from.caller].id;
                    let token = self.wait(p, Waiter::Serve(from, h, what));
                    self.hand(p, Tell::Outbox(outbox::Input::Serving { token, h, caller }));
                }
                outbox::Lookup::Owned(facts) => self.serve_owned(p, from, &facts, what),
                outbox::Lookup::Gone(tombstone) => self.answer(p, from, Answer::Gone(tombstone)),
                outbox::Lookup::Unknown => {
                    let token = self.wait(p, Waiter::FindMirror(from, h, what));
                    self.hand(p, Tell::Replicator(replicator::Input::Lookup { token, h }));
                }
            },
            (Waiter::Cancel, outbox::Reply::Cancel(id, answers)) => self.cancel_answered(p, id, answers),
            (Waiter::Serve(from, h, what), outbox::Reply::Serve(true)) => {
                let bytes = if let Wanted::Part(_, blocks) = &what { blocks.len() } else { 0 };
                self.serve_owned_part(p, from, h, what);
                let (caller, bytes) = (self.peers[from.caller].id, u64::try_from(bytes).unwrap() * 65_536);
                self.hand(p, Tell::Outbox(outbox::Input::Served { caller, mails: vec![(h, bytes)] }));
            }
            (Waiter::Serve(from, ..), outbox::Reply::Serve(false)) => self.answer(p, from, Answer::NotFound),
            _ => {}
        }
    }

    fn serve_owned(&mut self, p: usize, from: CallRef, facts: &MailFacts, what: Wanted) {
        let answer = match what {
            Wanted::Part(..) => return self.serve_owned_part(p, from, facts.h, what),
            _ if !self.peers[p].disk.blobs.contains_key(&facts.h) => {
                Answer::Later("it cannot be read here now".to_owned())
            }
            Wanted::Offer => Answer::Offer([Part::Whole].into()),
            Wanted::Manifest(k) => self.served_manifest(p, facts.h, facts.encoding, k),
        };
        self.answer(p, from, answer);
    }

    fn serve_owned_part(&mut self, p: usize, from: CallRef, h: MailId, what: Wanted) {
        let Wanted::Part(_, blocks) = what else { return };
        if from.caller != p {
            self.note_served(p, h, from.caller);
        }
        let answer = if self.peers[p].disk.blobs.contains_key(&h) {
            Answer::Blocks(blocks.into_iter().map(|(s, i)| (s, i, true)).collect())
        } else {
            Answer::Later("it cannot be read here now".to_owned())
        };
        self.answer(p, from, answer);
    }

    /// What the replicator replies.
    pub(crate) fn reply_replicator(&mut self, p: usize, token: Token, reply: replicator::Reply) {
        match (self.waiter(p, token), reply) {
            (Waiter::Answer(from), replicator::Reply::Page(page)) => {
                self.answer(p, from, page.map_or(Answer::NotFound, Answer::Page));
            }
            (Waiter::FindMirror(from, h, what), replicator::Reply::Lookup(found)) => match found {
                replicator::Lookup::Known(known) if !known.parts.is_empty() => match what {
                    Wanted::Offer => self.answer(p, from, Answer::Offer(known.parts)),
                    Wanted::Manifest(k) => {
                        let answer = self.mirrored_manifest(p, h, &known, k);
                        self.answer(p, from, answer);
                    }
                    Wanted::Part(part, _) => {
                        let held = held_for(&known, part);
                        let caller = self.peers[from.caller].id;
                        let token = self.wait(p, Waiter::ServeMirrored(from, h, what, held));
                        self.hand(p, Tell::Replicator(replicator::Input::Serving { token, h, caller }));
                    }
                },
                replicator::Lookup::Gone { tombstone } => self.answer(p, from, Answer::Gone(tombstone)),
                replicator::Lookup::NotReady => self.answer(p, from, Answer::Later("it has just started".to_owned())),
                _ => self.answer(p, from, Answer::NotFound),
            },
            (Waiter::ServeMirrored(from, h, what, held), replicator::Reply::Serve(true)) => {
                self.serve_mirrored(p, from, h, what, held);
            }
            (Waiter::ServeMirrored(from, ..), _) => self.answer(p, from, Answer::NotFound),
            _ => {}
        }
    }

    fn serve_mirrored(&mut self, p: usize, from: CallRef, h: MailId, what: Wanted, held: Option<Part>) {
        let (Wanted::Part(part, blocks), Some(held)) = (what, held) else {
            return self.answer(p, from, Answer::NotFound);
        };
        let owner = self.peers[self.truth.mails[&h].owner].id;
        let from_disk = (owner, h, held);
        if !self.peers[p].disk.parts.contains(&from_disk) {
            self.answer(p, from, Answer::NotFound);
            if held == part {
                self.hand(p, Tell::Replicator(replicator::Input::BadPart { owner, h, part }));
            }
            return;
        }
        let lies = self.lies(p, Lie::BadBlocks);
        let is_right = |stripe| !lies && self.is_block_right(p, &from_disk, stripe);
        let served: Vec<(u64, u8, bool)> = blocks.iter().map(|(s, i)| (*s, *i, is_right(*s))).collect();
        if served.iter().any(|(.., good)| !good) {
            self.truth.lied.insert((h, self.peers[p].id));
        }
        self.note_served(p, h, from.caller);
        let bytes = u64::try_from(blocks.len()).unwrap() * 65_536;
        self.answer(p, from, Answer::Blocks(served));
        let caller = self.peers[from.caller].id;
        self.hand(p, Tell::Replicator(replicator::Input::Served { h, caller, bytes }));
    }
}

/// From which of the parts that a replicator knows this one is served: whoever has a mail whole can cut any fragment of the encoding that
/// it knows, and the data of any other.
fn held_for(known: &KnownMail, part: Part) -> Option<Part> {
    let layout = Layout::new(known.length, known.encoding).unwrap();
    let is_cut = |k: u8, i: u8| layout.k() == k && i < layout.n() || i < k;
    let fits = matches!(part, Part::Fragment { k, i } if is_cut(k, i));
    let whole = Some(Part::Whole).filter(|whole| fits && known.parts.contains(whole));
    Some(part).filter(|part| known.parts.contains(part)).or(whole)
}
