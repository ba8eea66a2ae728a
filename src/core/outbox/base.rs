//! The base of the msglist: entries and tombstones are dropped 30 days after their mail's expiry, behind a signed `base_seq`.
//! It never drops what a mail that is still open needs, and nothing before the clock has stood for hours.

use std::collections::BTreeSet;
use std::time::Duration;

use super::events::{Event, State};
use super::{Batch, Outbox};
use crate::model::msglist::{Cursor, EntryBody, Epoch, Seq, Tombstone};
use crate::model::{Digest, Now, SubmissionId, WallTime};
use crate::wire::Signed;
use crate::wire::msglist::decode_entry;

/// Entries and tombstones are kept this long after their mail's expiry (DESIGN.md section 5).
pub(super) const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How often is looked, and only when something is sealed anyway: an idle peer writes nothing.
const LOOK: Duration = Duration::from_secs(86_400);

impl Outbox {
    /// Looks for what is over, at most once a day.
    pub(super) fn rebase_now_and_then(&mut self, now: Now) {
        if !self.clock.has_stood(now) || self.rebase_at.is_some_and(|at| now.mono < at) {
            return;
        }
        self.rebase_at = Some(now.mono + LOOK);
        self.state.gone.retain(|_, (expiry, _)| *expiry + KEPT > now.wall);
        let over: Vec<(Epoch, Seq, Digest)> =
            self.state.list.epochs().filter_map(|epoch| self.new_base(epoch, now.wall)).collect();
        let mut batch = Batch::default();
        for (epoch, base, chain) in over {
            self.record(&mut batch, Event::Rebased { epoch, base, chain });
        }
        self.commit(batch);
    }

    /// The last entry of an epoch before which all are over, if it has moved.
    fn new_base(&self, epoch: Epoch, now: WallTime) -> Option<(Epoch, Seq, Digest)> {
        let (base, _) = self.state.list.base(epoch)?;
        let over = self.state.list.entries(epoch).take_while(|entry| self.is_over(entry, now)).count();
        let seq = Seq(base.0.saturating_add(u64::try_from(over).ok()?));
        let chain = self.state.list.chain_at(Cursor { epoch, seq })?;
        (over > 0).then_some((epoch, seq, chain))
    }

    fn is_over(&self, entry: &[u8], now: WallTime) -> bool {
        match decode_entry(entry).map(|entry| entry.body) {
            Ok(EntryBody::Mail(mail)) => mail.expiry + KEPT <= now && !self.state.open.contains(&mail.h),
            Ok(EntryBody::Tombstone(signed)) => {
                Signed::<Tombstone>::verify(&signed.0).map_or(true, |tombstone| tombstone.expiry + KEPT <= now)
            }
            // Of a kind that is not known nobody can say; what surrounds it does.
            Ok(EntryBody::Unknown { .. }) | Err(_) => true,
        }
    }
}

impl State {
    /// Drops entries, and what is remembered of the mails whose tombstones were among them.
    pub(super) fn rebase(&mut self, epoch: Epoch, base: Seq, chain: Digest) {
        self.list.rebase(epoch, base, chain);
        let mut of: BTreeSet<SubmissionId> = BTreeSet::new();
        let mut over_as = Vec::new();
        self.mails.retain(|_, mail| {
            let over = mail.tombstone.is_some_and(|(at, _)| at.epoch == epoch && at.seq <= base);
            if over {
                of.insert(mail.submission);
                over_as.push(mail.tombstone.map(|t| t.1));
            }
            !over
        });
        over_as.into_iter().for_each(|ending| self.count_ended(ending, false));
        let mails = &self.mails;
        self.submissions.retain(|id, submission| {
            let is_named = submission.mails().iter().any(|h| mails.contains_key(h));
            !of.contains(id) || is_named || !submission.is_done()
        });
        of.into_iter().for_each(|id| self.index(id));
    }
}
