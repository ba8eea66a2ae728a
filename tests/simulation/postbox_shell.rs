//! What the postbox asks for, done as its actor does it: files are marks of whose mail they are and whether it is whole.

use std::collections::BTreeSet;

use roost::core::Token;
use roost::core::fetch::{self, Order};
use roost::core::group;
use roost::core::outbox::{self, CancelTarget};
use roost::core::placement;
use roost::core::postbox::access::{MailboxReply, MessageKey};
use roost::core::postbox::io::{NrItem, NrSent, OpenResult};
use roost::core::postbox::{Action, Input, Reply};
use roost::model::{MailId, PeerId, PulledMail, SubmissionId, Urgency};

use super::dht::DhtOp;
use super::disk::{DiskOp, MailFile, SealedNr};
use super::network::{Answer, Notice, Pending, Request};
use super::peer::{After, NrBatch, Tell, Waiter};
use super::sabotage::Saboteur;
use super::short::read_short;
use super::world::World;

impl World {
    /// Does what the postbox asks for.
    pub(crate) fn act_postbox(&mut self, p: usize, action: Action) {
        match action {
            Action::PollNs => self.dht(p, DhtOp::PollNs),
            Action::DeleteNs { value, password } => self.delete_own_ns(p, value, password),
            Action::Fetch { key, h, length, digest, owner, .. } => {
                let sources = self.sources(p, h, owner);
                let token = self.wait(p, Waiter::Pull { key, h });
                let order = Order { h, length, digest, owner, sources, urgency: Urgency::Prompt };
                self.hand(p, Tell::Fetch(fetch::Input::Want(token, order)));
            }
            Action::AskProgress { token, h } => {
                let waiter = self.wait(p, Waiter::Progress(token));
                self.hand(p, Tell::Fetch(fetch::Input::Progress(waiter, h)));
            }
            Action::Hello { peers } => {
                for peer in peers {
                    let to = self.index(&peer);
                    self.call(p, to, Request::Notify(Notice::Hello), Pending::Ignored);
                }
            }
            Action::SendNr { peer, items } => self.send_nr(p, peer, items),
            Action::Cancel { submission } => {
                self.truth.cancelled.insert(submission);
                let token = self.wait(p, Waiter::Cancel);
                let target = CancelTarget::Submission(submission);
                self.hand(p, Tell::Outbox(outbox::Input::Cancel { token, target }));
            }
            Action::Pin { address, group, group_key: key, .. } => {
                if let Some(other) = self.at(&address) {
                    self.truth.contacts.insert((p, other));
                }
                if self.has_keys() && group != *self.peers[p].address.group() {
                    let token = self.wait(p, Waiter::Nobody);
                    self.hand(p, Tell::Group(group::Input::Pin { token, group, key }));
                }
            }
            Action::NameMismatch { h, .. } => self.check_mismatch(p, h),
            Action::Changed { .. } => {}
            file => self.act_on_file(p, file),
        }
    }

    /// Who may have a mail, as its reader knows the group of its owner.
    fn sources(&self, p: usize, h: MailId, owner: PeerId) -> Vec<PeerId> {
        let sender = &self.peers[self.index(&owner)];
        // Readers of one who was removed go by the group's descriptor, not by what that one knows itself.
        let (policy, members) = if sender.removed {
            (&self.gd.policy, self.gd.members.iter().map(|m| self.peers[*m].id).collect())
        } else {
            (&sender.roster.policy, sender.roster.members.iter().map(|m| m.peer_id).collect())
        };
        let reader = &self.peers[p];
        let me = (reader.address.group() == sender.address.group()).then_some(reader.id);
        placement::sources(&h, owner, Some((policy, members)), me)
    }

    fn write(&mut self, p: usize, key: MessageKey, letter: Option<SubmissionId>, body: Option<bool>) {
        let told = Tell::Postbox(Input::Written { key, size: 1000 });
        self.disk(p, DiskOp::File(key, MailFile { letter, body }), After::Tell(Box::new(told)));
    }

    fn act_on_file(&mut self, p: usize, action: Action) {
        match action {
            Action::Sweep { keep } => {
                let files = &mut self.peers[p].disk.files;
                files.retain(|key, _| keep.contains_key(key));
                let mut damaged = BTreeSet::new();
                for (key, here) in keep {
                    match files.get_mut(&key) {
                        Some(file) if here && file.body.is_none() => drop(damaged.insert(key)),
                        Some(file) if !here => file.body = None,
                        Some(_) => {}
                        None => drop(damaged.insert(key)),
                    }
                }
                self.check_damaged(p, &damaged);
                self.tell_later(p, 3, Tell::Postbox(Input::Swept { damaged }));
            }
            Action::WriteHead { key, header_block, .. } => {
                let letter = self.truth.by_header.get(&header_block).copied();
                self.write(p, key, letter, None);
            }
            Action::WriteMessage { key, .. } => self.write(p, key, None, Some(true)),
            Action::WriteSpooled { key, submission } => {
                if self.peers[p].disk.spool.contains_key(&submission) {
                    self.write(p, key, Some(submission), Some(true));
                } else {
                    let why = "the spool file is gone".to_owned();
                    self.tell_later(p, 1, Tell::Postbox(Input::WriteFailed { key, why }));
                }
            }
            Action::WriteOwnHead { key, submission, mails } => {
                let disk = &self.peers[p].disk;
                if disk.spool.contains_key(&submission) || mails.iter().any(|h| disk.blobs.contains_key(h)) {
                    self.write(p, key, None, None);
                } else {
                    let why = "neither spool nor sealed mail is there".to_owned();
                    self.tell_later(p, 1, Tell::Postbox(Input::WriteFailed { key, why }));
                }
            }
            Action::Adopt { key, .. } => self.write(p, key, None, Some(true)),
            Action::Remove { keys } => self.disk(p, DiskOp::Remove(keys), After::Nothing),
            Action::OpenSealed { key, sealed, .. } => self.open_sealed(p, key, &sealed),
            Action::OpenOwn { key, .. } => {
                let told = Tell::Postbox(Input::Opened { key, result: OpenResult::Here });
                self.disk(p, DiskOp::Body(key, true), After::Tell(Box::new(told)));
            }
            Action::DropFetched { h, .. } => self.disk(p, DiskOp::DropFetched(h), After::Nothing),
            // A pull that has it open goes on in a file without a name.
            Action::DropHalfFetched { h, .. } if self.is_pulling(p, h) => drop(self.peers[p].unlinked.insert(h)),
            Action::DropHalfFetched { h, .. } => self.disk(p, DiskOp::DropFetched(h), After::Nothing),
            _ => {}
        }
    }

    fn open_sealed(&mut self, p: usize, key: MessageKey, sealed: &PulledMail) {
        let (h, good, is_gone) = match sealed {
            PulledMail::File(path) => {
                let h: MailId = path.to_string_lossy().parse().unwrap();
                let blocks = self.peers[p].disk.fetched.get(&h).cloned().unwrap_or_default();
                (h, blocks.values().all(|good| *good), blocks.is_empty())
            }
            PulledMail::Memory(bytes) => {
                let (h, good) = read_short(bytes);
                (h, good, false)
            }
        };
        if is_gone {
            // The replicator took the file of the pull that both waited for.
            let result = OpenResult::Failed("the pulled file is gone".to_owned());
            return self.tell_later(p, 2, Tell::Postbox(Input::Opened { key, result }));
        }
        if !good && !self.is(Saboteur::SkipsVerification) {
            let result = OpenResult::Mismatch("its signature does not fit".to_owned());
            return self.tell_later(p, 2, Tell::Postbox(Input::Opened { key, result }));
        }
        self.check_body(p, h, good);
        self.check_not_cancelled(p, h);
        let told = Tell::Postbox(Input::Opened { key, result: OpenResult::Here });
        self.disk(p, DiskOp::Body(key, good), After::Tell(Box::new(told)));
    }

    fn send_nr(&mut self, p: usize, peer: PeerId, items: Vec<NrItem>) {
        let batch = self.fresh();
        let all = NrBatch { peer, left: items.len(), results: Vec::new() };
        self.peers[p].nr_batches.insert(batch, all);
        let to = self.index(&peer);
        for item in items {
            self.check_nr(p, &item);
            let nr = item.nr.clone();
            self.note_nr(p, &nr);
            self.truth.signed_at.entry((nr.submission, nr.reader.clone())).or_insert(self.t);
            let sealed = SealedNr { nr, signer: self.peers[p].fingerprint };
            let request = Request::Notify(Notice::Nr(Box::new(sealed)));
            self.call(p, to, request, Pending::Nr { batch, item: Box::new(item) });
        }
    }

    /// The sender's peer answered an nr, or did not.
    pub(crate) fn nr_answered(&mut self, p: usize, batch: u64, item: NrItem, answer: Answer) {
        let (id, h) = (item.id, item.nr.h);
        match answer {
            Answer::Done => self.nr_result(p, batch, (id, h, NrSent::Taken)),
            Answer::Refused(why) => {
                self.check_nr_refused(p, &item, &why);
                self.nr_result(p, batch, (id, h, NrSent::Failed { why, for_good: true }));
            }
            _ => match item.in_dht {
                Some(value) if item.look => self.dht(p, DhtOp::WasNrDeleted(batch, Box::new(item), value)),
                Some(value) => self.nr_result(p, batch, (id, h, NrSent::InDht(value))),
                None => self.dht(p, DhtOp::PutNr(batch, Box::new(item))),
            },
        }
    }

    /// What the postbox replies.
    pub(crate) fn reply_postbox(&mut self, p: usize, token: Token, reply: Reply) {
        match (self.waiter(p, token), reply) {
            (Waiter::Answer(from), Reply::NsTaken) => {
                self.check_ns_taken(p, from);
                self.answer(p, from, Answer::Done);
            }
            (Waiter::Answer(from), Reply::NsRefused(why)) => self.answer(p, from, Answer::Later(why.to_string())),
            (Waiter::Answer(from), Reply::TombstoneRefused(why)) => {
                self.answer(p, from, Answer::Later(why.to_string()))
            }
            (Waiter::Answer(from), Reply::TombstoneTaken) => self.answer(p, from, Answer::Done),
            (Waiter::FiledSpool(submission), Reply::Filed(Ok(()))) => {
                self.hand(p, Tell::Outbox(outbox::Input::FiledLocally { submission }));
            }
            (Waiter::FiledDsn(submission, receiver), Reply::Filed(Ok(()))) => {
                self.hand(p, Tell::Outbox(outbox::Input::DsnFiled { submission, receiver }));
            }
            (Waiter::Judging, Reply::Requests(requests)) => self.grant(p, &requests),
            (Waiter::Listed(deed), Reply::Mailbox(MailboxReply::Opened { messages, info })) => {
                self.do_deed(p, deed, &info.name, &messages);
            }
            _ => {}
        }
    }
}
