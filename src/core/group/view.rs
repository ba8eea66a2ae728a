//! Whose view a peer goes by: the acting master's, as that one itself tells it, whatever time it bears; the time orders only what
//! others pass on. So a false view, of the end of time even, lasts no longer than its master acts and lies. A master that sees fewer
//! than half of the members marks nobody lost.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::Group;
use super::events::Event;
use super::heartbeat::{CLOCK_OFF_MS, MISSED_MAX};
use crate::model::group::{Heartbeat, View};
use crate::model::{Digest, Now, PeerId, WallTime};
use crate::wire::Signed;

/// What a view's time is worth to a peer whose clock says `now`: one further ahead than clocks may differ is before all others.
/// Otherwise nothing could ever come after it.
fn time_of(view: &View, now: Now) -> WallTime {
    let latest = now.wall.0.saturating_add(CLOCK_OFF_MS);
    if view.at.0 > latest { WallTime(0) } else { view.at }
}

/// A view by the bytes that were signed, as a heartbeat names it.
pub(super) fn digest_of(view: &Signed<View>) -> Digest {
    Digest::new(*blake3::hash(view.as_bytes()).as_bytes())
}

impl Group {
    /// Whether this peer has heard which view there is, since heartbeats go to it: only then it may act.
    fn is_settled(&self, now: Now) -> bool {
        self.listening_since.is_some_and(|since| now.mono.since(since) >= self.beat())
    }

    /// The view for a member that goes by the one it names. Who is about to act says nothing: the others know better which there is.
    pub(super) fn view_for(&self, now: Now, asked: &Heartbeat) -> Option<&Signed<View>> {
        let begins = self.is_acting(now) && !self.is_settled(now);
        let is_another = |view: &Signed<View>| match asked.view_digest {
            Some(held) => held != digest_of(view),
            None => asked.view_at != Some(view.at),
        };
        self.view.as_ref().filter(|view| !begins && is_another(view))
    }

    /// Takes a view that `from` goes by, if it is for this peer as well.
    pub(super) fn offer_view(&mut self, now: Now, from: PeerId, view: Signed<View>) {
        if view.group == *self.group() && self.goes_by(now, from, &view) {
            self.record(vec![Event::View(ByteBuf::from(view.as_bytes()))], Vec::new());
            self.renew_view(now);
        }
    }

    fn goes_by(&self, now: Now, from: PeerId, view: &Signed<View>) -> bool {
        let members = self.home().map(|own| own.gd.members.as_slice()).unwrap_or_default();
        let place = |peer: &PeerId| members.iter().position(|member| member.peer_id == *peer);
        let (Some(signer), Some(acting)) = (place(&view.master), self.acting_master(now)) else {
            return false;
        };
        let Some(held) = &self.view else {
            return true;
        };
        // Who acts may pass on the view of one before it that this peer does not see.
        let is_ahead = place(&acting).is_some_and(|acting| signer <= acting);
        if from == acting && is_ahead {
            return held.as_bytes() != view.as_bytes();
        }
        let has_told = if self.is_me(&acting) {
            self.is_me(&held.master) && self.is_settled(now)
        } else {
            let window = self.beat() * u32::from(MISSED_MAX);
            let told = self.liveness.get(&acting).and_then(|live| live.answered);
            told.is_some_and(|told| now.mono.since(told) < window)
        };
        !has_told && time_of(held, now) < time_of(view, now)
    }

    /// As acting master: signs a view if the one here is not this peer's, or not true any more.
    pub(super) fn renew_view(&mut self, now: Now) {
        let Some(own) = self.home().filter(|own| own.gd.members.len() > 1) else {
            return;
        };
        let gd_version = own.gd.version;
        if !self.is_settled(now) || !self.is_acting(now) {
            return;
        }
        let lost = self.lost(now);
        let true_still =
            self.view.as_ref().is_some_and(|v| self.is_me(&v.master) && v.lost == lost && v.gd_version == gd_version);
        if true_still {
            return;
        }
        let after = |held: &Signed<View>| WallTime(time_of(held, now).0.saturating_add(1));
        let at = self.view.as_ref().map_or(now.wall, |held| now.wall.max(after(held)));
        let (group, master) = (self.group().clone(), self.me.member.peer_id);
        let view = self.me.key.sign(View { group, gd_version, master, at, lost });
        self.record(vec![Event::View(ByteBuf::from(view.as_bytes()))], Vec::new());
    }

    /// Members silent for longer than `lost_after`. Who was lost before this peer acted stays so until it is heard.
    fn lost(&self, now: Now) -> BTreeSet<PeerId> {
        let Some(own) = self.home() else {
            return BTreeSet::new();
        };
        let beat = self.beat();
        let lost_after = own.gd.policy.lost_after.duration().max(beat * u32::from(MISSED_MAX));
        let heard_within = |peer: &PeerId, span: Duration| {
            let heard = self.liveness.get(peer).and_then(|live| live.heard);
            heard.is_some_and(|heard| now.mono.since(heard) <= span)
        };
        let others = self.others();
        // Shorter than lost_after by more than a heartbeat: in a partition all are unseen before the first counts as lost.
        let seen = 1 + others.iter().filter(|peer| heard_within(peer, beat * 3 / 2)).count();
        let sees_half = seen * 2 >= own.gd.members.len();
        let was_lost = |peer: &PeerId| self.view.as_ref().is_some_and(|view| view.lost.contains(peer));
        let gone = |peer: &PeerId| {
            let silent = self.silence(now, peer).is_some_and(|silence| silence > lost_after);
            (sees_half && silent) || (was_lost(peer) && !heard_within(peer, lost_after))
        };
        others.into_iter().filter(gone).collect()
    }
}
