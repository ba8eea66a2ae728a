//! What the replicator asks for, done as its actor does it: parts are marks of which block is right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use roost::core::fetch::{self, Order};
use roost::core::replicator::{Action, AskFailure, Input, MirrorFailure, MirrorOrder, Mirrored, PartsDropped, Scrub};
use roost::fragment::Layout;
use roost::model::holding::Holdings;
use roost::model::msglist::Cursor;
use roost::model::{Address, MailId, Part, PeerId};

use super::disk::DiskOp;
use super::liars::Lie;
use super::network::{Answer, Pending, Request};
use super::peer::{After, HolderBatch, Tell, Waiter};
use super::sabotage::Saboteur;
use super::world::World;

fn failure(answer: Answer) -> AskFailure {
    match answer {
        Answer::Refused(why) | Answer::Later(why) => AskFailure::Refused { why },
        _ => AskFailure::Unreachable { why: "it does not answer".to_owned() },
    }
}

/// What came of one part.
fn mirrored(owner: PeerId, h: MailId, part: Part, result: Result<(), MirrorFailure>) -> Input {
    Input::Mirrored { owner, results: vec![Mirrored { h, part, result }] }
}

impl World {
    /// Does what the replicator asks for.
    pub(crate) fn act_replicator(&mut self, p: usize, action: Action) {
        match action {
            Action::Follow { owner, address, from, round, since, wait_s } => {
                let to = self.index(&from);
                if self.is(Saboteur::NeverRests) && self.idle && p == 0 {
                    self.tell_later(p, 300, Tell::Replicator(Input::PeerIsBack(owner)));
                }
                // A new question about the same list replaces the last.
                let same = |pending: &Pending| matches!(pending, Pending::Follow { owner: o, from: f, .. } if (*o, *f) == (owner, from));
                self.peers[p].calls.retain(|_, (_, pending)| !same(pending));
                let wait = Duration::from_secs(wait_s.into());
                let request =
                    if owner == from { Request::Msglist(since, wait) } else { Request::MirrorMsglist(address, since) };
                self.call(p, to, request, Pending::Follow { owner, from, round });
            }
            Action::CheckParts { address, parts } => self.check_parts(p, address, parts),
            Action::AskHolders { owner, h, members } => self.ask_holders(p, owner, h, &members),
            Action::Mirror(orders) => orders.into_iter().for_each(|order| self.mirror(p, order)),
            Action::DropParts { owner, h, parts, .. } => {
                self.check_drop(p, owner, h, &parts);
                self.check_drop_told(p, owner, h, &parts);
                let named = parts.iter().map(|part| (owner, h, *part)).collect();
                let dropped = PartsDropped { owner, h, parts, result: Ok(()) };
                let told = Tell::Replicator(Input::PartsDropped(vec![dropped]));
                let stays = self.is(Saboteur::KeepsTombstoned) && self.was_tombstoned(&h);
                let op = if stays { Vec::new() } else { named };
                self.disk(p, DiskOp::DropParts(op), After::Tell(Box::new(told)));
            }
            Action::Report { owner, upto, holdings } => self.report(p, owner, upto, holdings),
            Action::CompareHoldings { owner, buckets } => {
                let to = self.index(&owner);
                self.call(p, to, Request::Buckets(buckets), Pending::Compare { owner });
            }
            Action::Scrub { owner, h, part, .. } => {
                let (disk, named) = (&self.peers[p].disk, (owner, h, part));
                let here = disk.parts.contains(&named);
                let right = here && (!disk.rotten.contains_key(&named) || self.is(Saboteur::NeverScrubs));
                let good = right || self.lies(p, Lie::HoldsNothing);
                let result = if good { Scrub::Good } else { Scrub::Bad };
                self.tell_later(p, 3, Tell::Replicator(Input::Scrubbed { owner, h, part, result }));
            }
        }
    }

    /// Looks for the files of an address, as the actor does: what nobody named is removed.
    fn check_parts(&mut self, p: usize, address: Address, parts: BTreeMap<PeerId, BTreeSet<(MailId, Part)>>) {
        let owners: BTreeSet<PeerId> = self.peers.iter().filter(|o| o.address == address).map(|o| o.id).collect();
        let named: BTreeSet<(PeerId, MailId, Part)> =
            parts.iter().flat_map(|(o, all)| all.iter().map(|(h, part)| (*o, *h, *part))).collect();
        let all = self.peers[p].disk.parts.clone();
        for part in all.iter().filter(|part| owners.contains(&part.0) && !named.contains(part)) {
            self.check_swept(p, part);
            if !self.is(Saboteur::KeepsTombstoned) {
                self.peers[p].disk.rotten.remove(part);
                self.peers[p].disk.parts.remove(part);
            }
        }
        let is_liar = self.lies(p, Lie::HoldsNothing);
        let missing = named.into_iter().filter(|part| !all.contains(part) && !is_liar).collect();
        self.tell_later(p, 10, Tell::Replicator(Input::Checked { address, missing }));
    }

    fn ask_holders(&mut self, p: usize, owner: PeerId, h: MailId, members: &[PeerId]) {
        let batch = self.fresh();
        let all = HolderBatch { owner, h, left: members.len(), answers: BTreeMap::new(), gone: Vec::new() };
        self.peers[p].holder_batches.insert(batch, all);
        if members.is_empty() {
            return self.end_holders(p, batch);
        }
        for member in members {
            let to = self.index(member);
            self.call(p, to, Request::Offer(h), Pending::Holders { batch, member: *member });
        }
    }

    /// One member said what it holds, or nothing.
    pub(crate) fn holder_answered(&mut self, p: usize, batch: u64, member: PeerId, answer: Answer) {
        let Some(all) = self.peers[p].holder_batches.get_mut(&batch) else { return };
        all.left -= 1;
        match answer {
            Answer::Offer(parts) => drop(all.answers.insert(member, parts)),
            Answer::NotFound => drop(all.answers.insert(member, BTreeSet::new())),
            Answer::Gone(tombstone) => all.gone.push(tombstone),
            _ => {}
        }
        if all.left == 0 {
            self.end_holders(p, batch);
        }
    }

    fn end_holders(&mut self, p: usize, batch: u64) {
        let Some(HolderBatch { owner, h, answers, gone, .. }) = self.peers[p].holder_batches.remove(&batch) else {
            return;
        };
        self.peers[p].confirmed.insert((owner, h), answers.clone());
        let answers = if self.is(Saboteur::FreesEarly) { self.all_hold_all(&owner, &h) } else { answers };
        self.tell_later(p, 0, Tell::Replicator(Input::Holders { owner, h, answers, gone }));
    }

    fn report(&mut self, p: usize, owner: PeerId, upto: u64, holdings: Holdings) {
        self.check_report(p, &holdings);
        let signed = self.peers[p].key.sign(holdings.clone());
        let (to, word, said_at) = (self.index(&owner), Box::new(holdings), self.t);
        self.call(p, to, Request::Holdings(signed), Pending::Report { owner, upto, word, said_at });
    }

    /// The owner took a report, or did not.
    pub(crate) fn reported(&mut self, p: usize, owner: PeerId, upto: u64, answer: &Answer) {
        let result = if matches!(answer, Answer::Done) { Ok(()) } else { Err(failure(answer.clone())) };
        self.hand(p, Tell::Replicator(Input::Reported { owner, upto, result }));
    }

    /// The owner compared.
    pub(crate) fn compared(&mut self, p: usize, owner: PeerId, answer: Answer) {
        let result = match answer {
            Answer::Differ(differ, missed) => {
                self.hand(p, Tell::Replicator(Input::Missed { owner, missed }));
                Ok(differ)
            }
            other => Err(failure(other)),
        };
        self.hand(p, Tell::Replicator(Input::Compared { owner, result }));
    }

    /// A page of a msglist came.
    pub(crate) fn followed(&mut self, p: usize, owner: PeerId, from: PeerId, round: u64, answer: Answer) {
        let result = match answer {
            Answer::Page(page) => Ok(page),
            other => Err(failure(other)),
        };
        if self.is(Saboteur::EmptyListDeletes) && result.as_ref().is_ok_and(|page| page.runs.is_empty()) {
            let held: Vec<_> = self.peers[p].disk.parts.iter().filter(|part| part.0 == owner).copied().collect();
            for (owner, h, part) in held {
                self.check_drop(p, owner, h, &[part]);
                self.disk(p, DiskOp::DropParts(vec![(owner, h, part)]), After::Nothing);
            }
        }
        if self.is(Saboteur::AsksWithoutBound) {
            // Each answer is a reason to ask two things more.
            for _ in 0..2 {
                let address = self.peers[self.index(&owner)].address.clone();
                let request = Request::MirrorMsglist(address, Cursor::default());
                self.call(p, self.index(&from), request, Pending::Follow { owner, from, round });
            }
        }
        if self.is(Saboteur::BelievesTombstones) {
            self.believe_tombstones(p, owner, result.as_ref().ok());
        }
        self.hand(p, Tell::Replicator(Input::Page { owner, from, round, result }));
    }

    /// The blocks that one part is made of.
    fn blocks_of(&self, order: &MirrorOrder) -> Vec<(u64, u8)> {
        let layout = Layout::new(order.length, order.encoding).unwrap();
        match order.part {
            Part::Whole => (0..layout.stripes()).flat_map(|s| (0..layout.k()).map(move |i| (s, i))).collect(),
            Part::Fragment { i, .. } => (0..layout.stripes()).map(|s| (s, i)).collect(),
        }
    }

    fn mirror(&mut self, p: usize, order: MirrorOrder) {
        self.check_mirror(p, &order);
        if self.lies(p, Lie::HoldsNothing) {
            let MirrorOrder { owner, h, part, .. } = order;
            let told = mirrored(owner, h, part, Ok(()));
            return self.tell_later(p, 20, Tell::Replicator(told));
        }
        if order.owner_answers {
            let (to, blocks) = (self.index(&order.owner), self.blocks_of(&order));
            let request = Request::Part(order.h, order.part, blocks);
            self.call(p, to, request, Pending::MirrorFromOwner(order));
        } else {
            self.mirror_from_others(p, order);
        }
    }

    /// A whole copy straight from another holder; a fragment is cut from the mail, rebuilt from whoever has enough of it. The actor
    /// asks for the manifest first, and pulls nothing while nobody has it.
    fn mirror_from_others(&mut self, p: usize, order: MirrorOrder) {
        if self.manifest_for(p, &order).is_none() {
            return self.mirror_failed(p, &order, Answer::NotFound);
        }
        if order.part == Part::Whole {
            let rest: Vec<PeerId> = order.sources.iter().chain([&order.owner]).copied().collect();
            return self.next_source(p, order, rest, Answer::NotFound);
        }
        let mut sources = vec![order.owner];
        sources.extend(&order.sources);
        let (h, length, digest, owner, urgency) = (order.h, order.length, order.digest, order.owner, order.urgency);
        let wanted = Order { h, length, digest, owner, sources, urgency };
        let token = self.wait(p, Waiter::Rebuild(order));
        self.hand(p, Tell::Fetch(fetch::Input::Want(token, wanted)));
    }

    fn next_source(&mut self, p: usize, order: MirrorOrder, mut rest: Vec<PeerId>, last: Answer) {
        if rest.is_empty() {
            return self.mirror_failed(p, &order, last);
        }
        let source = rest.remove(0);
        let (to, blocks) = (self.index(&source), self.blocks_of(&order));
        let request = Request::Part(order.h, order.part, blocks);
        self.call(p, to, request, Pending::MirrorFromOther { order, rest });
    }

    /// The owner answered, or did not. What it has not got, as it lost the file, what others have rebuilds. One that does not answer is
    /// not asked the next time.
    pub(crate) fn owner_gave(&mut self, p: usize, order: MirrorOrder, answer: Answer) {
        match answer {
            Answer::Blocks(blocks) if self.is_worth_keeping(p, order.h, &blocks) => self.keep_part(p, &order),
            Answer::Blocks(_) | Answer::NotFound => self.mirror_from_others(p, order),
            other => self.mirror_failed(p, &order, other),
        }
    }

    /// Another holder answered.
    pub(crate) fn other_gave(&mut self, p: usize, order: MirrorOrder, rest: Vec<PeerId>, answer: Answer) {
        match answer {
            Answer::Blocks(blocks) if self.is_worth_keeping(p, order.h, &blocks) => self.keep_part(p, &order),
            other => self.next_source(p, order, rest, other),
        }
    }

    /// Whether every block is as the manifest says: what is kept is checked first (R6).
    fn is_worth_keeping(&mut self, p: usize, h: MailId, blocks: &[(u64, u8, bool)]) -> bool {
        let good = blocks.iter().all(|(.., good)| *good);
        if !good && self.is(Saboteur::KeepsUnchecked) {
            self.check_kept(p, h);
            return true;
        }
        good
    }

    /// The mail was rebuilt, or not.
    pub(crate) fn rebuilt(&mut self, p: usize, order: &MirrorOrder, reply: fetch::Reply) {
        match reply {
            fetch::Reply::Fetched(_) => {
                self.peers[p].disk.fetched.remove(&order.h);
                self.keep_part(p, order);
            }
            _ => self.mirror_failed(p, order, Answer::NotFound),
        }
    }

    fn keep_part(&mut self, p: usize, order: &MirrorOrder) {
        let MirrorOrder { owner, h, part, .. } = *order;
        let Some(encoding) = self.manifest_for(p, order) else {
            return self.mirror_failed(p, order, Answer::NotFound);
        };
        let told = Tell::Replicator(mirrored(owner, h, part, Ok(())));
        self.disk(p, DiskOp::Part((owner, h, part), encoding), After::Tell(Box::new(told)));
    }

    fn mirror_failed(&mut self, p: usize, order: &MirrorOrder, answer: Answer) {
        let MirrorOrder { owner, h, part, .. } = *order;
        let result = Err(match answer {
            Answer::Gone(tombstone) => MirrorFailure::Gone { tombstone },
            _ => MirrorFailure::NoSource { why: "nobody gave it".to_owned() },
        });
        self.tell_later(p, 1, Tell::Replicator(mirrored(owner, h, part, result)));
    }
}
