//! What a shown safe(f) promises, in written stories: which losses of a mail the checker counts, and which it does not.

use roost::model::{MailId, Mode};

use super::absent::{self, MEMBER, OWNER, STAYS};
use super::checker::Promise;
use super::liars::Lie;
use super::world::World;

/// A mail that three members have whole, and what its owner showed of that.
fn told() -> (World, MailId, Promise) {
    let mut world = absent::world(Mode::Full);
    let h = world.mails(absent::RITA);
    world.note_shown(OWNER);
    let promise = world.truth.shown[&h].clone();
    assert_eq!((promise.safe, promise.whole.len()), (2, 3), "it survives two losses");
    (world, h, promise)
}

impl World {
    /// A member has nothing of a mail any more.
    fn gives_up(&mut self, p: usize, h: &MailId) {
        let owner = self.peers[OWNER].id;
        self.peers[p].disk.parts.retain(|(of, mail, _)| (*of, mail) != (owner, h));
    }
}

#[test]
fn r2_what_was_one_copy_too_many_and_is_given_up_by_right_is_not_promised_any_more() {
    let (mut world, h, promise) = told();
    world.params.lies = [Lie::BadBlocks].into();
    world.peers[MEMBER].liar = true;
    world.gives_up(STAYS, &h);
    assert!(!world.is_void(&h, &promise, OWNER), "one still has it");
    world.peers[third_of(&promise)].dead = true;
    assert!(world.is_void(&h, &promise, OWNER), "nobody has: one gave it up, one is lost, and one serves wrong blocks");

    // Who was told by its owner that it is gone did not give it up for others.
    let owner = world.peers[OWNER].id;
    world.peers[STAYS].disk.ledger.buried_parts.insert((owner, h));
    assert!(!world.is_void(&h, &promise, OWNER));
    world.peers[STAYS].disk.ledger.buried_parts.clear();

    // Nor who gave it up for somebody that has it now.
    let mut promise = Promise { safe: 1, ..promise };
    promise.holders.remove(&MEMBER);
    promise.whole.remove(&MEMBER);
    world.peers[MEMBER].liar = false;
    assert!(!world.is_void(&h, &promise, OWNER), "that one must give it");
}

/// The third holder.
fn third_of(promise: &Promise) -> usize {
    *promise.holders.iter().find(|m| ![MEMBER, STAYS].contains(m)).unwrap()
}

#[test]
fn r2_who_says_of_a_mail_for_good_that_it_is_gone_is_a_holder_that_is_lost() {
    let (mut world, h, promise) = told();
    world.params.lies = [Lie::Forks].into();
    for m in &promise.holders {
        world.peers[*m].disk.ledger.learned_gone.insert(h);
    }
    assert!(!world.is_void(&h, &promise, OWNER), "only who signs falsely denies the mails of others");
    for m in [MEMBER, STAYS] {
        world.peers[m].liar = true;
        assert!(!world.is_void(&h, &promise, OWNER), "one still gives it");
    }
    world.peers[third_of(&promise)].liar = true;
    assert!(world.is_void(&h, &promise, OWNER));
}
