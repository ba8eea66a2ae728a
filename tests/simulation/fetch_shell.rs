//! What the fetch brain asks for, done as its actor does it: every block is looked at before it counts.

use std::path::PathBuf;
use std::time::Duration;

use roost::core::Brain;
use roost::core::Token;
use roost::core::fetch::{Action, Input, Offer, Order, Reply, RequestId, Run, SourceFailure};
use roost::core::postbox;
use roost::core::postbox::io::FetchFailure;
use roost::fragment::Layout;
use roost::model::msglist::Tombstone;
use roost::model::{MailId, Part, PeerId, PulledMail};
use roost::wire::Signed;

use super::network::{Answer, Pending, Request};
use super::peer::{Tell, Waiter};
use super::sabotage::Saboteur;
use super::world::World;

fn failure(answer: Answer) -> SourceFailure {
    match answer {
        Answer::NotFound => SourceFailure::Nothing,
        Answer::Refused(why) | Answer::Later(why) => SourceFailure::Unreachable(why),
        _ => SourceFailure::Unreachable("it does not answer".to_owned()),
    }
}

/// A source that says the mail is gone is believed only with the owner's word.
fn gone_or(answer: Answer, h: MailId, owner: PeerId) -> SourceFailure {
    let Answer::Gone(tombstone) = &answer else { return failure(answer) };
    match Signed::<Tombstone>::verify(tombstone) {
        Ok(t) if t.h == h && t.owner == owner => SourceFailure::Gone(t.ending),
        // Another owner's word on its own mail of that h, or what a liar says to be that: no lie of who passes it on.
        Ok(t) if t.h == h => SourceFailure::Nothing,
        _ => SourceFailure::Lied("its tombstone is not the owner's".to_owned()),
    }
}

/// The blocks that a request asks for, as they travel.
pub(crate) fn expected(layout: &Layout, run: &Run) -> Vec<(u64, u8)> {
    match run {
        Run::Fragment { index, stripes } if layout.k() > 1 => stripes.clone().map(|s| (s, *index)).collect(),
        Run::Fragment { stripes, .. } | Run::Whole { stripes } => stripes
            .clone()
            .flat_map(|s| (0..layout.k()).map(move |i| (s, i)))
            .filter(|(s, i)| !layout.block_range_in_mail(*s, *i).is_empty())
            .collect(),
    }
}

impl World {
    /// A source gives nothing of a mail.
    pub(crate) fn none_of(&mut self, p: usize, answer: Answer, h: MailId, owner: PeerId) -> SourceFailure {
        let failure = gone_or(answer, h, owner);
        self.note_heard(p, h, &failure);
        failure
    }

    /// Does what the fetch brain asks for.
    pub(crate) fn act_fetch(&mut self, p: usize, action: Action) {
        match action {
            Action::AskOffer { h, owner, source } => {
                let to = self.index(&source);
                self.call(p, to, Request::Offer(h), Pending::FetchOffer { h, source, owner });
            }
            Action::GetManifest { order, source, k } => {
                let to = self.index(&source);
                self.call(p, to, Request::Manifest(order.h, k), Pending::FetchManifest { order, source });
            }
            Action::Open { h, manifest } => {
                self.peers[p].named.retain(|(mail, _)| *mail != h);
                self.open_as(p, &manifest);
                let skips = self.is(Saboteur::SkipsVerification);
                let blocks = self.peers[p].disk.fetched.entry(h).or_default();
                // What an earlier try left is checked before it counts.
                blocks.retain(|_, good| *good || skips);
                let have = blocks.keys().copied().collect();
                self.tell_later(p, 2, Tell::Fetch(Input::Opened { h, have }));
            }
            Action::Get { h, source, request, run, .. } => self.get(p, h, source, request, &run),
            Action::GetShort { order, request } => self.get_short(p, order, request),
            Action::Cancel { request } => {
                let this = |pending: &Pending| matches!(pending, Pending::FetchBlocks { request: r, .. } | Pending::FetchShort { request: r, .. } if *r == request);
                self.peers[p].calls.retain(|_, (_, pending)| !this(pending));
            }
            Action::StopManifest { h, source } => {
                let this = |pending: &Pending| matches!(pending, Pending::FetchManifest { order, source: s } if order.h == h && *s == source);
                self.peers[p].calls.retain(|_, (_, pending)| !this(pending));
            }
            Action::Finish { h } => self.finish_file(p, h),
            Action::Close { h, .. } => self.forget_unlinked(p, h),
            Action::NameLiar { h, peer, .. } => {
                self.check_named(p, h, peer);
                self.peers[p].named.insert((h, peer));
                self.truth.found_out.insert((p, h, peer));
            }
        }
    }

    fn get(&mut self, p: usize, h: MailId, source: PeerId, request: RequestId, run: &Run) {
        self.check_asked(p, h, source);
        let layout = self.peers[p].pulling[&h];
        let part = match run {
            Run::Fragment { index, .. } if layout.k() > 1 => Part::Fragment { k: layout.k(), i: *index },
            _ => Part::Whole,
        };
        let (to, asked_at) = (self.index(&source), self.t);
        let wanted = Request::Part(h, part, expected(&layout, run));
        self.call(p, to, wanted, Pending::FetchBlocks { h, request, asked_at });
    }

    /// Blocks came, or did not.
    pub(crate) fn blocks_came(
        &mut self,
        p: usize,
        _: usize,
        h: MailId,
        request: RequestId,
        asked_at: u64,
        answer: Answer,
    ) {
        let life = self.peers[p].life;
        let took = Duration::from_millis(self.t - asked_at);
        let mut result = Ok((took, took));
        match answer {
            Answer::Blocks(blocks) => {
                for (stripe, index, good) in blocks {
                    if !good && !self.is(Saboteur::SkipsVerification) {
                        result = Err(SourceFailure::Lied(format!("block {stripe}.{index}")));
                        break;
                    }
                    self.peers[p].disk.fetched.entry(h).or_default().entry((stripe, index)).or_insert(good);
                    let bytes = 65_536;
                    self.tell(p, Tell::Fetch(Input::Block { h, request, stripe, index, bytes }));
                    if self.peers[p].life != life {
                        return;
                    }
                }
            }
            other => result = Err(failure(other)),
        }
        self.hand(p, Tell::Fetch(Input::Ended { h, request, result }));
    }

    /// Whether the fetch brain pulls a mail now.
    pub(crate) fn is_pulling(&self, p: usize, h: MailId) -> bool {
        let now = self.now(p);
        self.peers[p].brains.as_ref().is_some_and(|brains| brains.fetch.observe(now).under_way.contains_key(&h))
    }

    /// A file without a name goes when it is closed.
    fn forget_unlinked(&mut self, p: usize, h: MailId) {
        if self.peers[p].unlinked.remove(&h) {
            self.peers[p].disk.fetched.remove(&h);
        }
    }

    fn finish_file(&mut self, p: usize, h: MailId) {
        let layout = self.peers[p].pulling[&h];
        let blocks = self.peers[p].disk.fetched.get(&h).cloned().unwrap_or_default();
        let enough = |s: u64| {
            let real = |i: u8| !layout.block_range_in_mail(s, i).is_empty();
            let there = blocks.keys().filter(|(stripe, _)| *stripe == s).count();
            there >= usize::from(layout.k())
                || (0..layout.k()).filter(|i| real(*i)).all(|i| blocks.contains_key(&(s, i)))
        };
        if !(0..layout.stripes()).all(enough) {
            self.violate(
                super::checker::Rule::R6,
                format!("{} finishes {h} without k blocks of each stripe", self.name(p)),
            );
        }
        self.forget_unlinked(p, h);
        let good = blocks.values().all(|good| *good) || self.is(Saboteur::SkipsVerification);
        let result =
            if good { Ok(PulledMail::File(PathBuf::from(h.to_string()))) } else { Err("another digest".to_owned()) };
        self.tell_later(p, 5, Tell::Fetch(Input::Finished { h, result }));
    }

    /// A source said what it has.
    pub(crate) fn offered(&mut self, p: usize, h: MailId, source: PeerId, owner: PeerId, answer: Answer) {
        let offer = match answer {
            Answer::Offer(parts) if parts.is_empty() => Err(SourceFailure::Nothing),
            Answer::Offer(parts) => {
                let fragment = |part: &Part| match part {
                    Part::Whole => (1, 0),
                    Part::Fragment { k, i } => (*k, *i),
                };
                Ok(Offer { whole: parts.contains(&Part::Whole), fragments: parts.iter().map(fragment).collect() })
            }
            other => Err(self.none_of(p, other, h, owner)),
        };
        self.hand(p, Tell::Fetch(Input::Offered { h, source, offer }));
    }

    /// A manifest came, or did not.
    pub(crate) fn manifest_came(&mut self, p: usize, order: &Order, source: PeerId, answer: Answer) {
        let h = order.h;
        let manifest = match answer {
            Answer::Manifest(manifest) if manifest.owner != order.owner => {
                Err(SourceFailure::Lied("it is signed by another than the sender".to_owned()))
            }
            Answer::Manifest(manifest) => Ok((Layout::new(manifest.length, manifest.encoding).unwrap(), manifest)),
            other => Err(self.none_of(p, other, h, order.owner)),
        };
        self.hand(p, Tell::Fetch(Input::Manifest { h, source, manifest }));
    }

    /// What the fetch brain replies.
    pub(crate) fn reply_fetch(&mut self, p: usize, token: Token, reply: Reply) {
        match self.waiter(p, token) {
            Waiter::Pull { key, h } => {
                let result = match reply {
                    Reply::Fetched(path) => Ok(path),
                    Reply::Failed(roost::core::fetch::Failure::Gone) => {
                        Err(FetchFailure::Gone("it is gone".to_owned()))
                    }
                    Reply::Failed(why) => Err(FetchFailure::NotNow(why.to_string())),
                    Reply::Progress(_) => return,
                };
                self.hand(p, Tell::Postbox(postbox::Input::Fetched { key, h, result }));
            }
            Waiter::Rebuild(order) => self.rebuilt(p, &order, reply),
            Waiter::Recover(job) => self.recovered(p, *job, reply),
            Waiter::Progress(token) => {
                let percent = if let Reply::Progress(percent) = reply { percent } else { None };
                self.hand(p, Tell::Postbox(postbox::Input::Progressed { token, percent }));
            }
            _ => {}
        }
    }
}
