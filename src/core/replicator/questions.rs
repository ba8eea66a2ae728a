//! Questions about who holds what of a mail: in which order they are asked, how many at a time, and when once more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::owner::Task;
use super::types::Action;
use super::{MailKey, Replicator};
use crate::model::{MonoTime, PeerId};

/// Questions under way at a time.
const AT_ONCE: usize = 8;
/// A member whose answer was missing is asked once more as soon as it says anything at all; then after this, doubled each time, up to the
/// second. One that answers everything but these questions would have them all again with every answer, for ever.
const ONCE_MORE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// Members whose answer some mail's part was chosen without.
#[derive(Debug, Default)]
struct Doubted {
    is_open: bool,
    /// How often it was asked once more since it last came back.
    tries: u32,
    not_before: Option<MonoTime>,
}

/// What is to be asked.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Of mails of which something is, or may be, wanted here, or of which nothing is to stay here.
    pressing: BTreeSet<MailKey>,
    /// Of mails whose part is here: whether somebody else holds the same. A change of the group may make many of these.
    others: BTreeSet<MailKey>,
    under_way: usize,
    doubted: BTreeMap<PeerId, Doubted>,
}

impl Questions {
    /// Asks who holds what of a mail, as soon as there is room.
    pub(super) fn ask(&mut self, key: MailKey) {
        self.pressing.insert(key);
    }

    /// The same where the part that is wanted here is here: when nothing else is to be asked.
    pub(super) fn ask_later(&mut self, key: MailKey) {
        self.others.insert(key);
    }

    /// Takes back a question that nobody was asked yet; whether there is one.
    fn take_back(&mut self, key: &MailKey) -> bool {
        let is_pressing = self.pressing.remove(key);
        self.others.remove(key) || is_pressing
    }

    fn next(&mut self) -> Option<MailKey> {
        if self.under_way >= AT_ONCE {
            return None;
        }
        self.pressing.pop_first().or_else(|| self.others.pop_first())
    }

    /// An answer came.
    pub(super) fn answered(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A part was chosen without the answers of these.
    pub(super) fn doubt(&mut self, members: &BTreeSet<PeerId>) {
        for member in members {
            self.doubted.entry(*member).or_default().is_open = true;
        }
    }

    /// Whether it is time to ask again what a member did not say, which now says something else.
    fn is_time(&mut self, peer: &PeerId, now: MonoTime) -> bool {
        let Some(doubted) = self.doubted.get_mut(peer) else { return false };
        if !doubted.is_open || doubted.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let pause = ONCE_MORE.0.saturating_mul(2_u32.saturating_pow(doubted.tries.min(20))).min(ONCE_MORE.1);
        let tries = doubted.tries.saturating_add(1);
        *doubted = Doubted { is_open: false, tries, not_before: Some(now + pause) };
        true
    }
}

impl Replicator {
    /// Asks about as many mails as may be asked about at a time.
    pub(super) fn start_asks(&mut self) {
        while let Some((owner, h)) = self.questions.next() {
            let Some(me) = self.roster.as_ref().map(|r| r.me.peer_id) else { return };
            let Some(mut members) = self.placed(&owner, &h) else { continue };
            members.retain(|member| *member != me);
            self.questions.under_way += 1;
            self.out.act(Action::AskHolders { owner, h, members });
        }
    }

    /// What only waits to be asked about may be over by now, or wanted more than before: it is judged anew.
    pub(super) fn reconsider_question(&mut self, key: MailKey) {
        let (owner, h) = key;
        if self.asks_once_more(&owner, &h) {
            return;
        }
        if let Some(mail) = self.owners.mail_mut(&owner, &h).filter(|mail| mail.task == Task::Asking)
            && self.questions.take_back(&key)
        {
            (mail.task, mail.ask_again) = (Task::Idle, true);
        }
    }

    /// A member is back: asks again about mails whose part was chosen without its answer.
    pub(super) fn resolve_doubt(&mut self, peer: &PeerId) {
        if self.questions.doubted.remove(peer).is_some_and(|doubted| doubted.is_open) {
            self.ask_again_without(peer);
        }
    }

    /// The same when a member that was there all the time says something: a question may have gone astray.
    pub(super) fn resolve_doubt_in_time(&mut self, peer: &PeerId) {
        if self.questions.is_time(peer, self.now.mono) {
            self.ask_again_without(peer);
        }
    }

    fn ask_again_without(&mut self, peer: &PeerId) {
        let mut again = Vec::new();
        for (id, owner) in self.owners.iter_mut() {
            for (h, mail) in &mut owner.mails {
                if mail.doubt.remove(peer) {
                    mail.ask_again = true;
                    again.push((*id, *h));
                }
            }
        }
        for (owner, h) in again {
            self.evaluate(owner, h);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MailId;

    const PEER: PeerId = PeerId::new([1; 32]);

    fn key(n: u8) -> MailKey {
        (PEER, MailId::new([n; 20]))
    }

    #[test]
    fn what_is_wanted_is_asked_before_what_is_here_and_so_many_at_a_time() {
        let mut questions = Questions::default();
        questions.ask_later(key(1));
        questions.ask(key(2));
        assert_eq!([questions.next(), questions.next(), questions.next()], [Some(key(2)), Some(key(1)), None]);
        questions.ask(key(3));
        questions.under_way = AT_ONCE;
        assert_eq!(questions.next(), None);
        questions.answered();
        assert_eq!(questions.next(), Some(key(3)));
    }

    #[test]
    fn r9_who_answers_all_but_this_is_asked_once_more_at_once_and_then_ever_less() {
        let mut questions = Questions::default();
        let mut now = MonoTime(0);
        let mut asked = Vec::new();
        for _ in 0..6 * 3600 {
            questions.doubt(&BTreeSet::from([PEER]));
            if questions.is_time(&PEER, now) {
                asked.push(now.0 / 60_000);
            }
            now = now + Duration::from_secs(1);
        }
        assert_eq!(asked, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303]);
    }
}
