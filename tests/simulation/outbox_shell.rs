//! What the outbox asks for, done as its actor does it; sealing is a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use roost::core::outbox::events::Facts;
use roost::core::outbox::{
    Action, Announcement, Certificate, How, Input, OwnPage, OwnerNote, SealFailure, SealJob, SealedReceiver, is_word_of,
};
use roost::core::postbox;
use roost::core::postbox::access::Standard;
use roost::core::postbox::io::Shown;
use roost::model::msglist::{Cursor, Entry, EntryBody, MailEntry};
use roost::model::notification::Ns;
use roost::model::{Address, Digest, MailId, Part, PeerId, Secret};
use roost::wire::msglist::{Page, decode_entry};
use serde_bytes::ByteBuf;

use super::checker::SealedMail;
use super::dht::DhtOp;
use super::disk::{DiskOp, SealedNs};
use super::network::{Answer, Notice, Pending, Request};
use super::peer::{After, Tell, Waiter};
use super::sabotage::Saboteur;
use super::world::World;

impl World {
    /// Does what the outbox asks for.
    pub(crate) fn act_outbox(&mut self, p: usize, action: Action) {
        match action {
            Action::FindCertificate { address } => {
                let found = self.find_certificate(p, &address);
                let delay = self.rng.between(1, 20);
                self.tell_later(p, delay, Tell::Outbox(Input::Certificate { address, found }));
            }
            Action::FileLocally { submission } => {
                let token = self.wait(p, Waiter::FiledSpool(submission));
                let mailbox = Standard::Inbox;
                self.hand(p, Tell::Postbox(postbox::Input::FileSpooled { token, submission, mailbox }));
            }
            Action::Seal(job) => self.seal(p, &job),
            Action::Recover(job) => self.recover(p, job),
            Action::Reencode { facts, encoding } => self.reencode(p, facts.h, encoding),
            Action::DropSpool { submission } => self.drop_spool(p, submission),
            Action::DropBlob { h } => {
                self.check_blob_dropped(p, h);
                self.disk(p, DiskOp::DropBlob(h), After::Nothing);
            }
            Action::Announce(what) => self.announce(p, what),
            Action::DeleteNs { h, receiver, ns, secret } => self.dht(p, DhtOp::DelNs { h, receiver, ns, secret }),
            Action::TellGone { h, receiver, peer, tombstone } => {
                let to = self.index(&peer);
                let request = Request::Notify(Notice::Tombstone(tombstone));
                self.call(p, to, request, Pending::Gone(h, receiver));
            }
            Action::PollNr => {
                if !std::mem::replace(&mut self.peers[p].polling_nr, true) {
                    self.dht(p, DhtOp::PollNr);
                }
            }
            Action::DeleteNr { value, secret } => self.dht(p, DhtOp::DelNr(value, secret)),
            Action::Hello { peers } => {
                for peer in peers {
                    let to = self.index(&peer);
                    self.call(p, to, Request::Notify(Notice::Hello), Pending::Ignored);
                }
            }
            Action::FileDsn(dsn) => {
                self.truth.dsns.insert(dsn.id, (p, dsn.submission, dsn.receiver.clone()));
                let (submission, receiver) = (dsn.submission, dsn.receiver);
                if self.is(Saboteur::SwallowsDsn) {
                    self.tell_later(p, 1, Tell::Outbox(Input::DsnFiled { submission, receiver }));
                    return;
                }
                let token = self.wait(p, Waiter::FiledDsn(submission, receiver));
                let (id, at, message) = (dsn.id, dsn.at, dsn.message);
                self.hand(p, Tell::Postbox(postbox::Input::FileMessage { token, id, at, message }));
            }
            Action::ReadOwnList { member, since } => {
                let (to, address) = (self.index(&member), self.peers[p].address.clone());
                let request = Request::MirrorMsglist(address, since);
                self.call(p, to, request, Pending::OwnList { member, since });
            }
            Action::Audit { member, h, part, block } => self.audit(p, member, h, part, block),
            Action::ForgetRestored => self.disk(p, DiskOp::ForgetRestored, After::Nothing),
            Action::ShowOnly(waiting) => self.hand(p, Tell::Postbox(postbox::Input::ShowOnly(waiting))),
            Action::Show(shown) => {
                let submission = shown.submission;
                let (keywords, mails) = (shown.keywords.into_iter().collect(), shown.mails.into_iter().collect());
                let (at, done) = (shown.at, shown.done);
                let input = postbox::Input::Show(Shown { submission, keywords, at, mails, done });
                self.hand(p, Tell::Postbox(input));
                self.tell_later(p, 5, Tell::Outbox(Input::Shown { submission }));
                self.check_shown_safety(p);
            }
        }
    }

    /// A member told what it has of the own msglist.
    pub(crate) fn own_list_came(&mut self, p: usize, member: PeerId, since: Cursor, answer: Answer) {
        let answer = if let Answer::Page(mut page) = answer {
            self.note_told_gone(p, &page);
            self.note_told_of(p, &page);
            if self.is(Saboteur::Resurrects) {
                page.runs = page.runs.into_iter().map(|run| self.without_tombstones(p, run)).collect();
                page.tombstones.clear();
            }
            let mut notes = BTreeMap::new();
            for bytes in page.runs.iter().flat_map(|run| &run.entries) {
                if let Ok(Entry { body: EntryBody::Mail(mail), .. }) = decode_entry(bytes) {
                    notes.insert(mail.h, self.open_note(&mail.for_owner));
                }
            }
            Some(OwnPage { page, notes })
        } else {
            None
        };
        self.hand(p, Tell::Outbox(Input::OwnList { member, since, answer }));
    }

    fn audit(&mut self, p: usize, member: PeerId, h: MailId, part: Part, block: u64) {
        let layout = self.truth.mails[&h].layout_of(part);
        let stripe = block % layout.stripes();
        let index = if let Part::Fragment { i, .. } = part { i } else { 0 };
        let (to, request) = (self.index(&member), Request::Part(h, part, vec![(stripe, index)]));
        self.call(p, to, request, Pending::Audit { member, h });
    }

    /// A member showed a block, or not. One that cannot be asked has missed nothing.
    pub(crate) fn audited(&mut self, p: usize, member: PeerId, h: MailId, answer: &Answer) {
        let missed = match answer {
            Answer::Blocks(blocks) => blocks.iter().any(|(.., good)| !good),
            Answer::NotFound => true,
            Answer::Gone(tombstone) if !self.is(Saboteur::Resurrects) => {
                let tombstones = vec![ByteBuf::from(tombstone.clone())];
                self.note_told_gone(p, &Page { tombstones, ..Page::default() });
                let is_true = is_word_of(&self.peers[p].id, &h, tombstone);
                let input = Input::AuditedGone { member, h, tombstone: tombstone.clone() };
                return if is_true {
                    self.hand(p, Tell::Outbox(input))
                } else {
                    self.audit_missed(p, member, h, input)
                };
            }
            _ => false,
        };
        if missed {
            self.audit_missed(p, member, h, Input::AuditMissed { member, h });
        }
    }

    fn find_certificate(&mut self, p: usize, address: &Address) -> Certificate {
        let Some(at) = self.at(address).filter(|at| self.is_named(p, *at)) else { return Certificate::Unknown };
        if self.faulty && self.rng.chance(self.params.drop) {
            return Certificate::NotYet;
        }
        Certificate::Found { fingerprint: self.peers[at].fingerprint, peer: self.peers[at].id }
    }

    fn seal(&mut self, p: usize, job: &SealJob) {
        let submission = job.submission;
        let receivers: Vec<Address> = job.receivers.iter().map(|(a, ..)| a.clone()).collect();
        let failed = |why| Tell::Outbox(Input::SealFailed { submission, receivers: receivers.clone(), why });
        if !self.peers[p].disk.spool.contains_key(&submission) {
            return self.tell_later(p, 1, failed(SealFailure::NoSpool));
        }
        if self.faulty && self.rng.chance(50) {
            return self.tell_later(p, 3, failed(SealFailure::Again("the disk is full".to_owned())));
        }
        let (entry, notices, sealed_for) = self.sealed(p, job);
        let input = Input::Sealed { submission, receivers: sealed_for, entry: entry.clone() };
        self.disk(p, DiskOp::Blob(entry.h, notices, entry.encoding), After::Tell(Box::new(Tell::Outbox(input))));
    }

    /// Makes a sealed mail: a name, a length, digests that nobody computes, and what is signed for real.
    fn sealed(&mut self, p: usize, job: &SealJob) -> (MailEntry, Vec<(Address, SealedNs)>, Vec<SealedReceiver>) {
        let nonce = self.fresh();
        let mut h = [0; 20];
        h.copy_from_slice(&blake3::hash(&nonce.to_be_bytes()).as_bytes()[..20]);
        let (h, digest) = (MailId::new(h), Digest::new(*blake3::hash(&h).as_bytes()));
        let letter = self.truth.letters[&job.submission].clone();
        let length = letter.sealed_length;
        let encoding = job.policy.encoding_for(length, job.others);
        let manifest = self.manifest_of(p, h, length, encoding);
        let peer = &self.peers[p];
        let expiry = job.expiry;
        let (mut notices, mut sealed_for) = (Vec::new(), Vec::new());
        for (n, (address, fingerprint, receiver)) in job.receivers.iter().enumerate() {
            let secret =
                Secret::new(*blake3::hash(&[&nonce.to_be_bytes()[..], &n.to_be_bytes()[..]].concat()).as_bytes());
            let ns = Ns {
                submission: job.submission,
                h,
                length,
                digest,
                to: address.clone(),
                from: peer.address.clone(),
                from_fingerprint: peer.fingerprint,
                owner: peer.id,
                group: peer.address.group().clone(),
                group_key: self.key_of(p),
                expiry,
                header_block: letter.header_block.clone(),
                structure: letter.structure.clone(),
                secret: secret.clone(),
            };
            let sealed = SealedNs { ns, signer: peer.fingerprint, nonce };
            let name = sealed.name();
            notices.push((address.clone(), sealed));
            let (address, fingerprint, peer) = (address.clone(), *fingerprint, *receiver);
            sealed_for.push(SealedReceiver { address, fingerprint, peer, secret, ns: name });
        }
        let receivers = job.receivers.iter().map(|(a, ..)| a.clone()).collect();
        let submission = job.submission;
        let spooled = &self.peers[p].disk.spool[&submission];
        let facts = Facts { size: spooled.size, at: spooled.at, expiry, message_id: spooled.message_id.clone() };
        let note = OwnerNote { submission, receivers: sealed_for.clone(), facts: Some(facts) };
        let entry = MailEntry { h, length, digest, expiry, encoding, for_owner: self.seal_note(&note) };
        let manifests = [(encoding, manifest)].into();
        let mail = SealedMail { owner: p, made: self.t, submission, receivers, length, manifests, expiry };
        self.truth.mails.insert(h, mail);
        (entry, notices, sealed_for)
    }

    fn announce(&mut self, p: usize, what: Announcement) {
        self.check_announced(p, &what);
        if self.is(Saboteur::NeverRepeats) && self.truth.told_once.contains(&(what.h, what.receiver.clone())) {
            let input = Input::Announced { h: what.h, receiver: what.receiver, how: Some(How::Direct) };
            return self.tell_later(p, 1, Tell::Outbox(input));
        }
        let notices = self.peers[p].disk.blobs.get(&what.h);
        let sealed = notices.and_then(|all| all.iter().find(|(a, _)| *a == what.receiver)).map(|(_, s)| s.clone());
        let Some(sealed) = sealed else {
            let input = Input::Announced { h: what.h, receiver: what.receiver, how: None };
            return self.tell_later(p, 1, Tell::Outbox(input));
        };
        if what.direct_first {
            let to = self.index(&what.peer);
            let request = Request::Notify(Notice::Ns(Box::new(sealed.clone())));
            self.call(p, to, request, Pending::Ns(Box::new(what), Box::new(sealed)));
        } else {
            self.by_dht(p, what, sealed);
        }
    }

    fn by_dht(&mut self, p: usize, what: Announcement, sealed: SealedNs) {
        if what.dht {
            self.dht(p, DhtOp::PutNs(Box::new(what), Box::new(sealed)));
        } else {
            let input = Input::Announced { h: what.h, receiver: what.receiver, how: None };
            self.tell_later(p, 1, Tell::Outbox(input));
        }
    }

    /// The receiver's peer answered an ns, or did not.
    pub(crate) fn ns_sent(&mut self, p: usize, what: &Announcement, sealed: SealedNs, answer: &Answer) {
        if matches!(answer, Answer::Done) {
            self.truth.told_once.insert((what.h, what.receiver.clone()));
            let input = Input::Announced { h: what.h, receiver: what.receiver.clone(), how: Some(How::Direct) };
            return self.hand(p, Tell::Outbox(input));
        }
        self.by_dht(p, what.clone(), sealed);
    }

    /// The receiver's peer answered a tombstone, or did not.
    pub(crate) fn gone_told(&mut self, p: usize, h: MailId, receiver: Address, answer: &Answer) {
        let done = matches!(answer, Answer::Done);
        self.hand(p, Tell::Outbox(Input::GoneTold { h, receiver, done }));
    }

    /// A roster for the outbox.
    pub(crate) fn tell_roster(&mut self, p: usize) {
        let roster = self.peers[p].roster.clone();
        self.tell(p, Tell::Outbox(Input::Roster(Arc::new(roster.clone()))));
        self.tell(p, Tell::Replicator(roost::core::replicator::Input::Roster(roster.clone())));
        self.tell(p, Tell::Postbox(postbox::Input::Roster(Arc::new(roster))));
        self.tell_gd(p);
    }
}
