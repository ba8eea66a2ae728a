//! What users and strangers do: submit, open, delete, move, cancel, judge; and what happens to machines: they leave, lose
//! their disk, come back with an old one.

use std::collections::BTreeSet;

use roost::core::outbox::{self, Spooled};
use roost::core::postbox::access::{BodyState, Flag, FlagChange, MailboxName, MailboxRequest, Message, Standard, View};
use roost::core::postbox::io::{Requests, SenderName};
use roost::core::postbox::{self, Verdict};
use roost::mime;
use roost::model::notification::{Nr, Outcome};
use roost::model::{Address, Fingerprint, SubmissionId, WallTime};

use super::checker::Letter;
use super::disk::{DiskOp, SealedNr};
use super::network::{Notice, Pending, Request};
use super::peer::{After, Deed, Tell, Waiter};
use super::sabotage::Saboteur;
use super::world::{Happening, START, World};

/// Something that somebody does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UserAct {
    /// A user submits a mail.
    Submit(usize),
    /// A user does something with a mailbox.
    At(usize, Standard, Deed),
    /// A user grants every sender that asks.
    GrantAll(usize),
    /// A user takes a mail back.
    Cancel(usize),
    /// Somebody sends an nr that its reader never signed.
    ForgeNr,
    /// A liar says something that nobody asked for.
    Forge(usize),
    /// Somebody sends an ns again that was sent before.
    ReplayNs,
    /// A stranger puts back into the DHT what was deleted.
    PutBack,
    /// A stranger lays something forged there.
    PutForged,
    /// The DHT loses an entry.
    LoseEntry,
    /// A peer leaves for good.
    Leave(usize),
    /// A peer crashes at one of its next effects.
    Fuse(usize),
}

impl World {
    /// Somebody does something.
    pub(crate) fn user(&mut self, act: UserAct) {
        self.say(|_| format!("user: {act:?}"));
        match act {
            UserAct::Submit(p) if self.peers[p].is_up() && self.may_send(p) => self.submit(p),
            UserAct::At(p, mailbox, deed) if self.peers[p].is_up() => {
                let token = self.wait(p, Waiter::Listed(deed));
                let request = MailboxRequest::Open(MailboxName::standard(mailbox));
                self.tell(p, Tell::Postbox(postbox::Input::Mailbox { token, view: View::Stubs, request }));
            }
            UserAct::GrantAll(p) if self.peers[p].is_up() => {
                let token = self.wait(p, Waiter::Judging);
                self.tell(p, Tell::Postbox(postbox::Input::Requests(token)));
            }
            UserAct::Cancel(p) if self.peers[p].is_up() => self.cancel(p),
            UserAct::ForgeNr => self.forge_nr(),
            UserAct::Forge(p) => self.forge(p),
            UserAct::ReplayNs => self.replay_ns(),
            UserAct::PutBack => self.put_back(),
            UserAct::PutForged => self.put_forged(),
            UserAct::LoseEntry => self.dht.lose_one(),
            UserAct::Leave(p) => {
                self.crash(p);
                self.peers[p].left = true;
            }
            UserAct::Fuse(p) if self.faulty && self.peers[p].is_up() && self.peers[p].fuse.is_none() => {
                let most = *self.rng.pick(&[2, 20, 100]);
                self.peers[p].fuse = Some((self.rng.below(most), self.rng.chance(500)));
            }
            _ => {}
        }
    }

    fn submit(&mut self, p: usize) {
        let id = self.rng.next();
        let mut receivers: BTreeSet<Address> = BTreeSet::new();
        for _ in 0..self.rng.between(1, 3) {
            let to = if self.rng.chance(60) { p } else { self.rng.index(self.peers.len()) };
            receivers.insert(self.peers[to].address.clone());
        }
        if self.rng.chance(120) {
            receivers.insert("nobody@acme".parse().unwrap());
        }
        self.submit_to(p, id, receivers);
    }

    /// A user submits a mail to these.
    pub(crate) fn submit_to(&mut self, p: usize, id: u64, receivers: BTreeSet<Address>) {
        let mut submission = [0; 16];
        submission[..8].copy_from_slice(&id.to_be_bytes());
        let submission = SubmissionId::new(submission);
        let from = &self.peers[p].address;
        let to: Vec<String> = receivers.iter().map(ToString::to_string).collect();
        let text = format!(
            "From: <{from}>\r\nTo: {}\r\nSubject: {submission}\r\nMessage-ID: <{submission}@sim>\r\n\r\nbody\r\n",
            to.join(", ")
        );
        let split = mime::split::split(text.as_bytes());
        let sealed_length = *self.rng.pick(&[900, 30_000, 66_000, 140_000, 400_000, 700_001]);
        let at = self.now(p).wall;
        let receivers: Vec<(Address, bool)> = receivers.into_iter().map(|a| (a, self.rng.chance(100))).collect();
        let letter = Letter {
            from: p,
            made: self.t,
            at,
            receivers: receivers.iter().map(|(a, _)| a.clone()).collect(),
            header_block: split.header_block.clone(),
            structure: split.structure,
            sealed_length,
        };
        self.truth.by_header.insert(split.header_block, submission);
        self.truth.letters.insert(submission, letter);
        let size = u64::try_from(text.len()).unwrap();
        let spooled = Spooled { submission, receivers, size, at, message_id: Some(format!("<{submission}@sim>")) };
        self.disk(p, DiskOp::Spool(spooled), After::Submit(submission));
    }

    /// 250.
    pub(crate) fn accepted(&mut self, p: usize, submission: SubmissionId) {
        self.say(|w| format!("{} says 250 to {submission}", w.name(p)));
        self.check_accepted(p, submission);
        self.truth.acknowledged.insert(submission);
    }

    fn forge_nr(&mut self) {
        let all: Vec<_> =
            self.truth.mails.iter().map(|(h, m)| (*h, m.owner, m.submission, m.receivers.clone())).collect();
        let stranger = self.params.members;
        if all.is_empty() || !self.peers[stranger].is_up() {
            return;
        }
        let (h, owner, submission, receivers) = self.rng.pick(&all).clone();
        let reader = self.rng.pick(&receivers).clone();
        let to = self.peers[owner].address.clone();
        let nr = Nr { submission, h, reader, to, outcome: Outcome::Received, at: WallTime(START + self.t) };
        let forged = SealedNr { nr, signer: Fingerprint::new([66; 20]) };
        let request = Request::Notify(Notice::Nr(Box::new(forged)));
        self.call(stranger, owner, request, Pending::Ignored);
    }

    fn replay_ns(&mut self) {
        let stranger = self.params.members;
        // What was never announced, nobody can repeat.
        let sent =
            self.peers.iter().flat_map(|p| p.disk.blobs.iter().filter(|(h, _)| p.disk.ledger.sealed.contains(*h)));
        let all: Vec<_> = sent.flat_map(|(_, notices)| notices.iter().cloned()).collect();
        if all.is_empty() || !self.peers[stranger].is_up() {
            return;
        }
        let (to, sealed) = self.rng.pick(&all).clone();
        if let Some(to) = self.at(&to) {
            self.call(stranger, to, Request::Notify(Notice::Ns(Box::new(sealed))), Pending::Ignored);
        }
    }

    /// A user does something with a mailbox that was listed.
    pub(crate) fn do_deed(&mut self, p: usize, deed: Deed, mailbox: &MailboxName, messages: &[Message]) {
        let one = |n: u64| (!messages.is_empty()).then(|| &messages[usize::try_from(n).unwrap() % messages.len()]);
        match deed {
            Deed::OpenAll => {
                let absent = messages.iter().filter(|m| m.body == BodyState::Absent);
                for uid in absent.map(|m| m.uid).collect::<Vec<_>>() {
                    self.ask(p, MailboxRequest::Body { mailbox: mailbox.clone(), uid });
                }
            }
            Deed::OpenOne(n) => {
                if let Some(message) = one(n) {
                    self.ask(p, MailboxRequest::Body { mailbox: mailbox.clone(), uid: message.uid });
                }
            }
            Deed::DeleteOne(n) => {
                let uids: Vec<_> = one(n).map(|m| m.uid).into_iter().collect();
                let (change, flags) = (FlagChange::Add, BTreeSet::from([Flag::Deleted]));
                self.ask(p, MailboxRequest::Flags { mailbox: mailbox.clone(), uids: uids.clone(), change, flags });
                self.ask(p, MailboxRequest::Expunge { mailbox: mailbox.clone(), uids: Some(uids) });
            }
            Deed::MoveOne(n, to) => {
                if let Some(message) = one(n) {
                    let uids = vec![message.uid];
                    self.ask(p, MailboxRequest::Move { mailbox: mailbox.clone(), uids, to: MailboxName::standard(to) });
                }
            }
        }
    }

    fn ask(&mut self, p: usize, request: MailboxRequest) {
        let token = self.wait(p, Waiter::Nobody);
        self.hand(p, Tell::Postbox(postbox::Input::Mailbox { token, view: View::Stubs, request }));
    }

    /// The user grants every sender that asks.
    pub(crate) fn grant(&mut self, p: usize, requests: &Requests) {
        for request in &requests.waiting {
            let token = self.wait(p, Waiter::Nobody);
            let sender = SenderName::Address(request.from.clone());
            self.hand(p, Tell::Postbox(postbox::Input::Judge { token, sender, verdict: Verdict::Granted }));
        }
    }

    /// A partition begins or ends for one peer.
    pub(crate) fn set_side(&mut self, p: usize, side: u8) {
        self.say(|w| format!("{} is on side {side}", w.name(p)));
        self.peers[p].side = side;
        self.note_silence(p);
        if side == 0 && self.peers[p].is_up() {
            self.compare_clock_soon(p);
            for other in (0..self.peers.len()).filter(|other| *other != p) {
                self.hear_of_each_other(p, other);
            }
        }
    }

    /// Heartbeats arrive again: the directory says to both that the other one is back.
    pub(crate) fn hear_of_each_other(&mut self, p: usize, other: usize) {
        if self.peers[p].is_up() && self.peers[other].is_up() && self.knows(other, p) {
            let (id, back) = (self.peers[p].id, self.peers[other].id);
            self.back(other, id);
            self.back(p, back);
        }
    }

    fn back(&mut self, p: usize, peer: roost::model::PeerId) {
        self.tell(p, Tell::Outbox(outbox::Input::PeerIsBack(peer)));
        self.tell(p, Tell::Replicator(roost::core::replicator::Input::PeerIsBack(peer)));
        self.tell(p, Tell::Postbox(postbox::Input::PeerIsBack(peer)));
    }

    /// Notes since when a peer is silent, and lets the view be made when that was long.
    pub(crate) fn note_silence(&mut self, p: usize) {
        self.note_presence(p);
        let silent = self.is_silent(p);
        let peer = &mut self.peers[p];
        peer.silent_since = if silent { peer.silent_since.or(Some(self.t)) } else { None };
        let pause = if silent { self.lost_after_ms() + 1 } else { 2000 };
        self.later(pause, Happening::View);
    }

    /// The acting master's view reaches every member on its side.
    pub(crate) fn spread_view(&mut self) {
        let long = self.lost_after_ms();
        let members = || self.gd.members.iter().map(|m| &self.peers[*m]);
        let silent = members().filter(|p| p.silent_since.is_some()).count();
        let gone = |p: &&super::peer::Peer| p.silent_since.is_some_and(|since| self.t - since >= long);
        let mut lost: BTreeSet<_> = members().filter(gone).map(|p| p.id).collect();
        if silent * 2 > members().count() {
            lost.clear();
        }
        if let Some(called) = self.falsely_lost() {
            lost.clone_from(called);
        }
        for p in self.gd.members.clone() {
            if !self.learns_of_view(p) {
                continue;
            }
            self.peers[p].view.clone_from(&lost);
            let roster = self.roster_for(p);
            if self.peers[p].roster != roster {
                self.peers[p].roster = roster;
                self.tell_roster(p);
                if self.is(Saboteur::ForgetsTheLost) {
                    self.drop_all(p, |w, owner| w.peers[p].roster.lost.contains(owner));
                }
            } else if self.lags(p) {
                self.tell_gd(p);
            }
        }
    }
}
