//! How often each peer's hello is passed on: once a second at most. It never loses the last one of a known peer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::model::{MonoTime, PeerId};

/// Between two hellos of one peer that are passed on.
const APART: Duration = Duration::from_secs(1);
/// Strangers whose hello is passed on within that time: one may be the reader of an open mail.
const STRANGERS_MAX: usize = 16;

/// What becomes of a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// It is passed on.
    Now,
    /// After this pause, for it may say something new.
    After(Duration),
    /// One that says the same is passed on already, or too many strangers call.
    Not,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    /// When the last was passed on, or the one that waits will be.
    at: MonoTime,
    known: bool,
}

/// The hellos of the last second.
#[derive(Debug, Default)]
pub struct Hellos(Mutex<BTreeMap<PeerId, Last>>);

impl Hellos {
    fn last(&self) -> MutexGuard<'_, BTreeMap<PeerId, Last>> {
        // An entry is replaced in one step, so a panic elsewhere leaves a good one.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A hello of `peer` came; `known` says whether a gd, card or invite names that peer.
    pub fn comes(&self, now: MonoTime, peer: PeerId, known: bool) -> Passing {
        let mut all = self.last();
        all.retain(|_, last| last.at > now || now.since(last.at) < APART);
        match all.get(&peer).copied() {
            // One waits already.
            Some(last) if last.at > now => Passing::Not,
            Some(last) if known => {
                let pause = APART.saturating_sub(now.since(last.at));
                all.insert(peer, Last { at: now + pause, known });
                Passing::After(pause)
            }
            Some(_) => Passing::Not,
            None if !known && all.values().filter(|last| !last.known).count() >= STRANGERS_MAX => Passing::Not,
            None => {
                all.insert(peer, Last { at: now, known });
                Passing::Now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::default() + Duration::from_millis(ms)
    }

    #[test]
    fn a_hello_is_passed_on_once_a_second_and_the_last_one_of_a_known_peer_is_not_lost() {
        let (hellos, bob) = (Hellos::default(), PeerId::new([2; 32]));
        assert_eq!(hellos.comes(at(0), bob, true), Passing::Now);
        assert_eq!(hellos.comes(at(400), bob, true), Passing::After(Duration::from_millis(600)));
        assert_eq!(hellos.comes(at(500), bob, true), Passing::Not);
        assert_eq!(hellos.comes(at(2500), bob, true), Passing::Now);
    }

    #[test]
    fn many_strangers_wake_nobody() {
        let hellos = Hellos::default();
        let passed = (0..100_u8).filter(|x| hellos.comes(at(0), PeerId::new([*x; 32]), false) == Passing::Now);
        assert_eq!(passed.count(), STRANGERS_MAX);
        assert_eq!(hellos.comes(at(1), PeerId::new([0; 32]), false), Passing::Not);
        assert_eq!(
            hellos.comes(at(1), PeerId::new([200; 32]), true),
            Passing::Now,
            "who is known is heard all the same"
        );
    }
}
