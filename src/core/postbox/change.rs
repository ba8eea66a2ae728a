//! From events to effects: applies them, makes them durable, and hangs on them what follows. It never decides what happens.

use super::events::{Consequences, Event};
use super::state::Offer;
use super::{Action, Input, Postbox};
use crate::core::Effect;

/// Events that are applied, and what followed from them.
#[derive(Debug)]
pub(super) struct Changed {
    events: Vec<Event>,
    pub(super) seen: Consequences,
}

/// Removes what was pulled of a sealed mail.
pub(super) fn half_fetched(offer: &Offer) -> Action {
    Action::DropHalfFetched { h: offer.h, owner: offer.owner, length: offer.length, digest: offer.digest }
}

impl Postbox {
    /// Applies events. Every call is followed by one of [`Postbox::durable`].
    pub(super) fn change(&mut self, events: Vec<Event>) -> Changed {
        let mut seen = Consequences::default();
        for event in &events {
            self.state.apply(event, &mut seen);
        }
        self.out.applied(events.len());
        Changed { events, seen }
    }

    /// Makes applied events durable; after that comes `then`, and then what follows from them. Without events it is a barrier.
    pub(super) fn durable(&mut self, change: Changed, mut then: Vec<Effect<Postbox>>) {
        let Changed { events, seen } = change;
        if !seen.touched.is_empty() {
            then.push(Effect::Act(Action::Changed { version: self.state.version }));
        }
        for key in &seen.dead {
            self.damaged.remove(key);
        }
        if !seen.dead.is_empty() {
            then.push(Effect::Act(Action::Remove { keys: seen.dead }));
        }
        // What was pulled of it is not needed any more.
        then.extend(seen.over.iter().map(|offer| Effect::Act(half_fetched(offer))));
        then.extend(seen.cancelled.into_iter().map(|submission| Effect::Act(Action::Cancel { submission })));
        if !seen.concluded.is_empty() {
            then.push(Effect::Feed(Input::Concluded(seen.concluded)));
        }
        self.out.commit(events, then);
    }

    /// Applies events and makes them durable, then does `then`.
    pub(super) fn commit(&mut self, events: Vec<Event>, then: Vec<Effect<Postbox>>) {
        let change = self.change(events);
        self.durable(change, then);
    }
}
